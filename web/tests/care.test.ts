// Roles, tokens, alerts, services under care and use by day: the pure parts.
import { describe, expect, it } from 'vitest';
import { bad_token_name, use_of } from '../src/lib/admin_tokens';
import { care_of, tellings } from '../src/lib/admin_services';
import { news, place_of, silenced, type Alert } from '../src/lib/alerts';
import { refusal } from '../src/lib/me';
import { by_day, by_pair, type DayUse } from '../src/lib/usage';
import { span_words } from '../src/pages/jobs/read_tasks';
import { log_lines } from '../src/pages/services/log_lines';

describe('what a role may do', () => {
  const ben = { name: 'ben', role: 'user', kind: 'named', may: ['submit_job'], own: ['cancel_job'] };
  it('lets everything be tried where the server does not tell', () => {
    expect(refusal(null, 'clear_database')).toBe('');
    expect(refusal({ name: 'x', role: 'viewer', kind: 'named' }, 'clear_database')).toBe('');
  });
  it('tells apart everything, what is one’s own, and nothing', () => {
    expect(refusal(ben, 'submit_job')).toBe('');
    expect(refusal(ben, 'cancel_job', 'ben')).toBe('');
    expect(refusal(ben, 'cancel_job')).toBe('');
    expect(refusal(ben, 'cancel_job', 'anna')).toContain('anna');
    expect(refusal(ben, 'pause_queue')).toContain('ben (user)');
  });
});

describe('tokens', () => {
  it('have names that a path and a log can carry', () => {
    for (const name of ['', 'a b', 'a/b', 'x'.repeat(65), 'local', 'token']) expect(bad_token_name(name, []), name).not.toBe('');
    expect(bad_token_name('anna', [{ name: 'anna' }])).toContain('There is one');
    expect(bad_token_name('ci.night-2', [{ name: 'anna' }])).toBe('');
  });
  it('are used as their role is', () => {
    const url = 'http://farm:8000/';
    expect(use_of({ role: 'worker', token: 'gr_x' }, url).text).toContain('grange worker --server http://farm:8000 --token-file');
    expect(use_of({ role: 'models', token: 'gr_x' }, url).text).toContain('OPENAI_BASE_URL=http://farm:8000/v1\n');
    expect(use_of({ role: 'user', token: 'gr_x' }, url).text).toContain('GRANGE_TOKEN=gr_x');
  });
});

describe('alerts', () => {
  const one = (id: number, more: Partial<Alert> = {}): Alert => ({
    id, kind: 'machine_hot', severity: 'warn', subject: '', subject_name: '', title: '', text: '', began_ms: 0, ended_ms: null, silenced_until_ms: null, ...more,
  });
  it('are news once, never at the first look, never while silent', () => {
    expect(news(null, [one(1)], 0)).toEqual([]);
    expect(news([one(1)], [one(1), one(2), one(3, { silenced_until_ms: 500 })], 100).map((a) => a.id)).toEqual([2]);
    expect(silenced({ silenced_until_ms: 500 }, 600)).toBe(false);
  });
  it('lead to where something can be done', () => {
    expect(place_of(one(1, { worker_id: 'w/1' }))).toBe('#/workers/w%2F1');
    expect(place_of(one(1, { job_id: '7' }))).toBe('#/jobs/7');
    expect(place_of(one(1, { kind: 'service_down', worker_id: 'w' }))).toBe('#/services');
    expect(place_of(one(1, { kind: 'disk_low' }))).toContain('tab=database');
    expect(place_of(one(1, { kind: 'failure_rate' }))).toContain('tab=alerts');
  });
});

describe('services', () => {
  it('that were only found are told nothing', () => {
    expect(tellings({ state: 'ready' })).toEqual([]);
    expect(tellings({ state: 'failed', managed: true })).toEqual(['start']);
    expect(tellings({ state: 'backing_off', managed: true })).toEqual(['restart', 'stop']);
  });
  it('are put under care by lines that hold any name', () => {
    expect(care_of({ name: 'a "b"', kind: 'ollama', url: 'http://127.0.0.1:11434' })).toBe(
      '[[service]]\nname = "a \\"b\\""\nkind = "ollama"\nurl = "http://127.0.0.1:11434"\ncommand = ["ollama", "serve"]',
    );
  });
  it('may write anything into their logs', () => {
    const text = '\u001b[31mred\u001b[0m\n10 %\r50 %\r100 %\n\u0000\u0007<b>bold</b>\tx\r\n\nend';
    expect(log_lines(text).map((line) => line.text)).toEqual(['red', '100 %', '<b>bold</b>\tx', '', 'end']);
    expect(log_lines('')).toEqual([]);
    expect(log_lines('a\n')).toHaveLength(1);
  });
});

describe('use by day', () => {
  const use = (day: string, principal: string, model: string | null, n: number): DayUse => ({ day, principal, model, requests: n, failed: 1, tokens_in: 10 * n, tokens_out: n, bytes: 0 });
  const now = Date.parse('2026-11-22T01:00:00Z');
  it('has every day once, also those without any, and leaves out older ones', () => {
    const { times, days } = by_day([use('2026-11-22', 'a', 'm', 2), use('2026-11-22', 'b', 'm', 3), use('2026-11-20', 'a', 'm', 4), use('2026-11-01', 'a', 'm', 9)], 3, now);
    expect(days.map((one) => one.requests)).toEqual([4, 0, 5]);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(new Date(times[2]! * 1000).getDate()).toBe(22); // called as the server calls it, in any zone
  });
  it('is summed by principal and model; no model is not a model called null', () => {
    const rows = by_pair([use('2026-11-22', 'a', 'm', 2), use('2026-11-21', 'a', 'm', 3), use('2026-11-21', 'a', null, 1)]);
    expect(rows.map((one) => [one.model, one.requests, one.failed])).toEqual([['m', 5, 2], [null, 1, 1]]);
  });
});

it('a range is said as far as it was read', () => {
  expect(span_words({ from: 0, to: 1_000_000 })).toBe('tasks 0 to 4\u202f999');
  expect(span_words({ from: 10, to: 20 })).toBe('tasks 10 to 19');
});
