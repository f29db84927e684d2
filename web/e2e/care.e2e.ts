// Who may do what, what the farm tells by itself, and services under care.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findings, launch, open, overflow } from './browser.ts';
import { Fakes } from './fakes.ts';
import { Farm, until } from './farm.ts';

let farm: Farm;
let browser: Browser;
let worker = '';

beforeAll(async () => {
  [farm, browser] = await Promise.all([Farm.start({ workers: 1 }), launch()]);
  worker = (await farm.get<{ id: string }[]>('/api/workers'))[0]!.id;
});
afterAll(async () => {
  await browser?.close();
  await farm?.stop();
});
const faked = async (hash: string, look = {}) => {
  const fakes = new Fakes();
  const watched = await open(browser, farm.url, hash, { ...look, before: (page) => fakes.serve(page) });
  return { fakes, ...watched };
};

describe('tokens', () => {
  it('are made, shown once, used, and revoked, on the real server', async () => {
    if (!(await farm.has('/api/tokens'))) return;
    const { page, errors, close } = await open(browser, farm.url, '#/admin?tab=tokens');
    await page.getByText('No named token yet').waitFor();
    await page.getByRole('button', { name: 'Create a token' }).click();
    await page.keyboard.type('no such/name');
    await page.keyboard.press('Enter');
    await page.getByText('Up to 64 letters').waitFor();
    await page.getByLabel('Name').fill('ben');
    await page.getByLabel(/^viewer/).check();
    await page.keyboard.press('Enter');
    const secret = (await page.getByTestId('secret').textContent())!;
    expect(secret).toMatch(/^gr_/);
    expect(await findings(page)).toEqual([]);
    await page.getByRole('button', { name: 'I have it' }).click();
    await page.getByRole('row', { name: /ben/ }).getByText('viewer').waitFor();
    expect(await page.content()).not.toContain(secret);

    // As him: he sees, and is told why he may not.
    const his = await open(browser, farm.url, '#/', { before: async (one) => void (await one.addInitScript((value) => sessionStorage.setItem('grange.token', value), secret)) });
    await his.page.getByText('ben (viewer)').waitFor();
    await his.page.evaluate(() => (location.hash = '#/admin'));
    const pause = his.page.getByRole('button', { name: 'Pause the queue' });
    await his.page.waitForFunction(() => document.querySelector('main button[aria-disabled=true]'));
    expect(await pause.getAttribute('title')).toContain('viewer');
    await pause.click({ force: true }); // aria-disabled: a person can press it
    await his.page.getByText('your role may not do that').first().waitFor();
    expect((await farm.get<{ paused: boolean }>('/api/queue')).paused).toBe(false);

    await page.getByRole('button', { name: 'Revoke ben' }).click();
    await page.getByRole('button', { name: 'Revoke it' }).click();
    await page.getByText('No named token yet').waitFor();
    await his.page.getByRole('dialog', { name: 'Token' }).waitFor();
    await his.close();
    expect(errors).toEqual([]);
    await close();
  });
});

describe('alerts', () => {
  it('have rules that are changed in place, on the real server', async () => {
    if (!(await farm.has('/api/alerts'))) return;
    const { page, errors, close } = await open(browser, farm.url, '#/admin?tab=alerts');
    const field = page.getByLabel('How long worker lost must hold, in seconds');
    await field.fill('77');
    await field.press('Enter');
    await until('the rule', async () => (await farm.get<{ rules: { kind: string; for_s: number }[] }>('/api/alerts/rules')).rules.find((one) => one.kind === 'worker_lost')?.for_s === 77);
    await field.fill('nonsense');
    await field.press('Tab');
    await until('what held stands there again', async () => (await field.inputValue()) === '77');
    await page.getByRole('button', { name: 'worker lost: back to the default' }).click();
    await page.getByRole('button', { name: 'worker lost: back to the default' }).waitFor({ state: 'detached' });
    expect(errors).toEqual([]);
    await close();
  });
  it('are counted, shown, silenced, and told as they open', async () => {
    const { page, fakes, close } = await faked('#/');
    await page.getByRole('link', { name: 'Admin 2 open alerts' }).waitFor();
    await page.locator('.attention').getByText('machine-1 is hot').waitFor();
    await page.evaluate(() => (location.hash = '#/admin?tab=alerts'));
    await page.getByRole('button', { name: 'Silence: machine-1 is hot' }).click();
    await page.getByRole('button', { name: 'This one for 8 hours' }).click();
    await page.getByText('silent until').waitFor();
    expect(fakes.asked).toContain('POST api/alerts/7/silence {"for_s":28800,"scope":"subject"}');
    await page.getByRole('link', { name: 'Admin 1 open alert' }).waitFor();
    await page.getByRole('button', { name: 'Take it back' }).click();
    await page.getByRole('button', { name: 'Silence: machine-1 is hot' }).waitFor();
    fakes.open = [...fakes.open, { ...fakes.open[1]!, id: 9, title: 'Half of the tasks fail' }];
    await page.getByLabel('queue wait', { exact: false }).first().check(); // asks for all anew
    await page.locator('.toasts').getByText('Half of the tasks fail').waitFor();
    await close();
  });
});

describe('services under care', () => {
  it('are stopped after a question, started, and their log is read', async () => {
    const { page, fakes, errors, close } = await faked('#/services');
    await page.getByText('RuntimeError: CUDA error').waitFor();
    await page.getByRole('button', { name: 'Stop ollama' }).click();
    await page.getByRole('button', { name: 'Keep as it is' }).click();
    expect(fakes.asked.filter((one) => one.includes('/services/'))).toEqual([]);
    await page.getByRole('button', { name: 'Stop ollama' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Stop', exact: true }).click();
    await page.getByRole('button', { name: 'Start ollama' }).click();
    await page.getByRole('button', { name: 'Restart ollama' }).waitFor();
    expect(fakes.asked.filter((one) => one.includes('/services/'))).toEqual(['stop', 'start'].map((what) => `POST api/workers/${worker}/services/ollama/${what} {}`));
    await page.getByRole('button', { name: 'Not under care: found' }).click();
    await page.getByText('kind = "llamacpp"').waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'Log of ollama' }).click();
    await page.getByText('299 loads layer 299').or(page.getByText('299 loads  layer 299')).waitFor();
    await page.getByLabel('Search the output').fill('layer 17');
    await page.getByText('11 of 300 lines').waitFor();
    expect(await findings(page)).toEqual([]);
    await page.setViewportSize({ width: 360, height: 740 });
    expect(await overflow(page)).toBeLessThanOrEqual(0);
    expect(errors).toEqual([]);
    await close();
  });
});

describe('use by day', () => {
  it('is shown for as many days as asked, by who and what', async () => {
    const { page, errors, close } = await faked('#/services?tab=gateway');
    const rows = page.getByRole('grid', { name: 'Use by principal and model' }).getByRole('row');
    await until('three pairs', async () => (await rows.count()) === 4);
    await page.getByRole('button', { name: '7 days' }).click();
    await page.waitForURL(/days=7/);
    await page.getByLabel('Everybody').selectOption('anna');
    await until('one pair', async () => (await rows.count()) === 2);
    await page.waitForFunction(() => document.querySelectorAll('main figure .u-over').length === 2);
    expect(await findings(page)).toEqual([]);
    expect(errors).toEqual([]);
    await close();
  });
});

it('a failure is read whole on a phone', async () => {
  const said = 'the checksum of part 12 differs from what the manifest says it should be';
  const job = await farm.submit({ name: 'breaks', script: `echo ${said} >&2; exit 3`, retries: 0 });
  await farm.ended(job);
  for (const hash of [`#/jobs/${job}?tab=failures`, '#/admin?tab=dead', '#/admin?tab=failures']) {
    const { page, close } = await open(browser, farm.url, hash, { width: 360, height: 740 });
    const cell = page.locator('main [role=grid] .under').filter({ hasText: said }).first();
    await cell.waitFor();
    expect(await cell.evaluate((node) => node.scrollWidth <= node.clientWidth && node.scrollHeight <= node.clientHeight)).toBe(true);
    await close();
  }
});

it('the graph asks the server who waits for a job', async () => {
  const first = await farm.submit({ name: 'first', script: 'sleep 0.1' });
  for (let i = 0; i < 3; ++i) await farm.submit({ name: `filler ${i}`, command: ['true'] });
  const last = await farm.submit({ name: 'waits for it', command: ['true'], after: [first] });
  if (!('children' in (await farm.get<object>(`/api/jobs/${first}`)))) return;
  const { page, errors, close } = await open(browser, farm.url, `#/jobs/${first}?tab=graph`);
  await page.getByRole('link', { name: /waits for it/ }).click();
  await page.waitForURL((url) => url.hash.startsWith(`#/jobs/${last}`));
  expect(errors).toEqual([]);
  await close();
});
