// Every page, for the tests that look at all of them and for the screenshots. `{job}` is a job that has run.
export interface Page {
  name: string; // of the screenshot
  hash: string;
  ready: string; // a selector that is there when it stands
}

export const pages: Page[] = [
  { name: 'overview', hash: '#/', ready: 'main h1' },
  { name: 'jobs', hash: '#/jobs', ready: 'main [role=row]' },
  { name: 'job', hash: '#/jobs/{job}', ready: 'main h1' },
  { name: 'task', hash: '#/jobs/{job}/tasks/0', ready: 'main h1' },
  { name: 'submit', hash: '#/submit', ready: 'main form' },
  { name: 'workers', hash: '#/workers', ready: 'main [data-worker], main h2' },
  { name: 'race', hash: '#/race/llm', ready: 'main h2' },
  { name: 'compute', hash: '#/race/compute', ready: 'main [data-check], main h2' },
  { name: 'image', hash: '#/race/image', ready: 'main h2' },
  { name: 'races', hash: '#/runs', ready: 'main h2, main [role=row]' },
  { name: 'chat', hash: '#/chat', ready: 'main h1' },
  { name: 'services', hash: '#/services', ready: 'main [role=tablist]' },
  { name: 'models', hash: '#/services?tab=models', ready: 'main [role=tablist]' },
  { name: 'gateway', hash: '#/services?tab=gateway', ready: 'main h2' },
  { name: 'train', hash: '#/train', ready: 'main h2' },
  { name: 'admin', hash: '#/admin', ready: 'main h2' },
  { name: 'alerts', hash: '#/admin?tab=alerts', ready: 'main .rules li' },
  { name: 'tokens', hash: '#/admin?tab=tokens', ready: 'main p' },
  { name: 'users', hash: '#/admin?tab=users', ready: 'main p' },
  { name: 'schedules', hash: '#/admin?tab=schedules', ready: 'main p' },
  { name: 'dead_letters', hash: '#/admin?tab=dead', ready: 'main select' },
  { name: 'database', hash: '#/admin?tab=database', ready: 'main dl' },
  { name: 'settings', hash: '#/admin?tab=settings', ready: 'main p' },
];
