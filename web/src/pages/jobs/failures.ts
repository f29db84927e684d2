// Attempts that failed, grouped by what they have in common. Pure.
import type { WorkerFailure } from '../../lib/types';

export interface Group {
  failure: string;
  stage: string;
  message: string;
  fault: string;
  first: WorkerFailure; // whose message it is
  attempts: WorkerFailure[]; // newest first
  tasks: number;
  workers: string[];
}
// Digits and addresses differ between messages that mean the same.
const shape = (text: string): string => text.replace(/0x[0-9a-f]+|\d+/gi, '#').slice(0, 200);

export function group(attempts: readonly WorkerFailure[]): Group[] {
  const groups = new Map<string, WorkerFailure[]>();
  for (const one of attempts) {
    const key = `${one.failure} ${one.stage ?? ''} ${shape(one.message ?? '')}`;
    const list = groups.get(key);
    if (list) list.push(one);
    else groups.set(key, [one]);
  }
  return [...groups.values()]
    .map((list) => ({ first: list.at(-1)!, list }))
    .map(({ first, list }) => ({
      failure: first.failure,
      stage: first.stage ?? '',
      message: first.message ?? '',
      fault: first.fault ?? '',
      first,
      attempts: list,
      tasks: new Set(list.map((one) => one.index)).size,
      workers: [...new Set(list.map((one) => one.worker_id ?? ''))].filter(Boolean),
    }))
    .sort((a, b) => b.attempts.length - a.attempts.length);
}
