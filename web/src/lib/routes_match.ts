// Hash routes: "#/jobs/7/tasks/3?tab=logs". Pure.
export interface Place {
  path: string;
  query: Record<string, string>;
}

export function parse(hash: string): Place {
  const text = hash.replace(/^#/, '');
  const at = text.indexOf('?');
  const raw = at < 0 ? text : text.slice(0, at);
  const query: Record<string, string> = {};
  if (at >= 0) for (const [key, value] of new URLSearchParams(text.slice(at + 1))) query[key] = value;
  const path = '/' + raw.replace(/^\/+|\/+$/g, '');
  return { path, query };
}

export type Query = Record<string, string | number | boolean | null | undefined>;

export function href(path: string, query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '' && value !== false) search.set(key, String(value));
  }
  const text = search.toString();
  return `#${path.startsWith('/') ? path : `/${path}`}${text ? `?${text}` : ''}`;
}

// "/jobs/:id" against "/jobs/a%2Fb" -> {id: "a/b"}; null: another route.
export function match(pattern: string, path: string): Record<string, string> | null {
  const want = pattern.split('/').filter(Boolean);
  const have = path.split('/').filter(Boolean);
  if (want.length !== have.length) return null;
  const params: Record<string, string> = {};
  for (let i = 0; i < want.length; ++i) {
    const part = want[i]!;
    if (part.startsWith(':')) {
      try {
        params[part.slice(1)] = decodeURIComponent(have[i]!);
      } catch {
        return null;
      }
    } else if (part !== have[i]) {
      return null;
    }
  }
  return params;
}

export const job_href = (job: string | number, query: Query = {}): string =>
  href(`/jobs/${encodeURIComponent(String(job))}`, query);
export const task_href = (job: string | number, index: number): string =>
  href(`/jobs/${encodeURIComponent(String(job))}/tasks/${index}`);
