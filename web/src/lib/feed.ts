// One WebSocket of numbered facts: a snapshot, then changes. What was missed is told again by the server, or it says
// that there is a gap, and the snapshot is taken again. No Svelte and no clock of its own in here.
import type { Fact } from './types';

export interface SocketLike {
  send(text: string): void;
  close(): void;
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code?: number; reason?: string }) => void) | null;
  onerror: (() => void) | null;
}

export interface FeedHost {
  connect(): SocketLike;
  // Take all figures anew; answers with the number from which to follow.
  snapshot(): Promise<number>;
  // Facts in order, at most once a frame.
  batch(facts: Fact[]): void;
  state(state: FeedState, retry_at: number | null): void;
  later(f: () => void, ms: number): () => void; // answers with its cancel
  frame(f: () => void): void;
  now(): number;
  random(): number;
}

// idle: never opened or closed by us. first: before the first snapshot. live. lost: waits to try again. repair: back,
// and what was missed is being fetched.
export type FeedState = 'idle' | 'first' | 'live' | 'lost' | 'repair';

export const kMostHeld = 20_000; // facts that wait for a frame; past it a new snapshot is cheaper
const kFirstRetry = 500;
const kMostRetry = 20_000;
const kPing = 15_000;
const kSilence = 40_000;

export function retry_delay(attempt: number, random: number): number {
  const most = Math.min(kMostRetry, kFirstRetry * 2 ** Math.min(attempt, 16));
  return Math.round(most * (0.5 + random * 0.5));
}

export class Feed {
  next: number | null = null;
  received = 0;
  dropped = 0; // came twice
  gaps = 0;
  private socket: SocketLike | null = null;
  private topics = new Map<string, number>([
    ['jobs', 1],
    ['workers', 1],
    ['system', 1],
    ['runs', 1],
  ]);
  private held: Fact[] = [];
  private framed = false;
  private attempt = 0;
  private current: FeedState = 'idle';
  private cancel_retry: (() => void) | null = null;
  private cancel_ping: (() => void) | null = null;
  private heard = 0;
  private overflow = false;
  private resubscribing = false;

  constructor(
    private readonly host: FeedHost,
    private readonly every_ms = 250,
  ) {}

  get state(): FeedState {
    return this.current;
  }

  open(): void {
    if (this.current !== 'idle') return;
    this.turn('first');
    this.dial();
  }

  close(): void {
    this.cancel_retry?.();
    this.cancel_ping?.();
    const socket = this.socket;
    this.socket = null;
    this.release(socket);
    this.held = [];
    this.turn('idle');
  }

  // Try now: the network is back, or somebody looks again.
  hurry(): void {
    if (this.current !== 'lost') return;
    this.attempt = 0;
    this.cancel_retry?.();
    this.dial();
  }

  // Facts of one more topic, such as "job:7", until the answer is called. Several may ask for one.
  follow(topic: string): () => void {
    const users = this.topics.get(topic) ?? 0;
    this.topics.set(topic, users + 1);
    if (users === 0) this.resubscribe();
    let done = false;
    return () => {
      if (done) return;
      done = true;
      const left = (this.topics.get(topic) ?? 1) - 1;
      if (left > 0) {
        this.topics.set(topic, left);
      } else {
        this.topics.delete(topic);
        this.resubscribe();
      }
    };
  }

  private turn(state: FeedState, retry_at: number | null = null): void {
    this.current = state;
    this.host.state(state, retry_at);
  }

  private release(socket: SocketLike | null): void {
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    try {
      socket.close();
    } catch {
      // it was never open
    }
  }

  private dial(): void {
    this.release(this.socket); // one that was still on its way
    if (this.next !== null && this.current === 'lost') this.turn('repair');
    let socket: SocketLike;
    try {
      socket = this.host.connect();
    } catch {
      return this.lose();
    }
    this.socket = socket;
    this.heard = this.host.now();
    socket.onopen = () => void this.opened(socket);
    socket.onmessage = (event) => {
      if (socket === this.socket) this.message(event.data);
    };
    socket.onclose = () => {
      if (socket === this.socket) this.lose();
    };
    socket.onerror = () => {};
  }

  private async opened(socket: SocketLike): Promise<void> {
    if (socket !== this.socket) return;
    this.watch(socket);
    if (this.next === null) await this.take_snapshot(socket);
    else this.subscribe();
  }

  private async take_snapshot(socket: SocketLike): Promise<void> {
    this.held = [];
    this.overflow = false;
    let next: number;
    try {
      next = await this.host.snapshot();
    } catch {
      if (socket === this.socket) this.lose();
      return;
    }
    if (socket !== this.socket) return;
    this.next = next;
    this.subscribe();
  }

  private subscribe(): void {
    this.socket?.send(
      JSON.stringify({
        type: 'subscribe',
        data: { topics: [...this.topics.keys()], from: this.next, every_ms: this.every_ms },
      }),
    );
  }

  // Once a turn, however many pages come and go in it.
  private resubscribe(): void {
    if (this.current !== 'live' || this.resubscribing) return;
    this.resubscribing = true;
    queueMicrotask(() => {
      this.resubscribing = false;
      if (this.current === 'live') this.subscribe();
    });
  }

  private watch(socket: SocketLike): void {
    this.cancel_ping?.();
    this.cancel_ping = this.host.later(() => {
      if (socket !== this.socket) return;
      if (this.host.now() - this.heard > kSilence) {
        this.release(socket);
        return this.lose();
      }
      socket.send('{"type":"ping","data":{}}');
      this.watch(socket);
    }, kPing);
  }

  private lose(): void {
    this.cancel_ping?.();
    this.cancel_retry?.();
    this.release(this.socket);
    this.socket = null;
    const wait = retry_delay(this.attempt++, this.host.random());
    this.turn('lost', this.host.now() + wait);
    this.cancel_retry = this.host.later(() => this.dial(), wait);
  }

  private message(data: unknown): void {
    this.heard = this.host.now();
    if (typeof data !== 'string') return;
    let message: { type?: string; data?: { events?: Fact[]; next?: number } & Partial<Fact> };
    try {
      message = JSON.parse(data) as typeof message;
    } catch {
      return;
    }
    switch (message.type) {
      case 'event':
        this.take(message.data as Fact);
        break;
      case 'events':
        for (const fact of message.data?.events ?? []) this.take(fact);
        if (message.data?.next !== undefined && this.next !== null && message.data.next > this.next)
          this.next = message.data.next;
        break;
      case 'subscribed':
        this.attempt = 0;
        if (this.current !== 'live') this.turn('live');
        break;
      case 'gap':
        ++this.gaps;
        if (this.socket) void this.take_snapshot(this.socket);
        break;
    }
  }

  private take(fact: Fact | undefined): void {
    if (!fact || typeof fact.event !== 'number') return;
    if (this.next !== null && fact.event < this.next) {
      ++this.dropped;
      return;
    }
    this.next = fact.event + 1;
    ++this.received;
    if (this.overflow) return;
    this.held.push(fact);
    if (this.held.length > kMostHeld) {
      this.held = [];
      this.overflow = true;
    }
    if (this.framed) return;
    this.framed = true;
    this.host.frame(() => this.flush());
  }

  private flush(): void {
    this.framed = false;
    if (this.overflow) {
      ++this.gaps;
      if (this.socket) void this.take_snapshot(this.socket);
      return;
    }
    if (this.held.length === 0) return;
    const facts = this.held;
    this.held = [];
    this.host.batch(facts);
  }
}
