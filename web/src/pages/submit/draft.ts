// The form of a job: its fields as text, the job file that comes of them, and back. Pure.
import type { JobFile } from '../../lib/types';

export type Kind = 'command' | 'python' | 'llm' | 'image' | 'compute' | 'remote' | 'builtin' | 'file';
export const kinds: { id: Kind; title: string; text: string }[] = [
  { id: 'command', title: 'Command', text: 'A program or a shell script, on any machine.' },
  { id: 'python', title: 'Python', text: 'Code that was published with farm.publish(name, version, f).' },
  { id: 'llm', title: 'Prompt', text: 'A language model, wherever it is ready.' },
  { id: 'image', title: 'Picture', text: 'A picture through ComfyUI.' },
  { id: 'compute', title: 'Compute', text: 'A benchmark with a result that is checked.' },
  { id: 'remote', title: 'Remote', text: 'OpenAI, Replicate, RunPod or a service that a worker was given.' },
  { id: 'builtin', title: 'Built in', text: 'Needs nothing on the worker: for trying things out.' },
  { id: 'file', title: 'Job file', text: 'The JSON itself, with every key there is.' },
];

export interface Draft {
  kind: Kind;
  name: string;
  many: 'once' | 'count' | 'args';
  count: string;
  args: string; // one a line
  // command
  shell: boolean;
  script: string;
  argv: string;
  env: string; // NAME=value, one a line
  files_out: string;
  // python
  model_ref: string;
  // llm
  llm_op: string;
  model: string;
  system: string;
  prompt: string;
  max_tokens: string;
  temperature: string;
  num_ctx: string;
  allow_mock: boolean;
  // image
  checkpoint: string;
  negative: string;
  steps: string;
  width: string;
  height: string;
  seed: string;
  cfg: string;
  // compute
  op: string;
  algorithm: string;
  n: string;
  threads: string;
  // remote
  service: string;
  remote_op: string;
  target: string;
  input: string;
  // builtin
  builtin_op: string;
  ms: string;
  message: string;
  // file
  file: string;
  // needs
  cpus: string;
  memory: string;
  gpus: string;
  gpu_memory: string;
  pool: string;
  labels: string; // name=value, name
  // rules
  priority: string;
  retries: string;
  timeout: string;
  after: string;
  start_in: string;
  deadline: string;
  user: string;
  key: string;
  fail_fast: boolean;
  speculate: boolean;
  rest: Record<string, unknown>; // of a job file that was duplicated: what has no field here
}

export const fresh = (kind: Kind = 'command'): Draft => ({
  kind,
  name: '',
  many: 'once',
  count: '10',
  args: '',
  shell: true,
  script: '',
  argv: '',
  env: '',
  files_out: '',
  model_ref: '',
  llm_op: 'chat',
  model: '',
  system: '',
  prompt: '',
  max_tokens: '256',
  temperature: '0.2',
  num_ctx: '4096',
  allow_mock: false,
  checkpoint: '',
  negative: '',
  steps: '20',
  width: '1024',
  height: '1024',
  seed: '',
  cfg: '',
  op: 'primes',
  algorithm: '',
  n: '100000000',
  threads: '',
  service: '',
  remote_op: '',
  target: '',
  input: '{}',
  builtin_op: 'echo',
  ms: '1000',
  message: '',
  file: '{\n  "command": ["echo", "hello"]\n}',
  cpus: '',
  memory: '',
  gpus: '',
  gpu_memory: '',
  pool: '',
  labels: '',
  priority: '',
  retries: '',
  timeout: '',
  after: '',
  start_in: '',
  deadline: '',
  user: '',
  key: '',
  fail_fast: false,
  speculate: false,
  rest: {},
});

// A line as a shell would part it: quotes and backslashes, nothing more. null: a quote is open.
export function split(line: string): string[] | null {
  const out: string[] = [];
  let word = '';
  let some = false;
  let quote = '';
  for (let i = 0; i < line.length; ++i) {
    const c = line[i]!;
    if (quote) {
      if (c === quote) quote = '';
      else if (c === '\\' && quote === '"' && i + 1 < line.length && '"\\$`'.includes(line[i + 1]!)) word += line[++i];
      else word += c;
    } else if (c === '"' || c === "'") {
      quote = c;
      some = true;
    } else if (c === '\\' && i + 1 < line.length) {
      word += line[++i];
      some = true;
    } else if (/\s/.test(c)) {
      if (some || word) out.push(word);
      word = '';
      some = false;
    } else {
      word += c;
    }
  }
  if (quote) return null;
  if (some || word) out.push(word);
  return out;
}
export const join = (words: readonly string[]): string =>
  words.map((word) => (/^[\w@%+=:,./{}-]+$/.test(word) ? word : `'${word.replace(/'/g, `'\\''`)}'`)).join(' ');

const lines = (text: string): string[] =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean);

export type Errors = Partial<Record<keyof Draft, string>>;
const sizes = /^\d+(\.\d+)?\s*([KMGTP]i?)?B?$/i;
const times = /^\d+(\.\d+)?\s*(ms|s|m|h|d)?$/;

// An argument: JSON where it is JSON (numbers, lists, objects, quoted text), else the text of the line.
export function argument(line: string, json: boolean): unknown {
  if (json || /^[[{"]/.test(line)) {
    try {
      return JSON.parse(line);
    } catch {
      return line;
    }
  }
  return line;
}

export function file_of(draft: Draft): { file: JobFile; errors: Errors } {
  const errors: Errors = {};
  if (draft.kind === 'file') {
    try {
      const file = JSON.parse(draft.file) as unknown;
      if (file && typeof file === 'object' && !Array.isArray(file)) return { file: file as JobFile, errors };
      errors.file = 'A job file is an object: {"command": […]}.';
    } catch (error) {
      errors.file = /^\s*\{/.test(draft.file)
        ? `Not JSON: ${(error as Error).message}`
        : 'This takes a job file as JSON: {"command": […]}. One in TOML goes with: grange submit FILE';
    }
    return { file: {} as JobFile, errors };
  }
  const file: Record<string, unknown> = { ...draft.rest };
  const need = (field: keyof Draft, text: string) => {
    if (String(draft[field]).trim() === '') errors[field] = text;
  };
  const figure = (field: keyof Draft, rule: { whole?: boolean; least?: number; most?: number } = {}): number | undefined => {
    const text = String(draft[field]).trim();
    if (text === '') return undefined;
    const n = Number(text);
    if (!Number.isFinite(n) || (rule.whole !== false && !Number.isInteger(n))) {
      errors[field] = rule.whole === false ? 'Give a number.' : 'Give a whole number.';
    } else if (rule.least !== undefined && n < rule.least) {
      errors[field] = `At least ${rule.least}.`;
    } else if (rule.most !== undefined && n > rule.most) {
      errors[field] = `At most ${rule.most}.`;
    }
    return n;
  };
  const put = (to: Record<string, unknown>, key: string, value: unknown) => {
    if (value !== undefined && value !== '' && value !== false && value !== null) to[key] = value;
  };
  const text = (field: keyof Draft) => String(draft[field]).trim();
  const matching = (field: keyof Draft, rule: RegExp, hint: string): string | undefined => {
    const value = text(field);
    if (value !== '' && !rule.test(value)) errors[field] = hint;
    return value || undefined;
  };
  const duration = (field: keyof Draft) => {
    const value = matching(field, times, 'Seconds, or such as 10m or 2h.');
    return value !== undefined && /^\d+(\.\d+)?$/.test(value) ? Number(value) : value;
  };

  put(file, 'name', text('name'));
  switch (draft.kind) {
    case 'command': {
      if (draft.shell) {
        need('script', 'What shall run? Such as: echo hello');
        if (draft.script.trim()) file.script = draft.script;
      } else {
        const words = split(draft.argv);
        if (words === null) errors.argv = 'A quote is not closed.';
        else if (words.length === 0) errors.argv = 'What shall run? Such as: python3 train.py --epochs 3';
        else file.command = words;
      }
      const env: Record<string, string> = {};
      for (const line of lines(draft.env)) {
        const at = line.indexOf('=');
        if (at <= 0) errors.env = `“${line}” is not NAME=value.`;
        else env[line.slice(0, at)] = line.slice(at + 1);
      }
      if (Object.keys(env).length) file.env = env;
      const out = draft.files_out.split(/[\n,]/).map((one) => one.trim()).filter(Boolean);
      if (out.length) file.files_out = out;
      break;
    }
    case 'python':
      need('model_ref', 'Name published code, such as resize/1.');
      if (text('model_ref') && !text('model_ref').includes('/')) errors.model_ref = 'Name and version: resize/1.';
      file.python = { model: text('model_ref') };
      file.encoding = 'json';
      break;
    case 'llm': {
      need('model', 'Which model? Such as llama3.2:3b');
      if (draft.many !== 'args') need('prompt', 'What shall it be asked?');
      const options: Record<string, unknown> = {};
      put(options, 'max_tokens', figure('max_tokens', { least: 1 }));
      put(options, 'temperature', figure('temperature', { whole: false, least: 0, most: 5 }));
      put(options, 'num_ctx', figure('num_ctx', { least: 1 }));
      const llm: Record<string, unknown> = { model: text('model') };
      if (draft.llm_op !== 'chat') llm.op = draft.llm_op;
      put(llm, 'system', draft.system.trim());
      put(llm, 'prompt', draft.prompt.trim());
      if (draft.llm_op !== 'embed' && Object.keys(options).length) llm.options = options;
      put(llm, 'allow_mock', draft.allow_mock);
      file.llm = llm;
      break;
    }
    case 'image': {
      need('checkpoint', 'Which checkpoint? Such as sd_xl_base_1.0.safetensors');
      need('prompt', 'What shall be on it?');
      const params: Record<string, unknown> = { checkpoint: text('checkpoint'), prompt: draft.prompt.trim() };
      put(params, 'negative', draft.negative.trim());
      put(params, 'steps', figure('steps', { least: 1 }));
      put(params, 'width', figure('width', { least: 16 }));
      put(params, 'height', figure('height', { least: 16 }));
      put(params, 'seed', figure('seed', { least: 0 }));
      put(params, 'cfg', figure('cfg', { whole: false, least: 0 }));
      file.image = draft.allow_mock ? { params, allow_mock: true } : { params };
      break;
    }
    case 'compute': {
      const compute: Record<string, unknown> = { op: draft.op };
      if (draft.op === 'primes') put(compute, 'algorithm', draft.algorithm);
      put(compute, 'n', figure('n', { least: 0 }));
      put(compute, 'threads', figure('threads', { least: 0 }));
      file.compute = compute;
      break;
    }
    case 'remote': {
      need('service', 'Which service? openai, replicate, runpod, or the name of one of yours.');
      need('target', 'Which model, version or endpoint?');
      const remote: Record<string, unknown> = { service: text('service'), target: text('target') };
      put(remote, 'op', text('remote_op'));
      try {
        const input = JSON.parse(draft.input || '{}') as unknown;
        if (!input || typeof input !== 'object' || Array.isArray(input)) errors.input = 'The input is an object: {"prompt": "…"}.';
        else remote.input = input;
      } catch (error) {
        errors.input = `Not JSON: ${(error as Error).message}`;
      }
      file.remote = remote;
      break;
    }
    case 'builtin': {
      const builtin: Record<string, unknown> = { op: draft.builtin_op };
      if (draft.builtin_op === 'sleep') put(builtin, 'ms', figure('ms', { least: 0 }));
      if (draft.builtin_op === 'fail') put(builtin, 'message', draft.message);
      file.builtin = builtin;
      break;
    }
  }
  if (draft.many === 'count') {
    need('count', 'How many?');
    put(file, 'count', figure('count', { least: 1 }));
  } else if (draft.many === 'args') {
    const all = lines(draft.args);
    if (all.length === 0) errors.args = 'One argument a line; each line becomes a task.';
    else file.args = all.map((line) => argument(line, draft.kind === 'python'));
  }
  put(file, 'cpus', figure('cpus', { whole: false, least: 0 }));
  put(file, 'memory', matching('memory', sizes, 'Such as 2GiB.'));
  put(file, 'gpus', figure('gpus', { whole: false, least: 0 }));
  put(file, 'gpu_memory', matching('gpu_memory', sizes, 'Such as 8GiB.'));
  put(file, 'pool', text('pool'));
  const labels: Record<string, string> = {};
  for (const one of draft.labels.split(/[\n,]/).map((part) => part.trim()).filter(Boolean)) {
    const at = one.indexOf('=');
    const name = (at < 0 ? one : one.slice(0, at)).trim();
    const value = at < 0 ? '*' : one.slice(at + 1).trim();
    if (!name) errors.labels = `“${one}” has no name.`;
    else if (!value) errors.labels = `“${one}” has no value. Leave the = away if any will do.`;
    else labels[name] = value;
  }
  if (Object.keys(labels).length) file.labels = labels;
  put(file, 'priority', figure('priority', { least: -1000, most: 1000 }));
  const retries = figure('retries', { least: 0, most: 1000 });
  if (retries !== undefined) file.retries = retries;
  put(file, 'timeout', duration('timeout'));
  put(file, 'start_in', duration('start_in'));
  put(file, 'finish_in', duration('deadline'));
  if (text('deadline') && !errors.deadline && !parseFloat(text('deadline'))) errors.deadline = 'That is no time at all. Such as 2h.';
  const after = draft.after.split(/[\s,]+/).filter(Boolean);
  if (after.length) file.after = after;
  put(file, 'user', text('user'));
  put(file, 'key', text('key'));
  put(file, 'fail_fast', draft.fail_fast);
  put(file, 'speculate', draft.speculate);
  return { file: file as JobFile, errors };
}

// The form of a job that was run, to be run again with changes.
export function draft_of(file: JobFile): Draft {
  const draft = fresh();
  const rest: Record<string, unknown> = { ...file };
  const take = (key: string): unknown => {
    const value = rest[key];
    delete rest[key];
    return value;
  };
  const word = (value: unknown): string => (value === undefined || value === null ? '' : String(value));
  // A key makes a second submit answer with the first job; an id is taken.
  for (const key of ['engine', 'key', 'id']) take(key);
  draft.name = word(take('name'));
  const table = (key: string) => (take(key) ?? {}) as Record<string, unknown>;
  if (file.command !== undefined || file.script !== undefined) {
    draft.kind = 'command';
    const command = take('command');
    const script = take('script');
    draft.shell = !Array.isArray(command);
    if (Array.isArray(command)) draft.argv = join(command.map(String));
    else draft.script = word(script ?? command);
    draft.env = Object.entries(table('env'))
      .map(([name, value]) => `${name}=${word(value)}`)
      .join('\n');
    const out = rest.files_out;
    if (Array.isArray(out) && out.every((one) => typeof one === 'string')) draft.files_out = (take('files_out') as string[]).join(', ');
  } else if (file.llm) {
    const llm = table('llm');
    draft.kind = 'llm';
    draft.llm_op = word(llm.op) || 'chat';
    draft.model = word(llm.model);
    draft.system = word(llm.system);
    draft.prompt = word(llm.prompt);
    draft.allow_mock = llm.allow_mock === true;
    const options = (llm.options ?? {}) as Record<string, unknown>;
    draft.max_tokens = word(options.max_tokens);
    draft.temperature = word(options.temperature);
    draft.num_ctx = word(options.num_ctx);
    // The server adds what follows from the model; it follows again.
    if (rest.needs_model === draft.model) take('needs_model');
    if (word(rest.context) === draft.num_ctx) take('context');
  } else if (file.image && !(file.image as Record<string, unknown>).workflow) {
    const image = table('image');
    const params = (image.params ?? {}) as Record<string, unknown>;
    draft.kind = 'image';
    draft.allow_mock = image.allow_mock === true;
    for (const key of ['checkpoint', 'prompt', 'negative', 'steps', 'width', 'height', 'seed', 'cfg'] as const) draft[key] = word(params[key]);
    if (rest.needs_model === draft.checkpoint) take('needs_model');
  } else if (file.compute) {
    const compute = table('compute');
    draft.kind = 'compute';
    draft.op = word(compute.op) || 'primes';
    draft.algorithm = word(compute.algorithm);
    draft.n = word(compute.n);
    draft.threads = word(compute.threads);
  } else if (file.remote) {
    const remote = table('remote');
    draft.kind = 'remote';
    draft.service = word(remote.service);
    draft.remote_op = word(remote.op);
    draft.target = word(remote.target);
    draft.input = JSON.stringify(remote.input ?? {}, null, 2);
  } else if (file.builtin) {
    const builtin = table('builtin');
    draft.kind = 'builtin';
    draft.builtin_op = word(builtin.op) || 'noop';
    draft.ms = word(builtin.ms);
    draft.message = word(builtin.message);
  } else if ((file.python as Record<string, unknown> | undefined)?.model) {
    draft.kind = 'python';
    draft.model_ref = word(table('python').model);
    take('encoding');
  } else {
    draft.kind = 'file';
    draft.file = JSON.stringify({ ...file, key: undefined, id: undefined }, null, 2);
    return draft;
  }
  if (draft.kind !== 'python' && rest.encoding === 'json') take('encoding');
  const args = take('args');
  const count = take('count');
  if (Array.isArray(args)) {
    draft.many = 'args';
    draft.args = args.map((one) => (typeof one === 'string' && draft.kind !== 'python' ? one : JSON.stringify(one))).join('\n');
  } else if (Number(count) > 1) {
    draft.many = 'count';
    draft.count = word(count);
  }
  const labels = (rest.labels ?? {}) as Record<string, unknown>;
  if (Object.values(labels).every((one) => typeof one === 'string')) {
    take('labels');
    draft.labels = Object.entries(labels)
      .map(([name, value]) => (value === '*' ? name : `${name}=${word(value)}`))
      .join(', ');
  }
  for (const key of ['cpus', 'memory', 'gpus', 'gpu_memory', 'pool', 'priority', 'timeout', 'user'] as const) draft[key] = word(take(key));
  const retry = rest.retry as Record<string, unknown> | undefined;
  if (retry && Object.keys(retry).length === 1 && retry.max_attempts !== undefined) {
    take('retry');
    draft.retries = String(Math.max(0, Number(retry.max_attempts) - 1));
  } else if (rest.retries !== undefined) {
    draft.retries = word(take('retries'));
  }
  const after = rest.after;
  if (Array.isArray(after) && after.every((one) => typeof one === 'string')) draft.after = (take('after') as string[]).join(' ');
  draft.fail_fast = take('fail_fast') === true;
  if (typeof rest.speculate === 'boolean') draft.speculate = take('speculate') === true;
  draft.rest = rest;
  return draft;
}
