// What dist/ weighs compressed: all of it against the limit (brotli, as browsers take it), and what the first view loads.
import { readdirSync, readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const limit = 150_000;
const dist = new URL('../dist/', import.meta.url);
const files = readdirSync(dist, { recursive: true })
  .map(String)
  .filter((one) => /\.(js|css|html|svg)$/.test(one));
const sizes = files.map((name) => ({
  name,
  br: readFileSync(new URL(`${name}.br`, dist)).length,
  gz: gzipSync(readFileSync(new URL(name, dist)), { level: 9 }).length,
}));
sizes.sort((a, b) => b.br - a.br);
const line = (br, gz, name) => console.log(String(br).padStart(8), String(gz).padStart(8), name);
console.log('  brotli     gzip');
for (const { br, gz, name } of sizes) line(br, gz, name);
const sum = (of) => of.reduce(([br, gz], one) => [br + one.br, gz + one.gz], [0, 0]);
const first = sizes.filter(({ name }) => !name.includes('pages'));
line(...sum(first), 'first view');
const [br, gz] = sum(sizes);
line(br, gz, `in all; at most ${limit} in brotli`);
if (br > limit) process.exit(1);
