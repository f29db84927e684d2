// All that the first view does not need: one file, fetched once.
export { default as Palette } from '../components/Palette.svelte';
export { default as Admin } from './admin/Admin.svelte';
export { default as Chat } from './chat/Chat.svelte';
export { default as Job } from './jobs/Job.svelte';
export { default as Jobs } from './jobs/Jobs.svelte';
export { default as Race } from './race/Race.svelte';
export { default as RunPage } from './runs/RunPage.svelte';
export { default as Runs } from './runs/Runs.svelte';
export { default as Services } from './services/Services.svelte';
export { default as Submit } from './submit/Submit.svelte';
export { default as Task } from './jobs/Task.svelte';
export { default as Train } from './train/Train.svelte';
export { default as WorkerPage } from './workers/WorkerPage.svelte';
export { default as Workers } from './workers/Workers.svelte';
