// The heat map of a job's tasks: where cells are, and how a range is zoomed. Pure.
import type { Grid, TaskState } from '../../lib/types';

export const kStates: TaskState[] = ['completed', 'failed', 'cancelled', 'running', 'blocked', 'paused', 'pending'];
export const kMostCells = 2048;

export interface Range {
  from: number;
  to: number;
}
export interface Layout {
  columns: number;
  rows: number;
  size: number; // of a cell with its gap, in CSS pixels
  cells: number;
}

// The largest square cells with which `cells` of them fit.
export function layout(cells: number, width: number, height: number, least = 5, most = 22): Layout {
  const n = Math.max(1, cells);
  for (let size = most; size > least; --size) {
    const columns = Math.max(1, Math.floor(width / size));
    if (Math.ceil(n / columns) * size <= height) return { columns, rows: Math.ceil(n / columns), size, cells: n };
  }
  const columns = Math.max(1, Math.floor(width / least));
  return { columns, rows: Math.ceil(n / columns), size: least, cells: n };
}

// How many cells a view can show: what is asked of the server.
export function room(width: number, height: number, least = 7): number {
  const cells = Math.floor(width / least) * Math.floor(height / least);
  return Math.min(kMostCells, Math.max(16, cells));
}

export function cell_at(at: Layout, x: number, y: number): number | null {
  const column = Math.floor(x / at.size);
  const row = Math.floor(y / at.size);
  if (column < 0 || column >= at.columns || row < 0) return null;
  const cell = row * at.columns + column;
  return cell < at.cells ? cell : null;
}

export const cells_of = (grid: Grid): number => Math.ceil((grid.to - grid.from) / Math.max(1, grid.per_cell));
export function tasks_of(grid: Grid, cell: number): Range {
  const from = grid.from + cell * grid.per_cell;
  return { from, to: Math.min(grid.to, from + grid.per_cell) };
}
export function counts_of(grid: Grid, cell: number): { state: TaskState; n: number }[] {
  const out: { state: TaskState; n: number }[] = [];
  for (const state of kStates) {
    const n = grid.states[state]?.[cell] ?? 0;
    if (n > 0) out.push({ state, n });
  }
  return out;
}
export function sums(grid: Grid): Partial<Record<TaskState, number>> {
  const out: Partial<Record<TaskState, number>> = {};
  for (const [state, cells] of Object.entries(grid.states)) {
    const sum = cells.reduce((a, b) => a + b, 0);
    if (sum > 0) out[state as TaskState] = sum;
  }
  return out;
}

// Never empty, never outside.
export function clamp(range: Range, total: number): Range {
  const size = Math.min(total, Math.max(1, Math.round(range.to - range.from)));
  const from = Math.min(Math.max(0, Math.round(range.from)), Math.max(0, total - size));
  return { from, to: from + size };
}

// Closer (factor < 1) or further around a task that stays where it is seen.
export function zoom(range: Range, factor: number, at: number, total: number): Range {
  const size = range.to - range.from;
  const next = Math.min(total, Math.max(1, Math.round(size * factor)));
  const share = size > 0 ? (at - range.from) / size : 0.5;
  return clamp({ from: at - share * next, to: at - share * next + next }, total);
}

export const whole = (range: Range, total: number): boolean => range.from === 0 && range.to >= total;

// From the address: "1000-1999" (the last one included, as people count).
export function read_range(text: string | undefined, total: number): Range {
  const found = /^(\d+)-(\d+)$/.exec(text ?? '');
  if (!found || total === 0) return { from: 0, to: total };
  return clamp({ from: Number(found[1]), to: Number(found[2]) + 1 }, total);
}
export const write_range = (range: Range, total: number): string | null =>
  whole(range, total) ? null : `${range.from}-${range.to - 1}`;
