import { describe, expect, it } from 'vitest';
import { Feed, kMostHeld, retry_delay, type FeedHost, type FeedState, type SocketLike } from '../src/lib/feed';
import type { Fact } from '../src/lib/types';

class FakeSocket implements SocketLike {
  sent: { type: string; data: { topics?: string[]; from?: number; every_ms?: number } }[] = [];
  closed = false;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: object) => void) | null = null;
  onerror: (() => void) | null = null;
  send(text: string) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.closed = true;
  }
  say(message: unknown) {
    this.onmessage?.({ data: typeof message === 'string' ? message : JSON.stringify(message) });
  }
  subscribes() {
    return this.sent.filter((one) => one.type === 'subscribe').map((one) => one.data);
  }
}

class Host implements FeedHost {
  sockets: FakeSocket[] = [];
  batches: Fact[][] = [];
  states: FeedState[] = [];
  snapshots = 0;
  next_of_snapshot = 100;
  broken_snapshot = false;
  time = 0;
  timers: { at: number; run: () => void }[] = [];
  frames: (() => void)[] = [];
  connect() {
    const socket = new FakeSocket();
    this.sockets.push(socket);
    return socket;
  }
  async snapshot() {
    ++this.snapshots;
    if (this.broken_snapshot) throw new Error('away');
    return this.next_of_snapshot;
  }
  batch(facts: Fact[]) {
    this.batches.push(facts);
  }
  state(state: FeedState) {
    this.states.push(state);
  }
  later(run: () => void, ms: number) {
    const timer = { at: this.time + ms, run };
    this.timers.push(timer);
    return () => void (this.timers = this.timers.filter((one) => one !== timer));
  }
  frame(f: () => void) {
    this.frames.push(f);
  }
  now() {
    return this.time;
  }
  random() {
    return 1;
  }
  draw() {
    for (const frame of this.frames.splice(0)) frame();
  }
  pass(ms: number) {
    const end = this.time + ms;
    for (;;) {
      const due = this.timers.filter((one) => one.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.timers = this.timers.filter((one) => one !== due);
      this.time = due.at;
      due.run();
    }
    this.time = end;
  }
  get socket() {
    return this.sockets.at(-1)!;
  }
}
const settle = () => new Promise((resolve) => setTimeout(resolve, 0));
const fact = (event: number, job = 1): Fact => ({ event, topic: 'jobs', type: 'job_progress', job_id: String(job), time: '', data: { job } });
const event = (number: number) => ({ type: 'event', data: fact(number) });

async function live() {
  const host = new Host();
  const feed = new Feed(host);
  feed.open();
  host.socket.onopen?.();
  await settle();
  host.socket.say({ type: 'subscribed', data: { next: 100 } });
  return { host, feed };
}

describe('the feed', () => {
  it('takes a snapshot, then follows from its number', async () => {
    const { host, feed } = await live();
    expect(host.snapshots).toBe(1);
    expect(host.socket.subscribes()).toEqual([{ topics: ['jobs', 'workers', 'system', 'runs'], from: 100, every_ms: 250 }]);
    expect(feed.state).toBe('live');
    expect(host.states).toEqual(['first', 'live']);
  });

  it('hands facts on once a frame, in order, and drops what it has had', async () => {
    const { host, feed } = await live();
    for (const number of [100, 101, 103]) host.socket.say(event(number));
    host.socket.say(event(101));
    host.socket.say(event(99));
    expect(host.batches).toEqual([]);
    host.draw();
    expect(host.batches.map((batch) => batch.map((one) => one.event))).toEqual([[100, 101, 103]]);
    expect(feed.dropped).toBe(2);
    host.draw();
    expect(host.batches).toHaveLength(1);
  });

  it('reads the coalesced form, and goes on behind its last number', async () => {
    const { host, feed } = await live();
    host.socket.say({ type: 'events', data: { events: [fact(104), fact(110)], next: 140 } });
    host.draw();
    expect(host.batches[0]!.map((one) => one.event)).toEqual([104, 110]);
    expect(feed.next).toBe(140);
  });

  it('comes back by itself and asks for what it missed', async () => {
    const { host, feed } = await live();
    host.socket.say(event(105));
    host.socket.onclose?.({});
    expect(feed.state).toBe('lost');
    host.pass(499);
    expect(host.sockets).toHaveLength(1);
    host.pass(1);
    expect(host.sockets).toHaveLength(2);
    host.socket.onopen?.();
    await settle();
    expect(host.snapshots).toBe(1); // none is needed
    expect(host.socket.subscribes()[0]!.from).toBe(106);
    host.socket.say({ type: 'subscribed', data: {} });
    expect(feed.state).toBe('live');
    expect(host.states).toEqual(['first', 'live', 'lost', 'repair', 'live']);
  });

  it('takes the snapshot again when the server says that there is a gap', async () => {
    const { host, feed } = await live();
    host.socket.say(event(100)); // of before the gap: the new snapshot has it
    host.next_of_snapshot = 5000;
    host.socket.say({ type: 'gap', data: { next: 4900 } });
    await settle();
    expect(host.snapshots).toBe(2);
    expect(host.socket.subscribes().at(-1)!.from).toBe(5000);
    host.draw();
    expect(host.batches).toEqual([]);
    host.socket.say(event(4999));
    host.socket.say(event(5000));
    host.draw();
    expect(host.batches.flat().map((one) => one.event)).toEqual([5000]);
    expect(feed.gaps).toBe(1);
  });

  it('waits longer each time, with jitter, and not for ever', async () => {
    expect([0, 1, 2, 3].map((n) => retry_delay(n, 1))).toEqual([500, 1000, 2000, 4000]);
    expect(retry_delay(3, 0)).toBe(2000);
    expect(retry_delay(60, 1)).toBe(20_000);
    const { host, feed } = await live();
    host.socket.onclose?.({});
    for (let i = 0; i < 4; ++i) {
      host.pass(20_000);
      host.socket.onclose?.({});
    }
    const dialled = host.sockets.length;
    host.pass(7_000);
    expect(host.sockets).toHaveLength(dialled);
    feed.hurry(); // somebody looks again
    expect(host.sockets).toHaveLength(dialled + 1);
  });

  it('closes a connection that was on its way when it dials again', async () => {
    const host = new Host();
    host.broken_snapshot = true;
    const feed = new Feed(host);
    feed.open();
    host.socket.onopen?.();
    await settle();
    host.pass(500);
    const on_its_way = host.socket;
    feed.hurry();
    expect(host.socket).not.toBe(on_its_way);
    expect(on_its_way.closed).toBe(true);
  });

  it('tries again when the snapshot fails', async () => {
    const host = new Host();
    host.broken_snapshot = true;
    const feed = new Feed(host);
    feed.open();
    host.socket.onopen?.();
    await settle();
    expect(feed.state).toBe('lost');
    host.broken_snapshot = false;
    host.pass(500);
    host.socket.onopen?.();
    await settle();
    host.socket.say({ type: 'subscribed', data: {} });
    expect(feed.state).toBe('live');
  });

  it('notices a connection that has died without a word', async () => {
    const { host, feed } = await live();
    host.pass(15_000);
    expect(host.socket.sent.at(-1)!.type).toBe('ping');
    host.socket.say({ type: 'pong', data: {} });
    host.pass(30_000);
    expect(feed.state).toBe('live');
    host.pass(30_000);
    expect(feed.state).not.toBe('live');
    expect(host.sockets[0]!.closed).toBe(true);
  });

  it('keeps its memory bounded when no frame comes', async () => {
    const { host, feed } = await live();
    for (let i = 0; i <= kMostHeld; ++i) host.socket.say(event(100 + i));
    host.next_of_snapshot = 90_000;
    host.draw();
    await settle();
    expect(host.snapshots).toBe(2);
    expect(feed.next).toBe(90_000);
    expect(host.batches).toEqual([]);
  });

  it('follows a topic as long as somebody wants it', async () => {
    const { host, feed } = await live();
    const one = feed.follow('job:7');
    const two = feed.follow('job:7');
    await settle();
    expect(host.socket.subscribes()).toHaveLength(2);
    expect(host.socket.subscribes()[1]!.topics).toContain('job:7');
    one();
    one();
    await settle();
    expect(host.socket.subscribes()).toHaveLength(2);
    two();
    await settle();
    expect(host.socket.subscribes()[2]!.topics).not.toContain('job:7');
  });

  it('is not harmed by nonsense', async () => {
    const { host, feed } = await live();
    for (const text of ['', '{', '[]', '{"type":"event"}', '{"type":"event","data":{}}', '{"type":"what"}']) host.socket.say(text);
    host.draw();
    expect(host.batches).toEqual([]);
    expect(feed.state).toBe('live');
  });
});
