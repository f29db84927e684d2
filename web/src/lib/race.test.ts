import { describe, expect, it } from 'vitest';
import { apply, kText, lane, leader, lines_of, live_rate, mean_of, read_line, requests_of, settle, share_done, Splice } from './race';
import type { Lane, MachineSummary, RaceEvent } from './race';
import { body_of, form_of, form_query, known_models, read_form, wrong_of } from './race_form';
import { bar, figure, fit_rows } from './race_words';
import type { Worker } from './types';

let t = 0;
const say = (one: Lane, type: string, payload: object = {}, more: Partial<RaceEvent> = {}): boolean =>
  apply(one, { type, machine_id: one.machine_id, phase: 0, repeat: 0, warmup: false, t_ms: (t += 100), payload, ...more });
const end = (one: Lane, status: string, more: object = {}) => say(one, 'run_lifecycle', { type: 'machine_end', status, ...more });

describe('a machine of a race', () => {
  it('streams a prompt, and shows the engine’s figures in the end', () => {
    const one = lane('a', 'w-a', 1);
    say(one, 'job_start', { attempt: 1 });
    expect(one.fate).toBe('running');
    for (let i = 0; i < 11; ++i) say(one, 'llm_token', { text: 'x', n: 1 });
    expect(one.text).toBe('x'.repeat(11));
    expect(live_rate(one)).toBeCloseTo(10);
    say(one, 'job_done', { ok: true, ttft_ms: 12, gen_tokens_per_s: 9.5, engine: 'ollama' });
    expect(one.figures).toEqual({ ttft_ms: 12, gen_tokens_per_s: 9.5 });
    expect(live_rate(one)).toBeNull();
    end(one, 'completed');
    expect(one.fate).toBe('completed');
    expect(share_done(one)).toBe(1);
  });
  it('begins anew with each request, and counts no warm-up', () => {
    const one = lane('a', 'w-a', 2);
    say(one, 'job_start', {}, { warmup: true });
    say(one, 'llm_token', { text: 'warm', n: 1 }, { warmup: true });
    say(one, 'job_done', { ok: true, ttft_ms: 500 }, { warmup: true });
    expect([one.done, mean_of(one, 'ttft_ms')]).toEqual([0, null]);
    for (const [repeat, ttft] of [[0, 10], [1, 20]] as const) {
      say(one, 'job_start', {}, { phase: 1, repeat });
      expect(one.text).toBe('');
      say(one, 'job_done', { ok: true, ttft_ms: ttft }, { phase: 1, repeat });
    }
    expect([one.done, mean_of(one, 'ttft_ms')]).toEqual([2, 15]);
  });
  it('looks at one of several requests at once', () => {
    const one = lane('a', 'w-a', 2);
    say(one, 'job_start');
    say(one, 'llm_token', { text: 'first', n: 1 });
    say(one, 'job_start', {}, { repeat: 1 });
    expect(say(one, 'llm_token', { text: 'second', n: 1 }, { repeat: 1 })).toBe(false);
    expect(one.text).toBe('first');
    say(one, 'job_done', { ok: true }, { repeat: 1 });
    expect([one.active, one.done]).toEqual([true, 1]);
  });
  it('keeps the end of an endless answer', () => {
    const one = lane('a', 'w-a', 1);
    say(one, 'job_start');
    for (let i = 0; i < 60; ++i) say(one, 'llm_token', { text: 'y'.repeat(1000), n: 1 });
    expect(one.text.length).toBeLessThanOrEqual(kText + 2000);
    expect(one.cut + one.text.length).toBe(60_000);
  });
  it('reads progress of a sieve, and keeps only the newest of it', () => {
    const one = lane('a', 'w-a', 1);
    say(one, 'job_start');
    say(one, 'compute_line', { line: 'Compute: Count primes <= 100' });
    say(one, 'compute_line', { line: 'Progress: 12% | primes: 1.4M | elapsed: 6.3s' });
    say(one, 'compute_line', { line: 'Progress: 45% | primes: 2.4M | elapsed: 7.3s' });
    expect(one.percent).toBe(45);
    expect(one.lines).toHaveLength(2);
    expect(share_done(one)).toBeCloseTo(0.45);
  });
  it('takes pictures once, and no preview that is no picture', () => {
    const one = lane('a', 'w-a', 1);
    say(one, 'job_start');
    expect(say(one, 'image_preview', { mime: 'text/html', base64: 'x' })).toBe(false);
    say(one, 'image_preview', { mime: 'image/png', base64: 'ab"c=' });
    expect(one.preview).toEqual({ mime: 'image/png', base64: 'abc=' });
    const images = [{ sha256: 'a'.repeat(64), filename: 'x.png', bytes: 5 }, { sha256: '../x' }];
    say(one, 'image_done', { ok: true, images });
    say(one, 'image_done', { ok: true, images });
    expect(one.images).toHaveLength(1);
    expect(one.preview).toBeNull();
  });
  it('says why it waits, and what went wrong', () => {
    const one = lane('a', 'w-a', 1);
    say(one, 'run_lifecycle', { type: 'machine_waits', why: 'its ollama is loading' });
    expect(one.waits).toBe('its ollama is loading');
    say(one, 'job_start');
    expect(one.waits).toBe('');
    end(one, 'lost', { error: 'worker_lost', message: 'gone' });
    expect([one.fate, one.error, one.message, one.active]).toEqual(['lost', 'worker_lost', 'gone', false]);
  });
  it('believes the summary', () => {
    const one = lane('a', 'w-a', 3);
    settle(one, { status: 'completed', requests: 3, ok: 2, failed: 1, mock: true, mock_reason: 'missing_model', text: 'said', phases: [], jobs: [], engine: 'mock', machine: 'a', machine_id: 'w-a' } as MachineSummary);
    expect([one.done, one.bad, one.mock, one.text]).toEqual([2, 1, 'missing_model', 'said']);
  });
  it('ignores what it does not know', () => {
    const one = lane('a', 'w-a', 1);
    expect(say(one, 'something_new', { x: 1 })).toBe(false);
    expect(apply(one, { type: 'llm_token', t_ms: 1, payload: null })).toBe(false);
  });
});

describe('who leads', () => {
  const going = (id: string, rate: number): Lane => {
    const one = lane(id, id, 1);
    t = 0;
    say(one, 'job_start');
    for (let i = 0; i < 5; ++i) apply(one, { type: 'llm_token', phase: 0, repeat: 0, t_ms: 1000 + (i * 1000) / rate, payload: { text: 'a', n: 1 } });
    return one;
  };
  it('is the fastest, never a mock, never one that failed, never one of one', () => {
    const [a, b, c] = [going('a', 5), going('b', 3), going('c', 9)];
    expect(leader('llm', [a, b])).toBe('a');
    c.mock = 'missing_model';
    expect(leader('llm', [a, b, c])).toBe('a');
    a.fate = 'failed';
    expect(leader('llm', [a, b, c])).toBeNull();
  });
  it('is nobody while all have done nothing', () => {
    expect(leader('compute', [lane('a', 'a', 1), lane('b', 'b', 1)])).toBeNull();
  });
  it('is who has done most of a computation', () => {
    const [a, b] = [lane('a', 'a', 4), lane('b', 'b', 4)];
    a.fate = b.fate = 'running';
    a.done = 2;
    b.done = 1;
    expect(leader('compute', [a, b])).toBe('a');
    b.done = 2;
    expect(leader('compute', [a, b])).toBeNull();
  });
});

describe('file and live together', () => {
  const event = (t_ms: number, text: string): RaceEvent => ({ type: 'llm_token', machine_id: 'a', phase: 0, repeat: 0, t_ms, payload: { text } });
  it('tell each event once', () => {
    const splice = new Splice();
    const file = [event(1, 'a'), event(2, 'b'), event(2, 'c'), event(2, 'c')];
    const live = [event(2, 'b'), event(2, 'c'), event(2, 'c'), event(2, 'd'), event(3, 'e')];
    for (const one of file) splice.told(one);
    expect(live.filter((one) => splice.fresh(one)).map((one) => one.payload.text)).toEqual(['d', 'e']);
  });
  it('lose nothing without a file', () => {
    const splice = new Splice();
    expect([event(0, 'a'), event(0, 'a')].filter((one) => splice.fresh(one))).toHaveLength(2);
  });
  it('are read line by line, however they are cut', async () => {
    const bytes = new TextEncoder().encode('{"type":"a","t_ms":1}\n{"type":"é","t_ms":2}\nbroken\n{"type":"b","t_ms":3}');
    const body = new ReadableStream<Uint8Array>({
      start(to) {
        for (let i = 0; i < bytes.length; i += 7) to.enqueue(bytes.slice(i, i + 7));
        to.close();
      },
    });
    const out: (string | undefined)[] = [];
    for await (const line of lines_of(body)) out.push(read_line(line)?.type);
    expect(out).toEqual(['a', 'é', undefined, 'b']);
  });
});

describe('the form', () => {
  it('has the defaults that were promised', () => {
    const form = read_form('llm', {});
    expect([form.max_tokens, form.num_ctx, form.temperature, form.repeats]).toEqual(['256', '4096', '0.2', '1']);
    expect(body_of('llm', { ...form, model: ' m ' })).toMatchObject({ kind: 'llm', model: 'm', max_tokens: 256, num_ctx: 4096, temperature: 0.2, concurrency: [1] });
  });
  it('comes back from its address', () => {
    for (const kind of ['llm', 'compute', 'image'] as const) {
      const form = { ...read_form(kind, {}), repeats: '7', prompt: 'a & b?', seed: '' };
      const query = Object.fromEntries(Object.entries(form_query(kind, form)).filter(([, value]) => value !== null)) as Record<string, string>;
      const back = read_form(kind, query);
      for (const key of Object.keys(back)) if (key in form) expect(back[key]).toBe((form as Record<string, string>)[key]);
    }
  });
  it('says what is wrong, of what is shown only', () => {
    const form = read_form('llm', {});
    expect(wrong_of('llm', form)).toEqual({ model: 'Say which model.' });
    expect(wrong_of('llm', { ...form, model: 'm', prompt: ' ', max_tokens: '1.5', temperature: '11', concurrency: '1,x' })).toEqual({
      prompt: 'Write a prompt.', max_tokens: 'Not a whole number.', temperature: 'At most 10.', concurrency: 'Whole numbers from 1 to 1024, with commas between.',
    });
    expect(wrong_of('compute', { ...read_form('compute', {}), op: 'memory', algorithm: '' })).toEqual({});
  });
  it('asks only for what belongs to the operation', () => {
    const form = read_form('compute', {});
    expect(body_of('compute', form)).toEqual({ kind: 'compute', op: 'primes', algorithm: 'segmented_sieve', repeats: 1, warmup: 0, concurrency: [1] });
    expect(body_of('compute', { ...form, op: 'gemm', precision: 'single' })).toMatchObject({ op: 'gemm', algorithm: 'single' });
    expect(body_of('compute', { ...form, op: 'disk', threads: '4' })).not.toHaveProperty('threads');
    expect(body_of('image', { ...read_form('image', {}), checkpoint: 'c', mock: '1' }, ['w-1'])).toMatchObject({ allow_mock: true, workers: ['w-1'] });
  });
  it('makes a race again', () => {
    const query = form_of({ kind: 'compute', model: 'single', prompt: '', settings: { op: 'gemm', n: 512 }, repeats: 5, warmup: 0, concurrency: [1, 4] });
    expect(query).toMatchObject({ op: 'gemm', precision: 'single', n: '512', repeats: '5', concurrency: '1,4', algorithm: null });
  });
  it('knows the models of connected machines, those of most first, what does not fit last', () => {
    const machine = (id: string, connected: boolean, models: [string, string][]) =>
      ({ id, connected, services: [{ name: 'ollama', kind: 'ollama', state: 'ready', models: models.map(([name, fit]) => ({ name, fit, kind: name.startsWith('nomic') ? 'embedding' : 'llm' })) }] }) as unknown as Worker;
    const all = [machine('a', true, [['x', 'RISK'], ['big', 'FAIL'], ['nomic', 'GOOD']]), machine('b', true, [['x', 'GOOD'], ['y', 'GOOD'], ['big', 'FAIL']]), machine('c', false, [['z', 'GOOD']])];
    expect(known_models('llm', all)).toEqual([
      { name: 'x', machines: 2, fit: 'GOOD' },
      { name: 'y', machines: 1, fit: 'GOOD' },
      { name: 'big', machines: 2, fit: 'FAIL' },
    ]);
    expect(known_models('image', all)).toEqual([]);
  });
});

describe('figures', () => {
  it('are written with their units; what the engine did not say is not 0', () => {
    expect(figure('ttft_ms', 41.5)).toBe('42 ms');
    expect(figure('gen_tokens_per_s', 7.254)).toBe('7.25');
    expect(figure('wall_seconds', 0.0312)).toBe('31 ms');
    expect(figure('gflops', null)).toBe('–');
  });
  it('have bars where more or less is better', () => {
    expect(bar('ttft_ms', 20, [10, 20])).toBe(0.5);
    expect(bar('gen_tokens_per_s', 20, [10, 20])).toBe(1);
    expect(bar('gen_tokens', 20, [10, 20])).toBeNull();
    expect(bar('gflops', null, [10, 20])).toBeNull();
  });
  it('of a fit leave out what is not known', () => {
    expect(fit_rows({ need: 1024, layers: 10, gpu_layers: 4, reason: 'x' })).toEqual([['Needs', '1.0 KiB'], ['Layers on the GPU', '4 of 10']]);
  });
});

it('counts the requests of a sweep as the server does', () => {
  expect(requests_of({ repeats: 2, concurrency: [1, 4] })).toBe(6);
});
