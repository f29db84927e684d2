import { describe, expect, it } from 'vitest';
import { read_events } from '../src/lib/api';
import { job_of_fact } from '../src/lib/farm.svelte';
import * as format from '../src/lib/format';
import { act_all, can, eta, pace, sample, share_of, shown_of, shown_state } from '../src/lib/jobs';
import { name_of } from '../src/lib/keys';
import { href, match, parse } from '../src/lib/routes_match';
import type { Fact, Grid, History, Job, JobFile, LogLine, Task, Worker, WorkerFailure } from '../src/lib/types';
import { arrivals, here } from '../src/lib/workers';
import { group } from '../src/pages/jobs/failures';
import { parents_of, place } from '../src/pages/jobs/graph';
import { cell_at, clamp, counts_of, layout, read_range, room, sums, tasks_of, write_range, zoom } from '../src/pages/jobs/grid';
import { matches } from '../src/pages/jobs/list.svelte';
import { kLineChars, kLinesKept, LogBook } from '../src/pages/jobs/logs';
import { timeline } from '../src/pages/jobs/timeline';
import { text_of } from '../src/pages/jobs/value';
import { merge, remember, span_of, type Point } from '../src/pages/overview/series';
import { as_cli, as_curl, as_python } from '../src/pages/submit/code';
import { draft_of, file_of, fresh, join, split } from '../src/pages/submit/draft';

const job = (over: Partial<Job> = {}): Job => ({
  id: '7', job: 7, name: 'mixed', status: 'running', user: 'ann', engine: 'command', priority: 0, total_tasks: 100,
  completed_tasks: 0, failed_tasks: 0, cancelled_tasks: 0, running_tasks: 0, assigned_tasks: 0, pending_tasks: 100,
  blocked_tasks: 0, paused_tasks: 0, paused: false, open: false, created_at: '2026-01-01T00:00:00Z',
  started_at: '2026-01-01T00:00:00Z', completed_at: null, progress: 0, existed: false, ...over,
});

describe('figures', () => {
  it('groups thousands and keeps a minus', () => {
    expect(format.number(1234567)).toBe('1\u202f234\u202f567');
    expect(format.number(-1234.5, 1)).toBe('−1\u202f234.5');
    expect(format.number(-0.001, 1)).toBe('0.0');
    expect(format.number(null)).toBe('–');
  });
  it.each([[0, '0'], [7.25, '7.3'], [947, '947'], [999.6, '1000'], [1234, '1.2k'], [24_300, '24k'], [999_600, '1.0M'], [5e9, '5.0G']])('shortens %d', (n, text) => {
    expect(format.short(n)).toBe(text);
  });
  it.each([[0, '0 B'], [1023, '1023 B'], [1024, '1.0 KiB'], [1048575, '1.0 MiB'], [25323552768, '24 GiB']])('says %d bytes', (n, text) => {
    expect(format.bytes(n)).toBe(text);
  });
  it.each([[0, '0 s'], [0.4, '0.4 ms'], [12, '12 ms'], [999.6, '1 s'], [1234, '1.2 s'], [59_600, '1 m 00 s'], [185_000, '3 m 05 s'], [7_800_000, '2 h 10 m'], [273_600_000, '3 d 4 h']])('says %d ms', (n, text) => {
    expect(format.duration(n)).toBe(text);
  });
  it('says how long ago, and what is to come', () => {
    const now = Date.parse('2026-01-01T12:00:00Z');
    expect(format.ago('2026-01-01T11:59:59Z', now)).toBe('just now');
    expect(format.ago('2026-01-01T11:00:00Z', now)).toBe('1 h ago');
    expect(format.ago('2026-01-01T12:05:00Z', now)).toBe('in 5 min');
    expect(format.ago('rubbish', now)).toBe('–');
  });
  it('knows shares only of what is there', () => {
    expect(format.ratio(1, 4)).toBe(25);
    expect(format.ratio(9, 4)).toBe(100);
    expect(format.ratio(1, 0)).toBeNull();
  });
});

describe('addresses', () => {
  it('reads and writes the state of a page', () => {
    expect(parse('#/jobs/7?state=failed&q=a%20b')).toEqual({ path: '/jobs/7', query: { state: 'failed', q: 'a b' } });
    expect(parse('')).toEqual({ path: '/', query: {} });
    expect(href('/jobs', { state: 'failed', q: '', x: null, page: 0 })).toBe('#/jobs?state=failed&page=0');
  });
  it('finds params, whatever is in an id', () => {
    const odd = 'a/b c?d#e';
    const place = parse(href(`/jobs/${encodeURIComponent(odd)}/tasks/3`));
    expect(match('/jobs/:id/tasks/:index', place.path)).toEqual({ id: odd, index: '3' });
    expect(match('/jobs/:id', place.path)).toBeNull();
    expect(match('/jobs/:id', '/jobs/%E0%A4%A')).toBeNull();
    expect(match('/', '/')).toEqual({});
  });
  it('names keys', () => {
    const key = (over: object) => ({ key: 'k', ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...over });
    expect(name_of(key({ ctrlKey: true, key: 'K' }))).toBe('ctrl+k');
    expect(name_of(key({ metaKey: true, key: 'Enter' }))).toBe('ctrl+Enter');
    expect(name_of(key({ key: '?', shiftKey: true }))).toBe('?');
  });
});

describe('jobs', () => {
  it('says why a live job stands still', () => {
    expect(shown_state(job())).toBe('running');
    expect(shown_state(job({ paused: true }))).toBe('paused');
    expect(shown_state(job({ status: 'pending', blocked_tasks: 3, pending_tasks: 0 }))).toBe('blocked');
    expect(shown_state(job({ status: 'completed', paused: true }))).toBe('completed');
  });
  it('allows what makes sense', () => {
    expect(can(job(), 'cancel')).toBe(true);
    expect(can(job({ status: 'failed', failed_tasks: 1 }), 'cancel')).toBe(false);
    expect(can(job({ status: 'failed', failed_tasks: 1 }), 'retry')).toBe(true);
    expect(can(job(), 'resume')).toBe(false);
  });
  it('says when it ends, from the pace of the last minute', () => {
    let seen: { at: number; ended: number }[] = [];
    const start = Date.parse('2026-01-01T00:10:00Z');
    for (let s = 0; s <= 10; ++s) seen = sample(seen, start + s * 1000, 20 + s * 2);
    const now = start + 10_000;
    expect(pace(seen, now)).toBeCloseTo(2);
    expect(eta(job({ completed_tasks: 40 }), seen, now)).toBeCloseTo(30_000);
    // Too early for a pace: as it went since the start.
    expect(eta(job({ completed_tasks: 50 }), [], Date.parse('2026-01-01T00:00:10Z'))).toBeCloseTo(10_000);
    expect(eta(job({ completed_tasks: 40, paused: true }), seen, now)).toBeNull();
    expect(eta(job({ completed_tasks: 40, open: true }), seen, now)).toBeNull();
    expect(eta(job(), [], Date.parse('2026-01-01T00:00:10Z'))).toBeNull();
    // A retry takes back ends: the pace begins anew. Old samples go.
    expect(sample(seen, now + 1000, 3)).toEqual([{ at: now + 1000, ended: 3 }]);
    expect(sample(seen, now + 300_000, 99)).toHaveLength(2);
  });
  it('does not put off the end while nothing changes', () => {
    const start = Date.parse('2026-01-01T00:10:00Z');
    let seen: { at: number; ended: number }[] = [];
    for (let s = 0; s <= 10; s += 5) seen = sample(seen, start + s * 1000, 20 + s);
    const live = job({ completed_tasks: 30 });
    const at = start + 10_000;
    expect(eta(live, seen, at)).toBeCloseTo(70_000);
    for (let s = 0; s < 60; s += 5) seen = sample(seen, at + s * 1000, 30); // told again, unchanged
    expect(eta(live, seen, at + 20_000)).toBeCloseTo(50_000);
    expect(eta(live, seen, at + 69_000)).toBeCloseTo(1000);
    expect(eta(live, seen, at + 71_000)).toBeNull();
    // The same before there is a pace.
    const once = sample([], Date.parse('2026-01-01T00:00:10Z'), 50);
    expect(eta(job({ completed_tasks: 50 }), once, Date.parse('2026-01-01T00:00:14Z'))).toBeCloseTo(6000);
  });
  it('counts of one that is over what it completed', () => {
    const counts = { total_tasks: 300, completed_tasks: 28, failed_tasks: 2, cancelled_tasks: 270 };
    expect(shown_of(job({ ...counts, status: 'cancelled' }))).toBe(28);
    expect(share_of(job({ ...counts, status: 'failed' }))).toBeCloseTo(9.33, 2);
    expect(shown_of(job({ ...counts, cancelled_tasks: 0 }))).toBe(30);
    expect(share_of(job({ total_tasks: 0 }))).toBe(0);
  });
  it('becomes what a fact says', () => {
    const fact = (type: string, data: object): Fact => ({ event: 1, topic: 'jobs', type, time: '2026-01-01T00:01:00Z', data });
    const counters = { id: '7', job: 7, name: 'mixed', status: 'running', total_tasks: 100, completed_tasks: 30, failed_tasks: 10, cancelled_tasks: 0, running_tasks: 5 };
    const next = job_of_fact(fact('job_progress', counters), job({ blocked_tasks: 20 }))!;
    expect(next).toMatchObject({ completed_tasks: 30, progress: 0.4, pending_tasks: 35, blocked_tasks: 20, completed_at: null, user: 'ann' });
    expect(job_of_fact(fact('job_ended', { ...counters, status: 'failed' }), next)!.completed_at).toBe('2026-01-01T00:01:00Z');
    expect(job_of_fact(fact('job_started', counters), undefined)!.created_at).toBe('2026-01-01T00:01:00Z');
    expect(job_of_fact(fact('queue_paused', {}), undefined)).toBeNull();
  });
  it('filters', () => {
    const filter = { state: '', engine: '', user: '', text: '' };
    expect(matches(job(), { ...filter, state: 'live' })).toBe(true);
    expect(matches(job({ status: 'failed' }), { ...filter, state: 'live' })).toBe(false);
    expect(matches(job(), { ...filter, text: 'ANN' })).toBe(true);
    expect(matches(job(), { ...filter, user: 'bob' })).toBe(false);
  });
  it('acts on many, a few at a time, and reports each', async () => {
    let at_once = 0;
    let most = 0;
    const told: string[] = [];
    await act_all(
      Array.from({ length: 30 }, (_, i) => i),
      async (i) => {
        most = Math.max(most, ++at_once);
        await new Promise((resolve) => setTimeout(resolve, 1));
        --at_once;
        if (i === 3) throw new Error('refused');
        return 'ok';
      },
      (i, did) => told.push(`${i} ${did.ok} ${did.text}`),
      4,
    );
    expect(most).toBe(4);
    expect(told).toHaveLength(30);
    expect(told).toContain('3 false refused');
  });
});

describe('the map of tasks', () => {
  const grid: Grid = { total: 1_000_000, from: 0, to: 1_000_000, per_cell: 489, states: { completed: [489, 100], failed: [0, 3], pending: [0, 386] } };
  it('takes the largest cells that fit', () => {
    expect(layout(40, 1000, 264)).toMatchObject({ size: 22, columns: 45, rows: 1 });
    const many = layout(2048, 1000, 264);
    expect(many.rows * many.size).toBeLessThanOrEqual(264);
    expect(many.columns * many.rows).toBeGreaterThanOrEqual(2048);
    expect(layout(2048, 320, 264).size).toBeGreaterThanOrEqual(5);
  });
  it('never asks for more cells than the server gives', () => {
    expect(room(4000, 2000)).toBe(2048);
    expect(room(320, 264)).toBeLessThan(2048);
    expect(room(0, 0)).toBe(16);
  });
  it('finds the cell under a point', () => {
    const at = layout(50, 100, 264);
    expect(cell_at(at, at.size * 1.5, at.size * 2.5)).toBe(2 * at.columns + 1);
    expect(cell_at(at, -1, 0)).toBeNull();
    expect(cell_at(at, 0, at.size * at.rows + 5)).toBeNull();
  });
  it('counts what is in a cell, and in all', () => {
    expect(tasks_of(grid, 1)).toEqual({ from: 489, to: 978 });
    expect(counts_of(grid, 1)).toEqual([{ state: 'completed', n: 100 }, { state: 'failed', n: 3 }, { state: 'pending', n: 386 }]);
    expect(sums(grid)).toEqual({ completed: 589, failed: 3, pending: 386 });
  });
  it('zooms around what is pointed at, down to one task, and never outside', () => {
    let range = { from: 0, to: 1_000_000 };
    for (let i = 0; i < 25; ++i) range = zoom(range, 0.5, 700_000, 1_000_000);
    expect(range).toEqual({ from: 700_000, to: 700_001 });
    for (let i = 0; i < 25; ++i) range = zoom(range, 2, 700_000, 1_000_000);
    expect(range).toEqual({ from: 0, to: 1_000_000 });
    expect(zoom({ from: 990, to: 1000 }, 4, 999, 1000)).toEqual({ from: 960, to: 1000 });
    expect(clamp({ from: -5, to: 3 }, 100)).toEqual({ from: 0, to: 8 });
  });
  it('stands in the address', () => {
    expect(write_range({ from: 0, to: 100 }, 100)).toBeNull();
    expect(write_range({ from: 10, to: 20 }, 100)).toBe('10-19');
    expect(read_range('10-19', 100)).toEqual({ from: 10, to: 20 });
    expect(read_range('90-500', 100)).toEqual({ from: 0, to: 100 });
    expect(read_range('x', 100)).toEqual({ from: 0, to: 100 });
  });
});

describe('output', () => {
  const piece = (cursor: number, index: number, text: string, stream = 'stdout'): LogLine => ({ cursor, task: `7/${index}`, index, attempt: 1, stream, time: '', text, data_base64: '' });
  it('makes lines of pieces, each task for itself', () => {
    const book = new LogBook();
    book.add(piece(1, 0, 'half a '));
    book.add(piece(2, 1, 'other\n'));
    book.add(piece(3, 0, 'line\nnext'));
    expect(book.lines.map((line) => [line.index, line.text, line.open])).toEqual([[0, 'half a line', false], [1, 'other', false], [0, 'next', true]]);
    expect(book.cursor).toBe(3);
  });
  it('knows colours and carriage returns of terminals', () => {
    const book = new LogBook();
    book.add(piece(1, 0, '\u001b[31mred\u001b[0m\n10%\r20%\r30%\r\n'));
    expect(book.lines.map((line) => line.text)).toEqual(['red', '30%']);
  });
  it('does not grow a line without an end', () => {
    const book = new LogBook();
    for (let i = 0; i < 50; ++i) book.add(piece(i, 0, 'x'.repeat(65_536)));
    expect(book.lines).toHaveLength(1);
    expect(book.lines[0]!.text.length).toBeLessThan(kLineChars + 100);
    book.add(piece(51, 0, '\rnew\nnext\n'));
    expect(book.lines.map((line) => line.text)).toEqual(['new', 'next']);
  });
  it('forgets the oldest lines', () => {
    const book = new LogBook();
    for (let i = 0; i < kLinesKept + 6000; ++i) book.add(piece(i, 0, `${i}\n`));
    expect(book.lines.length).toBeLessThanOrEqual(kLinesKept + 5000);
    expect(book.dropped + book.lines.length).toBe(kLinesKept + 6000);
    expect(book.lines.at(-1)!.text).toBe(String(kLinesKept + 5999));
  });
});

describe('machines', () => {
  const worker = (id: string, connected = true) => ({ id, connected }) as Worker;
  it('have arrived only against those that were there', () => {
    expect(arrivals([worker('a')], null)).toEqual([]);
    const before = here([worker('a'), worker('b', false)]);
    expect(arrivals([worker('a'), worker('b', false)], before)).toEqual([]);
    expect(arrivals([worker('a'), worker('b'), worker('c'), worker('d', false)], before).map((one) => one.id)).toEqual(['b', 'c']);
  });
});

describe('attempts', () => {
  const failure = (over: Partial<WorkerFailure>): WorkerFailure => ({ id: 1, worker_id: 'w-1', job_id: '7', task_id: '7/1', index: 1, attempt: 1, failure: 'exit_code', fault: 'job', stage: 'execute', message: 'exit code 3: at 0x7f21', failed_at: '', ...over });
  it('puts together what means the same', () => {
    const groups = group([failure({}), failure({ index: 2, worker_id: 'w-2', message: 'exit code 3: at 0x99' }), failure({ failure: 'timeout', message: 'too long' })]);
    expect(groups.map((one) => [one.failure, one.attempts.length, one.tasks, one.workers.length])).toEqual([['exit_code', 2, 2, 2], ['timeout', 1, 1, 1]]);
  });
  it('quotes the task that it names', () => {
    const [one] = group([failure({ index: 9, message: 'exit code 3: shard 9' }), failure({ index: 4, message: 'exit code 3: shard 4' })]);
    expect([one!.message, one!.first.index]).toEqual(['exit code 3: shard 4', 4]);
  });
  it('draws what ran at once in rows of one lane', () => {
    const task = (index: number, worker: string, end: number, ms: number) => ({ index, worker_id: worker, status: 'completed', ended_at: new Date(end).toISOString(), run_ms: ms }) as Task;
    const lines = timeline([task(0, 'b', 1000, 500), task(1, 'a', 900, 500), task(2, 'a', 1200, 600), task(3, 'a', 1600, 500), task(4, '', 0, 1)]);
    expect([lines.from, lines.to]).toEqual([400, 1600]);
    expect(lines.lanes.map((lane) => [lane.worker, lane.rows, lane.bars.map((bar) => bar.row)])).toEqual([['a', 2, [0, 1, 0]], ['b', 1, [0]]]);
  });
  it('shows values as text', () => {
    const outcome = (over: object) => ({ index: 0, status: 'completed', attempt: 1, run_ms: 1, ...over });
    expect(text_of(outcome({ value: 'hi' }))).toBe('hi');
    expect(text_of(outcome({ value: { a: 1 } }))).toBe('{\n "a": 1\n}');
    expect(text_of(outcome({ encoding: 'raw', value_base64: btoa('line 3\n') }))).toBe('line 3\n');
    expect(text_of(outcome({ encoding: 'pickle', value_base64: 'gASVAw==' }))).toContain('pickled');
    expect(text_of(outcome({}))).toBe('');
  });
});

describe('graphs', () => {
  it('reads what a job waits for', () => {
    expect(parents_of('9', { after: ['7', { job: 'prep', index: 3, each: true, pass: true }] } as unknown as JobFile)).toEqual([
      { from: '7', to: '9', label: '' },
      { from: 'prep', to: '9', label: 'task 3, each, results' },
    ]);
    expect(parents_of('9', {} as JobFile)).toEqual([]);
  });
  it('puts each job right of all its parents, also in a circle', () => {
    const link = (from: string, to: string) => ({ from, to, label: '' });
    const drawn = place(['a', 'b', 'c', 'd'], [link('a', 'b'), link('b', 'd'), link('a', 'd'), link('a', 'c')]);
    expect(Object.fromEntries(drawn.nodes.map((node) => [node.id, node.layer]))).toEqual({ a: 0, b: 1, c: 1, d: 2 });
    expect(place(['a', 'b'], [link('a', 'b'), link('b', 'a')]).nodes).toHaveLength(2);
  });
});

describe('history', () => {
  const point = (at: number, completed: number): Point => ({ at, values: { completed } });
  it('goes on where the server’s points end', () => {
    const history: History = { span: '15m', step_ms: 5000, times_ms: [1000, 6000], series: { completed: [1, null], failed: [0, 0] } };
    expect(merge(history, [point(5000, 9), point(8000, 4)])).toEqual({ times: [1, 6, 8], series: { completed: [1, null, 4], failed: [0, 0, null] } });
    expect(merge(null, [point(2000, 3)])).toEqual({ times: [2], series: { completed: [3] } });
  });
  it('stays bounded', () => {
    let points: Point[] = [];
    for (let i = 0; i < 2000; ++i) points = remember(points, point(i, i));
    expect(points).toHaveLength(600);
    expect(span_of('7d')).toBe('7d');
    expect(span_of('1y')).toBe('15m');
  });
});

describe('the form of a job', () => {
  it('parts a line as a shell does', () => {
    expect(split(`python3 -c 'print("a b")' "x \\"y\\"" z\\ w ''`)).toEqual(['python3', '-c', 'print("a b")', 'x "y"', 'z w', '']);
    expect(split(`open 'quote`)).toBeNull();
    const words = ['a', 'b c', `it's`, ''];
    expect(split(join(words))).toEqual(words);
  });
  it('says what is missing, where', () => {
    expect(Object.keys(file_of(fresh('command')).errors)).toEqual(['script']);
    expect(Object.keys(file_of(fresh('llm')).errors)).toEqual(['model', 'prompt']);
    expect(file_of({ ...fresh('command'), script: 'x', count: '0', many: 'count' }).errors.count).toBe('At least 1.');
    expect(file_of({ ...fresh('command'), script: 'x', memory: 'much', env: 'no' }).errors).toHaveProperty('memory');
    expect(file_of({ ...fresh('file'), file: '{' }).errors.file).toContain('Not JSON');
    expect(file_of({ ...fresh('file'), file: 'command = ["true"]' }).errors.file).toContain('grange submit FILE');
    const script = { ...fresh('command'), script: 'x' };
    expect(file_of({ ...script, deadline: '0s' }).errors).toHaveProperty('deadline');
    expect(file_of({ ...script, deadline: '0.5h' }).errors).toEqual({});
    expect(file_of({ ...script, labels: 'room = attic, os' })).toEqual({ file: { script: 'x', labels: { room: 'attic', os: '*' } }, errors: {} });
    expect(file_of({ ...script, labels: ' = attic' }).errors.labels).toContain('no name');
    expect(file_of({ ...script, labels: 'room =' }).errors.labels).toContain('no value');
  });
  it('makes a job file of what is filled in, and no more', () => {
    const draft = { ...fresh('command'), script: 'echo {}', many: 'args' as const, args: 'a\n\n[1, 2]\nb c', labels: 'gpu=a100, os', timeout: '90', retries: '0', after: '7, 8' };
    expect(file_of(draft)).toEqual({
      file: { script: 'echo {}', args: ['a', [1, 2], 'b c'], labels: { gpu: 'a100', os: '*' }, retries: 0, timeout: 90, after: ['7', '8'] },
      errors: {},
    });
  });
  const files: JobFile[] = [
    { script: 'echo {index}', count: 40, cpus: 0.5, retries: 1, name: 'mixed', user: 'ann' },
    { command: ['python3', 'a b.py'], args: ['x', ['y', 1]], env: { A: 'b=c' }, files_out: ['o.txt'], fail_fast: true },
    { llm: { model: 'm', prompt: 'p {}', options: { max_tokens: 5, temperature: 0.5, num_ctx: 100 } } },
    { image: { params: { checkpoint: 'c', prompt: 'p', steps: 4, width: 64, height: 64 } } },
    { compute: { op: 'primes', n: 1000 } },
    { remote: { service: 's', target: 't', input: { prompt: '{}' } } },
    { builtin: { op: 'sleep', ms: 10 } },
    { python: { model: 'f/1' }, encoding: 'json', args: [1, 'two', [3]] },
    { command: ['x'], any_of: [{ cpus: 4 }], stages: { execute: 5 } },
  ] as unknown as JobFile[];
  it.each(files)('gives a job file back as it was: %j', (file) => {
    expect(file_of(draft_of(file))).toEqual({ file, errors: {} });
  });
  it('does not take a key or an id along', () => {
    const { file } = file_of(draft_of({ command: ['x'], key: 'k', id: 'i' } as unknown as JobFile));
    expect(file).toEqual({ command: ['x'] });
  });
  it('is code to copy', () => {
    const file = { command: ['echo', "it's"], name: 'n' } as JobFile;
    expect(as_cli(file, 'http://h:1')).toBe("grange run --url http://h:1 -- echo 'it'\\''s'\n");
    expect(as_cli({ script: 'x' } as JobFile, 'http://h:1')).toContain('grange submit --url http://h:1 --wait -');
    expect(as_curl(file, 'http://h:1')).toContain("'it'\\''s'".slice(1, -1));
    expect(as_python({ ...file, fail_fast: true } as JobFile, 'http://h:1')).toContain('"fail_fast": True');
  });
});

describe('streams', () => {
  it('reads server-sent events in whatever pieces they come', async () => {
    const text = 'id: 1\nevent: log\ndata: {"a":\ndata: 1}\n\n: ping\n\nevent: end\r\ndata: {}\r\n\r\ndata: cut off';
    const bytes = new TextEncoder().encode(text);
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let i = 0; i < bytes.length; i += 7) controller.enqueue(bytes.slice(i, i + 7));
        controller.close();
      },
    });
    const out = [];
    for await (const event of read_events(body)) out.push(event);
    expect(out).toEqual([{ event: 'log', data: '{"a":\n1}', id: '1' }, { event: 'end', data: '{}', id: '' }]);
  });
});
