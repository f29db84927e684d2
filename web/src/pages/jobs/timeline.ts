// Which task ran when and where: bars in lanes, a lane for each worker, with rows for what ran at once. Pure.
import type { Task } from '../../lib/types';

export interface Bar {
  index: number;
  status: string;
  from: number; // ms
  to: number;
  row: number;
}
export interface Lane {
  worker: string;
  rows: number;
  bars: Bar[];
  busy_ms: number;
}
export interface Timeline {
  from: number;
  to: number;
  lanes: Lane[];
}

export function timeline(tasks: readonly Task[]): Timeline {
  const lanes = new Map<string, Bar[]>();
  let from = Infinity;
  let to = -Infinity;
  for (const task of tasks) {
    if (!task.worker_id || !task.ended_at || task.run_ms < 0) continue;
    const end = Date.parse(task.ended_at);
    const start = end - task.run_ms;
    if (!Number.isFinite(start)) continue;
    from = Math.min(from, start);
    to = Math.max(to, end);
    let bars = lanes.get(task.worker_id);
    if (!bars) lanes.set(task.worker_id, (bars = []));
    bars.push({ index: task.index, status: task.status, from: start, to: end, row: 0 });
  }
  const out: Lane[] = [];
  for (const [worker, bars] of lanes) {
    bars.sort((a, b) => a.from - b.from);
    const ends: number[] = [];
    let busy = 0;
    for (const bar of bars) {
      let row = ends.findIndex((end) => end <= bar.from + 3);
      if (row < 0) row = ends.push(0) - 1;
      ends[row] = bar.to;
      bar.row = row;
      busy += bar.to - bar.from;
    }
    out.push({ worker, rows: Math.max(1, ends.length), bars, busy_ms: busy });
  }
  out.sort((a, b) => a.worker.localeCompare(b.worker));
  return { from: from === Infinity ? 0 : from, to: to === -Infinity ? 0 : to, lanes: out };
}
