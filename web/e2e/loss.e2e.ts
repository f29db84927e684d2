// What is watched goes away, and comes back.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { launch, open } from './browser.ts';
import { Farm, until } from './farm.ts';

let farm: Farm;
let browser: Browser;
beforeAll(async () => {
  [farm, browser] = await Promise.all([Farm.start({ workers: 2 }), launch()]);
});
afterAll(async () => {
  await browser?.close();
  await farm?.stop();
});

it('tells of a restart of the server, and repairs itself', async () => {
  const job = await farm.submit({ name: 'before', command: ['true'] });
  await farm.ended(job);
  const { page, csp, close } = await open(browser, farm.url, '#/jobs');
  await page.getByRole('link', { name: 'before' }).waitFor();
  expect(await page.getByTestId('banner').count()).toBe(0);
  await farm.server!.end('SIGKILL');
  await page.getByTestId('banner').getByText('No connection to the server').waitFor();
  await page.getByRole('link', { name: 'before' }).waitFor(); // what was seen stays
  await farm.start_server();
  const missed = await farm.submit({ name: 'meanwhile', command: ['true'], gpus: 1 });
  await until('the banner is gone', async () => (await page.getByTestId('banner').count()) === 0, 30_000);
  await page.getByRole('link', { name: 'meanwhile' }).waitFor();
  await page.getByText('Live', { exact: true }).first().waitFor();
  await farm.post(`/api/jobs/${missed}/cancel`);
  await page.getByRole('row').filter({ hasText: 'meanwhile' }).getByText('cancelled').waitFor(); // and it is live again
  expect(await csp()).toEqual([]);
  await close();
});

it('shows that a worker is lost, and that its work goes on', async () => {
  await farm.connected(2);
  const { page, close } = await open(browser, farm.url, '#/');
  const workers = page.getByRole('link', { name: /^Workers \d/ }).last();
  await until('two are seen', async () => /Workers\s*2/.test((await workers.textContent()) ?? ''));
  const job = await farm.submit({ name: 'carried', count: 6, command: ['sleep', '1'], retries: 3 });
  await until('it runs', async () => (await farm.get<{ running_tasks: number }>(`/api/jobs/${job}`)).running_tasks >= 3);
  await farm.workers[1]!.end('SIGKILL');
  await until('one is left', async () => /Workers\s*1/.test((await workers.textContent()) ?? ''), 40_000);
  await page.goto(`${farm.url}#/jobs/${job}?tab=timeline`);
  await page.getByTestId('progress').getByText('100\u202f%').waitFor({ timeout: 60_000 });
  await close();
}, 100_000);

it('shows five hundred workers', async () => {
  await farm.fake_workers(500);
  await farm.connected(500);
  const { page, errors, close } = await open(browser, farm.url, '#/');
  await until('they are counted', async () => /Workers\s*50\d/.test((await page.getByRole('link', { name: /^Workers \d/ }).last().textContent()) ?? ''));
  expect(errors.filter((one) => !one.includes('404'))).toEqual([]);
  await close();
});
