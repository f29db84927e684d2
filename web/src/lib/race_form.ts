// The form of a race: its fields, how they stand in the address, and the request that they make. Pure.
import type { Kind } from './race';
import type { Worker } from './types';
import type { Query } from './routes_match';

export type Form = Record<string, string>;
export interface FieldOf {
  id: string;
  label: string;
  hint?: string;
  start: string;
  type: 'text' | 'area' | 'number' | 'choice' | 'flag' | 'list';
  min?: number;
  max?: number;
  step?: number;
  options?: { id: string; title: string }[];
  more?: boolean; // under "More"
  half?: boolean;
  optional?: boolean;
  only?: (form: Form) => boolean;
}

// Two of these stand beside each other.
const num = (id: string, label: string, start: string, min: number, max: number, rest: Partial<FieldOf> = {}): FieldOf => ({ id, label, start, type: 'number', min, max, half: true, ...rest });
const choice = (id: string, label: string, all: string, rest: Partial<FieldOf> = {}): FieldOf => {
  const ids = all.split(' ');
  return { id, label, start: ids[0]!, type: 'choice', options: ids.map((one) => ({ id: one, title: one })), ...rest };
};
const text = (id: string, label: string, start = '', rest: Partial<FieldOf> = {}): FieldOf => ({ id, label, start, type: 'area', ...rest });
const flag = (id: string, label: string, hint = ''): FieldOf => ({ id, label, hint, start: '', type: 'flag', more: true });
const repeats = num('repeats', 'Repeats', '1', 1, 10_000, { hint: '3 or more tell a winner' });
const warmup = num('warmup', 'Warm-up', '0', 0, 10_000, { hint: 'Requests not counted' });
const at_once: FieldOf = { id: 'concurrency', label: 'At once', hint: 'Or several: 1,4,16', start: '1', type: 'list', half: true };
const more = { more: true, optional: true };
const timeout = num('timeout', 'Time limit', '', 1, 604_800, { hint: 'Of one request, in s', ...more });
const force = flag('force', 'Also machines that the check would leave out');
const mock = flag('mock', 'Let a mock answer where nothing real can', 'Its results are marked and never ranked');
const seed = (hint: string) => num('seed', 'Seed', '', 0, Number.MAX_SAFE_INTEGER, { hint, optional: true });

export const fields: Record<Kind, FieldOf[]> = {
  llm: [
    text('model', 'Model', '', { type: 'text' }),
    text('prompt', 'Prompt', 'Why is the sky blue? Explain it to a child.'),
    num('max_tokens', 'Max tokens', '256', 1, 1e6),
    num('num_ctx', 'Context', '4096', 1, 1e8),
    num('temperature', 'Temperature', '0.2', 0, 10, { step: 0.1 }),
    repeats,
    warmup,
    seed('Empty: by chance'),
    num('top_p', 'Top p', '', 0, 1, { step: 0.05, ...more }),
    num('target_ttft_ms', 'TTFT target', '', 1, 1e9, { hint: 'In ms, for the goodput', ...more }),
    { ...at_once, more: true },
    timeout,
    text('system', 'System message', '', more),
    flag('cache', 'Prompts may come from the service’s cache'),
    force,
    mock,
  ],
  compute: [
    {
      ...choice('op', 'What', 'primes'),
      options: [
        { id: 'primes', title: 'Count primes' },
        { id: 'gemm', title: 'Multiply matrices' },
        { id: 'memory', title: 'Memory' },
        { id: 'disk', title: 'Disk' },
      ],
    },
    choice('algorithm', 'Algorithm', 'segmented_sieve simple_sieve trial_division primesieve', { only: (form) => form.op === 'primes' }),
    choice('precision', 'Precision', 'double single', { only: (form) => form.op === 'gemm' }),
    num('n', 'N', '', 1, 1e15, { half: false, optional: true }),
    num('threads', 'Threads', '0', 0, 4096, { hint: '0: all cores', only: (form) => form.op !== 'disk' }),
    repeats,
    warmup,
    at_once,
    timeout,
  ],
  image: [
    text('checkpoint', 'Checkpoint', '', { type: 'text' }),
    text('prompt', 'Prompt', 'a lighthouse in fog, oil painting'),
    text('negative', 'Negative prompt', '', { optional: true }),
    num('width', 'Width', '512', 16, 16_384, { step: 8 }),
    num('height', 'Height', '512', 16, 16_384, { step: 8 }),
    num('steps', 'Steps', '20', 1, 1000),
    num('cfg', 'CFG', '7', 0, 100, { step: 0.5 }),
    choice('sampler', 'Sampler', 'euler euler_ancestral heun dpm_2 dpmpp_2m dpmpp_2m_sde dpmpp_sde ddim uni_pc lcm', { half: true }),
    seed('Repeats count up from it'),
    { ...repeats, label: 'Pictures', hint: 'Of each machine' },
    warmup,
    choice('scheduler', 'Scheduler', 'normal karras exponential sgm_uniform simple ddim_uniform', { half: true, more: true }),
    num('batch', 'Batch', '1', 1, 64, { more: true }),
    timeout,
    force,
    mock,
  ],
};
const sizes: [string, string][] = [['64 MiB', '67108864'], ['256 MiB', '268435456'], ['1 GiB', '1073741824']];
export const ns: Record<string, { label: string; hint: string; presets: [string, string][] }> = {
  primes: {
    label: 'Count up to',
    hint: 'Empty: 50M. A power of ten is checked against the known count.',
    presets: [['2M', '2000000'], ['50M', '50000000'], ['100M', '100000000'], ['1G', '1000000000'], ['10G', '10000000000']],
  },
  gemm: { label: 'Side of the matrices', hint: 'Empty: 1024', presets: ['512', '1024', '2048', '4096'].map((n) => [n, n]) },
  memory: { label: 'Bytes', hint: 'Empty: more than the caches hold', presets: sizes },
  disk: { label: 'Bytes', hint: 'Empty: 256 MiB', presets: sizes },
};

export const kLinked = 1500; // characters of a field that an address may carry
const shown = (kind: Kind, form: Form) => fields[kind].filter((field) => field.only?.(form) ?? true);

export function read_form(kind: Kind, query: Record<string, string>): Form {
  const out: Form = {};
  for (const field of fields[kind]) out[field.id] = query[field.id] ?? field.start;
  return out;
}
// What is not as at the start; null takes it out of the address.
export function form_query(kind: Kind, form: Form): Query {
  const out: Query = {};
  for (const field of fields[kind]) {
    const value = form[field.id] ?? '';
    out[field.id] = value === field.start || value.length > kLinked ? null : value === '' ? ' ' : value;
  }
  return out;
}

export function wrong_of(kind: Kind, form: Form): Record<string, string> {
  const out: Record<string, string> = {};
  for (const field of shown(kind, form)) {
    const value = (form[field.id] ?? '').trim();
    if (value === '') {
      if (field.type === 'flag' || field.optional || field.type === 'choice' || field.type === 'list') continue;
      out[field.id] = field.type === 'number' ? 'A number is missing.' : `Say which ${field.label.toLowerCase()}.`;
      if (field.id === 'prompt') out[field.id] = 'Write a prompt.';
    } else if (field.type === 'number') {
      const n = Number(value);
      const whole = !field.step || field.step >= 1;
      if (!Number.isFinite(n)) out[field.id] = 'Not a number.';
      else if (whole && !Number.isInteger(n)) out[field.id] = 'Not a whole number.';
      else if (n < (field.min ?? -Infinity)) out[field.id] = `At least ${field.min}.`;
      else if (n > (field.max ?? Infinity)) out[field.id] = `At most ${field.max}.`;
    } else if (field.type === 'list') {
      const list = value.split(',').map((one) => Number(one.trim()));
      if (list.length > 16 || list.some((one) => !Number.isInteger(one) || one < 1 || one > 1024))
        out[field.id] = 'Whole numbers from 1 to 1024, with commas between.';
    }
  }
  return out;
}

// The body of POST /api/runs.
export function body_of(kind: Kind, form: Form, workers?: string[]): Record<string, unknown> {
  const out: Record<string, unknown> = { kind };
  for (const field of shown(kind, form)) {
    const value = field.type === 'area' ? (form[field.id] ?? '') : (form[field.id] ?? '').trim();
    if (value.trim() === '' || (field.type === 'flag' && value !== '1')) continue;
    if (field.type === 'number') out[field.id] = Number(value);
    else if (field.type === 'flag') out[field.id === 'mock' ? 'allow_mock' : field.id] = true;
    else if (field.type === 'list') out[field.id] = value.split(',').map((one) => Number(one.trim()));
    else out[field.id === 'precision' ? 'algorithm' : field.id] = value;
  }
  if (kind === 'compute' && out.threads === 0) delete out.threads;
  if (workers) out.workers = workers;
  return out;
}

// The form that would make such a race again.
export function form_of(run: { kind: Kind; model: string; prompt: string; settings: Record<string, unknown>; repeats: number; warmup: number; concurrency: number[]; system?: string; seed?: number }): Query {
  const form: Form = {};
  for (const field of fields[run.kind]) form[field.id] = field.start;
  const put = (id: string, value: unknown) => {
    if (id in form && value !== undefined && value !== null) form[id] = String(value);
  };
  for (const [key, value] of Object.entries(run.settings)) if (typeof value !== 'object') put(key, value);
  put(run.kind === 'llm' ? 'model' : run.kind === 'image' ? 'checkpoint' : run.settings.op === 'gemm' ? 'precision' : 'algorithm', run.model || undefined);
  put('prompt', run.prompt);
  put('system', run.system);
  put('seed', run.seed);
  put('repeats', run.repeats);
  put('warmup', run.warmup);
  put('concurrency', run.concurrency?.join(',') || '1');
  return form_query(run.kind, form);
}

// -------------------------------------------------------------------------------------------- what the machines have

const serves: Record<Kind, string[]> = { llm: ['ollama', 'llamacpp', 'openai'], image: ['comfyui'], compute: [] };
export interface Known {
  name: string;
  machines: number;
  fit: string; // the best of them
}
const order = ['GOOD', 'RISK', 'UNKNOWN', 'FAIL'];
// Models or checkpoints of all machines, those of most machines first.
export function known_models(kind: Kind, workers: readonly Worker[]): Known[] {
  const all = new Map<string, { machines: Set<string>; fit: string }>();
  for (const worker of workers) {
    if (!worker.connected) continue;
    for (const service of worker.services) {
      if (!serves[kind].includes(service.kind)) continue;
      for (const model of service.models ?? []) {
        const what = String(model.kind ?? '');
        if (kind === 'llm' && what.startsWith('embed')) continue;
        if (kind === 'image' && what && what !== 'checkpoint' && what !== 'image') continue;
        const one = all.get(model.name) ?? { machines: new Set(), fit: 'FAIL' };
        one.machines.add(worker.id);
        const fit = model.fit ?? 'UNKNOWN';
        if (order.indexOf(fit) < order.indexOf(one.fit)) one.fit = fit;
        all.set(model.name, one);
      }
    }
  }
  return [...all]
    .map(([name, one]) => ({ name, machines: one.machines.size, fit: one.fit }))
    .sort((a, b) => Number(a.fit === 'FAIL') - Number(b.fit === 'FAIL') || b.machines - a.machines || a.name.localeCompare(b.name));
}
export const has_service = (kind: Kind, workers: readonly Worker[]): boolean =>
  kind === 'compute' ||
  workers.some((worker) => worker.connected && worker.services.some((one) => serves[kind].includes(one.kind) && one.state !== 'down'));
