// What whoever runs the farm does, and the command palette: by keyboard where that is the point.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findings, launch, open, overflow } from './browser.ts';
import { Farm, until } from './farm.ts';

let farm: Farm;
let browser: Browser;
let failed = '';

beforeAll(async () => {
  [farm, browser] = await Promise.all([Farm.start({ workers: 2 }), launch()]);
  failed = await farm.submit({ name: 'breaks', count: 3, script: 'echo {index} is wrong >&2; exit 3', retries: 0, user: 'ben', cpus: 0.5 });
  await farm.ended(failed);
});
afterAll(async () => {
  await browser?.close();
  await farm?.stop();
});

describe('the queue', () => {
  it('is paused and resumed, and work waits meanwhile', async () => {
    const { page, errors, close } = await open(browser, farm.url, '#/admin');
    await page.getByRole('button', { name: 'Pause the queue' }).click();
    await page.getByRole('button', { name: 'Resume the queue' }).waitFor();
    const job = await farm.submit({ command: ['true'] });
    await page.getByText('Tasks that wait').locator('..').getByText('1', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Resume the queue' }).click();
    expect((await farm.ended(job)).status).toBe('completed');
    expect(errors).toEqual([]);
    await close();
  });
  it('has another policy', async () => {
    const { page, close } = await open(browser, farm.url, '#/admin');
    await page.getByRole('button', { name: 'Use least loaded' }).click();
    await until('the policy', async () => (await farm.get<{ policy: string }>('/api/policy')).policy === 'least_loaded');
    await page.getByRole('button', { name: 'Use priority' }).click();
    await close();
  });
});

describe('users', () => {
  it('get limits, and lose them', async () => {
    const { page, close } = await open(browser, farm.url, '#/admin?tab=users');
    await page.getByRole('button', { name: 'Set limits for a user' }).click();
    await page.keyboard.type('anna'); // the first field has the focus
    await page.getByLabel('Tasks at once').fill('many');
    await page.keyboard.press('Enter');
    await page.getByText('A number, or nothing').waitFor();
    await page.getByLabel('Tasks at once').fill('7');
    await page.getByLabel('Weight').fill('2.5');
    await page.keyboard.press('Enter');
    await page.getByRole('row', { name: /anna/ }).getByText('7 tasks').waitFor();
    expect(await farm.get('/api/users/anna')).toMatchObject({ weight: 2.5, max_running: 7, max_cpus: 0 });
    // A link to the open form works.
    await page.goto(`${farm.url}#/admin?tab=users&user=anna`);
    expect(await page.getByLabel('Weight').inputValue()).toBe('2.5');
    await page.getByRole('button', { name: 'Take all limits away' }).click();
    await page.getByRole('button', { name: 'Take them away' }).click();
    await until('nobody has limits', async () => !(await farm.get<{ name: string }[]>('/api/users')).some((one) => one.name === 'anna'));
    await close();
  });
});

describe('schedules', () => {
  it('are added, run, paused, changed and removed', async () => {
    const { page, errors, close } = await open(browser, farm.url, '#/admin?tab=schedules');
    await page.getByText('No schedule yet').waitFor();
    await page.getByRole('button', { name: 'Add a schedule' }).click();
    await page.keyboard.type('tidy');
    await page.getByLabel('When (UTC)').fill('61 * * * *');
    await page.getByText('The minute, “61”, is not understood').waitFor();
    await page.getByRole('button', { name: 'every hour' }).click();
    await page.getByLabel('Or take the file').fill(failed);
    await page.getByRole('button', { name: 'Take it' }).click();
    await until('the file is there', async () => (await page.getByLabel('Job file').inputValue()).includes('breaks'));
    await page.getByLabel('Job file').fill('{"name": "tidy up", "command": ["true"]');
    await page.getByText('Not JSON').waitFor();
    await page.getByLabel('Job file').fill('{"name": "tidy up", "command": ["true"]}');
    await page.getByRole('button', { name: 'Add it' }).click();
    await page.getByRole('heading', { name: 'tidy' }).waitFor();
    const { next } = await farm.get<{ next: string }>('/api/schedules/tidy');
    expect(new Date(next).getUTCMinutes()).toBe(0);
    await page.getByRole('button', { name: 'Run now' }).click();
    await page.getByText('tidy runs.').waitFor();
    await page.getByRole('button', { name: 'Pause' }).click();
    await page.getByText('not while it is paused').waitFor();
    await page.getByRole('button', { name: 'Edit tidy' }).click();
    await page.getByLabel('When (UTC)').fill('@daily');
    await page.getByRole('button', { name: 'Save' }).click();
    // It stays paused: a change of the time is no resume.
    await until('it is changed', async () => (await farm.get<{ cron: string; paused: boolean }>('/api/schedules/tidy')).cron === '@daily');
    expect((await farm.get<{ paused: boolean }>('/api/schedules/tidy')).paused).toBe(true);
    await page.getByRole('button', { name: 'Remove tidy' }).click();
    await page.getByRole('button', { name: 'Remove it' }).click();
    await page.getByText('No schedule yet').waitFor();
    expect(errors).toEqual([]);
    await close();
  });
});

describe('what failed', () => {
  it('is filtered and run again, one and all', async () => {
    const { page, close } = await open(browser, farm.url, '#/admin?tab=dead');
    await page.getByRole('link', { name: `${failed}/0` }).waitFor();
    await page.locator('main select').selectOption('exception');
    await page.getByText('No dead letter is like this').waitFor();
    expect(page.url()).toContain('class=exception');
    await page.getByRole('button', { name: 'Show all' }).click();
    await page.getByRole('button', { name: `Run again: ${failed}/0` }).click();
    await page.getByText('1 task runs again.').waitFor();
    await farm.ended(failed);
    expect((await farm.get<{ attempt: number }[]>(`/api/jobs/${failed}/tasks`))[0]!.attempt).toBe(2);
    // By keys: the second row, and the one above it.
    await page.goto(`${farm.url}#/admin?tab=dead&job=${failed}`);
    await page.getByRole('button', { name: 'All of this job' }).click();
    await page.getByRole('button', { name: 'Run them again' }).click();
    await page.getByText('3 tasks run again.').waitFor();
    await farm.ended(failed);
    await close();
  });
  it('is counted by worker and class', async () => {
    const { page, close } = await open(browser, farm.url, '#/admin?tab=failures');
    await page.getByRole('columnheader', { name: 'exit code' }).waitFor();
    await page.getByRole('grid', { name: 'Failures by worker and class' }).getByRole('link').first().click();
    await page.getByRole('heading', { name: /Newest on machine-/ }).waitFor();
    await page.getByRole('button', { name: 'Show all' }).click();
    await page.getByRole('link', { name: `${failed}/1` }).first().click();
    await page.waitForURL((url) => url.hash === `#/jobs/${failed}/tasks/1`);
    await close();
  });
});

describe('the palette', () => {
  it('goes anywhere by keys alone', async () => {
    const { page, errors, close } = await open(browser, farm.url, '#/admin?tab=settings');
    await page.getByRole('heading', { name: 'Admin' }).waitFor();
    const ask = async (key: string, text: string) => {
      await page.keyboard.press(key);
      await page.getByRole('combobox', { name: /Page, job, worker/ }).waitFor();
      await page.keyboard.type(text);
    };
    await ask('Control+k', 'dead');
    expect(await findings(page)).toEqual([]);
    await page.keyboard.press('Enter');
    await page.waitForURL((url) => url.hash.includes('tab=dead'));
    await ask(':', 'breaks');
    await page.getByRole('option', { name: 'breaks' }).waitFor();
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'breaks' }).waitFor();
    await ask('Control+k', `${failed}/2`);
    await page.keyboard.press('Enter');
    await page.waitForURL((url) => url.hash === `#/jobs/${failed}/tasks/2`);
    await ask('Control+k', 'machine-2');
    await page.getByRole('option', { name: /machine-2/ }).waitFor();
    await page.keyboard.press('Enter');
    await page.waitForURL((url) => url.hash.startsWith('#/workers/'));
    await ask('Control+k', 'no such thing at all');
    await page.getByText('Nothing is called').waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('combobox', { name: /Page, job, worker/ }).waitFor({ state: 'detached' });
    expect(errors.filter((one) => !/api\/(settings|workers)/.test(one))).toEqual([]);
    await close();
  });
  it('pauses the farm, after asking, and resumes it', async () => {
    const { page, close } = await open(browser, farm.url, '#/admin');
    await page.getByRole('heading', { name: 'Admin' }).waitFor();
    await page.keyboard.press('Control+k');
    await page.keyboard.type('pause the farm');
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Pause it' }).click();
    await until('it is paused', async () => (await farm.get<{ paused: boolean }>('/api/queue')).paused);
    await page.getByText('The queue is paused').waitFor();
    await page.keyboard.press(':');
    await page.getByRole('combobox').waitFor();
    await page.keyboard.type('resume the farm');
    await page.keyboard.press('Enter');
    await until('it goes on', async () => !(await farm.get<{ paused: boolean }>('/api/queue')).paused);
    await close();
  });
  it('and the list of keys names itself', async () => {
    const { page, close } = await open(browser, farm.url, '#/chat');
    await page.getByRole('heading', { name: 'Chat' }).waitFor();
    await page.keyboard.press('Escape'); // out of the question's field, if it has the focus
    await page.keyboard.press('?');
    const keys = page.getByRole('dialog', { name: 'Keys' });
    for (const text of ['Go to or do anything', 'Search', 'Admin']) await keys.getByText(text, { exact: true }).waitFor();
    expect(await findings(page)).toEqual([]);
    await close();
  });
});

// The last: nothing is left after it.
describe('the data', () => {
  it('are deleted only after the words are typed', async () => {
    const { page, close } = await open(browser, farm.url, '#/admin?tab=database', { width: 360, height: 740 });
    await page.getByRole('button', { name: 'Delete all jobs' }).click();
    const go = page.getByRole('button', { name: 'Delete everything' });
    expect(await go.isDisabled()).toBe(true);
    await page.keyboard.type('delete all');
    expect(await go.isDisabled()).toBe(true);
    await page.keyboard.press('Enter');
    expect((await farm.get<{ total_jobs: number }>('/api/stats')).total_jobs).toBeGreaterThan(0);
    await page.keyboard.type(' jobs');
    expect(await overflow(page)).toBeLessThanOrEqual(0);
    await go.click();
    await page.getByText('All jobs, results and logs are deleted.').waitFor();
    expect((await farm.get<{ total_jobs: number }>('/api/stats')).total_jobs).toBe(0);
    await close();
  });
});
