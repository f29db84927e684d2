// Lighthouse's scores of pages with work in them, in a desktop window on loopback: npm run lighthouse [hash …]
// Lighthouse is large and only this command wants it, so it is fetched when it is asked for.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Farm, sleep } from '../e2e/farm.ts';

const kVersion = '12.8.2';
const kLeast = 95;
const kKinds = ['performance', 'accessibility', 'best-practices'];
const hashes = process.argv.slice(2).length ? process.argv.slice(2) : ['#/', '#/jobs', '#/jobs/1', '#/workers', '#/submit'];

type Report = {
  categories: Record<string, { score: number | null; auditRefs: { id: string; weight: number }[] }>;
  audits: Record<string, { score: number | null; title: string; displayValue?: string }>;
};

const folder = mkdtempSync(join(tmpdir(), 'grange-lighthouse-'));
const farm = await Farm.start({ workers: 2, slots: 2 });
let ok = true;
try {
  await farm.submit({ name: 'shards', count: 200, builtin: { op: 'sleep', ms: 50 } });
  await farm.submit({ name: 'render', command: ['blender'], gpus: 1 });
  await sleep(35_000); // by then the overview knows that one waits: what it shows stands still
  for (const hash of hashes) {
    const file = join(folder, 'report.json');
    execFileSync(
      'npm',
      ['exec', '--yes', `--package=lighthouse@${kVersion}`, '--', 'lighthouse', farm.url + hash, '--quiet', '--output=json', `--output-path=${file}`,
        '--preset=desktop', '--throttling-method=provided', `--only-categories=${kKinds.join(',')}`, '--chrome-flags=--headless=new --no-sandbox'],
      { env: { ...process.env, CHROME_PATH: process.env.CHROMIUM ?? '/usr/bin/chromium' }, stdio: ['ignore', 'ignore', 'inherit'], timeout: 300_000 },
    );
    const report = JSON.parse(readFileSync(file, 'utf8')) as Report;
    const scores = kKinds.map((kind) => Math.round((report.categories[kind]?.score ?? 0) * 100));
    const good = scores.every((score) => score >= kLeast);
    ok &&= good;
    console.log(`${good ? 'ok  ' : 'UNDER'} ${hash.padEnd(12)} ${kKinds.map((kind, i) => `${kind} ${scores[i]}`).join(', ')}`);
    for (const kind of kKinds)
      for (const { id, weight } of report.categories[kind]?.auditRefs ?? []) {
        const audit = report.audits[id];
        if (audit && weight > 0 && audit.score !== null && audit.score < 0.9) console.log(`       ${kind}: ${audit.title}${audit.displayValue ? ` (${audit.displayValue})` : ''}`);
      }
  }
} finally {
  await farm.stop();
  rmSync(folder, { recursive: true, force: true });
}
console.log(`Lighthouse ${kVersion}, desktop, no throttling; at least ${kLeast} is asked for`);
process.exitCode = ok ? 0 : 1;
