// Files for the user's own disk. A plain link would not carry the token.
import { raw } from './api';

export function save(url: string, name: string): void {
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
}
export function save_blob(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  save(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 30_000);
}
export async function save_from(path: string, name: string, query: Record<string, string> = {}): Promise<void> {
  const answer = await raw('GET', path, { query });
  save_blob(await answer.blob(), name);
}
