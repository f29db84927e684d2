// The history as the server keeps it, with what has been seen since its last point.
import type { History, Overview, Span } from '../../lib/types';

export const spans: { id: Span; title: string; ms: number }[] = [
  { id: '15m', title: '15 min', ms: 900_000 },
  { id: '6h', title: '6 h', ms: 21_600_000 },
  { id: '7d', title: '7 d', ms: 604_800_000 },
];
export const span_of = (text: string | undefined): Span => spans.find((one) => one.id === text)?.id ?? '15m';

export interface Point {
  at: number;
  values: Record<string, number | null>;
}
const kPoints = 600;

export function point_of(overview: Overview, at: number): Point {
  const { throughput, wait_ms, stats, use } = overview;
  const share = use.cores.total > 0 ? (use.cores.used / use.cores.total) * 100 : null;
  return {
    at,
    values: {
      completed: throughput.completed_per_s,
      failed: throughput.failed_per_s,
      submitted: throughput.submitted_per_s,
      queued: stats.queued_tasks,
      running: stats.running_tasks,
      workers: stats.connected_workers,
      wait_p50_ms: wait_ms.p50,
      wait_p95_ms: wait_ms.p95,
      cpu_percent: share,
      memory_used_bytes: use.memory.used_bytes,
    },
  };
}

export function remember(points: Point[], point: Point): Point[] {
  return [...points, point].slice(-kPoints);
}

export interface Lines {
  times: number[]; // seconds
  series: Record<string, (number | null)[]>;
}

export function merge(history: History | null, points: readonly Point[]): Lines {
  const times = (history?.times_ms ?? []).map((ms) => ms / 1000);
  const last = history?.times_ms.at(-1) ?? 0;
  const names = new Set([...Object.keys(history?.series ?? {}), ...Object.keys(points[0]?.values ?? {})]);
  // Between two points of a long history there is nothing to add.
  const fresh = points.filter((one) => one.at > last + (history && history.step_ms > 60_000 ? history.step_ms : 0));
  for (const one of fresh) times.push(one.at / 1000);
  const series: Record<string, (number | null)[]> = {};
  for (const name of names) {
    const old = history?.series[name] ?? [];
    const line: (number | null)[] = [];
    for (let i = 0; i < (history?.times_ms.length ?? 0); ++i) line.push(old[i] ?? null);
    for (const one of fresh) line.push(one.values[name] ?? null);
    series[name] = line;
  }
  return { times, series };
}
