"""A real farm for the tests: `grange up` with two workers of one executor each, in a scratch folder, on free ports.

GRANGE_BINARY names the binary; else build/release/grange, else build/dev/grange, in the repository.
"""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys

import grange
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def binary():
    given = os.environ.get("GRANGE_BINARY")
    for path in [pathlib.Path(given)] if given else [ROOT / "build/release/grange", ROOT / "build/dev/grange"]:
        if path.exists():
            return path
    return None


class Server:
    """A running `grange up`."""

    def __init__(self, folder):
        program = binary()
        if program is None:
            pytest.fail("no grange binary: run ./dev build, or set GRANGE_BINARY")
        start = [sys.executable, str(program)] if program.suffix == ".py" else [str(program)]
        env = {k: v for k, v in os.environ.items() if k not in ("GRANGE_URL", "GRANGE_TOKEN")}
        # The executors' Python is the one that runs the tests.
        env["PATH"] = os.path.dirname(sys.executable) + os.pathsep + env.get("PATH", "")
        env["VIRTUAL_ENV"] = sys.prefix
        env["GRANGE_PYTHON"] = sys.executable
        self.log = open(folder / "server.log", "wb")  # noqa: SIM115 (closed by stop)
        self.process = subprocess.Popen(
            [
                *start,
                "up",
                "--data",
                str(folder / "data"),
                "--port",
                "0",
                "--ws-port",
                "0",
                "--workers",
                "2",
                "--slots",
                "1",
                "--json",
            ],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=env,
        )
        ready, _, _ = select.select([self.process.stdout], [], [], 30)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.stop()
            pytest.fail("grange up did not start: " + (folder / "server.log").read_text()[-2000:])
        started = json.loads(line)
        self.url, self.ws_url, self.pid = started["url"], started["ws_url"], started["pid"]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("farm"))
    yield server
    server.stop()


@pytest.fixture
def farm(server):
    with grange.connect(server.url) as farm:
        yield farm


@pytest.fixture
def default_url(server, monkeypatch):
    """The server as the default farm: for @grange.task, grange.Executor() and joblib."""
    from grange import farm as module

    monkeypatch.setenv("GRANGE_URL", server.url)
    monkeypatch.setattr(module, "_default", None)
    yield server.url
    if module._default is not None:
        module._default.close()
