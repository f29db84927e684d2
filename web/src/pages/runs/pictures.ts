// Pictures are blobs behind the token, so <img> gets them as object URLs. Each is fetched once while it is shown.
import { raw } from '../../lib/api';

const kKept = 60;
const kinds: [string, string][] = [
  ['.jpg', 'image/jpeg'],
  ['.jpeg', 'image/jpeg'],
  ['.webp', 'image/webp'],
  ['.gif', 'image/gif'],
];
const urls = new Map<string, Promise<string>>();

export function picture_url(sha256: string, filename: string): Promise<string> {
  const known = urls.get(sha256);
  if (known) {
    urls.delete(sha256); // it is the newest again
    urls.set(sha256, known);
    return known;
  }
  const type = kinds.find(([end]) => filename.toLowerCase().endsWith(end))?.[1] ?? 'image/png';
  const made = raw('GET', `api/blobs/${sha256}`).then(async (answer) =>
    URL.createObjectURL(new Blob([await answer.arrayBuffer()], { type })),
  );
  made.catch(() => urls.delete(sha256));
  urls.set(sha256, made);
  for (const [old, url] of urls) {
    if (urls.size <= kKept) break;
    urls.delete(old);
    void url.then(URL.revokeObjectURL, () => {});
  }
  return made;
}
