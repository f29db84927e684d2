// Cron lines as the server reads them (five fields, UTC): when they run next, and in words. Pure.
export interface Cron {
  minutes: Set<number>;
  hours: Set<number>;
  days: Set<number>;
  months: Set<number>;
  weekdays: Set<number>;
  any_day: boolean;
  any_weekday: boolean;
}

const kMonths = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'];
const kDays = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'];
const kNames: Record<string, string> = {
  '@hourly': '0 * * * *',
  '@daily': '0 0 * * *',
  '@midnight': '0 0 * * *',
  '@weekly': '0 0 * * 0',
  '@monthly': '0 0 1 * *',
  '@yearly': '0 0 1 1 *',
  '@annually': '0 0 1 1 *',
};
const kFields: { name: string; least: number; most: number; words: string[] }[] = [
  { name: 'minute', least: 0, most: 59, words: [] },
  { name: 'hour', least: 0, most: 23, words: [] },
  { name: 'day of the month', least: 1, most: 31, words: [] },
  { name: 'month', least: 1, most: 12, words: kMonths },
  { name: 'day of the week', least: 0, most: 7, words: kDays },
];

function read_field(text: string, which: number): Set<number> | string {
  const field = kFields[which]!;
  const wrong = `The ${field.name}, “${text}”, is not understood: numbers from ${field.least} to ${field.most}, *, ranges (1-5), lists (1,3) and steps (*/15).`;
  const value = (word: string): number | null => {
    const named = field.words.indexOf(word.toLowerCase());
    if (named >= 0) return field.least + named;
    if (!/^\d{1,4}$/.test(word)) return null;
    const n = Number(word);
    return n < field.least || n > field.most ? null : n;
  };
  const out = new Set<number>();
  for (const part of text.split(',')) {
    const [range = '', step_text] = part.split('/', 2);
    if (part.split('/').length > 2) return wrong;
    let step = 1;
    if (step_text !== undefined) {
      if (!/^\d{1,4}$/.test(step_text)) return wrong;
      step = Number(step_text);
      if (step === 0 || step > field.most) return wrong;
    }
    let first = field.least;
    let last = field.most === 7 ? 6 : field.most;
    if (range !== '*') {
      last = field.most;
      const dash = range.indexOf('-');
      const from = value(dash < 0 ? range : range.slice(0, dash));
      if (from === null) return wrong;
      first = from;
      if (dash >= 0) {
        const to = value(range.slice(dash + 1));
        if (to === null) return wrong;
        last = field.most === 7 && to === 0 && first > 0 ? 7 : to;
        if (last < first) return wrong;
      } else if (step_text === undefined) {
        last = first;
      }
    }
    for (let n = first; n <= last; n += step) out.add(field.most === 7 ? n % 7 : n);
  }
  return out;
}

// The line, or what is wrong with it.
export function parse_cron(text: string): Cron | string {
  let line = text.trim();
  if (line.startsWith('@')) {
    const known = kNames[line.toLowerCase()];
    if (!known) return `“${line}” is not a schedule; there are @hourly, @daily, @weekly, @monthly and @yearly.`;
    line = known;
  }
  const parts = line.split(/[ \t]+/).filter(Boolean);
  if (parts.length !== 5) return 'Five fields: minute, hour, day of the month, month, day of the week; “30 4 * * mon-fri”.';
  const sets = parts.map(read_field);
  const wrong = sets.find((one) => typeof one === 'string');
  if (wrong !== undefined) return wrong as string;
  const [minutes, hours, days, months, weekdays] = sets as Set<number>[];
  const cron = {
    minutes: minutes!,
    hours: hours!,
    days: days!,
    months: months!,
    weekdays: weekdays!,
    any_day: parts[2] === '*',
    any_weekday: parts[4] === '*',
  };
  return next_times(cron, 0, 1).length ? cron : 'This day never comes.';
}

const kMinute = 60_000;
const kDay = 86_400_000;
export function next_times(cron: Cron, after_ms: number, n: number): number[] {
  const out: number[] = [];
  const from = (Math.floor(after_ms / kMinute) + 1) * kMinute;
  const first = Math.floor(from / kDay);
  for (let day = first; day < first + 9 * 366; ++day) {
    const date = new Date(day * kDay);
    if (!cron.months.has(date.getUTCMonth() + 1)) continue;
    const by_day = cron.days.has(date.getUTCDate());
    const by_weekday = cron.weekdays.has(date.getUTCDay());
    // Where both days are given, either one will do, as in every cron.
    if (!(cron.any_day || cron.any_weekday ? by_day && by_weekday : by_day || by_weekday)) continue;
    for (let minute = day === first ? (from - day * kDay) / kMinute : 0; minute < 1440; ++minute) {
      if (!cron.hours.has(Math.floor(minute / 60))) minute += 59 - (minute % 60);
      else if (cron.minutes.has(minute % 60)) {
        out.push(day * kDay + minute * kMinute);
        if (out.length >= n) return out;
      }
    }
  }
  return out;
}
