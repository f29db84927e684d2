"""kill -9 of the server and of workers at random moments, seeded: nothing accepted is lost, nothing is accepted
twice."""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.request

import grange
import pytest
from farm_process import binary, end, environment

TASKS = 20_000
KILLS = 5


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Process:
    """A part of the farm that can be killed and started again, by its pid only."""

    def __init__(self, argv, log):
        self.argv, self.log, self.popen = argv, log, None
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(self.argv, stdout=log, stderr=log, env=environment())

    def kill9(self):
        os.kill(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def stop(self):
        end(self.popen)


class Farm:
    def __init__(self, folder, workers=2):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = folder / "server"
        self.log = folder / "log"
        self.server = Process(
            [binary(), "server", "--port", str(self.port), "--ws-port", "0", "--data", str(self.data)], self.log
        )
        self.workers = [
            Process(
                [
                    binary(),
                    "worker",
                    "--server",
                    self.url,
                    "--name",
                    f"w{i}",
                    "--slots",
                    "1",
                    "--health-port",
                    "0",
                    "--data",
                    str(folder / f"worker{i}"),
                ],
                self.log,
            )
            for i in range(workers)
        ]
        self.wait_ready(workers)

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            return json.load(reply)

    def wait_ready(self, workers):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if self.get("/api/stats")["connected_workers"] >= workers:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError("the farm did not become ready:\n" + self.log.read_text()[-4000:])

    def stop(self):
        for part in [*self.workers, self.server]:
            part.stop()


@pytest.fixture
def farm(tmp_path):
    made = Farm(tmp_path)
    yield made
    made.stop()


def test_kill9_of_server_and_workers(farm):
    seed = int(os.environ.get("GRANGE_SEED", "20261121"))
    rng = random.Random(seed)
    print("seed", seed)
    client = grange.connect(farm.url)

    def short(x):
        deadline = time.perf_counter() + 0.0005
        while time.perf_counter() < deadline:
            pass
        return x * x + 1

    results, failure = [], []

    def run():
        try:
            results.extend(client.map(short, range(TASKS), retries=5, progress=False))
        except BaseException as error:  # reported by the test's own thread
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    acknowledged, ask = [], threading.Event()

    def submit_small_jobs():
        """Small jobs all the while: an acknowledgement is a promise."""
        n = 0
        while not ask.is_set():
            n += 1
            body = json.dumps({"engine": "builtin", "builtin": {"op": "noop"}, "key": f"small-{seed}-{n}"}).encode()
            request = urllib.request.Request(farm.url + "/api/jobs", body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=5) as reply:
                    acknowledged.append(json.load(reply)["id"])
            except OSError:
                pass  # not acknowledged: nothing was promised
            time.sleep(0.02)

    submitter = threading.Thread(target=submit_small_jobs)
    submitter.start()

    kills = ["server"] * KILLS + ["worker"] * KILLS
    rng.shuffle(kills)
    for what in kills:
        time.sleep(rng.uniform(0.2, 1.5))
        part = farm.server if what == "server" else rng.choice(farm.workers)
        part.kill9()
        time.sleep(rng.uniform(0.0, 0.3))
        part.start()

    thread.join(180)
    ask.set()
    submitter.join(30)
    assert not thread.is_alive(), "the job did not end"
    assert not failure, failure
    assert results == [x * x + 1 for x in range(TASKS)]

    farm.wait_ready(2)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        stats = farm.get("/api/stats")
        if stats["pending_jobs"] + stats["running_jobs"] == 0:
            break
        time.sleep(0.2)
    for job in acknowledged:
        assert farm.get(f"/api/jobs/{job}")["status"] == "completed"
    assert len(acknowledged) > 20
    client.close()
    farm.stop()

    with sqlite3.connect(farm.data / "farm.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        jobs = dict(db.execute("SELECT no, count FROM jobs").fetchall())
        for no, count in jobs.items():
            low, high = no << 32, (no + 1) << 32
            query = "SELECT count(*), count(DISTINCT task) FROM outcomes WHERE task >= ? AND task < ?"
            rows = db.execute(query, (low, high))
            assert rows.fetchone() == (count, count), f"job {no}: one outcome a task"


def test_running_tasks_of_living_workers_are_adopted(farm, tmp_path):
    client = grange.connect(farm.url)
    marks = tmp_path / "marks"
    marks.mkdir()
    folder = str(marks)

    def long(i):
        with open(f"{folder}/{i}", "a") as f:
            f.write(f"{grange.attempt()}\n")
        time.sleep(4)
        return i

    futures = [client.submit(long, i) for i in range(2)]
    deadline = time.monotonic() + 20
    while len(list(marks.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(2):
        farm.server.kill9()
        farm.server.start()
        time.sleep(0.5)
    assert [f.result(timeout=60) for f in futures] == [0, 1]
    assert [(marks / str(i)).read_text() for i in range(2)] == ["1\n", "1\n"], "each ran once, as its first attempt"
    client.close()
