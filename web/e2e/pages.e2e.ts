// Every page, in both themes and on a phone: no finding, no error, no outside request, nothing wider than the screen.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { findings, launch, open, overflow } from './browser.ts';
import { Farm } from './farm.ts';
import { pages } from './pages.ts';

let farm: Farm;
let browser: Browser;
let job = '';
const missing: string[] = [];

beforeAll(async () => {
  [farm, browser] = await Promise.all([Farm.start({ workers: 2 }), launch()]);
  job = await farm.submit({ name: 'mixed', count: 30, script: 'echo line {index}; [ {index} != 3 ]', retries: 0, cpus: 0.5 });
  await farm.submit({ name: 'needs a GPU', command: ['true'], gpus: 1 });
  await farm.ended(job);
  for (const path of ['/api/overview', '/api/history?span=15m', `/api/jobs/${job}/grid`, '/api/workers/history', '/api/join', '/api/settings']) {
    if (!(await farm.has(path))) missing.push(path.split('?')[0]!);
  }
  if (missing.length) console.warn(`This binary lacks ${missing.join(', ')}: their absence is not counted as an error.`);
});
afterAll(async () => {
  await browser?.close();
  await farm?.stop();
});

it.each(pages)('$name', async ({ hash, ready }) => {
  const { page, errors, outside, csp, close } = await open(browser, farm.url, hash.replace('{job}', job));
  await page.waitForSelector(ready, { timeout: 15_000 });
  await page.waitForTimeout(250);
  expect(await findings(page), 'light').toEqual([]);
  await page.emulateMedia({ colorScheme: 'dark', reducedMotion: 'reduce' });
  await page.waitForFunction(() => document.documentElement.dataset.theme === 'dark');
  expect(await findings(page), 'dark').toEqual([]);
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
  await page.setViewportSize({ width: 360, height: 780 });
  await page.waitForTimeout(150);
  expect(await overflow(page), 'wider than 360 px').toBeLessThanOrEqual(0);
  expect(await findings(page), '360 px').toEqual([]);
  expect(await csp()).toEqual([]);
  expect(outside).toEqual([]);
  expect(errors.filter((one) => !missing.some((path) => one.includes(path)) && !(missing.length && /api\/workers\/w-/.test(one)))).toEqual([]);
  await close();
});

it('charts are drawn, and show together what was at the pointer', async () => {
  const { page, errors, close } = await open(browser, farm.url, '#/');
  await page.waitForFunction(() => document.querySelectorAll('main figure .u-over').length === 4);
  await page.waitForFunction(() =>
    [...document.querySelectorAll<HTMLCanvasElement>('main figure canvas')].every((canvas) => {
      const { data } = canvas.getContext('2d')!.getImageData(0, 0, canvas.width, canvas.height);
      return data.some((alpha, i) => i % 4 === 3 && alpha > 0);
    }),
  );
  const box = (await page.locator('main figure .u-over').first().boundingBox())!;
  const shown = page.locator('main figure .keys > .num'); // the time at the pointer
  expect(await shown.count()).toBe(0);
  await page.mouse.move(box.x + box.width - 10, box.y + 20);
  await page.waitForFunction(() => document.querySelectorAll('main figure .keys > .num').length === 4);
  expect(new Set(await shown.allTextContents()).size).toBe(1);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width - 40, box.y + 30, { steps: 3 });
  await page.mouse.up();
  await page.mouse.move(box.x + 5, box.y - 60);
  await page.waitForFunction(() => document.querySelectorAll('main figure .keys > .num').length === 0);
  expect(errors.filter((one) => !missing.some((path) => one.includes(path)))).toEqual([]);
  await close();
});
