// Lists that come in pages, newest first, and columns of figures. Call `paged` within a component.
import type { Column } from '../components/Table.svelte';
import { call, message_of, type Options } from './api';
import { toast } from './ask.svelte';
import { number } from './format';
import { resource } from './poll.svelte';

export function paged<T>(path: string, filter: () => NonNullable<Options['query']>) {
  let more = $state.raw<T[]>([]);
  let cursor = $state('');
  let loading = false;
  let round = 0; // pages of an old look are not put under a new one
  const load = async (before: string, signal?: AbortSignal) => {
    const answer = await call<T[]>('GET', path, { signal, query: { ...filter(), before, limit: 200 } });
    return { rows: answer.data, next: answer.headers.get('x-next-before') ?? '' };
  };
  const first = resource<T[]>(
    async (signal) => {
      const { rows, next } = await load('', signal);
      ++round;
      more = [];
      cursor = next;
      return rows;
    },
    { key: () => JSON.stringify(filter()), keep: true },
  );
  return {
    first,
    get rows(): T[] {
      return [...(first.data ?? []), ...more];
    },
    get whole(): boolean {
      return !cursor;
    },
    async next(): Promise<void> {
      if (!cursor || loading) return;
      loading = true;
      const mine = round;
      try {
        const { rows, next } = await load(cursor);
        if (mine === round) {
          more = [...more, ...rows];
          cursor = next;
        }
      } catch (error) {
        toast('bad', message_of(error));
      }
      loading = false;
    },
  };
}

// A column of figures, sorted by them.
export const figure = <T>(
  id: string,
  title: string,
  width: string,
  of: (row: T) => number | null,
  hide?: 'sm' | 'md',
  show: (n: number | null) => string = number,
): Column<T> => ({
  id,
  title,
  width,
  right: true,
  ...(hide ? { hide } : {}),
  text: (row) => show(of(row)),
  sort: (a, b) => (of(a) ?? 0) - (of(b) ?? 0),
});
