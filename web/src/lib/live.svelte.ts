// The page's one WebSocket, with its state for the banner. Pages take facts by live.on(…).
import { base, get, protocols } from './api';
import { Feed, type FeedState, type SocketLike } from './feed';
import type { Fact, Stats } from './types';

type Listener = (facts: Fact[]) => void;

class Live {
  state = $state.raw<FeedState>('idle');
  retry_at = $state.raw<number | null>(null);
  // Grows when all figures must be read again: on the first snapshot, and after each gap.
  generation = $state.raw(0);
  stats = $state.raw<Stats | null>(null);
  readonly feed: Feed;
  private listeners = new Set<Listener>();

  constructor() {
    this.feed = new Feed({
      connect: () => {
        const at = new URL('ws', base());
        at.protocol = at.protocol === 'https:' ? 'wss:' : 'ws:';
        return new WebSocket(at, protocols()) as unknown as SocketLike;
      },
      snapshot: async () => {
        const stats = await get<Stats>('api/stats');
        this.stats = stats;
        ++this.generation;
        return stats.next_event;
      },
      batch: (facts) => {
        for (const listener of this.listeners) listener(facts);
      },
      state: (state, retry_at) => {
        this.state = state;
        this.retry_at = retry_at;
      },
      later: (f, ms) => {
        const timer = setTimeout(f, ms);
        return () => clearTimeout(timer);
      },
      // A hidden page gets no frames.
      frame: (f) => void (document.hidden ? setTimeout(f, 500) : requestAnimationFrame(f)),
      now: Date.now,
      random: Math.random,
    });
  }

  start(): void {
    this.feed.open();
    addEventListener('online', () => this.feed.hurry());
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.feed.hurry();
    });
  }
  restart(): void {
    this.feed.close();
    this.feed.next = null;
    this.feed.open();
  }
  // Batches of facts, once a frame at most; call the answer to stop.
  on(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
  // Facts of one job ("job:7") or race ("run:ID") as well.
  follow(topic: string): () => void {
    return this.feed.follow(topic);
  }
}

export const live = new Live();
