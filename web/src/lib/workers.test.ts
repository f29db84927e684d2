import { describe, expect, it } from 'vitest';
import type { Worker } from './types';
import { by, counts, doings, health, kSamples, models_of, own_labels, pick, shown_state, slice, Traces } from './workers';

const worker = (id: string, more: Partial<Worker> = {}): Worker =>
  ({
    id, name: id, status: 'online', hostname: 'h', os: 'o', cpu_model: '', pool: 'standard', engines: [], gpus: [],
    labels: {}, services: [], models: [], notes: [], running: 0, slots: 2, connected: true, cpu_percent: 0,
    memory_bytes: 100, memory_used_bytes: 10, tasks_failed: 0, last_seen: '', ...more,
  }) as unknown as Worker;
const wanted = { text: '', show: 'all', pool: '', sort: 'name' };

describe('which machines are shown', () => {
  const all = [
    worker('m10', { pool: 'gpu', labels: { 'grange.worker': 'm10', disk: 'ssd' } }),
    worker('m2', { running: 1, status: 'busy', cpu_percent: 90 }),
    worker('m1', { connected: false, status: 'offline', cpu_percent: null as never }),
    worker('m3', { services: [{ name: 'ollama', kind: 'ollama', state: 'down', note: 'refused' }] }),
  ];
  it('orders names as people count', () => {
    expect(pick(all, wanted).map((one) => one.id)).toEqual(['m1', 'm2', 'm3', 'm10']);
  });
  it('puts the unknown last in both directions', () => {
    expect(pick(all, { ...wanted, sort: '-cpu' }).map((one) => one.id)).toEqual(['m2', 'm3', 'm10', 'm1']);
    expect([...all].sort(by('cpu')).map((one) => one.id)).toEqual(['m3', 'm10', 'm2', 'm1']);
  });
  it('searches every word in names, labels, services and pools', () => {
    expect(pick(all, { ...wanted, text: 'SSD gpu' }).map((one) => one.id)).toEqual(['m10']);
    expect(pick(all, { ...wanted, text: 'ollama' }).map((one) => one.id)).toEqual(['m3']);
    expect(pick(all, { ...wanted, text: 'grange.worker' })).toEqual([]);
    expect(pick(all, { ...wanted, pool: 'gpu' })).toHaveLength(1);
  });
  it('counts each group as it is shown', () => {
    const n = counts(all);
    expect(n).toEqual({ all: 4, connected: 3, busy: 1, trouble: 1, away: 1 });
    for (const [show, many] of Object.entries(n)) expect(pick(all, { ...wanted, show })).toHaveLength(many);
  });
  it('says trouble for a service that is down, and nothing of labels of our own', () => {
    expect(health(all[3]!)).toBe('trouble');
    expect(own_labels(all[0]!)).toEqual([['disk', 'ssd']]);
  });
});

describe('what can be done', () => {
  it('fits the state', () => {
    expect(doings(worker('a'))).toEqual(['pause', 'drain']);
    expect(doings(worker('a', { paused: true }))).toEqual(['resume', 'drain']);
    expect(doings(worker('a', { status: 'quarantined' }))).toContain('release');
    expect(doings(worker('a', { status: 'draining' }))).not.toContain('drain');
    expect(doings(worker('a', { status: 'offline', connected: false }))).toEqual(['remove']);
    expect(doings(worker('a', { status: 'reconnecting', connected: false }))).toEqual([]);
    expect(doings(worker('a', { services: [{ name: 'o', kind: 'ollama', state: 'ready' }] }))).toContain('reset');
  });
  it('shows a pause, but not over a quarantine', () => {
    expect(shown_state(worker('a', { paused: true, status: 'busy' }))).toBe('paused');
    expect(shown_state(worker('a', { paused: true, status: 'quarantined' }))).toBe('quarantined');
  });
});

it('takes models from services once, and the declared ones beside them', () => {
  const one = worker('a', {
    models: ['x', 'y'],
    services: [{ name: 'ollama', kind: 'ollama', state: 'ready', models: [{ name: 'x', fit: 'GOOD' }] }],
  });
  expect(models_of(one).map((m) => [m.name, m.service])).toEqual([['x', 'ollama'], ['y', '']]);
});

describe('samples', () => {
  it('go on from the history, stay bounded and forget who is gone', () => {
    const traces = new Traces();
    traces.load({ a: { times_ms: [1000], cpu_percent: [5] }, b: { times_ms: [1000] } });
    expect(traces.get('a')!.temperature_c).toEqual([null]);
    const before = traces.get('a');
    for (let i = 0; i < kSamples + 30; ++i) traces.push([worker('a', { cpu_percent: i })], 3000 + i * 3000);
    const now = traces.get('a')!;
    expect(now).not.toBe(before);
    expect(now.times_ms).toHaveLength(kSamples);
    expect(now.cpu_percent).toHaveLength(kSamples);
    expect(now.cpu_percent[kSamples - 1]).toBe(kSamples + 29);
    expect(traces.get('b')).toBeUndefined();
  });
  it('are not doubled when the list comes twice, and none come of a machine that is away', () => {
    const traces = new Traces();
    traces.push([worker('a'), worker('b', { connected: false })], 5000);
    traces.push([worker('a'), worker('b', { connected: false })], 5500);
    expect(traces.get('a')!.times_ms).toEqual([5000]);
    expect(traces.get('b')).toBeUndefined();
  });
});

describe('a grid of cards', () => {
  it('has only what is near', () => {
    const s = slice(500, 1000, 300, 200, 10, 10_000, 800);
    expect(s.columns).toBe(3);
    expect(s.height).toBe(167 * 210 - 10);
    expect(s.last - s.first).toBeLessThan(40);
    expect(s.before).toBe((s.first / 3) * 210);
    expect(s.before).toBeLessThanOrEqual(10_000);
  });
  it('holds at its edges', () => {
    expect(slice(0, 1000, 300, 200, 10, 0, 800)).toMatchObject({ first: 0, last: 0, height: 0 });
    expect(slice(1, 100, 300, 200, 10, 0, 800)).toMatchObject({ columns: 1, first: 0, last: 1 });
    const far = slice(10, 1000, 300, 200, 10, 99_999, 800);
    expect(far.first).toBeLessThan(10);
    expect(far.last).toBe(10);
  });
});
