import { expect, it } from 'vitest';
import { job_in, rank, score, type Command } from './palette';

const command = (title: string, more: Partial<Command> = {}): Command => ({ id: title, title, group: 'g', icon: '', run: () => {}, ...more });
const titles = (query: string, list: Command[]) => rank(list, query).map((one) => one.title);

it('puts beginnings before words before letters', () => {
  const list = ['Dead letters', 'Submit a job', 'Jobs', 'Users and jobs'].map((one) => command(one));
  expect(titles('job', list)).toEqual(['Jobs', 'Submit a job', 'Users and jobs']);
  expect(titles('dl', list)).toEqual(['Dead letters']);
  expect(titles('', list)).toHaveLength(4);
  expect(titles('zzz', list)).toEqual([]);
});

it('finds by other words, but after the titles', () => {
  const list = [command('Resume the queue', { words: 'pause' }), command('Pause the queue')];
  expect(titles('pause', list)).toEqual(['Pause the queue', 'Resume the queue']);
  // Not within a word that nobody sees.
  expect(titles('aus', list)).toEqual(['Pause the queue']);
});

it('takes letters that are far apart for chance', () => {
  expect(score('ab', `a${'x'.repeat(60)}b`)).toBe(0);
  expect(score('gpu', 'big-gpu-box')).toBeGreaterThan(score('gpu', 'goplus'));
});

it('knows a job or a task when it sees one', () => {
  expect(job_in('7')).toEqual({ job: '7' });
  expect(job_in('job #42')).toEqual({ job: '42' });
  expect(job_in('nightly-2026/3')).toEqual({ job: 'nightly-2026', index: 3 });
  expect(job_in('workers')).toBeNull();
  expect(job_in('pause the farm 2')).toBeNull();
});
