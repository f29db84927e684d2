// A job file as something to type: Python, the command line, curl. Pure.
import type { JobFile } from '../../lib/types';

const sh = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replace(/'/g, `'\\''`)}'`);

// JSON in Python's words.
export function py(value: unknown, depth = 0): string {
  if (value === null || value === undefined) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return JSON.stringify(value);
  const pad = '    '.repeat(depth + 1);
  const end = '    '.repeat(depth);
  if (Array.isArray(value)) {
    const flat = `[${value.map((one) => py(one, depth)).join(', ')}]`;
    return flat.length < 90 ? flat : `[\n${value.map((one) => `${pad}${py(one, depth + 1)},`).join('\n')}\n${end}]`;
  }
  const entries = Object.entries(value as Record<string, unknown>).filter(([, one]) => one !== undefined);
  const flat = `{${entries.map(([key, one]) => `${JSON.stringify(key)}: ${py(one, depth)}`).join(', ')}}`;
  if (flat.length < 60) return flat;
  return `{\n${entries.map(([key, one]) => `${pad}${JSON.stringify(key)}: ${py(one, depth + 1)},`).join('\n')}\n${end}}`;
}

export const as_python = (file: JobFile, url: string): string =>
  `import grange\n\nfarm = grange.connect(${JSON.stringify(url)})\n[job] = farm.graph([${py(file)}])\njob.wait()\nprint(job.results())\n`;

export function as_cli(file: JobFile, url: string): string {
  // A plain command is a line; all else a job file.
  const rest = Object.keys(file).filter((key) => !['command', 'name', 'engine', 'user'].includes(key));
  if (Array.isArray(file.command) && rest.length === 0) return `grange run --url ${sh(url)} -- ${file.command.map(sh).join(' ')}\n`;
  return `grange submit --url ${sh(url)} --wait - <<'END'\n${JSON.stringify(file, null, 2)}\nEND\n`;
}

export const as_curl = (file: JobFile, url: string): string =>
  `curl -s ${sh(`${url}/api/jobs`)} -H 'Content-Type: application/json' -d ${sh(JSON.stringify(file, null, 2))}\n`;
