// What a job looks like, and what can be done with it. Pure but for act().
import { post } from './api';
import type { Job } from './types';

export const over = (job: Pick<Job, 'status'>): boolean => ['completed', 'failed', 'cancelled'].includes(job.status);

// What people call its state: a live job may stand still for a reason of its own.
export function shown_state(job: Job): string {
  if (over(job)) return job.status;
  if (job.paused) return 'paused';
  if (job.running_tasks === 0 && job.assigned_tasks === 0 && job.blocked_tasks > 0 && job.pending_tasks === 0) return 'blocked';
  return job.status;
}

export function parts_of(job: Job): { state: string; n: number }[] {
  return [
    { state: 'completed', n: job.completed_tasks },
    { state: 'failed', n: job.failed_tasks },
    { state: 'cancelled', n: job.cancelled_tasks },
    { state: 'running', n: job.running_tasks },
  ];
}
export const ended_of = (job: Job): number => job.completed_tasks + job.failed_tasks + job.cancelled_tasks;
// The tasks that count as done: of a live job those that have ended, of one that is over those it completed; and their share
// in percent.
export const shown_of = (job: Job): number => (over(job) ? job.completed_tasks : ended_of(job));
export const share_of = (job: Job): number => (job.total_tasks > 0 ? (shown_of(job) / job.total_tasks) * 100 : 0);
export const title_of = (job: Pick<Job, 'name' | 'id'>): string => job.name || `Job ${job.id}`;

// Run time so far, or in all, in ms.
export function took(job: Job, now: number): number | null {
  if (!job.started_at) return null;
  const end = job.completed_at ? Date.parse(job.completed_at) : over(job) ? null : now;
  return end === null ? null : Math.max(0, end - Date.parse(job.started_at));
}

export interface Sample {
  at: number; // ms
  ended: number;
}
const kWindow = 60_000;

export function sample(samples: readonly Sample[], at: number, ended: number): Sample[] {
  const last = samples.at(-1);
  if (last && ended < last.ended) return [{ at, ended }]; // taken up again
  if (last && ended === last.ended) return [...samples]; // each sample is a change
  const kept = samples.filter((one, i) => at - one.at <= kWindow || i === samples.length - 1);
  if (last && at - last.at < 200) return kept;
  return [...kept, { at, ended }].slice(-400);
}

// Tasks a second over the last minute; null: too early to say.
export function pace(samples: readonly Sample[], now: number): number | null {
  const first = samples[0];
  const last = samples.at(-1);
  if (!first || !last) return null;
  const span = Math.max(now, last.at) - first.at;
  return span < 1500 || last.ended === first.ended ? null : ((last.ended - first.ended) / span) * 1000;
}

// ms until all tasks have ended at the pace of the last change, or without one at that since the start. Between changes it
// falls with the clock; null also when that has run out.
export function eta(job: Job, samples: readonly Sample[], now: number): number | null {
  if (over(job) || job.open || job.paused) return null;
  const left = job.total_tasks - ended_of(job);
  if (left <= 0) return null;
  const at = Math.min(now, samples.at(-1)?.at ?? now);
  let speed = pace(samples, at);
  if (speed === null && job.started_at) {
    const ms = at - Date.parse(job.started_at);
    if (ms > 1000 && ended_of(job) > 0) speed = (ended_of(job) / ms) * 1000;
  }
  const rest = speed ? (left / speed) * 1000 - (now - at) : 0;
  return rest > 0 ? rest : null;
}

export type Action = 'cancel' | 'pause' | 'resume' | 'retry';
// What a role must be allowed for it.
export const action_of: Record<Action, string> = { cancel: 'cancel_job', pause: 'pause_job', resume: 'pause_job', retry: 'retry_job' };
export interface Did {
  ok: boolean;
  text: string;
}
export function can(job: Job, action: Action): boolean {
  switch (action) {
    case 'cancel':
      return !over(job);
    case 'pause':
      return !over(job) && !job.paused;
    case 'resume':
      return !over(job) && (job.paused || job.paused_tasks > 0);
    case 'retry':
      return job.failed_tasks + job.cancelled_tasks > 0;
  }
}
export async function act(id: string | number, action: Action): Promise<string> {
  const at = `api/jobs/${encodeURIComponent(String(id))}/${action}`;
  const answer = await post<{ cancelled?: number; retried?: number; told?: number }>(at, {});
  const n = answer?.cancelled ?? answer?.retried ?? answer?.told ?? 0;
  const tasks = `${n} ${n === 1 ? 'task' : 'tasks'}`;
  return { cancel: `${tasks} cancelled`, retry: `${tasks} run again`, pause: 'paused', resume: 'goes on' }[action];
}

// The same for many, a few at a time; told as each ends.
export async function act_all<T>(
  items: readonly T[],
  run: (item: T) => Promise<string>,
  told: (item: T, did: Did) => void,
  at_once = 6,
): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < items.length) {
      const item = items[next++]!;
      try {
        told(item, { ok: true, text: await run(item) });
      } catch (error) {
        told(item, { ok: false, text: error instanceof Error ? error.message : String(error) });
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(at_once, items.length) }, lane));
}
