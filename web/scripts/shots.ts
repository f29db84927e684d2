// A picture of every page, light, dark and on a phone, into docs/shots/: npm run shots [name …]
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import UPNG from 'upng-js';
import { launch, open } from '../e2e/browser.ts';
import { Farm, root, sleep, until } from '../e2e/farm.ts';
import { pages } from '../e2e/pages.ts';

const wanted = process.argv.slice(2);
const folder = join(root, 'docs/shots');
mkdirSync(folder, { recursive: true });
// 128 colours are enough for a page, and a third of the bytes.
const small = (png: Buffer): Buffer => {
  const image = UPNG.decode(png.buffer.slice(png.byteOffset, png.byteOffset + png.byteLength) as ArrayBuffer);
  return Buffer.from(UPNG.encode(UPNG.toRGBA8(image), image.width, image.height, 128));
};

const farm = await Farm.start({ workers: 3, slots: 2 });
const browser = await launch();
try {
  const script = 'echo shard {index}; sleep 0.$(( {index} % 5 + 1 )); if [ $(( {index} % 29 )) = 7 ]; then echo "shard {index}: checksum differs" >&2; exit 3; fi';
  const job = await farm.submit({ name: 'index shards', user: 'lab', count: 120, script, retries: 1, cpus: 0.25 });
  for (const [name, user] of [['resize photos', 'lab'], ['nightly tests', 'ci'], ['parse logs', 'studio'], ['sweep seeds', 'studio']] as const)
    await farm.submit({ name, user, count: 24, command: ['sleep', '0.05'], cpus: 0.25 });
  await farm.submit({ name: 'render teaser', user: 'studio', command: ['blender'], gpus: 1 });
  const prep = await farm.submit({ name: 'fetch corpus', user: 'lab', command: ['true'] });
  await farm.submit({ name: 'train tokenizer', user: 'lab', count: 40, command: ['sleep', '2'], after: [prep], cpus: 0.5 });
  await farm.submit({ name: 'count primes', user: 'ci', compute: { op: 'primes', n: 10_000_000 } });
  await farm.ended(job);
  await farm.submit({ name: 'sweep learning rates', user: 'studio', count: 400, script: 'echo epoch {index}; sleep 0.3', cpus: 0.25, priority: 5 });
  await until('it runs', async () => (await farm.get<{ running_tasks: number }>('/api/stats')).running_tasks > 1);
  await sleep(20_000);
  for (const page of pages) {
    if (wanted.length && !wanted.includes(page.name)) continue;
    for (const look of [
      { name: page.name, width: 1440, height: 900, theme: 'light' as const },
      { name: `${page.name}-dark`, width: 1440, height: 900, theme: 'dark' as const },
      { name: `${page.name}-phone`, width: 360, height: 780, theme: 'light' as const },
    ]) {
      const watched = await open(browser, farm.url, page.hash.replace('{job}', job), look);
      await watched.page.waitForSelector(page.ready, { timeout: 15_000 });
      await sleep(900);
      const file = join(folder, `${look.name}.png`);
      writeFileSync(file, small(await watched.page.screenshot()));
      console.log(`${String(Math.round(statSync(file).size / 1024)).padStart(4)} KiB ${file.slice(root.length + 1)}`);
      await watched.close();
    }
  }
} finally {
  await browser.close();
  await farm.stop();
}
