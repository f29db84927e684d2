"""A farm as a process of its own: how all Python tests start one, and stop it.

GRANGE_BINARY names the binary; else build/release/grange, else build/dev/grange, in the repository.
"""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def binary():
    given = os.environ.get("GRANGE_BINARY")
    for path in [pathlib.Path(given)] if given else [ROOT / "build/release/grange", ROOT / "build/dev/grange"]:
        if path.exists():
            return str(path.resolve())
    return pytest.fail("no grange binary: run ./dev build, or set GRANGE_BINARY")


def environment(**more):
    """Ours without what could lead to another farm. The executors' Python is the one that runs the tests."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GRANGE_") and k != "NO_COLOR"}
    return {**env, "GRANGE_PYTHON": sys.executable, **more}


def end(process, number=signal.SIGTERM, patience=25):
    """Ask a process to stop, and make it when it does not."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


class FarmProcess:
    """A running `grange up` (or another `command`) on free ports, with its data in `folder`. `ready` is the line that
    it prints when it is up."""

    def __init__(self, folder, *arguments, command="up", port="0", **env):
        self.folder = folder
        self.errors = open(folder / "farm.log", "ab")  # noqa: SIM115 (closed by stop)
        self.process = subprocess.Popen(
            [binary(), command, "--json", "--port", port, "--ws-port", "0", "--data", str(folder / "data"), *arguments],
            stdout=subprocess.PIPE, stderr=self.errors, env=environment(**env), cwd=folder)  # fmt: skip
        ready, _, _ = select.select([self.process.stdout], [], [], 40)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.stop()
            pytest.fail("the farm did not start: " + (folder / "farm.log").read_text()[-2000:])
        self.ready = json.loads(line)
        self.url, self.ws_url = self.ready["url"], self.ready.get("ws_url")

    def stop(self, number=signal.SIGTERM):
        """The exit code."""
        end(self.process, number)
        self.process.stdout.close()
        self.errors.close()
        return self.process.returncode
