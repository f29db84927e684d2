// Pieces of output become lines. A task may write half a line; what is told of another task must not end it. Pure.
import type { LogLine } from '../../lib/types';

export interface Line {
  key: number;
  index: number;
  attempt: number;
  stream: string;
  time: string;
  text: string;
  open: boolean; // its end has not come
}
export const kLinesKept = 50_000;
export const kLineChars = 16_384; // of a line without an end the rest is not shown
const ansi = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007]*\u0007/g;

export class LogBook {
  lines: Line[] = [];
  dropped = 0;
  cursor = 0;
  private open = new Map<string, Line>();
  private last = 0;

  add(piece: LogLine): void {
    this.cursor = Math.max(this.cursor, piece.cursor);
    const text = (piece.text ?? `[${Math.round(((piece.data_base64?.length ?? 0) * 3) / 4)} bytes that are not text]`).replace(ansi, '');
    const parts = text.split('\n');
    const name = `${piece.index} ${piece.attempt} ${piece.stream}`;
    parts.forEach((part, i) => {
      const ends = i < parts.length - 1;
      if (!ends && part === '') return;
      const begun = this.open.get(name);
      // A carriage return begins the line again, as progress bars do.
      if (begun) {
        begun.text = tail(begun.text.length > kLineChars && !part.includes('\r') ? begun.text : begun.text + part);
        if (ends) {
          begun.open = false;
          this.open.delete(name);
        }
        return;
      }
      const line: Line = {
        key: ++this.last,
        index: piece.index,
        attempt: piece.attempt,
        stream: piece.stream,
        time: piece.time,
        text: tail(part),
        open: !ends,
      };
      this.lines.push(line);
      if (!ends) this.open.set(name, line);
    });
    if (this.lines.length > kLinesKept + 5000) {
      const extra = this.lines.length - kLinesKept;
      this.lines = this.lines.slice(extra);
      this.dropped += extra;
    }
  }
}
// A line without colours and other orders to a terminal, as it would stand there in the end.
export const plain = (text: string): string => tail(text.replace(ansi, ''));
function tail(text: string): string {
  const clean = text.endsWith('\r') ? text.slice(0, -1) : text;
  const at = clean.lastIndexOf('\r');
  const last = at < 0 ? clean : clean.slice(at + 1);
  return last.length > kLineChars ? `${last.slice(0, kLineChars)}… (a longer line: download the log to read it)` : last;
}
