// How the figures of a race are named and written, and which stand in its table.
import { bytes, duration, number, short } from './format';
import type { Fit, Kind } from './race';

export const kinds: Record<Kind, { title: string; button: string; href: string; many: string }> = {
  llm: { title: 'Race', button: 'Run (LLM)', href: '/race/llm', many: 'language model races' },
  compute: { title: 'Compute', button: 'Run (Compute)', href: '/race/compute', many: 'compute races' },
  image: { title: 'Image', button: 'Run (Image)', href: '/race/image', many: 'image races' },
};

interface Said {
  title: string;
  text: (n: number) => string;
  help?: string;
}
const fine = (n: number): string => (Math.abs(n) < 10 ? number(n, 2) : number(n, n % 1 && Math.abs(n) < 1000 ? 1 : 0));
const ms = (n: number): string => duration(n);
const seconds = (n: number): string => (n < 1 ? duration(n * 1000) : `${number(n, n < 100 ? 2 : 0)} s`);
const table: Record<string, Said> = {
  ttft_ms: { title: 'TTFT', text: ms, help: 'Time to first token: from the request to the first token' },
  gen_tokens: { title: 'Tokens', text: (n) => number(n, n % 1 ? 1 : 0), help: 'Tokens of the answer, as the engine counts' },
  gen_tokens_per_s: { title: 'Tokens/s', text: fine, help: 'Decode rate, after the first token' },
  total_ms: { title: 'Total', text: ms, help: 'The whole request' },
  primes_found: { title: 'Primes', text: (n) => number(n) },
  primes_per_s: { title: 'Primes/s', text: short },
  wall_seconds: { title: 'Time', text: seconds },
  seconds_per_image: { title: 'Time per image', text: seconds },
  gflops: { title: 'GFLOP/s', text: fine },
  gb_per_s_copy: { title: 'Copy GB/s', text: fine },
  gb_per_s_scale: { title: 'Scale GB/s', text: fine },
  gb_per_s_add: { title: 'Add GB/s', text: fine },
  gb_per_s_triad: { title: 'Triad GB/s', text: fine },
  mb_per_s_write: { title: 'Write MB/s', text: fine },
  mb_per_s_read: { title: 'Read MB/s', text: fine },
};
export const title_of = (metric: string): string => table[metric]?.title ?? metric.replaceAll('_', ' ');
export const help_of = (metric: string): string | undefined => table[metric]?.help;
export const figure = (metric: string, n: number | null | undefined): string =>
  typeof n !== 'number' || !Number.isFinite(n) ? '–' : (table[metric]?.text ?? fine)(n);

export function columns_of(kind: Kind, op: string): string[] {
  if (kind === 'image') return ['seconds_per_image', 'wall_seconds'];
  if (kind === 'llm') return ['ttft_ms', 'gen_tokens', 'gen_tokens_per_s', 'total_ms'];
  if (op === 'gemm') return ['gflops', 'wall_seconds'];
  if (op === 'memory') return ['gb_per_s_copy', 'gb_per_s_scale', 'gb_per_s_add', 'gb_per_s_triad', 'wall_seconds'];
  if (op === 'disk') return ['mb_per_s_write', 'mb_per_s_read', 'wall_seconds'];
  return ['primes_found', 'wall_seconds', 'primes_per_s'];
}
// The three that stand on a machine's card.
export const on_card = (kind: Kind, op: string): string[] =>
  kind === 'llm'
    ? ['ttft_ms', 'gen_tokens_per_s', 'total_ms']
    : kind === 'image'
      ? ['seconds_per_image']
      : columns_of(kind, op).slice(0, 3);
const lower = new Set(['ttft_ms', 'total_ms', 'wall_seconds', 'seconds_per_image']);
const neither = new Set(['gen_tokens', 'primes_found']);
// How long a bar of this figure is beside the best of them: 0 to 1, the best is the longest.
export function bar(metric: string, n: number | null, all: (number | null)[]): number | null {
  const known = all.filter((one): one is number => typeof one === 'number' && one > 0);
  if (n === null || n <= 0 || known.length < 2 || neither.has(metric)) return null;
  return lower.has(metric) ? Math.min(...known) / n : n / Math.max(...known);
}

export const fit_tone = (fit: Fit | string | undefined): 'good' | 'warn' | 'bad' | 'plain' =>
  fit === 'GOOD' ? 'good' : fit === 'RISK' ? 'warn' : fit === 'FAIL' ? 'bad' : 'plain';
export const fit_help: Record<string, string> = {
  GOOD: 'It fits with room',
  RISK: 'It fits only just, or partly on the GPU',
  FAIL: 'It does not fit',
  UNKNOWN: 'The service does not say enough to tell',
};
// The numbers behind a verdict, for people.
export function fit_rows(numbers: Record<string, unknown>): [string, string][] {
  const out: [string, string][] = [];
  const put = (key: string, title: string, text: (n: number) => string) => {
    const n = numbers[key];
    if (typeof n === 'number' && n > 0) out.push([title, text(n)]);
  };
  put('need', 'Needs', bytes);
  put('weights', '  weights', bytes);
  put('kv', '  cache for the context', bytes);
  put('overhead', '  overhead', bytes);
  put('free', 'Free', bytes);
  const layers = numbers.layers;
  if (typeof layers === 'number' && layers > 0 && typeof numbers.gpu_layers === 'number')
    out.push(['Layers on the GPU', `${numbers.gpu_layers} of ${layers}`]);
  put('context', 'Context asked for', (n) => `${number(n)} tokens`);
  put('good_context', 'Fits well up to', (n) => `${number(n)} tokens`);
  if (numbers.max_context !== numbers.good_context) put('max_context', 'Fits at all up to', (n) => `${number(n)} tokens`);
  return out;
}

export const mock_words: Record<string, string> = {
  ollama_unreachable: 'no service is up there',
  comfyui_unreachable: 'no ComfyUI is up there',
  missing_model: 'the model is not there',
  missing_checkpoint: 'the checkpoint is not there',
  stream_error: 'the service broke off',
};
export const mock_text = (reason: string): string =>
  `Not a real result: a mock answered${mock_words[reason] ? `, as ${mock_words[reason]}` : ''}.`;
