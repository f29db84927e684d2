// Who looks, and what the role of that one may do (api/me). A server that does not tell lets everything be tried.
import { get } from './api';
import { toast } from './ask.svelte';
import { refusal, type Me } from './me';

class Who {
  me = $state.raw<Me | null>(null);
  async load(): Promise<void> {
    this.me = await get<Me>('api/me').catch(() => null);
  }
}
export const who = new Who();

// {@attach needs('cancel_job', job.user)} on a button: where the role does not allow it, it says why instead of doing it.
export const needs = (action: string, owner?: string) => (node: HTMLElement) => {
  const why = refusal(who.me, action, owner);
  if (!why) return;
  const before = node.title;
  const say = (event: Event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
    toast('info', why);
  };
  node.title = why;
  node.ariaDisabled = 'true';
  node.addEventListener('click', say, true);
  return () => {
    node.title = before;
    node.ariaDisabled = null;
    node.removeEventListener('click', say, true);
  };
};
