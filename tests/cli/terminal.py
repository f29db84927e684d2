"""A program on a real pseudo-terminal, with pyte as its screen."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pyte
from cli_farm import binary, environment
from farm_process import end


class Screen(pyte.Screen):
    """With what xterm can do and pyte cannot: repeat a character, scroll up and down."""

    last = " "

    def draw(self, data):
        self.last = data[-1:] or self.last
        super().draw(data)

    def repeat(self, count=1):
        self.draw(self.last * (count or 1))

    def scroll(self, count, step, line):
        x, y = self.cursor.x, self.cursor.y
        self.cursor.y = line
        for _ in range(count or 1):
            step()
        self.cursor.x, self.cursor.y = x, y

    def scroll_up(self, count=1):
        self.scroll(count, self.index, self.margins.bottom if self.margins else self.lines - 1)

    def scroll_down(self, count=1):
        self.scroll(count, self.reverse_index, self.margins.top if self.margins else 0)


class Stream(pyte.ByteStream):
    csi = {**pyte.ByteStream.csi, "b": "repeat", "S": "scroll_up", "T": "scroll_down"}
    events = pyte.ByteStream.events | {"repeat", "scroll_up", "scroll_down"}


class Terminal:
    def __init__(self, *arguments, columns=80, rows=24, cwd=None, **env):
        self.screen = Screen(columns, rows)
        self.stream = Stream(self.screen)
        self.raw = b""
        self.ours, theirs = pty.openpty()
        self.keep = os.dup(theirs)  # so that its settings can be read when the program is gone
        self.set_size(columns, rows)
        self.before = termios.tcgetattr(self.keep)
        env = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **env}
        self.process = subprocess.Popen(
            [binary(), *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment(**env),
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)))  # fmt: skip
        os.close(theirs)

    def set_size(self, columns, rows):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns, rows):
        self.screen.resize(rows, columns)
        self.set_size(columns, rows)
        self.process.send_signal(signal.SIGWINCH)

    def read(self, seconds=0.05):
        while select.select([self.ours], [], [], seconds)[0]:
            got = os.read(self.ours, 65536)
            self.raw += got
            self.stream.feed(got)
            seconds = 0

    def text(self):
        self.read()
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait(self, check, seconds=20):
        """Until check(text) holds, or the word stands there; the text."""
        word = check if isinstance(check, str) else None
        until = time.monotonic() + seconds
        while True:
            text = self.text()
            if (word in text) if word is not None else check(text):
                return text
            assert time.monotonic() < until, f"{word or 'that'} was not shown within {seconds} s:\n{text}"

    def type(self, keys):
        os.write(self.ours, keys.encode())

    def code(self, seconds=15):
        """Reads on until the program has ended; its exit code."""
        until = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < until, f"it did not end within {seconds} s:\n{self.text()}"
            self.read()
        self.read()
        return self.process.returncode

    def restored(self):
        """The modes of the terminal are as before, the cursor is shown, and the other screen was left."""
        modes = termios.tcgetattr(self.keep)
        return (
            modes[:4] == self.before[:4]
            and not self.screen.cursor.hidden
            and self.raw.rfind(b"\x1b[?1049l") > self.raw.rfind(b"\x1b[?1049h")
        )

    def close(self):
        end(self.process)
        os.close(self.ours)
        os.close(self.keep)
