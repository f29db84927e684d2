// What the farm tells by itself: the open alerts, for the menu and the Overview, and a word as one opens.
import { news, place_of, type Alert, type AlertList } from './alerts';
import { get } from './api';
import { toast } from './ask.svelte';
import { live } from './live.svelte';
import { href } from './routes_match';

class Alerts {
  open = $state.raw<Alert[]>([]);
  private seen: Alert[] | null = null;
  private followed = false;
  private due: ReturnType<typeof setTimeout> | null = null;

  start(): void {
    live.on((facts) => {
      if (!this.due && facts.some((fact) => fact.topic === 'alerts')) this.due = setTimeout(() => void this.load(), 200);
    });
    setInterval(() => {
      if (this.followed && !document.hidden && live.state === 'live') void this.load();
    }, 30_000);
    void this.load();
  }
  async load(): Promise<void> {
    this.due = null;
    try {
      const { open } = await get<AlertList>('api/alerts', { query: { limit: 1 } });
      // Only a server that has them knows the topic.
      if (!this.followed) live.follow('alerts');
      this.followed = true;
      const fresh = news(this.seen, open, Date.now());
      this.seen = this.open = open;
      if (fresh.length > 3) toast('bad', `${fresh.length} alerts opened.`, { href: href('/admin', { tab: 'alerts' }), text: 'Look at them' });
      else for (const one of fresh) toast(one.severity === 'error' ? 'bad' : 'info', `${one.title}. ${one.text}`, { href: place_of(one), text: 'Look at it' });
    } catch {
      // it is an older server, or one may not see them
    }
  }
}
export const alerts = new Alerts();
