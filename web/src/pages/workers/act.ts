// What one can do with machines, with the question before it and the word after it.
import { del, message_of, post } from '../../lib/api';
import { ask, toast } from '../../lib/ask.svelte';
import { farm } from '../../lib/farm.svelte';
import { plural } from '../../lib/format';
import { job_href } from '../../lib/router.svelte';
import type { Worker } from '../../lib/types';
import { name_of, type Doing } from '../../lib/workers';

interface Words {
  title: string;
  icon: string;
  danger?: boolean;
  ask?: (who: string, n: number) => { title: string; text: string; action: string };
  done: (who: string) => string;
}
export const doing_words: Record<Doing, Words> = {
  pause: { title: 'Pause', icon: 'pause', done: (who) => `${who} is given nothing new. What it runs goes on.` },
  resume: { title: 'Resume', icon: 'play', done: (who) => `${who} takes work again.` },
  release: { title: 'End quarantine', icon: 'check', done: (who) => `${who} is out of quarantine.` },
  reset: {
    title: 'Reset models',
    icon: 'retry',
    ask: (who) => ({
      title: `Unload all models of ${who}?`,
      text: 'Its AI services drop what they hold in memory. Requests that they work on now may fail; the next one loads its model again.',
      action: 'Reset',
    }),
    done: (who) => `${who} unloads its models.`,
  },
  drain: {
    title: 'Drain',
    icon: 'cancel',
    danger: true,
    ask: (who, n) => ({
      title: `Drain ${who}?`,
      text: `${n === 1 ? 'It takes' : 'They take'} no new work, and ${n === 1 ? 'leaves' : 'leave'} the farm when what runs there has ended. To come back, its worker must be started again there. To stop for a while only, pause instead.`,
      action: 'Drain',
    }),
    done: (who) => `${who} leaves when what it runs has ended.`,
  },
  remove: {
    title: 'Remove',
    icon: 'trash',
    danger: true,
    ask: (who, n) => ({
      title: `Remove ${who}?`,
      text: `The farm forgets ${n === 1 ? 'it' : 'them'} and ${n === 1 ? 'its' : 'their'} figures. A machine that connects again is a new one.`,
      action: 'Remove',
    }),
    done: (who) => `${who} is forgotten.`,
  },
};

// What a role must be allowed for it.
export const action_of: Record<Doing, string> = {
  pause: 'pause_worker',
  resume: 'pause_worker',
  release: 'release_worker',
  reset: 'change_machines',
  drain: 'drain_worker',
  remove: 'forget_worker',
};

function send(doing: Doing, worker: Worker): Promise<unknown> {
  const path = `api/workers/${encodeURIComponent(worker.id)}`;
  return doing === 'remove' ? del(path) : post(`${path}/${doing}`);
}

// Answers whether it was done to at least one.
export async function act(doing: Doing, workers: readonly Worker[]): Promise<boolean> {
  if (!workers.length) return false;
  const words = doing_words[doing];
  const who = workers.length === 1 ? name_of(workers[0]!) : plural(workers.length, 'machine');
  const question = words.ask?.(who, workers.length);
  if (question && !(await ask({ ...question, danger: words.danger }))) return false;
  const results = await Promise.allSettled(workers.map((one) => send(doing, one)));
  const failed = results.flatMap((one, i) => (one.status === 'rejected' ? [{ worker: workers[i]!, error: one.reason as unknown }] : []));
  const good = results.length - failed.length;
  if (good > 0) {
    const job = doing === 'reset' ? (results.find((one) => one.status === 'fulfilled')?.value as { job_id?: string })?.job_id : undefined;
    toast('good', words.done(good === workers.length ? who : plural(good, 'machine')), job ? { href: job_href(job), text: 'See the job' } : undefined);
  }
  if (failed.length) {
    const first = failed[0]!;
    toast('bad', `${name_of(first.worker)}: ${message_of(first.error)}${failed.length > 1 ? ` And ${plural(failed.length - 1, 'other')}.` : ''}`);
  }
  void farm.load_workers();
  return good > 0;
}
