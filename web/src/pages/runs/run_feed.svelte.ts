// One race, live or ended: what the server says of it as a whole, and its events as they come. Call within a component.
import { untrack } from 'svelte';
import { ApiError, get, raw } from '../../lib/api';
import { live } from '../../lib/live.svelte';
import {
  apply, event_of, lane, lines_of, read_line, requests_of, running, settle, Splice,
  type Lane, type RaceEvent, type Run,
} from '../../lib/race';

const kSettle = 400; // ms until what was told before we followed is in the race's file
const kAgain = 3000;
const kHeld = 20_000; // facts that wait for the file
const kManyRequests = 2000; // of a race whose summary is long

export class RunFeed {
  run = $state.raw<Run | null>(null);
  lanes = $state.raw<Lane[]>([]);
  error = $state.raw<unknown>(null);
  // Events of a race are kept as long as the race; a long one is not read again for its texts.
  private own = new Map<string, Lane>();
  private aborter = new AbortController();
  private unfollow: (() => void) | null = null;
  private held: RaceEvent[] | null = null;
  private splice = new Splice();
  private timer: ReturnType<typeof setTimeout> | null = null;
  private stop_facts: (() => void) | null = null;

  constructor(private readonly id: string) {}

  open(): void {
    this.close();
    this.aborter = new AbortController();
    this.held = [];
    this.stop_facts = live.on((facts) => {
      const mine: RaceEvent[] = [];
      for (const fact of facts) {
        if ((fact.data as { run_id?: string } | null)?.run_id === this.id) mine.push(event_of(fact));
      }
      if (mine.length) this.take(mine);
    });
    this.unfollow = live.follow(`run:${this.id}`);
    void this.load(this.aborter.signal);
  }
  close(): void {
    this.aborter.abort();
    this.unfollow?.();
    this.stop_facts?.();
    this.unfollow = this.stop_facts = null;
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
    this.held = null;
  }

  private async load(signal: AbortSignal): Promise<void> {
    try {
      const run = await get<Run>(`api/runs/${this.id}`, { signal });
      const requests = requests_of(run);
      this.own = new Map();
      this.splice = new Splice();
      const names = new Intl.Collator('en', { numeric: true });
      for (const said of Object.values(run.summary.machines).sort((a, b) => names.compare(a.machine, b.machine))) {
        this.own.set(said.machine_id, lane(said.machine, said.machine_id, said.requests ?? requests));
      }
      this.show(run);
      if (running(run.status)) await new Promise((done) => setTimeout(done, kSettle));
      if (signal.aborted) return;
      await this.read_file(signal);
      const held = this.held ?? [];
      this.held = null;
      for (const event of held) if (this.splice.fresh(event)) this.happened(event);
      this.show(running(run.status) ? await get<Run>(`api/runs/${this.id}`, { signal }) : run);
      this.error = null;
      this.later();
    } catch (error) {
      if (signal.aborted) return;
      this.error = error;
      // What is shown stays; it is tried again from the start.
      if (this.run) this.timer = setTimeout(() => this.open(), kAgain);
    }
  }
  private async read_file(signal: AbortSignal): Promise<void> {
    let answer: Response;
    try {
      answer = await raw('GET', `api/runs/${this.id}/events`, { signal });
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return; // the files are gone, the figures are not
      throw error;
    }
    let n = 0;
    for await (const line of lines_of(answer.body!)) {
      const event = read_line(line);
      if (!event) continue;
      this.splice.told(event);
      this.happened(event);
      if (++n % 5000 === 0) await new Promise((done) => setTimeout(done)); // a long file leaves the page its frames
      if (signal.aborted) return;
    }
  }

  private happened(event: RaceEvent): boolean {
    const one = event.machine_id ? this.own.get(event.machine_id) : undefined;
    return one ? apply(one, event) : false;
  }
  private take(events: RaceEvent[]): void {
    if (this.held) {
      if (this.held.length < kHeld) this.held.push(...events);
      return;
    }
    const touched = new Set<string>();
    let ended = false;
    for (const event of events) {
      if (!this.splice.fresh(event)) continue; // what is told in batches may be in the file already
      if (event.type === 'run_lifecycle' && event.payload?.type === 'run_end') ended = true;
      if (this.happened(event)) touched.add(event.machine_id!);
    }
    if (touched.size) this.lanes = this.lanes.map((old) => (touched.has(old.machine_id) ? { ...this.own.get(old.machine_id)! } : old));
    if (ended) void this.refresh(true);
  }
  private show(run: Run): void {
    for (const said of Object.values(run.summary.machines)) {
      const one = this.own.get(said.machine_id);
      if (one) settle(one, said);
    }
    this.run = run;
    this.lanes = [...this.own.values()].map((one) => ({ ...one }));
  }
  // Sums and intervals are the server's to reckon; while it goes on they are read now and then.
  private later(): void {
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
    if (!this.run || !running(this.run.status)) {
      this.unfollow?.();
      this.unfollow = null;
      return;
    }
    const wait = (this.run.summary.samples?.length ?? 0) > kManyRequests ? 20_000 : 2500;
    this.timer = setTimeout(() => void this.refresh(), wait);
  }
  async refresh(ended = false): Promise<void> {
    const { signal } = this.aborter;
    if (this.held) return;
    try {
      // It answers when the end is kept.
      const run = await get<Run>(`api/runs/${this.id}`, { signal, query: ended ? { wait: 5 } : {} });
      if (signal.aborted) return;
      this.show(run);
      this.error = null;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status === 404) this.error = error;
    }
    this.later();
  }
}

export function run_feed(id: string): RunFeed {
  const feed = new RunFeed(id);
  $effect(() => {
    void live.generation; // a gap: what was missed is read anew
    untrack(() => feed.open());
    return () => feed.close();
  });
  return feed;
}
