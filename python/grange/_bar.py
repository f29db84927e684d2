"""A progress bar in a few lines, on stderr."""

import sys
import time


class _Bar:
    active = True

    def __init__(self, total, name, step):
        self.total, self.name, self.step = total, name, step
        self.start = self.drawn = time.monotonic()
        self.width = 0
        self.done = 0

    def __call__(self, tasks):
        self.done = tasks * self.step if self.total is None else min(tasks * self.step, self.total)
        now = time.monotonic()
        if now - self.drawn >= 0.1:
            self.drawn = now
            self.draw(now)

    def draw(self, now):
        seconds = now - self.start
        rate = self.done / seconds if seconds > 0 else 0.0
        if self.total:
            filled = 24 * self.done // self.total
            left = (self.total - self.done) / rate if rate else 0
            line = "#" * filled + "." * (24 - filled)
            text = f"{self.name} [{line}] {self.done}/{self.total}  {rate:.0f}/s  {left:.0f} s left"
        else:
            text = f"{self.name} {self.done}  {rate:.0f}/s"
        sys.stderr.write("\r" + text.ljust(self.width))
        sys.stderr.flush()
        self.width = len(text)

    def close(self):
        if self.width:
            self.draw(time.monotonic())
            sys.stderr.write("\n")
            sys.stderr.flush()


class _NoBar:
    active = False

    def __call__(self, tasks):
        pass

    def close(self):
        pass


def bar(progress, total, name, step):
    """A callable of the number of tasks done. `progress` None: only where somebody looks."""
    if progress is None:
        try:
            progress = "ipykernel" in sys.modules or sys.stderr.isatty()
        except (AttributeError, ValueError):
            progress = False
    return _Bar(total, name, step) if progress else _NoBar()
