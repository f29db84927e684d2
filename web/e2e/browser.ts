// One browser for a test file, and pages that remember what went wrong in them.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium, type Browser, type Page } from 'playwright-core';

export interface Look {
  width?: number;
  height?: number;
  theme?: 'light' | 'dark';
  before?: (page: Page) => Promise<void>; // such as answers of another farm
}
export interface Watched {
  page: Page;
  errors: string[]; // of the console, and exceptions
  outside: string[]; // requests to another origin
  csp: () => Promise<string[]>;
  close: () => Promise<void>;
}

export function launch(more: string[] = []): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-background-networking', ...more],
  });
}

export async function open(browser: Browser, url: string, hash: string, look: Look = {}): Promise<Watched> {
  const context = await browser.newContext({
    viewport: { width: look.width ?? 1440, height: look.height ?? 900 },
    colorScheme: look.theme ?? 'light',
    reducedMotion: 'reduce',
  });
  const page = await context.newPage();
  const errors: string[] = [];
  const outside: string[] = [];
  const origin = new URL(url).origin;
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') errors.push(`${message.text()} (${message.location().url})`);
  });
  page.on('pageerror', (error) => errors.push(String(error.stack ?? error)));
  page.on('request', (request) => {
    const to = new URL(request.url());
    if (['http:', 'https:', 'ws:', 'wss:'].includes(to.protocol) && to.host !== new URL(origin).host) outside.push(request.url());
  });
  await page.addInitScript(() => {
    const found: string[] = [];
    (window as unknown as { csp_found: string[] }).csp_found = found;
    document.addEventListener('securitypolicyviolation', (event) =>
      found.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.sample}`),
    );
  });
  await look.before?.(page);
  await page.goto(url + hash);
  return {
    page,
    errors,
    outside,
    csp: () => page.evaluate(() => (window as unknown as { csp_found: string[] }).csp_found),
    close: () => context.close(),
  };
}

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
export interface Finding {
  id: string;
  impact: string | null | undefined;
  help: string;
  nodes: string[];
}
// What axe finds that is serious or critical, by WCAG 2.2 AA and its best practices.
export async function findings(page: Page): Promise<Finding[]> {
  await page.evaluate(axe);
  const all = await page.evaluate(async () => {
    const run = (window as unknown as { axe: { run: (root: Document, options: object) => Promise<{ violations: { id: string; impact?: string; help: string; nodes: { html: string; failureSummary?: string }[] }[] }> } }).axe;
    const result = await run.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] });
    return result.violations.map((one) => ({
      id: one.id,
      impact: one.impact,
      help: one.help,
      nodes: one.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} ${node.failureSummary ?? ''}`),
    }));
  });
  return all.filter((one) => one.impact === 'serious' || one.impact === 'critical');
}
// How far the page can be moved sideways: 0 is none.
export const overflow = (page: Page): Promise<number> =>
  page.evaluate(() => {
    const main = document.getElementById('main');
    return Math.max(document.documentElement.scrollWidth - innerWidth, main ? main.scrollWidth - main.clientWidth : 0);
  });
