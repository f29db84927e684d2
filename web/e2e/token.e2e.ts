// A farm that wants a token, from the first question to a file on the user's disk.
import { readFile } from 'node:fs/promises';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { launch, open } from './browser.ts';
import { Farm } from './farm.ts';

const secret = 'kept-in-this-test-alone-and-nowhere-else';
let farm: Farm;
let browser: Browser;

beforeAll(async () => {
  [farm, browser] = await Promise.all([Farm.start({ token: secret }), launch()]);
});
afterAll(async () => {
  await browser?.close();
  await farm?.stop();
});

it('is asked for, refused when it is wrong, and then carried by all: pages, the live line and downloads', async () => {
  const job = await farm.submit({ name: 'with a file', script: 'echo inside > out.txt', files_out: ['out.txt'] });
  await farm.ended(job);
  const { page, close } = await open(browser, farm.url, `#/jobs/${job}/tasks/0`);
  await page.getByRole('textbox', { name: 'Token' }).fill('a wrong one');
  await page.getByRole('button', { name: 'Use it' }).click();
  await page.getByText('did not take the token').waitFor();
  await page.getByRole('textbox', { name: 'Token' }).fill(secret);
  await page.getByRole('button', { name: 'Use it' }).click();
  await page.getByTitle('The connection to the server').getByText('Live').first().waitFor();
  const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'out.txt' }).click()]);
  expect(file.suggestedFilename()).toBe('out.txt');
  expect(await readFile(await file.path(), 'utf8')).toBe('inside\n');
  await close();
});
