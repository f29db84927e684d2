// The last samples of all machines, for sparklines and charts. Call `follow` within a component.
import { untrack } from 'svelte';
import { get } from '../../lib/api';
import { farm } from '../../lib/farm.svelte';
import { live } from '../../lib/live.svelte';
import { kSamples, Traces, type Samples, type Trace } from '../../lib/workers';

class Shared {
  private readonly all = new Traces();
  private version = $state.raw(0);

  get(id: string): Trace | undefined {
    void this.version;
    return this.all.get(id);
  }
  follow(): void {
    $effect(() => farm.watch_workers());
    $effect(() => {
      void live.generation;
      const aborter = new AbortController();
      untrack(() => void this.load(aborter.signal));
      return () => aborter.abort();
    });
    $effect(() => {
      if (!farm.workers_at) return;
      untrack(() => {
        this.all.push(farm.workers, farm.workers_at);
        ++this.version;
      });
    });
  }
  private async load(signal: AbortSignal): Promise<void> {
    try {
      this.all.load(await get<Samples>('api/workers/history', { query: { samples: kSamples }, signal }));
      ++this.version;
    } catch {
      // The lines begin now, then.
    }
  }
}
export const traces = new Shared();
