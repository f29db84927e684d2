// A race as it goes on: what each machine does, from the events of topic "run:ID". Pure.
import type { Fact } from './types';

export type Kind = 'llm' | 'compute' | 'image';
export type Fate = 'waiting' | 'running' | 'completed' | 'failed' | 'lost' | 'timeout' | 'cancelled';
export type Fit = 'GOOD' | 'RISK' | 'FAIL' | 'UNKNOWN';
export interface Check {
  machine: string;
  machine_id: string;
  reachable: boolean;
  engine_offered: boolean;
  model_there: boolean;
  model: string;
  service: string;
  quantization: string;
  mock: boolean;
  fit: Fit;
  num_ctx: number;
  good_context?: number;
  max_context?: number;
  fit_numbers: Record<string, unknown>;
  warnings: string[];
  problem: string | null;
  chosen: boolean;
}
export interface Preflight {
  kind: Kind;
  ok: boolean;
  machines: Check[];
  warnings: string[];
}
export interface Stat {
  n: number;
  mean: number | null;
  stddev: number | null;
  p50: number | null;
  p95: number | null;
  ci_low: number | null;
  ci_high: number | null;
}
export interface PhaseSummary {
  phase: number;
  concurrency: number;
  warmup: boolean;
  requests: number;
  ok: number;
  failed: number;
  requests_per_s: number | null;
  all_tokens_per_s?: number | null;
  stats: Record<string, Stat>;
  goodput?: { requests: number; met: number; share: number | null };
}
export interface MachineSummary {
  machine: string;
  machine_id: string;
  status: Fate;
  engine: string | null;
  service?: string;
  model?: string;
  mock?: boolean;
  mock_reason?: string;
  waits?: string;
  requests: number;
  ok: number;
  failed: number;
  fit?: Fit;
  warnings?: string[];
  error?: string;
  message?: string;
  advice?: string;
  text?: string;
  phases: PhaseSummary[];
  jobs: string[];
  [metric: string]: unknown;
}
export interface Ranking {
  metric: string;
  better: 'higher' | 'lower';
  order: string[];
  winner: string | null;
  sentence: string;
}
export interface Summary {
  status: string;
  op?: string | null;
  what?: string;
  machines: Record<string, MachineSummary>;
  ranking: Ranking & { by_metric?: Record<string, Ranking> };
  warnings: string[];
  samples?: unknown[];
}
export interface Run {
  run_id: string;
  kind: Kind;
  status: string;
  started_at: string;
  ended_at: string | null;
  user: string;
  prompt: string;
  model: string;
  what?: string;
  machines: string[];
  settings: Record<string, unknown>;
  repeats: number;
  warmup: number;
  concurrency: number[];
  preflight: Check[];
  warnings: string[];
  system?: string;
  seed?: number;
  workflow?: unknown;
  summary: Summary;
}
export interface RunRow {
  run_id: string;
  kind: Kind;
  status: string;
  started_at: string;
  ended_at: string | null;
  user: string;
  model: string;
  what?: string;
  prompt: string;
  machines: string[];
  repeats: number;
  winner: string | null;
}
export const running = (status: string): boolean => status === 'running';
// How a state of a race or of a machine in it looks, and its word.
const looks: Record<string, [string, string?]> = { partial: ['warn', 'not all completed'], timeout: ['failed', 'timed out'], waiting: ['pending'] };
export const look_of = (status: string): { state: string; text: string } => {
  const [state, text] = looks[status] ?? [status];
  return { state, text: text ?? status };
};
export const over = (fate: string): boolean => fate !== 'waiting' && fate !== 'running';
export const what_of = (run: Pick<Run, 'kind' | 'model' | 'what'>): string =>
  run.what || run.model || (run.kind === 'image' ? 'workflow' : run.kind);

export const kText = 12_000; // characters of a machine's answer that are kept
export const kLines = 200;
export const kImages = 200; // of a machine

export interface Picture {
  key: string;
  machine: string;
  machine_id: string;
  repeat: number;
  sha256: string;
  filename: string;
  bytes: number;
  width: number;
  height: number;
  mock: boolean;
}

// One machine's part.
export interface Lane {
  machine: string;
  machine_id: string;
  fate: Fate;
  waits: string;
  error: string;
  message: string;
  mock: string; // why a mock answered; "": none did
  engine: string;
  requests: number; // that count
  done: number;
  bad: number;
  // The request that is looked at: the one that began last and goes on, or the last that ended.
  focus: string; // "phase/repeat"; "": none yet
  warmup: boolean;
  active: boolean;
  began: number; // ms since the race's start
  first: number | null; // token
  last: number;
  tokens: number;
  text: string;
  cut: number; // characters left out of its beginning
  lines: string[];
  percent: number | null;
  step: string;
  preview: { mime: string; base64: string } | null;
  figures: Record<string, number>; // of the request that ended last
  sums: Record<string, { n: number; sum: number }>; // of all that ended and count
  images: Picture[];
}

export function lane(machine: string, machine_id: string, requests: number): Lane {
  return {
    machine, machine_id, requests,
    fate: 'waiting', waits: '', error: '', message: '', mock: '', engine: '', done: 0, bad: 0, focus: '',
    warmup: false, active: false, began: 0, first: null, last: 0, tokens: 0, text: '', cut: 0, lines: [],
    percent: null, step: '', preview: null, figures: {}, sums: {}, images: [],
  };
}
export const mean_of = (one: Lane, metric: string): number | null => {
  const sum = one.sums[metric];
  return sum && sum.n > 0 ? sum.sum / sum.n : null;
};

// data of a Fact, or a line of events.ndjson: the same keys.
export interface RaceEvent {
  type: string;
  run_id?: string;
  machine?: string;
  machine_id?: string;
  phase?: number;
  repeat?: number;
  warmup?: boolean;
  t_ms: number;
  payload: any;
}
export const event_of = (fact: Fact): RaceEvent => ({ type: fact.type, ...(fact.data as object) }) as RaceEvent;

export const requests_of = (run: Pick<Run, 'repeats' | 'concurrency'>): number =>
  (run.concurrency?.length ? run.concurrency : [1]).reduce((sum, at_once) => sum + Math.max(run.repeats || 1, at_once), 0);

function begin(one: Lane, event: RaceEvent): void {
  one.focus = `${event.phase}/${event.repeat}`;
  one.warmup = event.warmup === true;
  one.active = true;
  one.began = event.t_ms;
  one.first = null;
  one.last = event.t_ms;
  one.tokens = 0;
  one.text = '';
  one.cut = 0;
  one.lines = [];
  one.percent = null;
  one.step = '';
  one.preview = null;
  one.figures = {};
}

const mime_ok = (mime: unknown): mime is string => typeof mime === 'string' && /^image\/(png|jpeg|webp|gif)$/.test(mime);
const word = (value: unknown): string => (typeof value === 'string' ? value : '');

// Changes the lane; false: the event says nothing of it.
export function apply(one: Lane, event: RaceEvent): boolean {
  const at = `${event.phase}/${event.repeat}`;
  const payload = event.payload ?? {};
  switch (event.type) {
    case 'run_lifecycle':
      if (payload.type === 'machine_end') {
        one.fate = payload.status;
        one.error = word(payload.error);
        one.message = word(payload.message);
        one.active = false;
        one.waits = '';
        one.preview = null;
      } else if (payload.type === 'machine_waits') {
        one.waits = word(payload.why);
      } else {
        return false;
      }
      return true;
    case 'job_start':
      if (!over(one.fate)) one.fate = 'running';
      one.waits = '';
      if (one.active && one.focus !== at) return true; // another one at once
      begin(one, event);
      return true;
    case 'llm_token': {
      if (at !== one.focus) return false;
      one.first ??= event.t_ms;
      one.last = event.t_ms;
      one.tokens += typeof payload.n === 'number' ? payload.n : 1;
      const text = one.text + word(payload.text);
      const extra = text.length - kText;
      one.text = extra > 2000 ? text.slice(extra) : text; // not at each token
      if (extra > 2000) one.cut += extra;
      return true;
    }
    case 'compute_line': {
      if (at !== one.focus) return false;
      const line = word(payload.line);
      const percent = /^Progress: (\d+(?:\.\d+)?)%/.exec(line);
      if (percent) {
        one.percent = Number(percent[1]);
        one.step = line.split('|').slice(1).join('·').trim();
        // Only the newest of these.
        if (one.lines[one.lines.length - 1]?.startsWith('Progress: ')) one.lines = one.lines.slice(0, -1);
      }
      one.lines = [...one.lines.slice(1 - kLines), line];
      return true;
    }
    case 'image_progress':
      if (at !== one.focus) return false;
      one.step = word(payload.class) || word(payload.node);
      if (typeof payload.percent === 'number') {
        one.percent = payload.percent;
        one.step = `step ${payload.value} of ${payload.max}`;
      }
      return true;
    case 'image_preview':
      if (at !== one.focus || !mime_ok(payload.mime)) return false;
      one.preview = { mime: payload.mime, base64: word(payload.base64).replace(/[^A-Za-z0-9+/=]/g, '') };
      return true;
    case 'job_done':
    case 'compute_done':
    case 'image_done':
    case 'job_timeout':
      ended(one, event, at, payload);
      return true;
    default:
      return false;
  }
}

const kInputs = new Set(['n', 'threads', 'expected', 'seed', 'steps', 'width', 'height', 'batch', 'cfg', 'denoise']);
function ended(one: Lane, event: RaceEvent, at: string, payload: Record<string, any>): void {
  const good = payload.ok === true;
  if (word(payload.engine)) one.engine = payload.engine;
  if (word(payload.mock_reason)) one.mock = payload.mock_reason;
  if (!event.warmup) {
    if (good) ++one.done;
    else ++one.bad;
  }
  const figures: Record<string, number> = {};
  for (const [key, value] of Object.entries(payload)) {
    if (typeof value !== 'number' || kInputs.has(key) || key.startsWith('params_')) continue;
    figures[key] = value;
    if (!good || event.warmup) continue;
    const sum = one.sums[key];
    one.sums[key] = { n: (sum?.n ?? 0) + 1, sum: (sum?.sum ?? 0) + value };
  }
  for (const [i, image] of (Array.isArray(payload.images) ? payload.images : []).entries()) {
    if (event.warmup || typeof image?.sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(image.sha256)) continue;
    const key = `${one.machine_id}/${at}/${i}`;
    if (one.images.some((old) => old.key === key)) continue;
    one.images = [
      ...one.images.slice(1 - kImages),
      {
        key, machine: one.machine, machine_id: one.machine_id, repeat: event.repeat ?? 0, sha256: image.sha256,
        filename: word(image.filename), bytes: image.bytes ?? 0, width: image.width ?? 0, height: image.height ?? 0,
        mock: word(payload.mock_reason) !== '',
      },
    ];
  }
  if (at !== one.focus) return;
  one.active = false;
  one.figures = figures;
  one.percent = good ? 100 : one.percent;
  one.preview = null;
  one.last = event.t_ms;
  if (!good) one.message = word(payload.message) || word(payload.error);
}

// What the server says of it as a whole is right; events may have been missed.
export function settle(one: Lane, said: MachineSummary): void {
  one.fate = said.status;
  one.waits = word(said.waits);
  one.requests = said.requests;
  one.done = said.ok;
  one.bad = said.failed;
  one.engine = said.engine ?? one.engine;
  one.mock = said.mock ? (said.mock_reason ?? 'unknown') : one.mock;
  if (over(said.status)) {
    one.active = false;
    one.preview = null;
    one.error = word(said.error);
    one.message = word(said.message);
  }
  if (!one.focus && said.text) one.text = said.text;
}

// Tokens a second while they come; the engine's own figure replaces it at the end.
export function live_rate(one: Lane): number | null {
  if (!one.active || one.first === null || one.tokens < 2 || one.last - one.first < 100) return null;
  return ((one.tokens - 1) * 1000) / (one.last - one.first);
}
// Of all that counts, how much of its part is done: 0 to 1.
export function share_done(one: Lane, most_tokens = 0): number {
  const whole = Math.max(1, one.requests);
  const part = !one.active || one.warmup ? 0 : one.percent !== null ? one.percent / 100 : most_tokens > 0 ? Math.min(1, one.tokens / most_tokens) : 0;
  return Math.min(1, (one.done + one.bad + part) / whole);
}

// Who is ahead while the race goes on: of language models the fastest, else who has done most. null: nobody is yet,
// or nobody alone. Mocks and machines that failed are not ranked.
export function leader(kind: Kind, lanes: readonly Lane[], most_tokens = 0): string | null {
  const able = lanes.filter((one) => !one.mock && (one.fate === 'running' || one.fate === 'completed'));
  if (able.length < 2) return null;
  const score = (one: Lane): number =>
    kind === 'llm' ? (live_rate(one) ?? mean_of(one, 'gen_tokens_per_s') ?? 0) : share_done(one, most_tokens);
  const scored = able.map((one) => ({ id: one.machine_id, n: score(one) })).sort((a, b) => b.n - a.n);
  return scored[0]!.n > 0 && scored[0]!.n > scored[1]!.n ? scored[0]!.id : null;
}

// ------------------------------------------------------------------------------------------------------ catching up

// What was told before one listened stands in a file, what is told since comes live. Where they overlap, each once.
export class Splice {
  private last = -1;
  private at_last = new Map<string, number>();
  private key(event: RaceEvent): string {
    return `${event.type} ${event.machine_id} ${event.phase}/${event.repeat} ${JSON.stringify(event.payload)}`;
  }
  told(event: RaceEvent): void {
    if (event.t_ms > this.last) {
      this.last = event.t_ms;
      this.at_last.clear();
    }
    const key = this.key(event);
    this.at_last.set(key, (this.at_last.get(key) ?? 0) + 1);
  }
  fresh(event: RaceEvent): boolean {
    if (event.t_ms > this.last || event.type === 'image_preview') return event.t_ms >= this.last;
    if (event.t_ms < this.last) return false;
    const n = this.at_last.get(this.key(event)) ?? 0;
    if (n > 0) this.at_last.set(this.key(event), n - 1);
    return n === 0;
  }
}

// Lines of a body, as they come.
export async function* lines_of(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.pipeThrough(new TextDecoderStream() as unknown as TransformStream<Uint8Array, string>).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (line) yield line;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {});
  }
}
export function read_line(line: string): RaceEvent | null {
  try {
    const event = JSON.parse(line) as RaceEvent;
    return typeof event?.type === 'string' && typeof event.t_ms === 'number' ? event : null;
  } catch {
    return null;
  }
}
