// Jobs that wait for each other, in layers from left to right. Pure.
import type { JobFile } from '../../lib/types';

export interface Link {
  from: string; // the parent's id
  to: string;
  label: string;
}
export interface Placed {
  id: string;
  layer: number;
  row: number;
}
export interface Drawn {
  nodes: Placed[];
  layers: number;
  rows: number;
}

// What stands in `after`: "7", or {job, index, each, pass}.
export function parents_of(id: string, spec: JobFile): Link[] {
  const after = Array.isArray(spec.after) ? (spec.after as unknown[]) : [];
  const out: Link[] = [];
  for (const one of after) {
    if (typeof one === 'string' || typeof one === 'number') {
      out.push({ from: String(one), to: id, label: '' });
    } else if (one && typeof one === 'object') {
      const entry = one as { job?: string | number; index?: number; each?: boolean; pass?: boolean };
      if (entry.job === undefined) continue;
      const label = [entry.index !== undefined ? `task ${entry.index}` : '', entry.each ? 'each' : '', entry.pass ? 'results' : '']
        .filter(Boolean)
        .join(', ');
      out.push({ from: String(entry.job), to: id, label });
    }
  }
  return out;
}

// Each job one layer right of the last of its parents; within a layer near the middle of its parents.
export function place(ids: readonly string[], links: readonly Link[]): Drawn {
  const layer = new Map(ids.map((id) => [id, 0]));
  for (let round = 0; round < ids.length; ++round) {
    let moved = false;
    for (const { from, to } of links) {
      if (!layer.has(from) || !layer.has(to)) continue;
      const wanted = layer.get(from)! + 1;
      if (layer.get(to)! < wanted && wanted <= ids.length) {
        layer.set(to, wanted);
        moved = true;
      }
    }
    if (!moved) break;
  }
  const layers: string[][] = [];
  for (const id of ids) (layers[layer.get(id)!] ??= []).push(id);
  const row = new Map<string, number>();
  layers.forEach((members, i) => {
    if (i > 0) {
      const middle = (id: string) => {
        const rows = links.filter((one) => one.to === id && row.has(one.from)).map((one) => row.get(one.from)!);
        return rows.length ? rows.reduce((a, b) => a + b, 0) / rows.length : 0;
      };
      members.sort((a, b) => middle(a) - middle(b));
    }
    members.forEach((id, at) => row.set(id, at));
  });
  const most = Math.max(1, ...layers.map((members) => members?.length ?? 0));
  return {
    nodes: ids.map((id) => ({ id, layer: layer.get(id)!, row: row.get(id)! + (most - (layers[layer.get(id)!]?.length ?? 0)) / 2 })),
    layers: layers.length,
    rows: most,
  };
}
