// A task's result as text, and whether more stands behind it. Pure.
import { bytes } from '../../lib/format';
import type { Outcome } from '../../lib/types';

const decode = (base64: string): string | null => {
  try {
    const raw = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    return new TextDecoder('utf-8', { fatal: true }).decode(raw);
  } catch {
    return null;
  }
};

export function text_of(outcome: Outcome): string {
  if (outcome.value_sha256) return `blob ${outcome.value_sha256}`;
  if (outcome.value_base64) {
    const text = outcome.encoding === 'pickle' ? null : decode(outcome.value_base64);
    if (text !== null) return text;
    const size = Math.floor((outcome.value_base64.length * 3) / 4);
    return outcome.encoding === 'pickle'
      ? `a pickled Python value of ${bytes(size)}: read it with grange.connect().job(…).results()`
      : `${bytes(size)} that are not text`;
  }
  if (outcome.value === undefined || outcome.value === null) return '';
  return typeof outcome.value === 'string' ? outcome.value : JSON.stringify(outcome.value, null, 1);
}
export const one_line = (text: string): string => text.replace(/\s+/g, ' ').trim().slice(0, 400);
