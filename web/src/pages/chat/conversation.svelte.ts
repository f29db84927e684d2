// The conversation of this tab: it outlives a look at another page, and is forgotten when the tab is closed or reloaded.
import { get, raw, read_events } from '../../lib/api';
import {
  end,
  fail,
  messages,
  new_turn,
  request_body,
  take,
  type ChatSettings,
  type GatewayRecord,
  type Turn,
} from '../../lib/chat';

const id = (): string => {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (one) => one.toString(16).padStart(2, '0')).join('');
};

class Conversation {
  turns = $state.raw<Turn[]>([]);
  system = $state('');
  draft = $state('');
  busy = $state.raw(false);
  // Requests of one conversation go where its prompt is still in the cache.
  private session = id();
  private last = 0;
  private aborter: AbortController | null = null;

  private show(turn: Turn): void {
    const copy = { ...turn };
    this.turns = this.turns.map((one) => (one.id === copy.id ? copy : one));
  }

  clear(): void {
    this.stop();
    this.turns = [];
    this.session = id();
  }
  stop(): void {
    this.aborter?.abort();
  }

  async ask(question: string, settings: ChatSettings): Promise<void> {
    if (this.busy) return;
    const turn = new_turn(++this.last, settings.model, question, performance.now());
    this.turns = [...this.turns, turn];
    await this.run(turn, settings);
  }

  // The last question once more, perhaps to another model.
  async again(settings: ChatSettings): Promise<void> {
    const before = this.turns[this.turns.length - 1];
    if (!before || this.busy) return;
    const turn = new_turn(++this.last, settings.model, before.question, performance.now());
    this.turns = [...this.turns.slice(0, -1), turn];
    await this.run(turn, settings);
  }

  private async run(turn: Turn, settings: ChatSettings): Promise<void> {
    const body = request_body(settings, messages(settings, this.turns));
    const aborter = new AbortController();
    this.aborter = aborter;
    this.busy = true;
    // Pieces come faster than frames: each frame shows what there is.
    let waiting = false;
    const soon = () => {
      if (waiting) return;
      waiting = true;
      const draw = () => {
        waiting = false;
        this.show(turn);
      };
      if (document.hidden) setTimeout(draw, 250);
      else requestAnimationFrame(draw);
    };
    try {
      const answer = await raw('POST', 'v1/chat/completions', {
        body,
        signal: aborter.signal,
        headers: { 'x-grange-session': this.session },
      });
      turn.request_id = answer.headers.get('x-request-id') ?? '';
      turn.worker = answer.headers.get('x-grange-worker') ?? '';
      turn.service = answer.headers.get('x-grange-service') ?? '';
      soon();
      let whole = false;
      for await (const event of read_events(answer.body!)) {
        whole = take(turn, event.data, performance.now());
        soon();
        if (whole) break;
      }
      end(turn, whole);
    } catch (error) {
      if (aborter.signal.aborted) turn.state = 'stopped';
      else fail(turn, error instanceof TypeError ? new Error('The connection to the server broke off.') : error);
    }
    this.busy = false;
    this.show(turn);
    void this.told(turn);
  }

  // How long it waited and how often it was given on is known to the gateway alone, once the request has ended.
  private async told(turn: Turn): Promise<void> {
    if (!turn.request_id) return;
    for (const pause of [0, 400, 1500]) {
      await new Promise((done) => setTimeout(done, pause));
      try {
        const { recent } = await get<{ recent: GatewayRecord[] }>('api/gateway');
        const record = recent.find((one) => one.request_id === turn.request_id);
        if (!record) continue;
        turn.record = record;
        this.show(turn);
        return;
      } catch {
        return; // these figures are not worth an error
      }
    }
  }
}

export const conversation = new Conversation();
