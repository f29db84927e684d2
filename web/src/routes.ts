// One line a page. `nav` puts it into the menu; `key` is the second key after g.
import type { Component } from 'svelte';

export interface Route {
  path: string;
  title: string;
  load: () => Promise<{ default: Component<{ params: Record<string, string> }> }>;
  nav?: { icon: string; group: 'work' | 'ai' | 'farm'; phone?: boolean };
  key?: string;
}

// A page declares the params that it has; here they are all words by name.
type Loaded = Promise<{ default: unknown }>;
const page = (load: () => Loaded) => load as Route['load'];

export const routes: Route[] = [
  { path: '/', title: 'Overview', key: 'o', nav: { icon: 'overview', group: 'work', phone: true }, load: page(() => import('./pages/overview/Overview.svelte')) },
  { path: '/jobs', title: 'Jobs', key: 'j', nav: { icon: 'jobs', group: 'work', phone: true }, load: page(() => import('./pages/jobs/Jobs.svelte')) },
  { path: '/submit', title: 'Submit', key: 's', nav: { icon: 'submit', group: 'work', phone: true }, load: page(() => import('./pages/submit/Submit.svelte')) },
  { path: '/jobs/:id', title: 'Job', load: page(() => import('./pages/jobs/Job.svelte')) },
  { path: '/jobs/:id/tasks/:index', title: 'Task', load: page(() => import('./pages/jobs/Task.svelte')) },
  { path: '/race/llm', title: 'Race', key: 'r', nav: { icon: 'race', group: 'ai' }, load: page(() => import('./pages/race/Race.svelte')) },
  { path: '/race/compute', title: 'Compute', key: 'm', nav: { icon: 'compute', group: 'ai' }, load: page(() => import('./pages/race/Race.svelte')) },
  { path: '/race/image', title: 'Image', key: 'i', nav: { icon: 'image', group: 'ai' }, load: page(() => import('./pages/race/Race.svelte')) },
  { path: '/runs', title: 'Races', load: page(() => import('./pages/runs/Runs.svelte')) },
  { path: '/runs/:id', title: 'Race', load: page(() => import('./pages/runs/RunPage.svelte')) },
  { path: '/workers', title: 'Workers', key: 'w', nav: { icon: 'workers', group: 'farm', phone: true }, load: page(() => import('./pages/workers/Workers.svelte')) },
  { path: '/workers/:id', title: 'Worker', load: page(() => import('./pages/workers/WorkerPage.svelte')) },
  { path: '/chat', title: 'Chat', key: 'c', nav: { icon: 'chat', group: 'ai' }, load: page(() => import('./pages/chat/Chat.svelte')) },
  { path: '/services', title: 'Services', key: 'v', nav: { icon: 'services', group: 'ai' }, load: page(() => import('./pages/services/Services.svelte')) },
  { path: '/admin', title: 'Admin', key: 'a', nav: { icon: 'admin', group: 'farm' }, load: page(() => import('./pages/admin/Admin.svelte')) },
];

export const groups = [
  { id: 'work', title: 'Work' },
  { id: 'ai', title: 'AI' },
  { id: 'farm', title: 'Farm' },
] as const;
