// What the command palette finds, and in which order. Pure.
export interface Command {
  id: string;
  title: string;
  group: string;
  icon: string;
  hint?: string; // beside the title
  words?: string; // found by, too
  keys?: string; // the short way
  run: () => void;
}

// How well `text` answers `query`: 0 is not at all. A beginning counts before the beginning of a word, that before a
// place within one, and that before letters that only come in this order.
export function score(query: string, text: string): number {
  const q = query.trim().toLowerCase();
  const t = text.toLowerCase();
  if (!q) return 1;
  const at = t.indexOf(q);
  if (at === 0) return 1000 - Math.min(200, t.length);
  if (at > 0) return (/[\s/_.:-]/.test(t[at - 1]!) ? 700 : 450) - Math.min(200, t.length);
  let from = 0;
  let gaps = 0;
  let starts = 0;
  for (const c of q) {
    if (c === ' ') continue;
    const found = t.indexOf(c, from);
    if (found < 0) return 0;
    gaps += found - from;
    if (found === 0 || /[\s/_.:-]/.test(t[found - 1]!)) ++starts;
    from = found + 1;
  }
  // Letters all over a long text are chance.
  return gaps > 2 * q.length + 4 ? 0 : Math.max(1, 120 + 25 * starts - 6 * gaps);
}

// Words that are not seen count only from the beginning of one: what was found must be plain to see.
const hidden = (query: string, text: string | undefined): number => {
  const n = text ? score(query, text) : 0;
  return n >= 500 ? n : 0;
};

export function rank(commands: readonly Command[], query: string, most = 12): Command[] {
  if (!query.trim()) return commands.slice(0, most);
  return commands
    .map((command, i) => ({
      command,
      i,
      n: Math.max(score(query, command.title), 0.8 * hidden(query, command.words), 0.6 * hidden(query, command.hint)),
    }))
    .filter((one) => one.n > 0)
    .sort((a, b) => b.n - a.n || a.i - b.i)
    .slice(0, most)
    .map((one) => one.command);
}

// "7", "#7", "job 7", "7/3": a job, or a task of it.
export function job_in(query: string): { job: string; index?: number } | null {
  const found = /^(?:(?:job|task)\s+)?#?([A-Za-z0-9_.:@-]+)(?:\/(\d{1,7}))?$/i.exec(query.trim());
  if (!found || !/\d/.test(found[1]!)) return null;
  return { job: found[1]!, ...(found[2] === undefined ? {} : { index: Number(found[2]) }) };
}
