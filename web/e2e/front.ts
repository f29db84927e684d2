// Where the pages come from. A binary that has exactly these pages serves them itself; else dist/ is served here, with
// the server's headers, and all else is handed on: so that pages are tested without building the binary anew.
import { existsSync, readFileSync } from 'node:fs';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { extname, join, normalize, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const dist = resolve(import.meta.dirname ?? fileURLToPath(new URL('.', import.meta.url)), '../dist');
export const csp =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; " +
  "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

export async function front(api: string): Promise<{ url: string; own: boolean; close: () => Promise<void> }> {
  const index = join(dist, 'index.html');
  if (!existsSync(index)) throw new Error('There is no dist/: npm run build');
  const wanted = readFileSync(index, 'utf8');
  const theirs = await (await fetch(`${api}/`)).text();
  if (theirs === wanted) return { url: `${api}/`, own: true, close: async () => {} };

  const target = new URL(api);
  const cache = new Map<string, { body: Buffer; type: string; encoding: string }>();
  const file = (path: string) => {
    const at = normalize(join(dist, path === '/' ? '/index.html' : decodeURIComponent(path)));
    if (!at.startsWith(dist) || !existsSync(at) || extname(at) === '') return null;
    let found = cache.get(at);
    if (!found) {
      const br = existsSync(`${at}.br`); // Chromium takes it from this machine
      const body = br ? readFileSync(`${at}.br`) : gzipSync(readFileSync(at));
      cache.set(at, (found = { body, type: types[extname(at)] ?? 'application/octet-stream', encoding: br ? 'br' : 'gzip' }));
    }
    return found;
  };
  const server = createServer((question: IncomingMessage, answer: ServerResponse) => {
    const path = (question.url ?? '/').split('?')[0]!;
    const found = question.method === 'GET' ? file(path) : null;
    if (found) {
      answer.writeHead(200, { 'content-type': found.type, 'content-encoding': found.encoding, 'content-security-policy': csp, 'cache-control': 'no-cache' });
      return answer.end(found.body);
    }
    const headers = { ...question.headers, host: target.host };
    delete headers.origin;
    const on = request(new URL(question.url ?? '/', target), { method: question.method, headers }, (from) => {
      answer.writeHead(from.statusCode ?? 502, from.headers);
      from.pipe(answer);
    });
    on.on('error', () => {
      if (!answer.headersSent) answer.writeHead(502, { 'content-type': 'text/plain' });
      answer.end();
    });
    answer.on('close', () => on.destroy());
    question.pipe(on);
  });
  server.on('upgrade', (question, socket, head) => {
    const to = connect(Number(target.port), target.hostname, () => {
      const headers = Object.entries({ ...question.headers, host: target.host, origin: target.origin });
      to.write(`${question.method} ${question.url} HTTP/1.1\r\n${headers.map(([k, v]) => `${k}: ${String(v)}`).join('\r\n')}\r\n\r\n`);
      to.write(head);
      to.pipe(socket);
      socket.pipe(to);
    });
    const drop = () => {
      to.destroy();
      socket.destroy();
    };
    to.on('error', drop).on('close', drop);
    socket.on('error', drop).on('close', drop);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${port}/`,
    own: false,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}
