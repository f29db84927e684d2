// The list of jobs: pages by keyset from the server, and what the events bring, as one list, newest first.
import { call } from '../../lib/api';
import { farm } from '../../lib/farm.svelte';
import type { Job } from '../../lib/types';

export interface Filter {
  state: string; // "", "live", or a state
  engine: string;
  user: string;
  text: string;
}
const kPage = 500;
const kSearchDepth = 20_000; // loaded by itself while something is searched

export function matches(job: Job, filter: Filter): boolean {
  const { state } = filter;
  if (state === 'live') {
    if (job.status !== 'pending' && job.status !== 'running') return false;
  } else if (state && job.status !== state) {
    return false;
  }
  if (filter.engine && job.engine !== filter.engine) return false;
  if (filter.user && job.user !== filter.user) return false;
  if (filter.text) {
    const text = filter.text.toLowerCase();
    return [job.id, job.name, job.user, job.engine].some((one) => one.toLowerCase().includes(text));
  }
  return true;
}

export class JobList {
  error = $state.raw<unknown>(null);
  loading = $state.raw(false);
  complete = $state.raw(false); // all there are have been loaded
  lowest = $state.raw(Number.POSITIVE_INFINITY); // all jobs of the state from this number on are here
  private state = '';
  private turn = 0;

  // Of the server's filters only the state is used: a job that changes it is then seen to leave.
  async restart(state: string): Promise<void> {
    ++this.turn;
    this.state = state;
    this.complete = false;
    this.loading = false;
    this.error = null;
    this.lowest = Number.POSITIVE_INFINITY;
    await this.more();
  }

  async more(): Promise<void> {
    if (this.loading || this.complete) return;
    const turn = this.turn;
    this.loading = true;
    try {
      const answers = await Promise.all(
        (this.state === 'live' ? ['pending', 'running'] : [this.state]).map((state) =>
          call<Job[]>('GET', 'api/jobs', {
            query: { limit: kPage, state, before: Number.isFinite(this.lowest) ? this.lowest : undefined },
          }),
        ),
      );
      if (turn !== this.turn) return;
      farm.put(answers.flatMap((answer) => answer.data));
      // Each answer reaches down to its cursor; together they reach to the highest of these.
      const cursors = answers.map((answer) => Number(answer.headers.get('x-next-before')) || 0);
      const down = Math.max(...cursors);
      this.complete = down === 0 || answers.every((answer) => answer.data.length < kPage);
      this.lowest = this.complete ? 0 : down;
      this.error = null;
    } catch (error) {
      if (turn === this.turn) this.error = error;
    } finally {
      if (turn === this.turn) this.loading = false;
    }
  }

  // Deeper, as long as a filter that the server does not know leaves the page empty.
  wants_more(rows: number, searching: boolean): boolean {
    return searching && !this.complete && !this.loading && !this.error && rows < 200 && farm.jobs.size < kSearchDepth;
  }

  rows(filter: Filter): Job[] {
    void farm.version;
    const out: Job[] = [];
    for (const job of farm.jobs.values()) {
      if (job.job >= this.lowest && matches(job, filter)) out.push(job);
    }
    return out.sort((a, b) => b.job - a.job);
  }
}
