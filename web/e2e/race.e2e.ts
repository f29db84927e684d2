// Races on real workers: language models with services of our own, sieves, and pictures by mocks.
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findings, launch, open, overflow } from './browser.ts';
import { Farm, until } from './farm.ts';
import { ModelService } from './model_service.ts';

let farm: Farm;
let browser: Browser;
interface Run {
  run_id: string;
  status: string;
  summary: { ranking: { winner: string | null; order: string[] }; machines: Record<string, { text?: string; mock?: boolean }> };
}
const run_of = (id: string) => farm.get<Run>(`/api/runs/${id}`);
const lane = (page: Page, machine: string) => page.locator(`[data-machine="${machine}"]`);
const ended = (page: Page, status = 'completed') => page.locator(`[data-run][data-status="${status}"]`).waitFor({ timeout: 30_000 });
const id_of = async (page: Page) => (await page.locator('[data-run]').getAttribute('data-run'))!;

beforeAll(async () => {
  [farm, browser] = await Promise.all([Farm.start({ workers: 0 }), launch()]);
});
afterAll(async () => {
  await browser?.close();
  await farm?.stop();
});

it('says what to do where no machine is, and where none can', async () => {
  const { page, errors, close } = await open(browser, farm.url, '#/race/llm');
  await page.getByText('No machine is connected').waitFor();
  expect(await findings(page)).toEqual([]);
  farm.add_worker('plain');
  await page.getByText('No machine has a language model yet').waitFor();
  await page.goto(`${farm.url}#/race/image`);
  await page.getByText('No machine paints yet').waitFor();
  expect(await findings(page)).toEqual([]);
  expect(errors).toEqual([]);
  await close();
});

it('paints with a mock when asked to, and says that it is one', async () => {
  const { page, errors, csp, close } = await open(browser, farm.url, '#/race/image');
  await page.getByRole('button', { name: 'Try it with a mock' }).click();
  await page.locator('[data-check="plain"]').getByText('mock', { exact: true }).waitFor();
  await page.getByLabel('Pictures').fill('2');
  await page.getByLabel('Width').fill('64');
  await page.getByLabel('Height').fill('64');
  await page.getByRole('button', { name: 'Run (Image)' }).click();
  await ended(page);
  await page.getByText('2 pictures').waitFor();
  await page.getByText('Not a real result').first().waitFor();
  await page.getByRole('button', { name: 'Compare picture 1 of plain' }).click();
  await page.getByRole('button', { name: 'Compare picture 2 of plain' }).click();
  const slider = page.getByRole('slider');
  await slider.waitFor();
  const before = await slider.inputValue();
  await slider.focus();
  await page.keyboard.press('ArrowRight');
  expect(await slider.inputValue()).not.toBe(before);
  expect(page.url()).toMatch(/left=.*right=/);
  const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download picture 1 of plain' }).click()]);
  expect(file.suggestedFilename()).toMatch(/_plain_1\.png$/);
  expect(await findings(page)).toEqual([]);
  expect((await run_of(await id_of(page))).summary.ranking.winner).toBeNull();
  expect(errors).toEqual([]);
  expect(await csp()).toEqual([]);
  await close();
});

it('counts primes by the keyboard alone, and shows the known count', async () => {
  const { page, errors, close } = await open(browser, farm.url, '#/race/compute');
  await page.locator('[data-check="plain"]').waitFor();
  await page.getByLabel('Count up to').fill('1000000');
  await page.getByLabel('Repeats').fill('2');
  await page.keyboard.press('Control+Enter');
  await ended(page);
  await page.getByRole('cell', { name: /78\s498/ }).waitFor();
  await lane(page, 'plain').getByText('Algorithm: segmented_sieve').waitFor();
  expect(page.url()).toContain('n=1000000');
  expect(await findings(page)).toEqual([]);
  for (const [format, end] of [['CSV', 'csv'], ['JSON', 'json'], ['HTML', 'html']] as const) {
    await page.getByRole('button', { name: 'Export' }).click();
    const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: new RegExp(format) }).click()]);
    expect(file.suggestedFilename()).toBe(`${await id_of(page)}.${end}`);
  }
  expect(errors).toEqual([]);
  await close();
});

describe('with a model on two machines', () => {
  let fast: ModelService;
  let slow: ModelService;
  const answer = Array.from({ length: 40 }, (_, i) => `word${i}`);
  beforeAll(async () => {
    [fast, slow] = await Promise.all([ModelService.start('parrot'), ModelService.start('parrot')]);
    fast.words = slow.words = answer;
    fast.pause_ms = 5;
    slow.pause_ms = 30;
    farm.add_worker('fast', 2, ['--service', `openai=${fast.url}`]);
    farm.add_worker('slow', 2, ['--service', `openai=${slow.url}`]);
    await until('both models are known', async () => {
      const workers = await farm.get<{ connected: boolean; services: { models: { name: string }[] }[] }[]>('/api/workers');
      return workers.filter((one) => one.connected && one.services.some((service) => service.models.some((model) => model.name === 'parrot'))).length === 2;
    });
  });
  afterAll(async () => {
    await Promise.all([fast?.stop(), slow?.stop()]);
  });

  it('races them: who can, text without a gap, who is surely the best', async () => {
    const { page, errors, outside, csp, close } = await open(browser, farm.url, '#/race/llm');
    await page.locator('[data-check="plain"]').getByText('no llm service').waitFor();
    expect(await page.getByLabel('Model', { exact: true }).inputValue()).toBe('parrot');
    expect(await page.locator('[data-check="fast"] input').isChecked()).toBe(true);
    expect(await page.locator('[data-check="plain"] input').isDisabled()).toBe(true);
    await page.getByLabel('Repeats').fill('3');
    await page.getByRole('button', { name: 'Run (LLM)' }).click();
    await lane(page, 'slow').getByText('word0').waitFor();
    await ended(page);
    for (const machine of ['fast', 'slow'])
      expect(await page.getByRole('region', { name: `Answer of ${machine}` }).textContent()).toBe(answer.join(' '));
    const run = await run_of(await id_of(page));
    expect(Object.keys(run.summary.machines).sort()).toEqual(['fast', 'slow']);
    // The page says no more than the server.
    expect(await page.locator('article').getByText('winner', { exact: true }).count()).toBe(run.summary.ranking.winner ? 1 : 0);
    if (run.summary.ranking.winner) await lane(page, run.summary.ranking.winner).getByText('winner', { exact: true }).waitFor();
    expect(await findings(page)).toEqual([]);
    expect(errors).toEqual([]);
    expect(outside).toEqual([]);
    expect(await csp()).toEqual([]);
    // Once more: now there is one to compare with.
    await page.getByRole('button', { name: 'Run (LLM)' }).click();
    await page.waitForFunction((old) => document.querySelector('[data-run]')?.getAttribute('data-run') !== old, run.run_id);
    await ended(page);
    await page.getByRole('link', { name: run.run_id }).first().waitFor();
    await page.getByText('then,').first().waitFor();
    await close();
  });

  it('leaves out the machine that was not chosen', async () => {
    const { page, close } = await open(browser, farm.url, '#/race/llm?max_tokens=64');
    await page.locator('[data-check="slow"] input').uncheck();
    await page.getByText('on 1 of 2 machines').waitFor();
    await page.getByRole('button', { name: 'Run (LLM)' }).click();
    await ended(page);
    expect(Object.keys((await run_of(await id_of(page))).summary.machines)).toEqual(['fast']);
    await close();
  });

  it('shows a race that goes on to who comes later, and cancels it', async () => {
    slow.pause_ms = 60;
    const { run_id } = await farm.post<{ run_id: string }>('/api/runs', { kind: 'llm', model: 'parrot', prompt: 'go', workers: ['slow'], repeats: 50 });
    await until('it streams', async () => (await (await fetch(`${farm.api_url}/api/runs/${run_id}/events`)).text()).includes('llm_token'));
    const { page, errors, close } = await open(browser, farm.url, `#/runs/${run_id}`);
    await page.waitForFunction(() => /^word0 word1 word2 /.test(document.querySelector('[data-machine] .out')?.textContent ?? ''));
    // Each word once and in order, though some came before this page did.
    const text = (await page.getByRole('region', { name: 'Answer of slow' }).textContent())!;
    expect(answer.join(' ').startsWith(text.trim())).toBe(true);
    await page.getByRole('button', { name: 'Cancel' }).click();
    await ended(page, 'cancelled');
    expect((await run_of(run_id)).status).toBe('cancelled');
    expect(await findings(page)).toEqual([]);
    expect(errors).toEqual([]);
    await close();
    slow.pause_ms = 30;
  });

  it('says which machine failed and why', async () => {
    slow.mode = 'refuses';
    const { page, close } = await open(browser, farm.url, '#/race/llm');
    await page.locator('[data-check="slow"]').waitFor();
    await page.getByRole('button', { name: 'Run (LLM)' }).click();
    await ended(page, 'partial');
    await page.locator('[data-machine="slow"][data-fate="failed"]').waitFor();
    await lane(page, 'slow').getByRole('link', { name: 'Job' }).waitFor();
    expect(await findings(page)).toEqual([]);
    slow.mode = 'answers';
    await close();
  });

  it('says what is missing when the button is pressed too soon', async () => {
    const { page, close } = await open(browser, farm.url, '#/race/llm?prompt=%20');
    await page.getByRole('button', { name: 'Run (LLM)' }).click();
    await page.getByText('Write a prompt.').waitFor();
    expect(await page.evaluate(() => document.activeElement?.tagName)).toBe('TEXTAREA');
    await close();
  });

  it('lists all races, and compares two of a kind', async () => {
    const { page, errors, close } = await open(browser, farm.url, '#/runs?kind=llm');
    await page.getByRole('row').nth(3).waitFor();
    await page.getByRole('checkbox', { name: 'Select row 1' }).check();
    await page.getByText('Select one more to compare').waitFor();
    await page.getByRole('checkbox', { name: 'Select row 2' }).check();
    await page.getByRole('link', { name: 'Compare' }).click();
    await page.getByRole('heading', { name: 'Against other races' }).waitFor();
    expect(page.url()).toContain('with=');
    expect(errors).toEqual([]);
    await close();
  });

  for (const hash of ['#/race/llm', '#/race/compute', '#/race/image', '#/runs']) {
    it(`holds at 360 px and in the dark: ${hash}`, async () => {
      const { page, close } = await open(browser, farm.url, hash, { width: 360, height: 780, theme: 'dark' });
      await page.locator('main h1').waitFor();
      await page.locator('main [role=row], main [data-check]').first().waitFor();
      expect(await overflow(page)).toBe(0);
      expect(await findings(page)).toEqual([]);
      await close();
    });
  }
});
