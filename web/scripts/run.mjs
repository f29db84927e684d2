// Runs a script in TypeScript: node scripts/run.mjs scripts/shots.ts
import { mkdirSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const [file, ...rest] = process.argv.slice(2);
const folder = resolve('node_modules/.cache');
mkdirSync(folder, { recursive: true });
const out = `${folder}/${basename(file, '.ts')}.mjs`;
const here = JSON.stringify(resolve('e2e'));
await build({
  entryPoints: [file],
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node18',
  packages: 'external',
  outfile: out,
  // Paths are meant as seen from e2e/.
  define: { 'import.meta.dirname': here },
});
process.argv = [process.argv[0], out, ...rest];
await import(pathToFileURL(out).href);
