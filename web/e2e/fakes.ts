// Answers of a farm that the tests cannot easily have: services in trouble, alerts that hold, weeks of use, other roles.
// In the shapes of the server's own, given to one page.
import type { Page } from 'playwright-core';

type Json = Record<string, unknown>;
const hour = 3_600_000;

export class Fakes {
  asked: string[] = [];
  me: Json = { name: 'local', role: 'admin', kind: 'local' };
  tokens: Json[] = [
    { name: 'anna', role: 'user', created_ms: Date.now() - 90 * hour, created_by: 'local', expires_ms: Date.now() + 600 * hour, last_used_ms: Date.now() - 60_000, expired: false },
    { name: 'rack-7', role: 'worker', created_ms: Date.now() - 900 * hour, created_by: 'anna', expires_ms: null, last_used_ms: null, expired: false },
    { name: 'old-laptop', role: 'viewer', created_ms: Date.now() - 2000 * hour, created_by: 'local', expires_ms: Date.now() - hour, last_used_ms: Date.now() - 90 * hour, expired: true },
  ];
  open: Json[] = [
    { id: 7, kind: 'machine_hot', severity: 'error', subject: 'w-1', worker_id: 'w-1', job_id: null, subject_name: 'machine-1', title: 'machine-1 is hot', text: 'A GPU of it has had more than 85 °C for 2 minutes: 91 °C.', began_ms: Date.now() - 300_000, ended_ms: null, silenced_until_ms: null },
    { id: 8, kind: 'disk_low', severity: 'warn', subject: '', worker_id: null, job_id: null, subject_name: '', title: 'The disk of the server fills up', text: '7 % of it are free.', began_ms: Date.now() - 7_200_000, ended_ms: null, silenced_until_ms: null },
  ];
  rules: Json[] = [
    { kind: 'worker_lost', help: 'A worker went away without saying so.', unit: null, enabled: true, threshold: null, for_s: 0, severity: 'error', changed: false },
    { kind: 'machine_hot', help: 'A processor or GPU of a machine is hotter than this.', unit: '°C', enabled: true, threshold: 85, for_s: 120, severity: 'error', changed: false },
    { kind: 'failure_rate', help: 'More than this share of the tasks that ended in 5 minutes has failed, of 20 at least.', unit: '%', enabled: true, threshold: 25, for_s: 60, severity: 'warn', changed: true },
    { kind: 'queue_wait', help: '95 % of the tasks start within more than this.', unit: 's', enabled: false, threshold: 600, for_s: 60, severity: 'warn', changed: false },
  ];
  service: Json = { name: 'ollama', kind: 'ollama', state: 'ready', version: '0.9.1', parallel: 4, models: [{ name: 'llama3.2:3b', kind: 'llm', loaded: true, fit: 'GOOD' }], managed: true, pid: 4711, restarts: 2, since_ms: Date.now() - 4 * hour, last_error: null };
  others: Json[] = [
    { name: 'comfyui', kind: 'comfyui', state: 'failed', models: [], managed: true, pid: null, restarts: 10, since_ms: Date.now() - 600_000, last_error: 'Ended 10 times in 10 minutes. The last lines:\nRuntimeError: CUDA error: out of memory' },
    { name: 'found', kind: 'llamacpp', state: 'ready', version: 'b4100', url: 'http://127.0.0.1:8080', models: [], managed: false },
  ];
  log = Array.from({ length: 300 }, (_, i) => `\u001b[32m${i}\u001b[0m loads \u0007 layer ${i}`).join('\n') + '\n';

  async serve(page: Page): Promise<void> {
    const json = (body: unknown, status = 200) => ({ status, contentType: 'application/json', body: JSON.stringify(body) });
    await page.route(/\/(api|models)\//, async (route) => {
      const request = route.request();
      const at = new URL(request.url());
      const path = at.pathname.replace(/^\//, '');
      const what = `${request.method()} ${path}`;
      const body = (request.postData() ? JSON.parse(request.postData()!) : {}) as Json;
      if (request.method() !== 'GET') this.asked.push(`${what} ${request.postData() ?? ''}`.trim());
      const part = decodeURIComponent(path.split('/').at(-1)!);
      if (what === 'GET api/me') return route.fulfill(json(this.me));
      if (what === 'GET api/tokens') return route.fulfill(json({ tokens: this.tokens, you: this.me }));
      if (what === 'POST api/tokens') {
        const made = { ...body, created_ms: Date.now(), created_by: this.me.name, expires_ms: body.expires_in_s ? Date.now() + Number(body.expires_in_s) * 1000 : null };
        this.tokens = [...this.tokens, { ...made, last_used_ms: null, expired: false }];
        return route.fulfill(json({ ...made, token: 'gr_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG' }, 201));
      }
      if (what.startsWith('DELETE api/tokens/')) {
        this.tokens = this.tokens.filter((one) => one.name !== part);
        return route.fulfill(json({ name: part }));
      }
      if (what === 'GET api/alerts')
        return route.fulfill(json({ open: this.open, recent: [{ ...this.open[0], id: 3, ended_ms: Date.now() - 60_000, kind: 'worker_lost', title: 'machine-9 was lost', text: 'It was not heard of for 20 s.' }], webhook: { url_host: null, sent: 0, failed: 0 } }));
      if (what === 'GET api/alerts/rules') return route.fulfill(json({ rules: this.rules }));
      if (path.startsWith('api/alerts/rules/')) {
        this.rules = this.rules.map((one) => (one.kind !== part ? one : request.method() === 'DELETE' ? { ...one, changed: false } : { ...one, ...body, changed: true }));
        return route.fulfill(json(this.rules.find((one) => one.kind === part)));
      }
      if (/^POST api\/alerts\/\d+\/silence/.test(what)) {
        const id = Number(path.split('/')[2]);
        this.open = this.open.map((one) => (one.id === id ? { ...one, silenced_until_ms: body.for_s ? Date.now() + Number(body.for_s) * 1000 : null } : one));
        return route.fulfill(json(this.open.find((one) => one.id === id)));
      }
      if (what === 'GET api/gateway/usage') {
        const days = Array.from({ length: Number(at.searchParams.get('days')) }, (_, i) => i).flatMap((i) =>
          [['anna', 'llama3.2:3b'], ['ci', 'qwen2.5:7b'], ['ci', null]].map(([principal, model], k) => ({ day: new Date(Date.now() - i * 24 * hour).toISOString().slice(0, 10), principal, model, requests: ((i * 7 + k * 3) % 11) * 12, failed: i % 5 === k ? 3 : 0, tokens_in: ((i * 5 + k) % 9) * 9000, tokens_out: ((i * 3 + k) % 7) * 4000, bytes: 1 })),
        );
        return route.fulfill(json({ days, totals: {}, since_ms: Date.now() - 99 * 24 * hour }));
      }
      if (/\/services\/[^/]+\/log$/.test(path)) return route.fulfill({ status: 200, contentType: 'text/plain', body: this.log });
      const told = /^POST api\/workers\/[^/]+\/services\/[^/]+\/(start|stop|restart)$/.exec(what);
      if (told) {
        this.service = { ...this.service, state: told[1] === 'stop' ? 'stopped' : 'ready' };
        return route.fulfill(json({ job_id: '1' }, 202));
      }
      if (what === 'GET api/workers') {
        const answer = await route.fetch();
        const workers = (await answer.json()) as Json[];
        return route.fulfill(json(workers.map((one, i) => (i === 0 ? { ...one, services: [this.service, ...this.others] } : one))));
      }
      return route.fallback();
    });
  }
}
