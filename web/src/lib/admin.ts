// What the Admin pages work out from the server's figures. Pure.
import type { Schemas } from './api';
import { number } from './format';
import type { Worker } from './types';

type Have<T> = { [K in keyof T]-?: Exclude<T[K], undefined> };
export type User = Have<Schemas['User']>;
export type Policy = Have<Schemas['PolicyFigures']>;
export type Queue = Have<Schemas['Queue']>;
export type Database = Omit<Have<Schemas['Database']>, 'rows'> & { rows: Record<string, number> };
export type FailureStats = Omit<Have<Schemas['WorkerFailureStats']>, 'by_class'> & { by_class: Record<string, number> };
export type DeadLetter = Have<Schemas['DeadLetter']>;
export type Schedule = Omit<Have<Schemas['Schedule']>, 'job'> & { job: Record<string, unknown> | null };
export interface Setting {
  name: string;
  value: string;
  from: string;
  help?: string;
}

export const failure_classes = [
  'worker_lost',
  'out_of_memory',
  'time_limit',
  'exit_code',
  'exception',
  'engine_error',
  'refused',
  'deadline',
  'dependency',
] as const;

// What each policy does, for somebody who has to choose one.
export const policy_words: Record<string, { first: string; then: string }> = {
  priority: { first: 'By priority, then fair shares between users', then: 'To the worker with the fewest tasks' },
  least_loaded: { first: 'By priority, then fair shares between users', then: 'To the worker with the fewest tasks' },
  fifo: { first: 'Strictly as jobs came: no priority, no shares', then: 'To each worker in turn' },
  round_robin: { first: 'By priority, then fair shares between users', then: 'To each worker in turn' },
  performance: {
    first: 'By priority, then fair shares between users',
    then: 'To the worker that was lately fastest with such tasks',
  },
};

export interface LimitField {
  id: 'weight' | 'max_running' | 'max_cpus' | 'max_gpus' | 'max_queued' | 'starts_per_minute' | 'submits_per_minute';
  label: string;
  hint: string;
  whole: boolean;
}
export const limit_fields: LimitField[] = [
  { id: 'weight', label: 'Weight', hint: 'Twice the weight is twice the share', whole: false },
  { id: 'max_running', label: 'Tasks at once', hint: 'Empty: no limit', whole: true },
  { id: 'max_cpus', label: 'Cores at once', hint: 'Empty: no limit', whole: false },
  { id: 'max_gpus', label: 'GPUs at once', hint: 'Empty: no limit', whole: false },
  { id: 'max_queued', label: 'Tasks in the queue', hint: 'Beyond it a submit is refused', whole: true },
  { id: 'starts_per_minute', label: 'Starts a minute', hint: 'Empty: no limit', whole: true },
  { id: 'submits_per_minute', label: 'Submits a minute', hint: 'Beyond it a submit is refused', whole: true },
];

export type LimitForm = Record<LimitField['id'], string>;
export const limit_form = (user: Partial<User> | null): LimitForm =>
  Object.fromEntries(
    limit_fields.map(({ id }) => {
      const value = user?.[id] ?? (id === 'weight' ? 1 : 0);
      return [id, value === 0 ? '' : String(value)];
    }),
  ) as LimitForm;

// The body of PUT /api/users/NAME, or what is wrong by field.
export function read_limits(form: LimitForm): { body: Record<string, number>; wrong: Partial<LimitForm> } {
  const body: Record<string, number> = {};
  const wrong: Partial<LimitForm> = {};
  for (const { id, whole } of limit_fields) {
    const text = form[id].trim().replace(',', '.');
    if (text === '') {
      if (id === 'weight') body.weight = 1;
      continue;
    }
    const n = Number(text);
    if (!Number.isFinite(n) || n < 0) wrong[id] = 'A number, or nothing';
    else if (whole && !Number.isInteger(n)) wrong[id] = 'A whole number, or nothing';
    else if (id === 'weight' && (n < 0.001 || n > 1000)) wrong[id] = 'From 0.001 to 1000';
    else body[id] = n;
  }
  return { body, wrong };
}
export const limits_in_words = (user: User): string => {
  const has: string[] = [];
  if (user.max_running) has.push(`${number(user.max_running)} tasks`);
  if (user.max_cpus) has.push(`${number(user.max_cpus, user.max_cpus % 1 ? 1 : 0)} cores`);
  if (user.max_gpus) has.push(`${number(user.max_gpus, user.max_gpus % 1 ? 1 : 0)} GPUs`);
  if (user.max_queued) has.push(`${number(user.max_queued)} queued`);
  if (user.starts_per_minute) has.push(`${number(user.starts_per_minute)} starts/min`);
  if (user.submits_per_minute) has.push(`${number(user.submits_per_minute)} submits/min`);
  return has.join(' · ') || 'none';
};

export interface Pool {
  name: string;
  workers: Worker[];
  connected: number;
  slots: number;
  running: number;
  backlog: number;
  cores: number;
  memory_bytes: number;
  gpus: number;
}
export function pools(workers: readonly Worker[]): Pool[] {
  const out = new Map<string, Pool>();
  for (const worker of workers) {
    const name = worker.pool || 'standard';
    let pool = out.get(name);
    if (!pool) {
      pool = { name, workers: [], connected: 0, slots: 0, running: 0, backlog: 0, cores: 0, memory_bytes: 0, gpus: 0 };
      out.set(name, pool);
    }
    pool.workers.push(worker);
    if (!worker.connected) continue;
    ++pool.connected;
    pool.slots += worker.slots;
    pool.running += worker.running;
    pool.backlog += worker.backlog;
    pool.cores += worker.cpus;
    pool.memory_bytes += worker.memory_bytes;
    pool.gpus += worker.gpus.length;
  }
  return [...out.values()].sort((a, b) => b.connected - a.connected || a.name.localeCompare(b.name));
}

// Failures by worker and class, the worst first; columns only for classes that happened.
export function failure_table(stats: readonly FailureStats[]): { classes: string[]; rows: FailureStats[] } {
  const sums = new Map<string, number>();
  for (const one of stats) for (const [name, n] of Object.entries(one.by_class)) sums.set(name, (sums.get(name) ?? 0) + n);
  return {
    classes: [...sums].sort((a, b) => b[1] - a[1]).map(([name]) => name),
    rows: stats.filter((one) => one.failures > 0).sort((a, b) => b.failures - a.failures),
  };
}

// Which dead letters of which job: one redrive a job.
export function by_job(ids: Iterable<string | number>): Map<string, number[]> {
  const out = new Map<string, number[]>();
  for (const id of ids) {
    const text = String(id);
    const at = text.lastIndexOf('/');
    const job = text.slice(0, at);
    const list = out.get(job) ?? [];
    list.push(Number(text.slice(at + 1)));
    out.set(job, list);
  }
  return out;
}

// The default last: what somebody has chosen is what one looks for.
export const setting_sources = ['command line', 'environment', 'file', 'default'];
export function find_settings(all: readonly Setting[], text: string, from: string): Setting[] {
  const wanted = text.trim().toLowerCase();
  const at = (one: Setting) => {
    const found = setting_sources.indexOf(one.from);
    return found < 0 ? setting_sources.length : found;
  };
  return all
    .filter((one) => !from || one.from === from)
    .filter((one) => !wanted || `${one.name} ${one.value} ${one.help ?? ''}`.toLowerCase().includes(wanted))
    .sort((a, b) => (at(a) === 3 ? 1 : 0) - (at(b) === 3 ? 1 : 0) || a.name.localeCompare(b.name));
}
