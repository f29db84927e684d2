// How the pages bear a great farm: 500 workers and 5,000 changes a second, and how soon the first view stands.
import { readFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import type { Page } from 'playwright-core';
import { findings, launch, open } from '../e2e/browser.ts';
import { Farm, sleep, until } from '../e2e/farm.ts';

const seconds = Number(process.argv[2] ?? 15);
const ticks = Number(execFileSync('getconf', ['CLK_TCK']).toString());
const cpu = (pid: number) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticks;
};
const rows: { what: string; is: string; limit: string; ok: boolean }[] = [];
const row = (what: string, is: number, unit: string, limit: number, most = true) =>
  rows.push({ what, is: `${is.toFixed(is < 10 ? 2 : 0)} ${unit}`, limit: `${most ? 'at most' : 'at least'} ${limit} ${unit}`, ok: most ? is <= limit : is >= limit });

async function frames(page: Page, ms: number): Promise<{ per_second: number; longest: number }> {
  return page.evaluate(
    (span) =>
      new Promise<{ per_second: number; longest: number }>((done) => {
        let n = 0;
        let longest = 0;
        const start = performance.now();
        let last = start;
        const tick = (now: number) => {
          ++n;
          longest = Math.max(longest, now - last);
          last = now;
          if (now - start < span) requestAnimationFrame(tick);
          else done({ per_second: (n / (now - start)) * 1000, longest });
        };
        requestAnimationFrame(tick);
      }),
    ms,
  );
}

const farm = await Farm.start({ workers: 1, slots: 64 });
const browser = await launch(['--enable-precise-memory-info', '--js-flags=--expose-gc']);
try {
  // The first view, with nothing in the cache; the best of five, as other work on the machine is not the page's.
  const times: number[] = [];
  for (let i = 0; i < 5; ++i) {
    const { page, close } = await open(browser, farm.url, '#/');
    await page.waitForSelector('main h1');
    times.push(await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? performance.now()));
    await close();
  }
  row('first view (first contentful paint)', Math.min(...times), 'ms', 300);

  await farm.fake_workers(499);
  await farm.connected(500);
  // Each job may tell of itself ten times a second: 500 of them make 5,000 changes.
  for (let i = 0; i < 500; ++i) await farm.submit({ name: `load ${i}`, count: 90_000, builtin: { op: 'sleep', ms: 1 }, cpus: 0.01 });
  const { page, errors, close } = await open(browser, farm.url, '#/jobs');
  await page.getByRole('link', { name: 'load 499' }).waitFor();
  await sleep(3000);
  for (const hash of ['#/jobs', '#/', '#/workers']) {
    await page.evaluate((to) => (location.hash = to), hash);
    await sleep(2500);
    const before = farm.server?.child.pid ? cpu(farm.server.child.pid) : 0;
    const { per_second, longest } = await frames(page, (seconds * 1000) / 3);
    const used = ((cpu(farm.server!.child.pid!) - before) / (seconds / 3)) * 100;
    row(`frames a second on ${hash}`, per_second, 'a second', 50, false);
    console.log(`${hash}: longest frame ${longest.toFixed(0)} ms; the server used ${used.toFixed(0)} % of a core, its work included`);
  }
  const heap = await page.evaluate(() => {
    (globalThis as unknown as { gc?: () => void }).gc?.();
    return (performance as unknown as { memory: { usedJSHeapSize: number } }).memory.usedJSHeapSize;
  });
  row('JavaScript heap', heap / 1048576, 'MiB', 150);
  row('findings of axe on #/workers', (await findings(page)).length, '', 0);
  row('errors in the console', errors.length, '', 0);
  if (errors.length) console.log(errors.slice(0, 5));
  const loaded = await page.evaluate(() => performance.getEntriesByType('resource').reduce((sum, one) => sum + ((one as PerformanceResourceTiming).initiatorType === 'fetch' ? 0 : (one as PerformanceResourceTiming).encodedBodySize), 0));
  row('pages loaded, compressed', loaded / 1000, 'KB', 150);
  await close();
  // What a viewer costs the server: the same work with and without one, in turns. The browser takes the cores that the
  // farm works on, so what counts is the server's time for a task, times the tasks of a second.
  const per_task = async () => {
    const look = async () => ({ cpu: cpu(farm.server!.child.pid!), ...(await farm.get<{ total_tasks_completed: number; next_event: number }>('/api/stats')) });
    const before = await look();
    await sleep(5000);
    const after = await look();
    const tasks = after.total_tasks_completed - before.total_tasks_completed;
    return { cost: (after.cpu - before.cpu) / tasks, tasks: tasks / 5, facts: (after.next_event - before.next_event) / 5 };
  };
  const costs: number[] = [];
  const seen: { tasks: number; facts: number }[] = [];
  for (let i = 0; i < 6; ++i) {
    const without = await per_task();
    const second = await open(browser, farm.url, '#/jobs');
    await second.page.getByRole('link', { name: 'load 499' }).waitFor();
    await sleep(1000);
    const watched = await per_task();
    await second.close();
    await sleep(500);
    costs.push((watched.cost - without.cost) * watched.tasks * 100);
    seen.push(watched);
  }
  const middle = (all: number[]) => {
    const sorted = [...all].sort((a, b) => a - b);
    const half = (sorted.length - 1) / 2;
    return (sorted[Math.floor(half)]! + sorted[Math.ceil(half)]!) / 2;
  };
  console.log(`a viewer, in turns with none: ${costs.map((one) => one.toFixed(1)).join(', ')} % of a core; ` +
    `${middle(seen.map((one) => one.tasks)).toFixed(0)} tasks and ${middle(seen.map((one) => one.facts)).toFixed(0)} facts a second were seen`);
  row('cost of a viewer to the server', Math.max(0, middle(costs)), '% of a core', 5);
  await until('the rest is written', async () => true);
} finally {
  await browser.close();
  await farm.stop();
}
const wide = Math.max(...rows.map((one) => one.what.length));
for (const one of rows) console.log(`${one.ok ? 'ok  ' : 'OVER'} ${one.what.padEnd(wide)}  ${one.is.padEnd(16)} ${one.limit}`);
process.exitCode = rows.every((one) => one.ok) ? 0 : 1;
