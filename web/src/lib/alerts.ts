// Alerts as the server tells them, and what follows from them. Pure.
import { href, job_href } from './routes_match';

export interface Alert {
  id: string | number;
  kind: string;
  severity: 'error' | 'warn' | 'info';
  subject: string;
  subject_name: string;
  title: string;
  text: string;
  began_ms: number;
  ended_ms: number | null;
  silenced_until_ms: number | null;
  worker_id?: string | null;
  job_id?: string | null;
}
export interface AlertList {
  open: Alert[];
  recent: Alert[];
  webhook: { url_host: string | null; sent: number; failed: number };
}
export interface Rule {
  kind: string;
  help: string;
  unit: string | null;
  enabled: boolean;
  threshold: number | null;
  for_s: number;
  severity: Alert['severity'];
  changed: boolean;
}

export const silenced = (one: Pick<Alert, 'silenced_until_ms'>, now: number): boolean => (one.silenced_until_ms ?? 0) > now;
// Where one can do something about it.
export function place_of(one: Pick<Alert, 'kind' | 'worker_id' | 'job_id'>): string {
  if (one.kind === 'service_down') return href('/services');
  if (one.job_id) return job_href(one.job_id);
  if (one.worker_id) return href(`/workers/${encodeURIComponent(one.worker_id)}`);
  return href('/admin', { tab: one.kind === 'storage_full' || one.kind === 'disk_low' ? 'database' : one.kind === 'farm_paused' ? 'queue' : 'alerts' });
}
// Which of them are new since the look before. The first look brings no news.
export const news = (before: readonly Alert[] | null, now: readonly Alert[], at: number): Alert[] =>
  before ? now.filter((one) => !silenced(one, at) && !before.some((old) => old.id === one.id)) : [];
