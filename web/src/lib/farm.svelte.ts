// What several pages show of the farm: its figures, its jobs (bounded), its workers.
import { get } from './api';
import { live } from './live.svelte';
import type { Fact, Job, Stats, Worker } from './types';

export const kJobsKept = 120_000;

// A fact of topic "jobs" carries the job's counters; what it lacks stays as it was.
export function job_of_fact(fact: Fact, before: Job | undefined): Job | null {
  const d = fact.data as Partial<Job> | undefined;
  if (!d || typeof d.job !== 'number' || !d.id) return null;
  const total = d.total_tasks ?? before?.total_tasks ?? 0;
  const completed = d.completed_tasks ?? 0;
  const failed = d.failed_tasks ?? 0;
  const cancelled = d.cancelled_tasks ?? 0;
  const running = d.running_tasks ?? 0;
  const ended = completed + failed + cancelled;
  const status = d.status ?? before?.status ?? 'pending';
  const over = fact.type === 'job_ended';
  return {
    id: d.id,
    job: d.job,
    name: d.name ?? before?.name ?? '',
    status,
    user: d.user ?? before?.user ?? '',
    engine: d.engine ?? before?.engine ?? '',
    priority: d.priority ?? before?.priority ?? 0,
    total_tasks: total,
    completed_tasks: completed,
    failed_tasks: failed,
    cancelled_tasks: cancelled,
    running_tasks: running,
    assigned_tasks: d.assigned_tasks ?? 0,
    pending_tasks: Math.max(0, total - ended - running - (before?.blocked_tasks ?? 0)),
    blocked_tasks: over ? 0 : (before?.blocked_tasks ?? 0),
    paused_tasks: over ? 0 : (before?.paused_tasks ?? 0),
    paused: d.paused ?? before?.paused ?? false,
    open: d.open ?? before?.open ?? false,
    created_at: before?.created_at ?? fact.time,
    started_at: before?.started_at ?? (fact.type === 'job_started' ? fact.time : null),
    completed_at: over ? fact.time : status === 'running' || status === 'pending' ? null : (before?.completed_at ?? null),
    // As the server counts: the share of its tasks that have ended.
    progress: total > 0 ? ended / total : 0,
    existed: before?.existed ?? false,
  };
}

class Farm {
  stats = $state.raw<Stats | null>(null);
  workers = $state.raw<Worker[]>([]);
  workers_error = $state.raw<Error | null>(null);
  workers_at = $state.raw(0);
  // Grows with each batch that changed `jobs`; read it to depend on them.
  version = $state.raw(0);
  readonly jobs = new Map<number, Job>();
  private names = $state.raw(new Map<string, string>());
  private names_asked = 0;
  private stats_users = 0;
  private worker_users = 0;
  private stats_timer: ReturnType<typeof setInterval> | null = null;
  private workers_timer: ReturnType<typeof setInterval> | null = null;
  private soon: ReturnType<typeof setTimeout> | null = null;

  start(): void {
    live.on((facts) => this.take(facts));
    this.watch_stats(4000);
  }

  job(number: number): Job | undefined {
    void this.version;
    return this.jobs.get(number);
  }

  put(jobs: Job[]): void {
    for (const job of jobs) this.jobs.set(job.job, job);
    this.bound();
    ++this.version;
  }
  remove(number: number): void {
    if (this.jobs.delete(number)) ++this.version;
  }

  // Keeps `stats` fresh until the answer is called.
  watch_stats(every_ms: number): () => void {
    if (++this.stats_users === 1) {
      void this.load_stats();
      this.stats_timer = setInterval(() => {
        if (!document.hidden && live.state !== 'lost') void this.load_stats();
      }, every_ms);
    }
    return () => {
      if (--this.stats_users === 0 && this.stats_timer) clearInterval(this.stats_timer);
    };
  }
  // Keeps `workers` fresh until the answer is called.
  watch_workers(every_ms = 3000): () => void {
    if (++this.worker_users === 1) {
      void this.load_workers();
      this.workers_timer = setInterval(() => {
        if (!document.hidden && live.state !== 'lost') void this.load_workers();
      }, every_ms);
    }
    return () => {
      if (--this.worker_users === 0 && this.workers_timer) clearInterval(this.workers_timer);
    };
  }
  async load_stats(): Promise<void> {
    try {
      this.stats = await get<Stats>('api/stats');
    } catch {
      // the banner says it
    }
  }
  async load_workers(): Promise<void> {
    try {
      this.workers = await get<Worker[]>('api/workers');
      this.workers_error = null;
      this.workers_at = Date.now();
    } catch (error) {
      this.workers_error = error as Error;
    }
  }

  // What people call a worker. Asked for once, and again when there is one that is not known.
  worker_name(id: string): string {
    const known = this.names.get(id) ?? this.workers.find((one) => one.id === id)?.name;
    if (known !== undefined) return known || id;
    if (Date.now() - this.names_asked > 10_000) {
      this.names_asked = Date.now();
      void get<Worker[]>('api/workers').then(
        (all) => (this.names = new Map(all.map((one) => [one.id, one.name]))),
        () => {},
      );
    }
    return id;
  }

  private take(facts: Fact[]): void {
    let jobs = 0;
    let others = false;
    for (const fact of facts) {
      if (fact.topic === 'jobs') {
        const d = fact.data as { job?: number };
        const job = job_of_fact(fact, d?.job === undefined ? undefined : this.jobs.get(d.job));
        if (job) {
          this.jobs.set(job.job, job);
          ++jobs;
        }
      } else if (fact.topic === 'workers' || fact.topic === 'system') {
        others = true;
        if (fact.type === 'database_cleared') this.jobs.clear();
      }
    }
    if (jobs) {
      this.bound();
      ++this.version;
    }
    if (others && !this.soon) {
      this.soon = setTimeout(() => {
        this.soon = null;
        void this.load_stats();
        if (this.worker_users > 0) void this.load_workers();
      }, 200);
    }
  }
  // The oldest go first; jobs keep their place in the map when they change.
  private bound(): void {
    if (this.jobs.size <= kJobsKept) return;
    const numbers = [...this.jobs.keys()].sort((a, b) => a - b);
    for (const number of numbers.slice(0, this.jobs.size - kJobsKept)) this.jobs.delete(number);
  }
}

export const farm = new Farm();
