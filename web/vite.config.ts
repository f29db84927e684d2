import { svelte } from '@sveltejs/vite-plugin-svelte';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { brotliCompressSync, constants } from 'node:zlib';
import { defineConfig, type Plugin } from 'vite';

const farm = process.env.GRANGE_URL ?? 'http://127.0.0.1:8000';
const paths = ['/api', '/v1', '/ollama', '/models', '/docs', '/openapi.json', '/metrics', '/health', '/ready'];
const proxy = Object.fromEntries(paths.map((path) => [path, { target: farm, changeOrigin: true, headers: { origin: new URL(farm).origin } }]));

// Scopes of styles by number: short names, the same in every build of the same files.
const components = readdirSync(new URL('./src', import.meta.url), { recursive: true })
  .map((one) => String(one).replaceAll('\\', '/'))
  .filter((one) => one.endsWith('.svelte'))
  .sort();
const cssHash = ({ filename, hash, css }: { filename: string; hash: (text: string) => string; css: string }) => {
  const at = components.findIndex((one) => filename.replaceAll('\\', '/').endsWith(`src/${one}`));
  return `_${at < 0 ? hash(css) : at.toString(36)}`; // no class is called so
};

// There is nothing to fetch beside a file: the one style sheet stands in the page.
const plain_imports: Plugin = {
  name: 'plain-imports',
  apply: 'build',
  enforce: 'pre',
  load: (id) => (id === '\0vite/preload-helper.js' ? 'export const __vitePreload = (load) => load();' : undefined),
};

// Beside each file its brotli form, for the server to hand out.
const brotli: Plugin = {
  name: 'brotli',
  apply: 'build',
  writeBundle({ dir }) {
    for (const name of readdirSync(dir!, { recursive: true }).map(String)) {
      if (!/\.(js|css|html|svg)$/.test(name)) continue;
      const raw = readFileSync(`${dir}/${name}`);
      const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: raw.length };
      writeFileSync(`${dir}/${name}.br`, brotliCompressSync(raw, { params }));
    }
  },
};

// What libraries hold that is never used here, and that no bundler can know: it goes. One that is written otherwise stops
// the build. uPlot draws lines over linear scales, with a legend and words for times of our own.
const unused: Record<string, [RegExp, string][]> = {
  'uplot/dist/uPlot.esm.js': [
    [/^uPlot\.assign = [^]*(?=^export )/m, ''], // bars, splines, steps, joins
    [/(?:\w+\.)?\bdistr == +(?:[234]|100)\b/g, 'false'], // other scales
    [/\bmode == 2\b/g, 'false'], // scatter
    [/\bmode == 1\b/g, 'true'],
    [/\b(?:sc|scale)\.distr >= 3/g, 'false'],
    [/const pointsPath = points\(\) *;/, 'const pointsPath = retNull;'],
    [/^function clipBandLine\([^]*?^}/m, 'function clipBandLine() {}'],
    [/^(\t*)events\["setSeries"\] = [^]*?^\1\};/m, ''],
    [/const showLegend = legend\.show;/, 'const showLegend = false;'],
    [/if \((?:cursorFocus|legend\.live)\) \{/g, 'if (false) {'],
    [/const _timeAxisVals   = [^;]+;/, 'const _timeAxisVals = numAxisVals;'],
    [/const _timeSeriesVal  = [^;]+;/, 'const _timeSeriesVal = numSeriesVal;'],
    [/^function fmtDate\([^]*?^}/m, 'function fmtDate() {}'],
    [/^\t*(?:events\.|onMouse\()(?:mousedown|mouseup|dblclick)\b.*;$/gm, ''], // nothing is chosen by a drag
    [/if \(select\.show && dragging\) \{/, 'if (false) {'],
    [/^\tself\.(?:(?:add|del|set)(?:Series|Band)|batch|setSelect|setLegend) *= .*;$/gm, ''],
  ],
};
const leave_out: Plugin = {
  name: 'leave-out',
  apply: 'build',
  transform(code, id) {
    const file = Object.keys(unused).find((one) => id.endsWith(`node_modules/${one}`));
    return file && unused[file]!.reduce((text, [what, to]) => {
      const out = text.replace(what, to);
      if (out === text) this.error(`${file} has no ${what} to leave out: look at vite.config.ts`);
      return out;
    }, code);
  },
};

export default defineConfig({
  // Relative, so that the pages work below any path prefix.
  base: './',
  plugins: [svelte({ compilerOptions: { cssHash } }), plain_imports, leave_out, brotli],
  build: {
    target: 'es2022',
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    minify: 'terser',
    // Reading a property is how a dependency is named: no such read may be dropped.
    terserOptions: { ecma: 2020, module: true, compress: { passes: 3, pure_getters: false, unsafe_arrows: true, keep_fargs: false } },
    cssCodeSplit: false, // one file compresses better than two
    rollupOptions: {
      output: {
        // Few files compress better than many: what the first view needs, and all the rest.
        manualChunks: (id) => {
          if (/uplot|(Badge|FormDialog|LogView|Palette|Popover|Progress|Search|Table|Tabs|TextField)\.svelte|src\/pages\/(?!overview)/.test(id)) return 'pages';
          return /node_modules|src\/(components|styles|pages|main|App|routes)/.test(id) ? 'app' : undefined;
        },
      },
    },
  },
  optimizeDeps: { include: ['uplot'] },
  server: {
    host: '127.0.0.1',
    // The server refuses pages of another origin; the proxy makes them its own.
    proxy: { ...proxy, '/ws': { target: farm, ws: true, changeOrigin: true, rewriteWsOrigin: true } },
  },
});
