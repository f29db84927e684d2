// Calls to the server. Paths are relative to the page ("api/stats"), so that they work below any prefix.
import type { components } from '../api/openapi';

export type Schemas = components['schemas'];

export class ApiError extends Error {
  constructor(
    readonly status: number, // 0: no answer
    readonly code: string,
    message: string,
    readonly details: Record<string, unknown> = {},
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

type Value = string | number | boolean | null | undefined;
export interface Options {
  query?: Record<string, Value | Value[]>;
  body?: unknown;
  signal?: AbortSignal;
  headers?: Record<string, string>;
  text?: boolean; // the answer is text, even if it looks like JSON
}
export interface Answer<T> {
  data: T;
  headers: Headers;
  status: number;
}

const TOKEN = 'grange.token';
const listeners = new Set<() => void>();

export const base = (): URL => new URL('.', typeof document === 'undefined' ? 'http://localhost/' : document.baseURI);

export function url(path: string, query?: Options['query']): URL {
  const out = new URL(path.replace(/^\//, ''), base());
  for (const [key, value] of Object.entries(query ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== '') out.searchParams.append(key, String(one));
    }
  }
  return out;
}

export const token = {
  get: (): string => {
    try {
      return sessionStorage.getItem(TOKEN) ?? '';
    } catch {
      return '';
    }
  },
  set: (value: string) => {
    if (value) sessionStorage.setItem(TOKEN, value);
    else sessionStorage.removeItem(TOKEN);
  },
  // Called when the server wants a token, or another one.
  onwanted: (f: () => void) => {
    listeners.add(f);
    return () => listeners.delete(f);
  },
};

export function protocols(): string[] {
  const value = token.get();
  if (!value) return []; // no token, no need for a subprotocol
  const bytes = new TextEncoder().encode(value);
  const text = btoa(String.fromCharCode(...bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  return ['grange.json', `grange.bearer.${text}`];
}

export async function read_error(answer: Response): Promise<ApiError> {
  let body: unknown;
  try {
    body = await answer.json();
  } catch {
    body = null;
  }
  const error = (body as Schemas['Error'] | null)?.error;
  if (error?.message) {
    const after = answer.headers.get('retry-after');
    const details = { ...(after ? { retry_after: after } : {}), ...(error.details as Record<string, unknown>) };
    return new ApiError(answer.status, error.code ?? 'unknown', error.message, details);
  }
  const what = answer.status === 404 ? 'This server does not have that yet: it may be older than this page.' : '';
  return new ApiError(
    answer.status,
    answer.status === 404 ? 'no_route' : 'http',
    what || `The server answered ${answer.status} ${answer.statusText}.`.replace(' .', '.'),
  );
}

// The answer as it comes: for streams and files.
export async function raw(method: string, path: string, options: Options = {}): Promise<Response> {
  const headers: Record<string, string> = { ...options.headers };
  const secret = token.get();
  if (secret) headers.authorization = `Bearer ${secret}`;
  let body: BodyInit | undefined;
  if (options.body instanceof Blob || options.body instanceof ArrayBuffer || options.body instanceof Uint8Array) {
    body = options.body as BodyInit;
  } else if (options.body !== undefined) {
    headers['content-type'] = 'application/json';
    body = JSON.stringify(options.body);
  }
  let answer: Response;
  try {
    answer = await fetch(url(path, options.query), { method, headers, body, signal: options.signal, cache: 'no-store' });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, 'no_answer', 'The server does not answer. Is `grange up` or `grange server` running?');
  }
  if (!answer.ok) {
    const error = await read_error(answer);
    if (answer.status === 401) for (const f of listeners) f();
    throw error;
  }
  return answer;
}

export async function call<T>(method: string, path: string, options: Options = {}): Promise<Answer<T>> {
  const answer = await raw(method, path, options);
  const text = await answer.text();
  let data: unknown = null;
  if (options.text) data = text;
  else if (text) {
    try {
      data = JSON.parse(text);
    } catch {
      data = text;
    }
  }
  return { data: data as T, headers: answer.headers, status: answer.status };
}

export const get = async <T>(path: string, options?: Options): Promise<T> => (await call<T>('GET', path, options)).data;
export const post = async <T>(path: string, body: unknown = {}, options?: Options): Promise<T> =>
  (await call<T>('POST', path, { ...options, body })).data;
export const put = async <T>(path: string, body: unknown, options?: Options): Promise<T> =>
  (await call<T>('PUT', path, { ...options, body })).data;
export const del = async <T>(path: string, options?: Options): Promise<T> =>
  (await call<T>('DELETE', path, options)).data;

export const message_of = (error: unknown): string => (error instanceof Error ? error.message : String(error));

// One event of a text/event-stream.
export interface ServerEvent {
  event: string;
  data: string;
  id: string;
}

// Server-sent events by fetch: EventSource cannot send a token.
export async function* events(path: string, options: Options = {}): AsyncGenerator<ServerEvent> {
  const answer = await raw('GET', path, { ...options, headers: { accept: 'text/event-stream', ...options.headers } });
  yield* read_events(answer.body!);
}

export async function* read_events(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const reader = body.pipeThrough(new TextDecoderStream() as unknown as TransformStream<Uint8Array, string>).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const blocks = rest.split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? '';
      for (const block of blocks) {
        const out: ServerEvent = { event: 'message', data: '', id: '' };
        const lines: string[] = [];
        for (const line of block.split(/\r?\n/)) {
          const at = line.indexOf(':');
          if (at <= 0) continue;
          const value = line.slice(at + 1).replace(/^ /, '');
          const field = line.slice(0, at);
          if (field === 'data') lines.push(value);
          else if (field === 'event') out.event = value;
          else if (field === 'id') out.id = value;
        }
        out.data = lines.join('\n');
        if (lines.length) yield out;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
