// Keys that work on the whole page. `?` lists them, so each has a text.
export interface Key {
  keys: string; // "/", "g j", "Enter", "ctrl+k"
  text: string;
  run: (event: KeyboardEvent) => void | boolean; // false: not used, let it pass
  group?: string;
}

const bound: Key[] = [];
let chord = '';
let chord_at = 0;

export function bind(...keys: Key[]): () => void {
  bound.unshift(...keys); // the newest wins
  return () => {
    for (const key of keys) {
      const at = bound.indexOf(key);
      if (at >= 0) bound.splice(at, 1);
    }
  };
}
export const all_keys = (): readonly Key[] => bound;

export function name_of(event: Pick<KeyboardEvent, 'key' | 'ctrlKey' | 'metaKey' | 'altKey' | 'shiftKey'>): string {
  const mods = (event.ctrlKey || event.metaKey ? 'ctrl+' : '') + (event.altKey ? 'alt+' : '');
  return mods + (event.key.length === 1 && mods ? event.key.toLowerCase() : event.key);
}

const typing = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement &&
  (target.isContentEditable || target.tagName === 'TEXTAREA' || target.tagName === 'SELECT' ||
    (target instanceof HTMLInputElement && !['checkbox', 'radio', 'button', 'range'].includes(target.type)));

export function handle(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.isComposing) return;
  const name = name_of(event);
  if (typing(event.target) && !name.startsWith('ctrl+') && name !== 'Escape') return;
  // A dialog has the keyboard for itself.
  if (document.querySelector('dialog[open]') && name !== 'ctrl+k') return;
  const now = Date.now();
  const names = chord && now - chord_at < 1200 ? [`${chord} ${name}`, name] : [name];
  chord = '';
  for (const wanted of names) {
    for (const key of [...bound]) {
      if (key.keys !== wanted) continue;
      if (key.run(event) === false) continue;
      event.preventDefault();
      return;
    }
  }
  if (bound.some((key) => key.keys.startsWith(`${name} `))) {
    chord = name;
    chord_at = now;
  }
}

// Escape out of a field gives the keyboard back to the page, and takes a search back: the browser would empty the field
// after it has lost the keyboard, and tell nobody.
export function start(): void {
  addEventListener('keydown', handle);
  addEventListener('keydown', (event) => {
    const field = event.target;
    if (event.key !== 'Escape' || event.isComposing || !typing(field) || document.querySelector('dialog[open]')) return;
    if (field instanceof HTMLInputElement && field.type === 'search' && field.value) {
      field.value = '';
      field.dispatchEvent(new Event('input', { bubbles: true }));
    }
    (field as HTMLElement).blur();
  });
}
