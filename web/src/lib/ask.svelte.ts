// Short messages, and questions before something that cannot be undone.
export interface Toast {
  id: number;
  kind: 'good' | 'bad' | 'info';
  text: string;
  link?: { href: string; text: string };
}
export interface Question {
  title: string;
  text: string;
  action: string; // the word on the button
  danger?: boolean;
}

class Asking {
  toasts = $state.raw<Toast[]>([]);
  question = $state.raw<(Question & { answer: (yes: boolean) => void }) | null>(null);
  private last = 0;

  toast(kind: Toast['kind'], text: string, link?: Toast['link']): void {
    const id = ++this.last;
    this.toasts = [...this.toasts.slice(-3), { id, kind, text, link }];
    setTimeout(() => this.dismiss(id), kind === 'bad' ? 12_000 : 6000);
  }
  dismiss(id: number): void {
    this.toasts = this.toasts.filter((one) => one.id !== id);
  }
  ask(question: Question): Promise<boolean> {
    return new Promise((resolve) => {
      this.question = {
        ...question,
        answer: (yes) => {
          this.question = null;
          resolve(yes);
        },
      };
    });
  }
}

export const asking = new Asking();
export const toast = asking.toast.bind(asking);
export const ask = asking.ask.bind(asking);
