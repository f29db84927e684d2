"""Measures a farm through this package; `grange bench --engine python` runs it.

    python -m grange.bench tasks --count 20000 --url http://127.0.0.1:8000

The clock runs from the call until the last result has been read back; each result is checked.
"""

import argparse
import json
import sys
import time

import grange


def _percentiles(milliseconds):
    ordered = sorted(milliseconds)

    def at(percent):  # nearest rank
        rank = max(1, -(-len(ordered) * percent // 100))
        return round(ordered[rank - 1], 3)

    return {"p50_ms": at(50), "p90_ms": at(90), "p99_ms": at(99), "max_ms": at(100)}


# A closure, so that its code travels with it whatever the worker has installed.
def _function():
    offset = 1

    def add(x):
        return x + offset

    return add


def tasks(farm, count):
    add = _function()
    farm.map(add, range(64), chunksize=1, progress=False)  # executors are warm, and have the code
    start = time.perf_counter()
    results = farm.map(add, range(count), chunksize=1, progress=False)
    seconds = time.perf_counter() - start
    if results != list(range(1, count + 1)):
        sys.exit("a result is missing, repeated or wrong")
    return {"count": count, "seconds": seconds, "tasks_per_s": round(count / seconds), "verified": True}


def latency(farm, count):
    add = _function()
    for x in range(20):
        farm.submit(add, x).result()
    took = []
    for x in range(count):
        start = time.perf_counter()
        value = farm.submit(add, x).result()
        took.append((time.perf_counter() - start) * 1000)
        if value != x + 1:
            sys.exit(f"task {x} gave {value}")
    return {"count": count, "verified": True, **_percentiles(took)}


def main():
    parser = argparse.ArgumentParser(prog="python -m grange.bench", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["tasks", "latency"])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--url", help="the server (default: GRANGE_URL, else the local one)")
    options = parser.parse_args()
    farm = grange.connect(options.url)
    run = {"tasks": tasks, "latency": latency}[options.what]
    print(json.dumps(run(farm, options.count)))


if __name__ == "__main__":
    main()
