// Machines: found, looked at, told what to do, and seen to arrive.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findings, launch, open, overflow } from './browser.ts';
import { Farm, until } from './farm.ts';

let farm: Farm;
let browser: Browser;
interface Worker {
  id: string;
  name: string;
  status: string;
  paused?: boolean;
}
const worker = async (name: string) => (await farm.get<Worker[]>('/api/workers')).find((one) => one.name === name);
// An older binary lacks some routes; that they are missing is no fault of the page.
const real = (errors: string[]) => errors.filter((text) => !/status of 404/.test(text));

beforeAll(async () => {
  [farm, browser] = await Promise.all([Farm.start({ workers: 3 }), launch()]);
});
afterAll(async () => {
  await browser?.close();
  await farm?.stop();
});

it('shows a card for each, and finds by what stands in the address', async () => {
  const { page, errors, outside, csp, close } = await open(browser, farm.url, '#/workers');
  await page.getByRole('heading', { name: 'machine-3' }).waitFor();
  expect(await page.locator('[data-worker]').count()).toBe(3);
  await page.keyboard.press('/');
  await page.keyboard.type('machine-2');
  await page.waitForFunction(() => document.querySelectorAll('[data-worker]').length === 1);
  expect(page.url()).toContain('q=machine-2');
  await page.reload();
  await page.getByRole('heading', { name: 'machine-2' }).waitFor();
  expect(await page.locator('[data-worker]').count()).toBe(1);
  await page.getByLabel('Search machines').fill('nothing is called so');
  await page.getByText('No machine matches').waitFor();
  await page.getByRole('button', { name: 'Show all' }).click();
  await page.waitForFunction(() => document.querySelectorAll('[data-worker]').length === 3);
  await page.getByRole('button', { name: 'Table' }).click();
  await page.getByRole('grid', { name: 'Machines' }).waitFor();
  expect(await page.getByRole('row').count()).toBe(4);
  expect(await findings(page)).toEqual([]);
  expect(real(errors)).toEqual([]);
  expect(outside).toEqual([]);
  expect(await csp()).toEqual([]);
  await close();
});

it('opens a machine by the keyboard alone', async () => {
  const { page, errors, close } = await open(browser, farm.url, '#/workers');
  await page.getByRole('heading', { name: 'machine-3' }).waitFor();
  await page.keyboard.press('j');
  await page.keyboard.press('j');
  await page.locator('.card.active').getByRole('heading', { name: 'machine-2' }).waitFor();
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'machine-2' }).waitFor();
  await page.getByText((await worker('machine-2'))!.id).waitFor();
  await page.getByRole('tab', { name: /Failures/ }).click();
  await page.getByText('Nothing has failed here').waitFor();
  expect(page.url()).toContain('tab=failures');
  await page.getByRole('tab', { name: /Models/ }).click();
  await page.getByText('No AI service is beside it').waitFor();
  expect(await findings(page)).toEqual([]);
  expect(real(errors)).toEqual([]);
  await close();
});

it('shows the one line for another machine, and the machine as it comes', async () => {
  const { page, errors, close } = await open(browser, farm.url, '#/workers');
  await page.getByRole('heading', { name: 'machine-1' }).waitFor();
  await page.keyboard.press('a');
  const dialog = page.getByRole('dialog', { name: 'Add a machine' });
  await dialog.getByText(/grange worker --server http/).waitFor();
  await dialog.getByText('grange up --host 0.0.0.0').waitFor();
  await dialog.getByText('Waiting for a machine').waitFor();
  expect(await dialog.getByRole('link', { name: /machine-/ }).count()).toBe(0);
  expect(await findings(page)).toEqual([]);
  farm.add_worker('newcomer');
  await dialog.getByRole('link', { name: /newcomer/ }).waitFor();
  await dialog.getByRole('button', { name: 'Done' }).click();
  await page.getByRole('heading', { name: 'newcomer' }).waitFor();
  expect(real(errors)).toEqual([]);
  await close();
});

it('takes none for new that was there', async () => {
  const { page, close } = await open(browser, farm.url, '#/workers?add=1');
  const dialog = page.getByRole('dialog', { name: 'Add a machine' });
  const seen: number[] = [];
  await dialog.waitFor();
  await until('machines are read', async () => {
    seen.push(await dialog.getByRole('link').count());
    return (await page.locator('[data-worker]').count()) > 0;
  });
  seen.push(await dialog.getByRole('link').count());
  expect(Math.max(...seen)).toBe(0);
  await page.goto(`${farm.url}#/workers/no-such`);
  await page.getByText('There is no worker “no-such”').waitFor();
  await page.getByRole('link', { name: 'All workers' }).last().click();
  await page.getByRole('heading', { name: 'machine-3' }).waitFor();
  await close();
});

it('drains a machine after a question, and forgets it when it has left', async () => {
  const { page, errors, close } = await open(browser, farm.url, '#/workers?q=machine-1');
  const card = page.locator('[data-worker]').first();
  await card.getByRole('button', { name: 'Actions for machine-1' }).click();
  await page.getByRole('button', { name: 'Drain' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Keep as it is' }).click();
  expect((await worker('machine-1'))!.status).toBe('online');
  await card.getByRole('button', { name: 'Actions for machine-1' }).click();
  await page.getByRole('button', { name: 'Drain' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Drain' }).click();
  await until('it has left', async () => (await worker('machine-1'))!.status === 'offline');
  await card.getByText('Not connected.').waitFor();
  if (await farm.has('/api/join')) {
    await card.getByRole('button', { name: 'Actions for machine-1' }).click();
    await page.getByRole('button', { name: 'Remove' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
    await page.getByText('No machine matches').waitFor();
    expect(await worker('machine-1')).toBeUndefined();
  }
  expect(real(errors)).toEqual([]);
  await close();
});

it('pauses a machine and lets it go on', async (context) => {
  if (!(await farm.has('/api/join'))) return context.skip();
  const { page, errors, close } = await open(browser, farm.url, `#/workers/${(await worker('machine-2'))!.id}`);
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.getByText('It is paused').waitFor();
  expect((await worker('machine-2'))!.paused).toBe(true);
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.getByRole('button', { name: 'Pause' }).waitFor();
  expect((await worker('machine-2'))!.paused).toBe(false);
  expect(errors).toEqual([]);
  await close();
});

describe('with 500 machines', () => {
  beforeAll(async () => {
    await farm.fake_workers(500);
  });
  it('has only those in the page that are seen, and reaches the last', async () => {
    const { page, errors, close } = await open(browser, farm.url, '#/workers?q=fake');
    await page.getByRole('heading', { name: 'fake-0000' }).waitFor();
    await page.getByRole('button', { name: /^Connected/ }).waitFor();
    expect(await page.locator('[data-worker]').count()).toBeLessThan(60);
    await page.evaluate(() => {
      const main = document.getElementById('main')!;
      main.scrollTop = main.scrollHeight;
    });
    await page.getByRole('heading', { name: 'fake-0499' }).waitFor();
    expect(await page.locator('[data-worker]').count()).toBeLessThan(60);
    expect(real(errors)).toEqual([]);
    await close();
  });
  for (const look of [{ width: 360, height: 780 }, { theme: 'dark' as const }]) {
    it(`holds at ${JSON.stringify(look)}`, async () => {
      const { page, close } = await open(browser, farm.url, '#/workers', look);
      await page.getByRole('heading', { name: 'fake-0000' }).waitFor();
      expect(await overflow(page)).toBe(0);
      expect(await findings(page)).toEqual([]);
      await close();
    });
  }
});
