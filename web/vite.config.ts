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
  return at < 0 ? `s${hash(css)}` : `s${at.toString(36)}`;
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

export default defineConfig({
  // Relative, so that the pages work below any path prefix.
  base: './',
  plugins: [svelte({ compilerOptions: { cssHash } }), brotli],
  build: {
    target: 'es2022',
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    minify: 'terser',
    // Reading a property is how a dependency is named: no such read may be dropped.
    terserOptions: { ecma: 2020, module: true, compress: { passes: 3, pure_getters: false, unsafe_arrows: true } },
    cssCodeSplit: false, // one file compresses better than two
    rollupOptions: {
      output: {
        // Few files compress better than many: what the first view needs, the charts, and all the other pages.
        manualChunks: (id) => {
          if (id.includes('node_modules/uplot')) return 'chart';
          if (/Palette|src\/pages\/(?!overview)/.test(id)) return 'pages';
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
