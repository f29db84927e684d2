// The tasks of a range, up to some thousands: for what is drawn and summed in the page.
import { call } from '../../lib/api';
import { number } from '../../lib/format';
import type { Job, Task } from '../../lib/types';
import type { Range } from './grid';

export const kMostTasks = 5000;

export async function read_tasks(job: Pick<Job, 'id'>, range: Range, signal: AbortSignal): Promise<Task[]> {
  const all: Task[] = [];
  let after = range.from > 0 ? range.from - 1 : undefined;
  while (all.length < kMostTasks) {
    const { data } = await call<Task[]>('GET', `api/jobs/${encodeURIComponent(job.id)}/tasks`, { query: { limit: 1000, after }, signal });
    all.push(...data.filter((task) => task.index < range.to));
    after = data.at(-1)?.index;
    if (data.length < 1000 || after === undefined || after >= range.to - 1) break;
  }
  return all;
}
// What of the range is there: "tasks 0 to 4 999".
export const span_words = (range: Range): string => `tasks ${number(range.from)} to ${number(Math.max(range.from, Math.min(range.to, range.from + kMostTasks) - 1))}`;
