// Figures and times for people. Times are in the viewer's zone.

const none = '–';
const known = (n: number | null | undefined): n is number => typeof n === 'number' && Number.isFinite(n);
// A narrow space between thousands, a point before decimals: the same for all, and never mistaken.
const group = (text: string) => text.replace(/\B(?=(\d{3})+(?!\d))/g, '\u202f');

export function number(n: number | null | undefined, digits = 0): string {
  if (!known(n)) return none;
  const [whole = '0', part] = Math.abs(n).toFixed(digits).split('.');
  const minus = n < 0 && Number(n.toFixed(digits)) !== 0 ? '−' : '';
  return minus + group(whole) + (part ? `.${part}` : '');
}

// Three digits at most: 947, 1.2k, 24k, 1.2M.
export function short(n: number | null | undefined): string {
  if (!known(n)) return none;
  const sign = n < 0 ? '−' : '';
  const abs = Math.abs(n);
  if (abs < 1000) return sign + (abs < 10 && abs % 1 >= 0.05 ? abs.toFixed(1) : String(Math.round(abs)));
  for (const [unit, size] of [
    ['k', 1e3],
    ['M', 1e6],
    ['G', 1e9],
    ['T', 1e12],
  ] as const) {
    const scaled = abs / size;
    if (scaled < 999.5 || unit === 'T') return sign + (scaled < 9.95 ? scaled.toFixed(1) : Math.round(scaled)) + unit;
  }
  return none;
}

export function bytes(n: number | null | undefined): string {
  if (!known(n)) return none;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let at = 0;
  let value = Math.abs(n);
  while (value >= 1023.5 && at < units.length - 1) {
    value /= 1024;
    ++at;
  }
  const text = at === 0 ? String(Math.round(value)) : value < 9.95 ? value.toFixed(1) : String(Math.round(value));
  return `${n < 0 ? '−' : ''}${text} ${units[at]}`;
}
export const rate = (n: number | null | undefined): string => (known(n) ? `${bytes(n)}/s` : none);
export const percent = (n: number | null | undefined, digits = 0): string =>
  known(n) ? `${number(n, digits)}\u202f%` : none;
export const ratio = (used: number | null | undefined, total: number | null | undefined): number | null =>
  known(used) && known(total) && total > 0 ? Math.min(100, Math.max(0, (used / total) * 100)) : null;

// 0.4 ms, 12 ms, 1.2 s, 45 s, 3 m 05 s, 2 h 10 m, 3 d 4 h
export function duration(ms: number | null | undefined): string {
  if (!known(ms)) return none;
  if (ms < 0) return `−${duration(-ms)}`;
  if (ms === 0) return '0 s';
  if (ms < 1) return `${ms.toFixed(ms < 0.1 ? 2 : 1)} ms`;
  if (ms < 999.5) return `${ms < 10 ? ms.toFixed(1).replace('.0', '') : Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 59.5) return `${s < 9.95 ? s.toFixed(1).replace('.0', '') : Math.round(s)} s`;
  const whole = Math.round(s);
  const two = (n: number) => String(n).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} m`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

type When = string | number | Date | null | undefined;
export function date(at: When): Date | null {
  if (at === null || at === undefined || at === '') return null;
  const out = at instanceof Date ? at : new Date(at);
  return Number.isNaN(out.getTime()) ? null : out;
}

export function clock(at: When): string {
  const d = date(at);
  return d ? d.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false }) : none;
}

// Today: the time; else the day with it.
export function time(at: When, now = Date.now()): string {
  const d = date(at);
  if (!d) return none;
  if (d.toDateString() === new Date(now).toDateString()) return clock(d);
  const year = d.getFullYear() === new Date(now).getFullYear() ? undefined : 'numeric';
  const day = d.toLocaleDateString([], { day: 'numeric', month: 'short', year });
  return `${day}, ${d.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hour12: false })}`;
}

export function full_time(at: When): string {
  const d = date(at);
  return d ? d.toLocaleString([], { dateStyle: 'full', timeStyle: 'long', hour12: false }) : '';
}

export function ago(at: When, now = Date.now()): string {
  const d = date(at);
  if (!d) return none;
  const s = Math.round((now - d.getTime()) / 1000);
  if (s < -1) return `in ${coarse(-s)}`;
  return s < 2 ? 'just now' : `${coarse(s)} ago`;
}
function coarse(s: number): string {
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.round(s / 60)} min`;
  if (s < 86_400) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86_400)} d`;
}

export const plural = (n: number, one: string, many = `${one}s`): string => `${number(n)} ${n === 1 ? one : many}`;
// worker_lost -> worker lost
export const words = (text: string | null | undefined): string => (text ?? '').replace(/[_-]+/g, ' ');
export const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
