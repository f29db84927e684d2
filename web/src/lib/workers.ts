// What the pages of machines reckon: what a machine's state means, which are shown and in which order, and the last
// samples of their load. Pure.
import { ratio } from './format';
import type { ServiceModel, Worker } from './types';

export const kSamples = 120; // that are kept of each machine
const kStale = 1000; // newer samples than this since the last are the same one

export type Health = 'good' | 'busy' | 'trouble' | 'away';
export function health(worker: Worker): Health {
  switch (worker.status) {
    case 'offline':
      return 'away';
    case 'quarantined':
    case 'reconnecting':
      return 'trouble';
    case 'busy':
      return 'busy';
    default:
      return down_services(worker).length > 0 ? 'trouble' : worker.running > 0 ? 'busy' : 'good';
  }
}
// A pause is of our own making: it is said before what the machine is busy with.
export const shown_state = (worker: Worker): string =>
  worker.paused && (worker.status === 'online' || worker.status === 'busy') ? 'paused' : worker.status;

export const down_services = (worker: Worker) => worker.services.filter((one) => one.state === 'down' && one.note !== '');
export const name_of = (worker: Worker): string => worker.name || worker.id;
// Labels that people gave; what the farm itself adds says nothing new.
export const own_labels = (worker: Worker): [string, string][] =>
  Object.entries(worker.labels).filter(([key]) => !key.startsWith('grange.'));

// Which have come since, against those that were connected then; not known then: none.
export type Here = ReadonlyMap<string, boolean>;
export const here = (workers: readonly Worker[]): Here => new Map(workers.map((one) => [one.id, one.connected]));
export const arrivals = (workers: readonly Worker[], before: Here | null): Worker[] =>
  before ? workers.filter((one) => one.connected && !before.get(one.id)) : [];

export interface Held extends ServiceModel {
  service: string;
  kind: string;
}
export function models_of(worker: Worker): Held[] {
  const out: Held[] = [];
  for (const service of worker.services) {
    for (const model of service.models ?? []) out.push({ ...model, service: service.name, kind: String(model.kind ?? '') });
  }
  for (const name of worker.models) {
    if (!out.some((one) => one.name === name)) out.push({ name, service: '', kind: '' });
  }
  return out;
}

export interface Wanted {
  text: string;
  show: string; // all | connected | busy | trouble | away
  pool: string;
  sort: string; // "name" or "-cpu"
}

const text_of = (worker: Worker): string =>
  [
    worker.name,
    worker.id,
    worker.hostname,
    worker.status,
    worker.pool,
    worker.os,
    worker.cpu_model,
    ...worker.engines,
    ...worker.gpus.map((gpu) => gpu.name ?? ''),
    ...own_labels(worker).map(([key, value]) => `${key}=${value}`),
    ...worker.services.map((one) => `${one.name} ${one.kind}`),
    ...models_of(worker).map((one) => one.name),
  ]
    .join('\n')
    .toLowerCase();

const group_of = (worker: Worker, show: string): boolean => {
  const now = health(worker);
  switch (show) {
    case 'connected':
      return worker.connected;
    case 'busy':
      return worker.connected && worker.running > 0;
    case 'trouble':
      return now === 'trouble';
    case 'away':
      return now === 'away';
    default:
      return true;
  }
};
export const groups = ['all', 'connected', 'busy', 'trouble', 'away'] as const;
export const counts = (workers: readonly Worker[]): Record<string, number> =>
  Object.fromEntries(groups.map((show) => [show, workers.filter((one) => group_of(one, show)).length]));

export const gpu_percent = (worker: Worker): number | null => {
  const all = (worker.load?.gpus ?? []).map((one) => one.percent).filter((one): one is number => typeof one === 'number');
  return all.length ? Math.max(...all) : null;
};
export const memory_percent = (worker: Worker): number | null => ratio(worker.memory_used_bytes, worker.memory_bytes);

type Key = (worker: Worker) => string | number | null;
const rank: Record<Health, number> = { trouble: 0, busy: 1, good: 2, away: 3 };
export const sorts: Record<string, { title: string; key: Key }> = {
  name: { title: 'Name', key: (one) => name_of(one).toLowerCase() },
  state: { title: 'State', key: (one) => rank[health(one)] },
  '-cpu': { title: 'CPU', key: (one) => one.cpu_percent },
  '-memory': { title: 'Memory', key: memory_percent },
  '-running': { title: 'Running tasks', key: (one) => one.running },
  '-failed': { title: 'Failures', key: (one) => one.tasks_failed },
  '-seen': { title: 'Last seen', key: (one) => one.last_seen },
};
// The unknown comes last, whichever way it goes; names break ties, numbers in them as numbers.
const collator = new Intl.Collator('en', { numeric: true });
export function by(sort: string): (a: Worker, b: Worker) => number {
  const down = sort.startsWith('-');
  const key = (sorts[sort] ?? sorts[down ? sort.slice(1) : `-${sort}`] ?? sorts.name!).key;
  return (a, b) => {
    const [x, y] = [key(a), key(b)];
    let out = 0;
    if (x === null || y === null) out = (x === null ? 1 : 0) - (y === null ? 1 : 0);
    else if (typeof x === 'string' && typeof y === 'string') out = collator.compare(x, y) * (down ? -1 : 1);
    else out = ((x as number) - (y as number)) * (down ? -1 : 1);
    return out || collator.compare(name_of(a), name_of(b)) || (a.id < b.id ? -1 : 1);
  };
}

export function pick(workers: readonly Worker[], wanted: Wanted): Worker[] {
  const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
  return workers
    .filter((one) => {
      if (!group_of(one, wanted.show) || (wanted.pool && one.pool !== wanted.pool)) return false;
      if (!words.length) return true;
      const text = text_of(one);
      return words.every((word) => text.includes(word));
    })
    .sort(by(wanted.sort || 'name'));
}

export type Doing = 'drain' | 'pause' | 'resume' | 'release' | 'remove' | 'reset';
// What can be done with it as it is now.
export function doings(worker: Worker): Doing[] {
  const out: Doing[] = [];
  if (worker.connected) {
    if (worker.status === 'quarantined') out.push('release');
    out.push(worker.paused ? 'resume' : 'pause');
    if (worker.services.some((one) => one.state !== 'down' && one.kind !== 'files')) out.push('reset');
    if (worker.status !== 'draining') out.push('drain');
  } else if (worker.status === 'offline') {
    out.push('remove');
  }
  return out;
}

// ---------------------------------------------------------------------------------------------------------- samples

export const metrics = [
  'cpu_percent',
  'memory_used_bytes',
  'network_in_bytes_per_s',
  'network_out_bytes_per_s',
  'disk_read_bytes_per_s',
  'disk_write_bytes_per_s',
  'temperature_c',
  'gpu_percent',
] as const;
export type Metric = (typeof metrics)[number];
export type Trace = { times_ms: number[] } & Record<Metric, (number | null)[]>;
export type Samples = Record<string, { times_ms: number[] } & Partial<Record<Metric, (number | null)[]>>>;

const sample_of = (worker: Worker): Record<Metric, number | null> => ({
  cpu_percent: worker.cpu_percent,
  memory_used_bytes: worker.memory_used_bytes,
  network_in_bytes_per_s: worker.load?.network_in_bytes_per_s ?? null,
  network_out_bytes_per_s: worker.load?.network_out_bytes_per_s ?? null,
  disk_read_bytes_per_s: worker.load?.disk_read_bytes_per_s ?? null,
  disk_write_bytes_per_s: worker.load?.disk_write_bytes_per_s ?? null,
  temperature_c: worker.load?.temperature_c ?? null,
  gpu_percent: gpu_percent(worker),
});
const none = (): Trace =>
  ({ times_ms: [], ...Object.fromEntries(metrics.map((metric) => [metric, []])) }) as unknown as Trace;

// The last samples of each machine: the server's, then what comes with each list of workers. Traces are replaced, not
// changed, so that what draws them knows.
export class Traces {
  private all = new Map<string, Trace>();

  load(samples: Samples): void {
    this.all.clear();
    for (const [id, one] of Object.entries(samples)) {
      const trace = none();
      const from = Math.max(0, one.times_ms.length - kSamples);
      trace.times_ms = one.times_ms.slice(from);
      for (const metric of metrics)
        trace[metric] = one[metric]?.slice(from) ?? trace.times_ms.map(() => null);
      this.all.set(id, trace);
    }
  }
  push(workers: readonly Worker[], now: number): void {
    const there = new Set<string>();
    for (const worker of workers) {
      there.add(worker.id);
      if (!worker.connected) continue;
      const before = this.all.get(worker.id) ?? none();
      const last = before.times_ms[before.times_ms.length - 1];
      if (last !== undefined && now - last < kStale) continue;
      const from = Math.max(0, before.times_ms.length + 1 - kSamples);
      const next = { times_ms: [...before.times_ms.slice(from), now] } as Trace;
      const sample = sample_of(worker);
      for (const metric of metrics) next[metric] = [...before[metric].slice(from), sample[metric]];
      this.all.set(worker.id, next);
    }
    if (workers.length) for (const id of this.all.keys()) if (!there.has(id)) this.all.delete(id);
  }
  get(id: string): Trace | undefined {
    return this.all.get(id);
  }
  get size(): number {
    return this.all.size;
  }
}

// ------------------------------------------------------------------------------------------------- a grid of cards

export interface Slice {
  columns: number;
  first: number; // index of the first card that exists
  last: number;
  before: number; // px above it
  height: number; // of all
}
// Cards of one height, as many in a row as there is width for.
export function slice(n: number, width: number, least: number, card: number, gap: number, top: number, view: number): Slice {
  const columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
  const rows = Math.ceil(n / columns);
  const step = card + gap;
  const first = Math.min(Math.max(0, Math.floor(top / step) - 2), Math.max(0, rows - 1));
  const last = Math.min(rows, Math.ceil((top + view) / step) + 2);
  return {
    columns,
    first: first * columns,
    last: Math.min(n, Math.max(last, first + 1) * columns),
    before: first * step,
    height: Math.max(0, rows * step - gap),
  };
}
