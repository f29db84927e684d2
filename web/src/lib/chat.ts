// A conversation with the gateway: what is sent, what comes back, and what it says of itself. Pure.
import { ApiError, message_of } from './api';
import { duration, number, plural } from './format';

export interface ChatSettings {
  model: string;
  system: string;
  temperature: number | null; // null: as the service has it
  max_tokens: number | null;
}
export interface Place {
  worker_id: string;
  service: string;
  kind: string;
  state: string;
  loaded: boolean;
  fit: string;
  good_context: number;
  max_context: number;
}
export interface ChatModel {
  id: string;
  grange?: { kind: string; context: number; bytes: number; loaded: boolean; places: Place[] };
}
// What the gateway tells of one request once it has ended.
export interface GatewayRecord {
  request_id: string;
  at: string;
  principal: string;
  path: string;
  model: string;
  worker_id: string | null;
  service: string | null;
  end: string;
  status: number | null;
  code: string | null;
  tries: number;
  waited_ms: number;
  ttft_ms: number | null;
  total_ms: number;
  tokens_in: number | null;
  tokens_out: number | null;
}
export interface Trouble {
  text: string;
  todo: string;
  code: string;
  services?: boolean; // the Services page helps
}
export type TurnState = 'waiting' | 'streaming' | 'done' | 'stopped' | 'failed';
export interface Turn {
  id: number;
  model: string;
  question: string;
  answer: string;
  thinking: string;
  state: TurnState;
  finish: string; // the service's word: "stop", "length"
  trouble: Trouble | null;
  request_id: string;
  worker: string;
  service: string;
  sent_at: number;
  first_at: number | null;
  last_at: number | null;
  pieces: number;
  prompt_tokens: number | null;
  tokens: number | null;
  record: GatewayRecord | null;
}

export const new_turn = (id: number, model: string, question: string, now: number): Turn => ({
  id,
  model,
  question,
  answer: '',
  thinking: '',
  state: 'waiting',
  finish: '',
  trouble: null,
  request_id: '',
  worker: '',
  service: '',
  sent_at: now,
  first_at: null,
  last_at: null,
  pieces: 0,
  prompt_tokens: null,
  tokens: null,
  record: null,
});

export interface Message {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

// A question that got no answer is not part of what was said.
export function messages(settings: ChatSettings, turns: readonly Turn[]): Message[] {
  const out: Message[] = [];
  if (settings.system.trim()) out.push({ role: 'system', content: settings.system.trim() });
  turns.forEach((turn, i) => {
    if (!turn.answer && i < turns.length - 1) return;
    out.push({ role: 'user', content: turn.question });
    if (turn.answer) out.push({ role: 'assistant', content: turn.answer });
  });
  return out;
}

export function request_body(settings: ChatSettings, said: Message[]): Record<string, unknown> {
  return {
    model: settings.model,
    messages: said,
    ...(settings.temperature === null ? {} : { temperature: settings.temperature }),
    ...(settings.max_tokens === null ? {} : { max_tokens: settings.max_tokens }),
    stream: true,
    stream_options: { include_usage: true },
  };
}

// One event of the stream, into the turn. Answers whether the stream is over.
export function take(turn: Turn, data: string, now: number): boolean {
  if (data.trim() === '[DONE]') return true;
  let chunk: any;
  try {
    chunk = JSON.parse(data);
  } catch {
    fail(turn, new ApiError(502, 'upstream_error', 'The service sent something that is not JSON.'));
    return true;
  }
  const error = chunk?.error;
  if (error) {
    const text = typeof error === 'string' ? error : String(error.message ?? 'The service stopped in the middle.');
    fail(turn, new ApiError(502, String(error.code ?? 'upstream_error'), text));
    return true;
  }
  const choice = chunk?.choices?.[0];
  const delta = choice?.delta ?? {};
  const text = typeof delta.content === 'string' ? delta.content : '';
  const thought = [delta.reasoning_content, delta.reasoning].find((one) => typeof one === 'string') ?? '';
  if (text || thought) {
    turn.answer += text;
    turn.thinking += thought;
    turn.first_at ??= now;
    turn.last_at = now;
    ++turn.pieces;
    turn.state = 'streaming';
  }
  if (choice?.finish_reason) turn.finish = String(choice.finish_reason);
  if (chunk?.usage) {
    turn.prompt_tokens = chunk.usage.prompt_tokens ?? turn.prompt_tokens;
    turn.tokens = chunk.usage.completion_tokens ?? turn.tokens;
  }
  return false;
}

// The stream ended without an error. One that says neither a reason nor [DONE] was cut off.
export function end(turn: Turn, whole: boolean): void {
  if (turn.state === 'failed' || turn.state === 'stopped') return;
  if (!whole && !turn.finish) fail(turn, new ApiError(502, 'upstream_error', 'The answer was cut off.'));
  else turn.state = 'done';
}

export function fail(turn: Turn, error: unknown): void {
  turn.state = 'failed';
  turn.trouble = trouble(error, turn.answer !== '');
}

const again = (error: ApiError): string => {
  const after = Number(error.details.retry_after);
  return after > 0 ? `Ask again in ${duration(after * 1000)}.` : 'Ask again in a moment.';
};

export function trouble(error: unknown, partly = false): Trouble {
  const text = message_of(error);
  if (!(error instanceof ApiError)) return { text, todo: 'Ask again.', code: 'unknown' };
  const kept = partly ? ' What had come is kept.' : '';
  const code = error.code;
  const out = (todo: string, services = false): Trouble => ({ text, todo: todo + kept, code, services });
  switch (code) {
    case 'model_not_found':
      return out('Choose another model, or bring this one to a machine.', true);
    case 'model_loading':
      return out(`The first question after a start waits until the weights are in memory. ${again(error)}`);
    case 'busy':
    case 'rate_limited':
      return out(again(error));
    case 'away':
      return out('See which service is down, or choose a model that is elsewhere too.', true);
    case 'context_length_exceeded':
      return out('Begin a new conversation, or choose a model with room for more.');
    case 'worker_lost':
    case 'upstream_unreachable':
    case 'upstream_error':
      return out('Ask again: if another machine has the model, that one answers.', true);
    case 'stopping':
      return out('The server is about to come back; ask again then.');
    case 'invalid_api_key':
      return out('Give a token: the key at the foot of the menu.');
    case 'no_answer':
      return out('The page tries to reach it by itself; ask again once it says Live.');
  }
  if (error.status === 401) return out('Give a token: the key at the foot of the menu.');
  if (error.status === 403) return out('Your token does not allow it. Ask whoever runs this farm.');
  if (error.status === 429 || error.status === 503) return out(again(error));
  return out(error.status >= 500 ? 'Ask again.' : 'Change what the message names, and ask again.');
}

export interface TurnFigures {
  ttft_ms: number | null;
  tokens: number | null;
  counted: boolean; // by the service; else a piece of the stream counts as a token
  rate: number | null;
  total_ms: number | null;
}
export function figures(turn: Turn): TurnFigures {
  const tokens = turn.tokens ?? (turn.pieces > 0 ? turn.pieces : null);
  const spent = turn.first_at !== null && turn.last_at !== null ? turn.last_at - turn.first_at : 0;
  return {
    ttft_ms: turn.first_at === null ? null : turn.first_at - turn.sent_at,
    tokens,
    counted: turn.tokens !== null,
    // The first token is the end of reading the prompt; the others are the rate of writing.
    rate: tokens !== null && tokens > 1 && spent > 0 ? ((tokens - 1) * 1000) / spent : null,
    total_ms: turn.last_at === null ? null : turn.last_at - turn.sent_at,
  };
}

// What stands under an answer: a figure, what it is of, and where it comes from.
export interface Note {
  b?: string;
  text: string;
  title?: string;
  warn?: boolean;
}
export function notes(turn: Turn): Note[] {
  const { ttft_ms, tokens, counted, rate } = figures(turn);
  const out: Note[] = [];
  if (ttft_ms !== null)
    out.push({ b: duration(ttft_ms), text: 'to the first token', title: 'From the question to the first token, as this page saw it' });
  if (tokens !== null)
    out.push({
      b: `${counted ? '' : '≈ '}${number(tokens)}`,
      text: `${tokens === 1 ? 'token' : 'tokens'}${turn.prompt_tokens === null ? '' : ` after ${number(turn.prompt_tokens)}`}`,
      title: counted ? 'As the service counted' : 'Pieces of the stream: the service did not count',
    });
  if (rate !== null) out.push({ b: number(rate, rate < 100 ? 1 : 0), text: 'tokens/s' });
  const record = turn.record;
  if (record) {
    const waited = record.waited_ms >= 1;
    out.push({ text: waited ? `${duration(record.waited_ms)} in the queue` : 'no wait', title: "In the gateway's queue, for a service that is free" });
    if (record.tries > 1)
      out.push({ text: plural(record.tries - 1, 'fail-over'), warn: true, title: 'Services before it refused or broke off before their first byte' });
  }
  if (turn.finish === 'length') out.push({ text: 'cut at the most tokens', warn: true, title: 'Raise the most tokens to let it go on' });
  if (turn.state === 'stopped') out.push({ text: 'stopped' });
  return out;
}

// Which of the places a model stands in are worth naming first: as the gateway would choose.
export function by_choice(places: readonly Place[]): Place[] {
  const fits = ['GOOD', 'RISK', 'UNKNOWN', 'FAIL'];
  const states = ['ready', 'loading', 'down'];
  const at = (list: string[], word: string) => (list.includes(word) ? list.indexOf(word) : list.length);
  return [...places].sort(
    (a, b) =>
      at(states, a.state) - at(states, b.state) ||
      Number(b.loaded) - Number(a.loaded) ||
      at(fits, a.fit) - at(fits, b.fit) ||
      a.service.localeCompare(b.service),
  );
}

// The same request for a terminal and for a program. A token is never written out, only its variable.
const quoted = (text: string): string => `'${text.replace(/'/g, `'\\''`)}'`;
export function as_curl(base: string, body: Record<string, unknown>, with_token: boolean): string {
  return [
    `curl -N ${quoted(`${base}v1/chat/completions`)}`,
    ...(with_token ? [`-H "Authorization: Bearer $GRANGE_TOKEN"`] : []),
    `-d ${quoted(JSON.stringify(body))}`,
  ].join(' \\\n  ');
}
export function as_python(base: string, body: Record<string, unknown>, with_token: boolean): string {
  const value = (v: unknown): string => JSON.stringify(v);
  const said = (body.messages as Message[]).map((m) => `        {"role": ${value(m.role)}, "content": ${value(m.content)}},`);
  return [
    ...(with_token ? ['import os', ''] : []),
    'import openai',
    '',
    'client = openai.OpenAI(',
    `    base_url=${value(`${base}v1`)},`,
    `    api_key=${with_token ? 'os.environ["GRANGE_TOKEN"]' : '"anything"'},`,
    ')',
    'for chunk in client.chat.completions.create(',
    `    model=${value(body.model)},`,
    '    messages=[',
    ...said,
    '    ],',
    ...(body.temperature === undefined ? [] : [`    temperature=${value(body.temperature)},`]),
    ...(body.max_tokens === undefined ? [] : [`    max_tokens=${value(body.max_tokens)},`]),
    '    stream=True,',
    '):',
    '    if chunk.choices:',
    '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
    '',
  ].join('\n');
}
