"""The command line against a real farm. GRANGE_BINARY names the binary; else build/release/grange, else build/dev/grange."""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def binary():
    given = os.environ.get("GRANGE_BINARY")
    for path in [pathlib.Path(given)] if given else [ROOT / "build/release/grange", ROOT / "build/dev/grange"]:
        if path.exists():
            return str(path.resolve())
    pytest.skip("no grange binary: run ./dev build, or set GRANGE_BINARY")


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("GRANGE_") and k != "NO_COLOR"}
    env["GRANGE_PYTHON"] = sys.executable
    env.update(more)
    return env


def eventually(check, seconds=15, what="it"):
    """Until check() is true; bounded, so that a failure ends."""
    until = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < until, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)
    return value


class Farm:
    """A running `grange up` (or what `arguments` say) on free ports."""

    def __init__(self, folder, *arguments, command="up", port="0", **env):
        self.folder = folder
        self.errors = open(folder / "farm.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            [binary(), command, "--json", "--port", port, "--ws-port", "0", "--data", str(folder / "data"), *arguments],
            stdout=subprocess.PIPE, stderr=self.errors, env=environment(**env), cwd=folder)  # fmt: skip
        ready, _, _ = select.select([self.process.stdout], [], [], 40)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.stop()
            pytest.fail("the farm did not start: " + (folder / "farm.log").read_text()[-2000:])
        self.ready = json.loads(line)
        self.url = self.ready["url"]

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(25)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        return self.process.returncode

    def start(self, *arguments, **options):
        """A command that goes on beside the test."""
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen([binary(), *arguments], env=environment(GRANGE_URL=self.url), cwd=self.folder, **options)

    def __call__(self, *arguments, code=0, stdin=None, timeout=40):
        done = grange(*arguments, stdin=stdin, timeout=timeout, cwd=self.folder, GRANGE_URL=self.url)
        assert done.returncode == code, f"{arguments} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments, **options):
        return json.loads(self(*arguments, "--json", **options).stdout)

    def submit(self, text, *arguments):
        return self("submit", "-", *arguments, stdin=text).stdout.strip()


def grange(*arguments, stdin=None, timeout=40, cwd=None, **env):
    return subprocess.run([binary(), *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, cwd=cwd,
                          env=environment(**env), check=False)  # fmt: skip
