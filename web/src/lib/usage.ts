// What went through the gateway by day, principal and model. Pure.
export interface DayUse {
  day: string; // UTC, "2026-11-22"
  principal: string;
  model: string | null; // null: a name that nobody has
  requests: number;
  failed: number;
  tokens_in: number;
  tokens_out: number;
  bytes: number;
}
export type Sum = Pick<DayUse, 'requests' | 'failed' | 'tokens_in' | 'tokens_out'>;
export interface DayUses {
  days: DayUse[];
  totals: Sum;
  since_ms: number | null;
}
const zero = (): Sum => ({ requests: 0, failed: 0, tokens_in: 0, tokens_out: 0 });
function add(to: Sum, one: Sum): void {
  to.requests += one.requests;
  to.failed += one.failed;
  to.tokens_in += one.tokens_in;
  to.tokens_out += one.tokens_out;
}

// Each of the last `n` days, those without use too. A day stands at its beginning in the viewer's zone, so that it is
// called what the server calls it.
export function by_day(uses: readonly DayUse[], n: number, now: number): { times: number[]; days: Sum[] } {
  const sums = new Map<string, Sum>();
  for (const one of uses) {
    const sum = sums.get(one.day) ?? zero();
    add(sum, one);
    sums.set(one.day, sum);
  }
  const times: number[] = [];
  const days: Sum[] = [];
  for (let i = n - 1; i >= 0; --i) {
    const day = new Date(now - i * 86_400_000).toISOString().slice(0, 10);
    times.push(new Date(`${day}T00:00:00`).getTime() / 1000);
    days.push(sums.get(day) ?? zero());
  }
  return { times, days };
}
export function by_pair(uses: readonly DayUse[]): (Sum & { principal: string; model: string | null })[] {
  const out = new Map<string, Sum & { principal: string; model: string | null }>();
  for (const one of uses) {
    const key = `${one.principal} ${one.model}`;
    const sum = out.get(key) ?? { principal: one.principal, model: one.model, ...zero() };
    add(sum, one);
    out.set(key, sum);
  }
  return [...out.values()];
}
