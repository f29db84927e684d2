// The work of every day, as a person does it.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { launch, open } from './browser.ts';
import { Farm, until } from './farm.ts';

let farm: Farm;
let browser: Browser;
let grid = true;

beforeAll(async () => {
  [farm, browser] = await Promise.all([Farm.start({ workers: 2 }), launch()]);
  const probe = await farm.submit({ command: ['true'] });
  await farm.ended(probe);
  grid = await farm.has(`/api/jobs/${probe}/grid`);
});
afterAll(async () => {
  await browser?.close();
  await farm?.stop();
});

describe('from submit to result', () => {
  it('through the form', async () => {
    const { page, errors, close } = await open(browser, farm.url, '#/submit');
    await page.getByLabel('Script').fill('echo the answer is $((6 * 7))');
    await page.getByLabel('Name').fill('by the form');
    await page.getByText('Nothing holds it back').waitFor();
    await page.getByRole('button', { name: 'Submit' }).click();
    await page.getByRole('heading', { name: 'by the form' }).waitFor();
    await page.getByText('100\u202f%').waitFor();
    await page.getByRole('tab', { name: 'Output' }).click();
    await page.getByText('the answer is 42').waitFor();
    await page.getByRole('tab', { name: 'Results' }).click();
    await page.getByRole('gridcell', { name: 'the answer is 42' }).waitFor();
    expect(errors.filter((one) => grid || !one.includes('/grid'))).toEqual([]);
    await close();
  });

  it('says what would be refused before anything is submitted', async () => {
    const before = (await farm.get<{ total_jobs: number }>('/api/stats')).total_jobs;
    const { page, close } = await open(browser, farm.url, '#/submit');
    await page.getByRole('button', { name: 'Submit' }).click();
    await page.getByText('What shall run?').waitFor();
    expect(await page.evaluate(() => document.activeElement?.tagName)).toBe('TEXTAREA');
    await page.getByLabel('Script').fill('true');
    await page.getByText('What each task needs').click();
    await page.getByLabel('GPUs').fill('1');
    await page.getByTestId('explain').getByText('Waits for GPUs').first().waitFor();
    await page.getByRole('radio', { name: 'Job file' }).check({ force: true });
    await page.locator('textarea').fill('{"comand": ["true"]}');
    await page.getByText('Did you mean "command"?').waitFor();
    await page.getByRole('button', { name: 'Submit' }).click();
    await page.getByText('The server did not take it.').waitFor();
    expect(await page.getByRole('alert').count()).toBe(1);
    await page.locator('textarea').fill('{"command": ["true"]}');
    await until('what was said of another draft is gone', async () => (await page.getByRole('alert').count()) === 0);
    expect((await farm.get<{ total_jobs: number }>('/api/stats')).total_jobs).toBe(before);
    await close();
  });

  it('once more, with changes', async () => {
    const job = await farm.submit({ name: 'first', command: ['echo', 'one two'], priority: 3 });
    await farm.ended(job);
    const { page, close } = await open(browser, farm.url, `#/jobs/${job}`);
    await page.getByRole('link', { name: 'Duplicate' }).click();
    await page.getByText(`like job ${job}`).waitFor();
    expect(await page.getByRole('textbox', { name: 'Command' }).inputValue()).toBe("echo 'one two'");
    await page.getByLabel('Name').fill('second');
    await page.getByRole('tab', { name: 'curl' }).click();
    expect(await page.getByTestId('code').textContent()).toContain('"priority": 3');
    await page.getByRole('button', { name: 'Submit' }).click();
    await page.getByRole('heading', { name: 'second' }).waitFor();
    await page.getByText('one two').first().waitFor();
    await close();
  });
});

describe('jobs', () => {
  it('cancels one that runs', async () => {
    const job = await farm.submit({ name: 'long', command: ['sleep', '600'] });
    const { page, close } = await open(browser, farm.url, `#/jobs/${job}`);
    await page.getByRole('button', { name: 'Cancel', exact: true }).click();
    await page.getByRole('button', { name: 'Cancel the job' }).click();
    await page.locator('.page-head').getByText('cancelled').waitFor();
    await page.getByText('0 of 1 task completed').waitFor();
    expect(await page.getByTestId('progress').textContent()).toBe('0\u202f%');
    expect((await farm.ended(job)).status).toBe('cancelled');
    await close();
  });

  it('finds what failed, and where, from the first page', async () => {
    const job = await farm.submit({ name: 'breaks', count: 12, retries: 0, script: 'if [ {index} = 5 ]; then echo no such shard >&2; exit 4; fi' });
    await farm.ended(job);
    const { page, close } = await open(browser, farm.url, '#/');
    await page.getByRole('link', { name: 'Jobs', exact: true }).first().click();
    await page.getByRole('group', { name: 'State' }).getByRole('button', { name: /^Failed/ }).click();
    await page.getByRole('link', { name: 'breaks' }).click();
    await page.getByRole('tab', { name: /Failures/, selected: true }).waitFor();
    await page.getByText('exit code 4: no such shard').first().waitFor();
    await page.getByRole('link', { name: 'task 5' }).click();
    await page.getByRole('heading', { name: 'Task 5' }).waitFor();
    await page.getByRole('log').getByText('no such shard').waitFor();
    expect(page.url()).toContain(`#/jobs/${job}/tasks/5`);
    await close();
  });

  it('says why a job waits', async () => {
    const job = await farm.submit({ name: 'huge', command: ['true'], cpus: 4000 });
    const { page, close } = await open(browser, farm.url, `#/jobs/${job}`);
    await page.getByRole('tab', { name: 'Why it waits', selected: true }).waitFor();
    await page.getByTestId('explain').getByText(/needs 4.?000 (cores|CPUs)/i).first().waitFor();
    await page.getByText('No worker of 2 workers could run it').waitFor();
    await farm.post(`/api/jobs/${job}/cancel`);
    await page.locator('.page-head').getByText('cancelled').waitFor();
    await close();
  });

  it('does the same to many, and says how it went with each', async () => {
    for (let i = 0; i < 6; ++i) await farm.submit({ name: `herd ${i}`, command: ['true'], gpus: 1 });
    const { page, close } = await open(browser, farm.url, '#/jobs?state=live&q=herd');
    const rows = page.getByRole('row').filter({ hasText: 'herd' });
    await until('six rows', async () => (await rows.count()) === 6);
    await page.getByLabel('Select all').check();
    await page.getByRole('toolbar', { name: 'Selected jobs' }).getByRole('button', { name: /Cancel/ }).click();
    await page.getByRole('button', { name: 'Cancel 6 jobs' }).click();
    await page.getByText('6 jobs: done.').waitFor();
    await until('none is left', async () => (await rows.count()) === 0);
    await page.getByRole('group', { name: 'State' }).getByRole('button', { name: /^All/ }).click();
    await until('they are cancelled', async () => (await rows.filter({ hasText: 'cancelled' }).count()) === 6);
    await close();
  });

  it('moves with the job while it runs', async () => {
    const job = await farm.submit({ name: 'walks', count: 40, command: ['sleep', '0.3'] });
    const { page, close } = await open(browser, farm.url, `#/jobs/${job}?tab=logs`);
    const seen = new Set<string>();
    await until('it is complete', async () => {
      const text = await page.getByTestId('progress').textContent();
      if (text) seen.add(text);
      return text === '100\u202f%';
    });
    expect(seen.size).toBeGreaterThan(2);
    await close();
  });
});

describe('addresses and keys', () => {
  it('shows when jobs were submitted also on a small screen', async () => {
    const { page, close } = await open(browser, farm.url, '#/jobs', { width: 1280 });
    const heading = (await page.getByRole('columnheader', { name: 'Submitted' }).boundingBox())!;
    const grid = (await page.getByRole('grid', { name: 'Jobs' }).boundingBox())!;
    expect(heading.x + heading.width).toBeLessThanOrEqual(grid.x + grid.width);
    await close();
  });

  it('opens what an address says', async () => {
    const job = await farm.submit({ name: 'linked', count: 40, command: ['echo', 'x'] });
    await farm.ended(job);
    const { page, close } = await open(browser, farm.url, '#/jobs?state=completed&q=linked&sort=name');
    await page.getByRole('link', { name: 'linked' }).waitFor();
    expect(await page.getByRole('searchbox').inputValue()).toBe('linked');
    await page.goto(`${farm.url}#/jobs/${job}?tab=results`);
    await page.getByRole('tab', { name: 'Results', selected: true }).waitFor();
    await page.goto(`${farm.url}#/jobs/${job}/tasks/39`);
    await page.getByRole('heading', { name: 'Task 39' }).waitFor();
    await page.goto(`${farm.url}#/jobs/no-such`);
    await page.getByText('There is no job “no-such”').waitFor();
    await page.goto(`${farm.url}#/nowhere`);
    await page.getByText('There is no such page').waitFor();
    await page.goBack();
    await page.getByText('There is no job').waitFor();
    await close();
  });

  it('needs no mouse', async () => {
    const { page, close } = await open(browser, farm.url, '#/');
    await page.getByRole('heading', { name: 'Overview' }).waitFor();
    await page.keyboard.press('g');
    await page.keyboard.press('j');
    await page.getByRole('grid', { name: 'Jobs' }).waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('linked');
    await until('the list is filtered', async () => (await page.getByRole('row').count()) === 2);
    await page.keyboard.press('Escape');
    await until('all are there again', async () => !page.url().includes('q=') && (await page.getByRole('row').count()) > 2);
    await page.keyboard.press('/');
    await page.keyboard.type('linked');
    await until('the list is filtered again', async () => (await page.getByRole('row').count()) === 2);
    await page.keyboard.press('Tab');
    await page.keyboard.press('j');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'linked' }).waitFor();
    await page.keyboard.press('?');
    await page.getByRole('dialog').getByText('Cancel the job').waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('g');
    await page.keyboard.press('s');
    await page.getByRole('heading', { name: 'Submit a job' }).waitFor();
    await page.getByLabel('Script').focus();
    await page.keyboard.type('echo by keys');
    await page.keyboard.press('Control+Enter');
    await page.getByText('by keys').first().waitFor();
    await close();
  });
});

describe('a job of a million', () => {
  it('stays readable, down to one task', async (context) => {
    if (!grid) return context.skip();
    const job = await farm.submit({ name: 'million', count: 1_000_000, builtin: { op: 'noop' } });
    const { page, errors, close } = await open(browser, farm.url, `#/jobs/${job}?tab=tasks`);
    const map = page.getByTestId('grid');
    await until('the map stands', async () => Number(await map.getAttribute('data-cells')) > 500);
    await page.getByText('1\u202f000\u202f000 tasks').first().waitFor();
    await farm.post(`/api/jobs/${job}/cancel`);
    await page.locator('.page-head').getByText('cancelled').waitFor();
    await map.focus();
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Enter');
    await until('closer', async () => page.url().includes('tasks=') && Number(await map.getAttribute('data-per-cell')) === 1);
    expect(page.url()).toMatch(/tasks=\d+-\d+/);
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: /^Task [1-9]/ }).waitFor();
    await page.goBack();
    await page.getByRole('button', { name: 'All tasks' }).click();
    await until('all again', async () => Number(await map.getAttribute('data-per-cell')) > 1);
    const box = (await map.boundingBox())!;
    await page.mouse.move(box.x + 3, box.y + 3);
    await page.mouse.down();
    await page.mouse.move(box.x + 60, box.y + 3, { steps: 4 });
    await page.mouse.up();
    await until('dragged closer', async () => /tasks=0-\d+/.test(page.url()));
    expect(errors).toEqual([]);
    await close();
  });
});
