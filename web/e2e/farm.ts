// A farm of the real binary, for one test file: a server and workers as processes of their own, in a scratch folder.
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { front } from './front.ts';

export const root = resolve(import.meta.dirname ?? fileURLToPath(new URL('.', import.meta.url)), '../..');
export const binary = process.env.GRANGE_BINARY ?? join(root, 'build/release/grange');
export const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));

export function free_port(): Promise<number> {
  return new Promise((done, fail) => {
    const server = createServer();
    server.once('error', fail);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => done(port));
    });
  });
}

// Until it is true: for what takes as long as it takes.
export async function until<T>(what: string, f: () => Promise<T | false | null | undefined>, ms = 20_000): Promise<T> {
  const end = Date.now() + ms;
  let last: unknown;
  while (Date.now() < end) {
    try {
      const value = await f();
      if (value) return value;
    } catch (error) {
      last = error;
    }
    await sleep(50);
  }
  throw new Error(`Waited ${ms} ms for: ${what}${last ? ` (${String(last)})` : ''}`);
}

class Process {
  readonly child: ChildProcess;
  output = '';
  private readonly ended: Promise<void>;
  constructor(args: string[], folder: string) {
    this.child = spawn(binary, args, {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH, HOME: folder, TMPDIR: folder, XDG_DATA_HOME: folder, XDG_CACHE_HOME: folder },
    });
    const keep = (chunk: Buffer) => (this.output = (this.output + chunk.toString()).slice(-20_000));
    this.child.stdout?.on('data', keep);
    this.child.stderr?.on('data', keep);
    this.ended = new Promise((done) => {
      this.child.once('exit', () => done());
      this.child.once('error', (error) => {
        this.output += String(error);
        done();
      });
    });
  }
  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null && this.child.pid !== undefined;
  }
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (!this.alive) return;
    this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 5000);
    await this.ended;
    clearTimeout(timer);
  }
}

export interface Setup {
  workers?: number;
  slots?: number;
  server?: string[]; // more arguments
  token?: string; // that the farm wants
}

export class Farm {
  port = 0;
  folder = '';
  server: Process | null = null;
  workers: Process[] = [];
  private closing: (() => Promise<void>)[] = [];
  private pages_at = '';
  private token: string[] = []; // as arguments
  private headers: Record<string, string> = {};

  static async start(setup: Setup = {}): Promise<Farm> {
    if (!existsSync(binary)) throw new Error(`There is no ${binary}: build it, or name one in GRANGE_BINARY.`);
    const farm = new Farm();
    farm.folder = await mkdtemp(join(tmpdir(), 'grange-e2e-'));
    farm.port = await free_port();
    if (setup.token) {
      const file = join(farm.folder, 'token');
      await writeFile(file, setup.token, { mode: 0o600 });
      farm.token = ['--token-file', file];
      farm.headers = { authorization: `Bearer ${setup.token}` };
    }
    try {
      await farm.start_server(setup.server);
      const { url, close } = await front(farm.api_url);
      farm.pages_at = url;
      farm.closing.push(close);
      for (let i = 0; i < (setup.workers ?? 1); ++i) farm.add_worker(`machine-${i + 1}`, setup.slots ?? 2);
      await farm.connected(setup.workers ?? 1);
    } catch (error) {
      const said = [farm.server, ...farm.workers].map((one) => one?.output ?? '').join('\n');
      await farm.stop();
      throw new Error(`${String(error)}\n${said}`);
    }
    return farm;
  }
  get api_url(): string {
    return `http://127.0.0.1:${this.port}`;
  }
  get url(): string {
    return this.pages_at;
  }
  async start_server(more: string[] = []): Promise<void> {
    const args = ['server', '--port', String(this.port), '--ws-port', '0', '--data', join(this.folder, 'server'), '--log-level', 'warn'];
    this.server = new Process([...args, ...this.token, ...more], this.folder);
    await until('the server is ready', async () => (await fetch(`${this.api_url}/ready`)).ok);
  }
  add_worker(name: string, slots = 2, more: string[] = []): Process {
    const args = ['worker', '--server', this.api_url, '--name', name, '--slots', String(slots), '--health-port', '0', '--no-probe', '--python', 'none'];
    const process_ = new Process([...args, '--data', join(this.folder, name), '--log-level', 'warn', ...this.token, ...more], this.folder);
    this.workers.push(process_);
    return process_;
  }
  connected(n: number): Promise<unknown> {
    return until(`${n} workers are connected`, async () => (await this.get<{ connected_workers: number }>('/api/stats')).connected_workers >= n);
  }
  async get<T>(path: string): Promise<T> {
    const answer = await fetch(this.api_url + path, { headers: this.headers });
    if (!answer.ok) throw new Error(`${path} answered ${answer.status}: ${await answer.text()}`);
    return (await answer.json()) as T;
  }
  // Is the route there? An older binary lacks some.
  async has(path: string): Promise<boolean> {
    const answer = await fetch(this.api_url + path);
    await answer.arrayBuffer();
    return answer.status !== 404;
  }
  async post<T>(path: string, body: unknown = {}): Promise<T> {
    const answer = await fetch(this.api_url + path, { method: 'POST', headers: { ...this.headers, 'content-type': 'application/json' }, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${path} answered ${answer.status}: ${await answer.text()}`);
    return (await answer.json()) as T;
  }
  async submit(file: object): Promise<string> {
    return (await this.post<{ id: string }>('/api/jobs', file)).id;
  }
  ended(job: string): Promise<{ status: string }> {
    return until(`job ${job} has ended`, async () => {
      const now = await this.get<{ status: string }>(`/api/jobs/${job}`);
      return ['completed', 'failed', 'cancelled'].includes(now.status) && now;
    });
  }
  async fake_workers(n: number): Promise<FakeWorkers> {
    const fakes = new FakeWorkers(`ws://127.0.0.1:${this.port}/ws`);
    this.closing.push(async () => fakes.close());
    await fakes.open(n);
    return fakes;
  }
  async stop(): Promise<void> {
    await Promise.all(this.closing.map((close) => close().catch(() => {})));
    await Promise.all(this.workers.map((one) => one.end('SIGKILL')));
    await this.server?.end();
    if (this.folder) await rm(this.folder, { recursive: true, force: true });
  }
}

// Workers of the JSON dialect: they answer each task at once.
export class FakeWorkers {
  done = 0;
  private sockets: WebSocket[] = [];
  constructor(private readonly url: string) {}
  async open(n: number): Promise<void> {
    for (let first = 0; first < n; first += 50) {
      await Promise.all(
        Array.from({ length: Math.min(50, n - first) }, (_, i) => this.one(`fake-${String(first + i).padStart(4, '0')}`)),
      );
    }
  }
  private one(id: string): Promise<void> {
    return new Promise((done, fail) => {
      const socket = new WebSocket(this.url);
      this.sockets.push(socket);
      socket.on('open', () => {
        socket.send(JSON.stringify({ type: 'register_worker', worker_id: id, data: {} }));
        done();
      });
      socket.on('error', fail);
      socket.on('message', (text) => {
        const message = JSON.parse(String(text)) as { type: string; data?: { task_id?: string } };
        if (message.type !== 'assign_task') return;
        ++this.done;
        socket.send(JSON.stringify({ type: 'task_result', worker_id: id, data: { task_id: message.data?.task_id, result: 1 } }));
      });
    });
  }
  close(): void {
    for (const socket of this.sockets) socket.terminate();
  }
}
