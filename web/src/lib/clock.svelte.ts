// One ticking clock for all that says "3 s ago".
class Clock {
  now = $state.raw(Date.now());
  start(): void {
    setInterval(() => {
      if (!document.hidden) this.now = Date.now();
    }, 1000);
  }
}
export const clock = new Clock();
