// The text of a log as lines to look at. Services write colours, and bytes of any kind. Pure.
import { plain } from '../jobs/logs';

export function log_lines(text: string): { key: number; text: string }[] {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  return lines.map((line, key) => ({ key, text: plain(line).replace(/[\0-\x08\v-\x1f\x7f]/g, '') }));
}
