// Something that a page shows and that the server has: loaded, kept fresh, with its error. Call within a component.
import { untrack } from 'svelte';
import { ApiError } from './api';
import { live } from './live.svelte';

export interface ResourceOptions {
  every?: number | (() => number | null); // ms between loads while the page is seen
  key?: () => unknown; // read as a dependency; another value loads anew and forgets the old data
  keep?: boolean; // keep the old data while another key loads
  on?: string[]; // facts of these types (or their beginnings: "worker_") load it soon
  when?: () => boolean;
}

export class Resource<T> {
  data = $state.raw<T | null>(null);
  error = $state.raw<ApiError | Error | null>(null);
  loading = $state.raw(false);
  loaded_at = $state.raw(0);
  private aborter: AbortController | null = null;
  private again = false;

  constructor(private readonly load: (signal: AbortSignal) => Promise<T>) {}

  async refresh(): Promise<void> {
    if (this.aborter) {
      this.again = true;
      return;
    }
    const aborter = new AbortController();
    this.aborter = aborter;
    this.loading = true;
    try {
      const data = await this.load(aborter.signal);
      if (aborter.signal.aborted) return;
      this.data = data;
      this.error = null;
      this.loaded_at = Date.now();
    } catch (error) {
      if (aborter.signal.aborted) return;
      this.error = error as Error;
    } finally {
      if (this.aborter === aborter) {
        this.aborter = null;
        this.loading = false;
        if (this.again) {
          this.again = false;
          void this.refresh();
        }
      }
    }
  }
  // What was asked does not matter any more.
  drop(): void {
    this.aborter?.abort();
    this.aborter = null;
    this.again = false;
    this.loading = false;
  }
}

export function resource<T>(load: (signal: AbortSignal) => Promise<T>, options: ResourceOptions = {}): Resource<T> {
  const out = new Resource(load);
  $effect(() => {
    options.key?.();
    if (options.when && !options.when()) return;
    void live.generation;
    untrack(() => void out.refresh());
    return () => {
      out.drop();
      if (options.key && !options.keep) untrack(() => forget(out));
    };
  });
  $effect(() => {
    const ms = typeof options.every === 'function' ? options.every() : options.every;
    if (!ms) return;
    const timer = setInterval(() => {
      if (document.hidden || (options.when && !untrack(options.when))) return;
      // A server that is away is asked by the feed, not by every page.
      if (live.state === 'lost' && out.error) return;
      void out.refresh();
    }, ms);
    return () => clearInterval(timer);
  });
  $effect(() => {
    const types = options.on;
    if (!types?.length) return;
    let timer: ReturnType<typeof setTimeout> | null = null;
    const stop = live.on((facts) => {
      if (timer || !facts.some((fact) => types.some((type) => fact.type.startsWith(type)))) return;
      timer = setTimeout(() => {
        timer = null;
        if (!options.when || untrack(options.when)) void out.refresh();
      }, 250);
    });
    return () => {
      stop();
      if (timer) clearTimeout(timer);
    };
  });
  return out;
}

function forget<T>(resource: Resource<T>): void {
  resource.data = null;
  resource.error = null;
}
