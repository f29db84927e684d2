// One line a page. `nav` puts it into the menu; `key` is the second key after g.
import type { Component } from 'svelte';
import Overview from './pages/overview/Overview.svelte';

export interface Route {
  path: string;
  title: string;
  load: () => Promise<Page>;
  nav?: { icon: string; group: 'work' | 'ai' | 'farm'; phone?: boolean };
  key?: string;
}

// A page declares the params that it has; here they are all words by name.
type Page = Component<{ params: Record<string, string> }>;
const page = (name: keyof typeof import('./pages/others')) => async () => (await import('./pages/others'))[name] as unknown as Page;

export const routes: Route[] = [
  { path: '/', title: 'Overview', key: 'o', nav: { icon: 'overview', group: 'work', phone: true }, load: async () => Overview as unknown as Page },
  { path: '/jobs', title: 'Jobs', key: 'j', nav: { icon: 'jobs', group: 'work', phone: true }, load: page('Jobs') },
  { path: '/submit', title: 'Submit', key: 's', nav: { icon: 'submit', group: 'work', phone: true }, load: page('Submit') },
  { path: '/jobs/:id', title: 'Job', load: page('Job') },
  { path: '/jobs/:id/tasks/:index', title: 'Task', load: page('Task') },
  { path: '/race/llm', title: 'Race', key: 'r', nav: { icon: 'race', group: 'ai' }, load: page('Race') },
  { path: '/race/compute', title: 'Compute', key: 'm', nav: { icon: 'compute', group: 'ai' }, load: page('Race') },
  { path: '/race/image', title: 'Image', key: 'i', nav: { icon: 'image', group: 'ai' }, load: page('Race') },
  { path: '/runs', title: 'Races', load: page('Runs') },
  { path: '/runs/:id', title: 'Race', load: page('RunPage') },
  { path: '/workers', title: 'Workers', key: 'w', nav: { icon: 'workers', group: 'farm', phone: true }, load: page('Workers') },
  { path: '/workers/:id', title: 'Worker', load: page('WorkerPage') },
  { path: '/chat', title: 'Chat', key: 'c', nav: { icon: 'chat', group: 'ai' }, load: page('Chat') },
  { path: '/services', title: 'Services', key: 'v', nav: { icon: 'services', group: 'ai' }, load: page('Services') },
  { path: '/train', title: 'Train', key: 't', nav: { icon: 'train', group: 'farm' }, load: page('Train') },
  { path: '/admin', title: 'Admin', key: 'a', nav: { icon: 'admin', group: 'farm' }, load: page('Admin') },
];

export const groups = [
  { id: 'work', title: 'Work' },
  { id: 'ai', title: 'AI' },
  { id: 'farm', title: 'Farm' },
] as const;
