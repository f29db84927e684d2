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
const kFirstPage = 500;
const kPage = 1000; // of what is further down: fewer questions, fewer looks at all rows

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
  lowest = $state.raw(Number.POSITIVE_INFINITY); // all jobs of the filter from this number on are here
  private filter: Filter = { state: '', engine: '', user: '', text: '' };
  private below: number | undefined; // the next page's
  private turn = 0;

  // Until the first answer what is there already, and fits, stays in sight.
  async restart(filter: Filter): Promise<void> {
    ++this.turn;
    this.filter = filter;
    this.below = undefined;
    this.complete = false;
    this.loading = false;
    this.error = null;
    await this.more();
  }

  async more(): Promise<void> {
    if (this.loading || this.complete) return;
    const turn = this.turn;
    this.loading = true;
    const limit = this.below === undefined ? kFirstPage : kPage;
    const { engine, user, text: q } = this.filter;
    try {
      const answers = await Promise.all(
        (this.filter.state === 'live' ? ['pending', 'running'] : [this.filter.state]).map((state) =>
          call<Job[]>('GET', 'api/jobs', { query: { limit, state, engine, user, q, before: this.below } }),
        ),
      );
      if (turn !== this.turn) return;
      farm.put(answers.flatMap((answer) => answer.data));
      // Each answer reaches down to its cursor; together they reach to the highest of these.
      const cursors = answers.map((answer) => Number(answer.headers.get('x-next-before')) || 0);
      const down = Math.max(...cursors);
      this.complete = down === 0 || answers.every((answer) => answer.data.length < limit);
      this.lowest = this.below = this.complete ? 0 : down;
      this.error = null;
    } catch (error) {
      if (turn === this.turn) this.error = error;
    } finally {
      if (turn === this.turn) this.loading = false;
    }
  }

  rows(filter: Filter): Job[] {
    void farm.version;
    const out: Job[] = [];
    for (const job of farm.jobs.values()) {
      if (job.job >= this.lowest && matches(job, filter)) out.push(job);
    }
    // Pages come downwards: most often they stand right already.
    for (let i = 1; i < out.length; ++i) if (out[i - 1]!.job < out[i]!.job) return out.sort((a, b) => b.job - a.job);
    return out;
  }
}
