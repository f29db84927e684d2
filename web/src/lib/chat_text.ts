// An answer's text in pieces that can be shown: paragraphs, headings, lists, code. Only what models write often. Pure.
export type Inline = { kind: 'text' | 'code' | 'strong' | 'em'; text: string };
export type Block =
  | { kind: 'code'; lang: string; text: string }
  | { kind: 'text'; parts: Inline[] }
  | { kind: 'head'; parts: Inline[] }
  | { kind: 'list'; ordered: boolean; start: number; items: Inline[][] };

const kInline = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|(?<![\w*])\*([^*\s](?:[^*\n]*[^*\s])?)\*(?![\w*])/g;

export function inline(text: string): Inline[] {
  const out: Inline[] = [];
  let at = 0;
  for (const found of text.matchAll(kInline)) {
    if (found.index > at) out.push({ kind: 'text', text: text.slice(at, found.index) });
    if (found[1] !== undefined) out.push({ kind: 'code', text: found[1] });
    else if (found[2] !== undefined) out.push({ kind: 'strong', text: found[2] });
    else out.push({ kind: 'em', text: found[3]! });
    at = found.index + found[0].length;
  }
  if (at < text.length) out.push({ kind: 'text', text: text.slice(at) });
  return out;
}

export function blocks(text: string): Block[] {
  const out: Block[] = [];
  let paragraph: string[] = [];
  const close = () => {
    const body = paragraph.join('\n').trim();
    paragraph = [];
    if (body) out.push({ kind: 'text', parts: inline(body) });
  };
  const lines = text.split('\n');
  for (let i = 0; i < lines.length; ++i) {
    const line = lines[i]!;
    const fence = /^\s*(`{3,}|~{3,})\s*([\w+#.-]*)/.exec(line);
    if (fence) {
      close();
      const mark = fence[1]!;
      const code: string[] = [];
      // A fence that is still open while it streams reaches to the end.
      for (++i; i < lines.length && !lines[i]!.trim().startsWith(mark); ++i) code.push(lines[i]!);
      out.push({ kind: 'code', lang: fence[2] ?? '', text: code.join('\n') });
      continue;
    }
    const head = /^#{1,6}\s+(.*)$/.exec(line);
    if (head) {
      close();
      out.push({ kind: 'head', parts: inline(head[1]!) });
      continue;
    }
    const item = /^\s*(?:[-*+]|(\d{1,3})[.)])\s+(.*)$/.exec(line);
    if (item) {
      const ordered = item[1] !== undefined;
      const last = out[out.length - 1];
      if (paragraph.length === 0 && last?.kind === 'list' && last.ordered === ordered) {
        last.items.push(inline(item[2]!));
      } else {
        close();
        out.push({ kind: 'list', ordered, start: Number(item[1] ?? 1), items: [inline(item[2]!)] });
      }
      continue;
    }
    if (line.trim() === '') close();
    else paragraph.push(line);
  }
  close();
  return out;
}
