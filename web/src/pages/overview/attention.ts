// What a person can do about each kind of thing that needs attention.
import { place_of } from '../../lib/alerts';
import { href, job_href, task_href } from '../../lib/routes_match';
import type { Attention } from '../../lib/types';

export interface Way {
  text: string;
  href: string;
}

export function way(item: Attention): Way | null {
  switch (item.kind) {
    case 'no_workers':
      return { text: 'Add a machine', href: href('/workers', { add: 1 }) };
    case 'job_waits':
      return item.job_id ? { text: 'Why it waits', href: job_href(item.job_id, { tab: 'explain' }) } : null;
    case 'job_failed':
      if (!item.job_id) return null;
      return item.index === undefined
        ? { text: 'What failed', href: job_href(item.job_id, { tab: 'failures' }) }
        : { text: 'What failed', href: task_href(item.job_id, item.index) };
    case 'dead_letters':
      return item.job_id
        ? { text: 'Look at them', href: job_href(item.job_id, { tab: 'failures' }) }
        : { text: 'Look at them', href: href('/admin', { tab: 'dead' }) };
    case 'worker_quarantined':
    case 'worker_lost':
      return { text: 'Open the worker', href: href(`/workers/${encodeURIComponent(item.worker_id ?? '')}`) };
    case 'storage_full':
      return { text: 'What takes the room', href: href('/admin', { tab: 'database' }) };
    case 'machine_hot':
    case 'machine_memory':
    case 'service_down':
    case 'disk_low':
    case 'failure_rate':
    case 'queue_wait':
      return { text: 'Look at it', href: place_of(item) };
    default:
      if (item.job_id) return { text: 'Open the job', href: job_href(item.job_id) };
      if (item.worker_id) return { text: 'Open the worker', href: href(`/workers/${encodeURIComponent(item.worker_id)}`) };
      return null;
  }
}
