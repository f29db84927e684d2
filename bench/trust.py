#!/usr/bin/env python3
"""Fairness and blocked work, measured on the real binary, on farms of its own on loopback.

    .venv/bin/python bench/trust.py [fairness] [blocked] [--json]

fairness: one user has 1,000,000 tasks queued, another arrives with 100. Her median wait, against the same 100 tasks
alone on half of the slots.
blocked: no-op tasks a second on two farms in turns, one of which has 1,000,000 tasks queued that no worker can run.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
GRANGE = ROOT / "build/release/grange"
TASK_MS = 50


@contextlib.contextmanager
def farm(*arguments):
    with tempfile.TemporaryDirectory(prefix="grange-bench-") as folder:
        command = [GRANGE, "up", "--json", "--port", "0", "--ws-port", "0", "--python", "none", "--data", folder]
        with open(pathlib.Path(folder) / "log", "w") as log:
            process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=log)
            try:
                yield json.loads(process.stdout.readline())["url"]
            finally:
                process.terminate()
                process.wait(30)


def ask(url, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def seconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def submit(url, user, count, **more):
    job = {"engine": "builtin", "builtin": {"op": "sleep", "ms": TASK_MS}, "count": count, "user": user, "cpus": 1}
    return ask(url, "/api/jobs", {**job, **more})


def median_wait(url, job):
    """Milliseconds from the submit to each task's start, when all have ended."""
    until = time.monotonic() + 120
    while ask(url, f"/api/jobs/{job['id']}")["status"] in ("pending", "running"):
        if time.monotonic() > until:
            sys.exit("the job did not end in two minutes")
        time.sleep(0.05)
    tasks = ask(url, f"/api/jobs/{job['id']}/tasks?limit=1000")
    waits = [(seconds(t["ended_at"]) - seconds(job["created_at"])) * 1000 - t["run_ms"] for t in tasks]
    return statistics.median(waits)


def fairness(slots=4, tasks=100):
    with farm("--workers", "2", "--slots", str(slots // 4)) as url:
        alone = median_wait(url, submit(url, "late", tasks))
    with farm("--workers", "2", "--slots", str(slots // 2)) as url:
        submit(url, "early", 1_000_000)
        time.sleep(2)
        shared = median_wait(url, submit(url, "late", tasks))
    return {
        "what": "fairness",
        "tasks_queued_before": 1_000_000,
        "late_tasks": tasks,
        "task_ms": TASK_MS,
        "slots": slots,
        "alone_on_half_median_wait_ms": round(alone, 1),
        "shared_median_wait_ms": round(shared, 1),
        "ratio": round(shared / alone, 3),
        "asked": "at most 2",
    }


def rate(url, count):
    done = subprocess.run(
        [GRANGE, "bench", "tasks", "--count", str(count), "--server", url, "--json"],
        capture_output=True, text=True, check=True)  # fmt: skip
    return json.loads(done.stdout)["tasks_per_s"]


def blocked(rounds=21, count=300_000):
    free, behind = [], []
    with farm("--workers", "2") as plain, farm("--workers", "2") as full:
        submit(full, "stuck", 1_000_000, labels={"machine": "that-nobody-has"})
        for url in (plain, full):
            rate(url, count)  # warm
        for turn in range(rounds):
            order = [(plain, free), (full, behind)]
            for url, into in order if turn % 2 == 0 else reversed(order):
                into.append(rate(url, count))
    slower = 1 - statistics.median(b / f for b, f in zip(behind, free, strict=True))  # of neighbours in time
    return {
        "what": "blocked",
        "tasks_blocked": 1_000_000,
        "count": count,
        "rounds": rounds,
        "tasks_per_s": round(statistics.median(free)),
        "tasks_per_s_beside_blocked": round(statistics.median(behind)),
        "slower_percent": round(100 * slower, 2),
        "asked": "at most 5",
    }


def machine():
    cpu = next(
        (
            x.split(":")[1].strip()
            for x in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
            if x.startswith("model name")
        ),
        "?",
    )
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "commit": commit.stdout.strip()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["fairness", "blocked"])
    parser.add_argument("--json", action="store_true", help="one line of JSON for each")
    options = parser.parse_args()
    for name in options.what:
        figures = {**{"fairness": fairness, "blocked": blocked}[name](), **machine()}
        print(json.dumps(figures) if options.json else "\n".join(f"{k:32} {v}" for k, v in figures.items()) + "\n")


if __name__ == "__main__":
    main()
