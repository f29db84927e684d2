// Chat through the gateway, with services of our own behind two workers.
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { findings, launch, open, overflow } from './browser.ts';
import { Farm, until } from './farm.ts';
import { ModelService } from './model_service.ts';

let farm: Farm;
let browser: Browser;
let one: ModelService;
let two: ModelService;
const question = (page: Page) => page.locator('#chat-question');
// Before the models have come, Enter sends nothing.
const put = async (page: Page, text: string) => {
  await question(page).fill(text);
  await page.waitForFunction(() => [...document.querySelectorAll<HTMLButtonElement>('main button')].some((one) => one.textContent?.trim() === 'Send' && !one.disabled));
  await page.keyboard.press('Enter');
};
const models = async () => (await farm.get<{ data: { grange: { places: unknown[] } }[] }>('/v1/models')).data;

beforeAll(async () => {
  [farm, browser, one, two] = await Promise.all([Farm.start({ workers: 0 }), launch(), ModelService.start('parrot'), ModelService.start('parrot')]);
});
afterAll(async () => {
  await browser?.close();
  await farm?.stop();
  await Promise.all([one?.stop(), two?.stop()]);
});
beforeEach(() => {
  for (const service of [one, two]) {
    service.mode = 'answers';
    service.pause_ms = 5;
    service.words = 'The barn is full of hay .'.split(' ');
    service.asked = [];
    service.left = 0;
  }
});

it('says what to do where there is no model', async () => {
  const { page, errors, close } = await open(browser, farm.url, '#/chat');
  await page.getByText('No model to talk to yet').waitFor();
  await page.getByText('grange worker --service').waitFor();
  expect(await findings(page)).toEqual([]);
  expect(errors).toEqual([]);
  await close();
});

describe('with a model on two machines', () => {
  beforeAll(async () => {
    farm.add_worker('attic', 2, ['--service', `openai=${one.url}`]);
    farm.add_worker('barn', 2, ['--service', `openai=${two.url}`]);
    await until('both services are known', async () => (await models())[0]?.grange.places.length === 2);
  });

  it('streams an answer and shows who gave it and how fast', async () => {
    const { page, errors, csp, close } = await open(browser, farm.url, '#/chat?temperature=0.5&max_tokens=40');
    await page.getByText('Where it lives').waitFor();
    await page.getByLabel('System prompt').fill('Be brief.');
    await put(page, 'Where is the hay?');
    await page.getByText('The barn is full of hay .').waitFor();
    const turn = page.getByRole('article');
    await turn.getByText('7 tokens after 4').waitFor();
    await turn.getByText('to the first token').waitFor();
    await turn.getByText(/^(attic|barn)$/).waitFor();
    await turn.getByText(/no wait|in the queue/).waitFor();
    const asked = [...one.asked, ...two.asked];
    expect(asked).toHaveLength(1);
    expect(asked[0]).toMatchObject({
      model: 'parrot',
      temperature: 0.5,
      max_tokens: 40,
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Where is the hay?' },
      ],
    });
    // The second turn knows the first.
    await question(page).fill('And the oats?');
    await page.getByRole('button', { name: 'Send' }).click();
    await until('the second question', async () => one.asked.length + two.asked.length === 2);
    const second = [...one.asked, ...two.asked].find((all) => all.messages.length === 4);
    expect(second?.messages.map((message) => message.role)).toEqual(['system', 'user', 'assistant', 'user']);
    await page.getByRole('button', { name: 'Send' }).waitFor();
    expect(await findings(page)).toEqual([]);
    // It outlives another page, and is gone after "New conversation".
    await page.goto(`${farm.url}#/admin`);
    await page.getByRole('heading', { name: 'Admin' }).waitFor();
    await page.goto(`${farm.url}#/chat`);
    await page.getByText('Where is the hay?').waitFor();
    await page.getByRole('button', { name: 'New conversation' }).click();
    await page.getByText('Ask a model of your farm').waitFor();
    expect(await csp()).toEqual([]);
    expect(errors).toEqual([]);
    await close();
  });

  it('stops by key, and the service hears of it', async () => {
    for (const service of [one, two]) {
      service.pause_ms = 100;
      service.words = Array.from({ length: 200 }, (_, i) => `w${i}`);
    }
    const { page, close } = await open(browser, farm.url, '#/chat');
    await put(page, 'Go on and on');
    await page.getByText('w0 w1').waitFor();
    await page.keyboard.press('Escape'); // out of the field
    await page.keyboard.press('Escape');
    await page.getByText('stopped', { exact: true }).waitFor();
    await until('the service lost its client', async () => one.left + two.left === 1);
    await close();
  });

  it('goes on to the other machine, and says so', async () => {
    // Whichever is asked first refuses.
    one.mode = 'refuses';
    const { page, close } = await open(browser, farm.url, '#/chat');
    // Each new conversation has no warm cache, and goes to the service that was used longest ago.
    for (let i = 0; i < 6 && one.asked.length === 0; ++i) {
      if (i) await page.getByRole('button', { name: 'New conversation' }).click();
      await put(page, `Number ${i}`);
      await page.getByText('The barn is full of hay .').waitFor();
      await page.getByRole('button', { name: 'Send' }).waitFor();
    }
    expect(one.asked.length).toBeGreaterThan(0);
    await page.getByText('1 fail-over').waitFor();
    await page.getByRole('article').last().getByText('barn', { exact: true }).waitFor();
    await close();
  });

  it('keeps what had come when a service breaks off, and asks again', async () => {
    one.mode = two.mode = 'breaks';
    const { page, close } = await open(browser, farm.url, '#/chat');
    await put(page, 'Where is the hay?');
    const trouble = page.getByRole('alert');
    await trouble.waitFor();
    expect(await trouble.textContent()).toContain('What had come is kept.');
    await page.getByText('The barn is', { exact: true }).waitFor();
    one.mode = two.mode = 'answers';
    await trouble.getByRole('button', { name: 'Ask again' }).click();
    await page.getByText('The barn is full of hay .').waitFor();
    expect(await page.getByRole('alert').count()).toBe(0);
    await close();
  });

  it('names a model that nobody has', async () => {
    const { page, close } = await open(browser, farm.url, '#/chat?model=parot');
    await page.getByText('No machine has').waitFor();
    await put(page, 'Anybody?');
    await page.getByText('Did you mean "parrot"?').waitFor();
    await page.getByRole('link', { name: 'Models on machines' }).click();
    await page.getByRole('cell', { name: /parrot|there|fit/ }).first().waitFor();
    await close();
  });

  it('shows services, models and the gateway', async () => {
    const { page, errors, close } = await open(browser, farm.url, '#/services');
    const attic = page.getByRole('region', { name: 'attic' });
    await attic.getByText('ready').waitFor();
    await attic.getByText('1 model').waitFor();
    await page.getByRole('tab', { name: 'Models' }).click();
    await page.getByRole('rowheader', { name: 'parrot' }).waitFor();
    expect(await page.getByRole('columnheader').allTextContents()).toEqual(expect.arrayContaining(['attic', 'barn']));
    await page.getByRole('tab', { name: 'Gateway' }).click();
    await page.getByRole('grid', { name: 'Newest requests' }).getByText('parrot').first().waitFor();
    await page.getByRole('grid', { name: 'Use by principal and model' }).getByText('parrot').waitFor();
    await page.goto(`${farm.url}#/services?q=nothing-like-it`);
    await page.getByText('Nothing here has “nothing-like-it” in its name.').waitFor();
    expect(errors).toEqual([]);
    await close();
  });

  it.each(['light', 'dark'] as const)('fits a phone, %s', async (theme) => {
    const { page, close } = await open(browser, farm.url, '#/chat', { width: 360, height: 740, theme });
    await question(page).fill('Where is the hay?');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.getByText('The barn is full of hay .').waitFor();
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByLabel('Temperature').fill('9');
    await page.getByText('From 0 to 2, or nothing').waitFor();
    expect(await overflow(page)).toBeLessThanOrEqual(0);
    expect(await findings(page)).toEqual([]);
    await close();
  });
});
