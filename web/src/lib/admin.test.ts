import { describe, expect, it } from 'vitest';
import { by_job, failure_table, find_settings, limit_form, limits_in_words, pools, read_limits, type User } from './admin';
import { next_times, parse_cron, type Cron } from './admin_cron';
import { best, machines, marks, matrix, read_sync } from './admin_services';
import type { Worker } from './types';

const worker = (id: string, more: Partial<Worker> = {}): Worker =>
  ({ id, name: id, connected: true, pool: 'standard', services: [], gpus: [], slots: 4, running: 1, backlog: 0, cpus: 4, memory_bytes: 8, ...more }) as unknown as Worker;
const service = (name: string, kind: string, models: object[] = [], state = 'ready') => ({ name, kind, state, models }) as Worker['services'][number];

describe('cron lines', () => {
  const at = (line: string, after: string, n = 1) => {
    const cron = parse_cron(line);
    if (typeof cron === 'string') throw new Error(cron);
    return next_times(cron as Cron, Date.parse(after), n).map((ms) => new Date(ms).toISOString().slice(0, 16));
  };
  it('run when the server runs them', () => {
    expect(at('*/15 * * * *', '2026-01-01T00:07:00Z', 2)).toEqual(['2026-01-01T00:15', '2026-01-01T00:30']);
    expect(at('0 7 * * mon-fri', '2026-11-20T07:00:00Z')).toEqual(['2026-11-23T07:00']); // a Friday
    expect(at('0 0 * * fri-sun', '2026-11-22T00:00:00Z')).toEqual(['2026-11-27T00:00']);
    expect(at('@monthly', '2026-12-05T00:00:00Z')).toEqual(['2027-01-01T00:00']);
    expect(at('0 12 29 2 *', '2026-01-01T00:00:00Z')).toEqual(['2028-02-29T12:00']);
    expect(at('5/20 3 * * *', '2026-01-01T00:00:00Z', 3)).toEqual(['2026-01-01T03:05', '2026-01-01T03:25', '2026-01-01T03:45']);
  });
  it('take either day where both are given', () => {
    expect(at('0 0 13 * 5', '2026-11-01T00:00:00Z', 2)).toEqual(['2026-11-06T00:00', '2026-11-13T00:00']);
  });
  it('say what is wrong', () => {
    for (const bad of ['', '* * * *', '60 * * * *', '* * * * funday', '*/0 * * * *', '5-1 * * * *', '1/2/3 * * * *', '@often', '0 0 30 2 *'])
      expect(typeof parse_cron(bad), bad).toBe('string');
  });
});

describe('limits of a user', () => {
  it('take what is written and leave out what is not', () => {
    const form = { ...limit_form(null), weight: '2,5', max_running: ' 10 ' };
    expect(read_limits(form)).toEqual({ body: { weight: 2.5, max_running: 10 }, wrong: {} });
  });
  it('say which field is wrong', () => {
    const form = { ...limit_form(null), weight: '0', max_running: '1.5', max_cpus: 'many' };
    expect(Object.keys(read_limits(form).wrong)).toEqual(['weight', 'max_running', 'max_cpus']);
  });
  it('are shown in words', () => {
    const user = { max_running: 5, max_cpus: 1.5, max_gpus: 0, max_queued: 0, starts_per_minute: 0, submits_per_minute: 60 } as User;
    expect(limits_in_words(user)).toBe('5 tasks · 1.5 cores · 60 submits/min');
    expect(limits_in_words({ ...user, max_running: 0, max_cpus: 0, submits_per_minute: 0 })).toBe('none');
  });
});

it('sums pools over the machines that are there', () => {
  const [fast, standard] = pools([worker('a', { pool: 'fast' }), worker('b', { pool: 'fast' }), worker('c'), worker('d', { connected: false })]);
  expect(fast).toMatchObject({ name: 'fast', connected: 2, slots: 8, running: 2 });
  expect(standard).toMatchObject({ name: 'standard', connected: 1, slots: 4 });
  expect(standard!.workers.length).toBe(2);
});

it('puts the worst worker and class of failures first', () => {
  const row = (worker_id: string, by_class: Record<string, number>) =>
    ({ worker_id, by_class, failures: Object.values(by_class).reduce((a, b) => a + b, 0), tasks_completed: 1, failure_rate: 0.5 });
  const table = failure_table([row('a', { exception: 1 }), row('b', { worker_lost: 5, exception: 1 }), row('c', {})]);
  expect(table.classes).toEqual(['worker_lost', 'exception']);
  expect(table.rows.map((one) => one.worker_id)).toEqual(['b', 'a']);
});

it('groups dead letters by job, whose id may have any sign', () => {
  expect([...by_job(['7/0', 'a:b/3', '7/2'])]).toEqual([['7', [0, 2]], ['a:b', [3]]]);
});

it('finds settings, the chosen ones first', () => {
  const all = [
    { name: 'port', value: '8000', from: 'default' },
    { name: 'heartbeat_ms', value: '10000', from: 'default', help: 'of workers' },
    { name: 'wal_bytes', value: '2048', from: 'environment' },
  ];
  expect(find_settings(all, '', '').map((one) => one.name)).toEqual(['wal_bytes', 'heartbeat_ms', 'port']);
  expect(find_settings(all, 'worker', '').map((one) => one.name)).toEqual(['heartbeat_ms']);
});

describe('services and models of machines', () => {
  const model = (name: string, loaded = false) => ({ name, kind: 'llm', loaded });
  const all = [
    worker('a', { services: [service('ollama', 'ollama', [model('m1', true), model('m2')]), service('files', 'files', [model('m1')], 'down')] }),
    worker('b', { services: [service('llamacpp', 'llamacpp', [model('m1')], 'down')] }),
    worker('c'),
    worker('z', { connected: false, services: [service('ollama', 'ollama', [model('m3', true)])] }),
  ];
  it('are listed by machine, with the streams of the gateway', () => {
    const list = machines(all, [{ worker_id: 'a', service: 'ollama', kind: 'ollama', state: 'ready', active: 3, parallel: 4, models: 2 }]);
    expect(list.map((one) => one.worker.id)).toEqual(['a', 'b', 'z']);
    expect(list[0]!.rows[0]).toMatchObject({ models: 2, loaded: 1, active: 3 });
    expect(list[0]!.rows[1]!.active).toBeNull();
    expect(machines(all, [], 'm2').map((one) => one.worker.id)).toEqual(['a']);
  });
  it('make one row a model', () => {
    const table = matrix(all);
    expect(table.columns.map((one) => one.id)).toEqual(['a', 'b', 'z']);
    expect(table.rows.map((one) => one.name)).toEqual(['m1', 'm2', 'm3']);
    expect(table.rows[0]).toMatchObject({ loaded: true, removable: true });
    expect(table.rows[0]!.cells.get('a')).toHaveLength(2);
    expect(best(table.rows[0]!.cells.get('a')!).service.name).toBe('ollama');
    // What an absent machine had in memory is not loaded, and cannot be removed.
    expect(table.rows[2]).toMatchObject({ loaded: false, removable: false });
    expect(matrix(all, '', 2)).toMatchObject({ more: 1 });
  });
  it('are marked in few words', () => {
    const text = (held: Parameters<typeof marks>[0]) => marks(held).map((one) => one.text);
    expect(text({ state: 'ready', service: 's', loaded: true, fit: 'GOOD' })).toEqual(['loaded']);
    expect(text({ state: 'ready', service: 's', loaded: true, fit: 'RISK' })).toEqual(['loaded', 'tight']);
    expect(text({ state: 'loading', service: 's', fit: 'GOOD' })).toEqual(['loading', 'fits']);
    expect(text({ state: 'down', service: 's', loaded: true, fit: 'GOOD' })).toEqual(['s is down']);
    expect(text({ state: 'ready', service: 's', fit: 'UNKNOWN' })).toEqual(['there']);
  });
  it('are brought with a body that the server takes', () => {
    const form = { model: ' llama3.2:3b ', source: '', sha256: '', folder: 'x', workers: ['a'] };
    expect(read_sync(form)).toEqual({ body: { model: 'llama3.2:3b', workers: ['a'] }, wrong: {} });
    expect(read_sync({ ...form, model: '' }).wrong.model).toBeTruthy();
    expect(read_sync({ ...form, source: 'ftp://x' }).wrong.source).toBeTruthy();
    expect(read_sync({ ...form, source: 'https://h/f.gguf', sha256: 'ab' }).wrong.sha256).toBeTruthy();
  });
});
