// Light, dark, or as the system has it; canvases ask here for their colours.
export type Choice = 'auto' | 'light' | 'dark';

class Theme {
  choice = $state.raw<Choice>('auto');
  dark = $state.raw(false);
  private cache = new Map<string, string>();

  start(): void {
    const system = matchMedia('(prefers-color-scheme: dark)');
    try {
      const kept = localStorage.getItem('grange.theme');
      if (kept === 'light' || kept === 'dark') this.choice = kept;
    } catch {
      // no storage: as the system has it
    }
    system.addEventListener('change', () => this.apply(system.matches));
    this.apply(system.matches);
  }
  set(choice: Choice): void {
    this.choice = choice;
    try {
      if (choice === 'auto') localStorage.removeItem('grange.theme');
      else localStorage.setItem('grange.theme', choice);
    } catch {
      // it holds until the page is closed
    }
    this.apply(matchMedia('(prefers-color-scheme: dark)').matches);
  }
  private apply(system_dark: boolean): void {
    const dark = this.choice === 'auto' ? system_dark : this.choice === 'dark';
    document.documentElement.dataset.theme = dark ? 'dark' : 'light';
    this.cache.clear();
    this.dark = dark;
  }
  // The value of a CSS variable, such as "--accent". Depends on the theme.
  color(name: string): string {
    void this.dark;
    let value = this.cache.get(name);
    if (value === undefined) {
      value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      this.cache.set(name, value);
    }
    return value;
  }
}

export const theme = new Theme();
export const calm = (): boolean => matchMedia('(prefers-reduced-motion: reduce)').matches;
// Pixels of one rem.
export const rem = (): number => parseFloat(getComputedStyle(document.documentElement).fontSize) || 16;
