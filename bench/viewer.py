#!/usr/bin/env python3
"""What people who watch cost the server: CPU of a busy server with 0, 1 and 5 viewers, each hearing of every event at
once or in batches; and the grid of a job of 1,000,000 tasks.

    .venv/bin/python bench/viewer.py [--changes 5000] [--jobs 500] [--seconds 10] [--rounds 3] [--json]

The farm runs tasks that sleep, at a rate that the number of slots sets; they belong to many jobs, so that each second
brings many facts. Viewers are sockets of another process that read and throw away. The server's CPU time is what the
kernel counts for its process. A viewer's cost is the difference to the round without viewers that went before, per
change, times the changes asked for: a busy machine, where the farm does fewer, tells the same.
"""

import argparse
import base64
import json
import os
import pathlib
import platform
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
TASK_MS = 20


def call(url, path, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"null")


# ------------------------------------------------------------------------------------------- viewers, in a process


def open_viewer(url, every_ms):
    at = urllib.parse.urlsplit(url)
    one = socket.create_connection((at.hostname, at.port), 10)
    key = base64.b64encode(os.urandom(16)).decode()
    one.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {at.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: grange.json\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += one.recv(4096)
    assert b" 101 " in head.split(b"\r\n")[0], head
    data = {"topics": ["jobs", "workers", "system"], **({"every_ms": every_ms} if every_ms else {})}
    text = json.dumps({"type": "subscribe", "data": data}).encode()
    mask = os.urandom(4)
    frame = bytes([0x81, 0x80 | len(text)]) if len(text) < 126 else bytes([0x81, 0xFE]) + struct.pack("!H", len(text))
    one.sendall(frame + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text)))
    return one


def view(url, viewers, every_ms, seconds):
    """Reads for so long; prints how many bytes came."""
    sockets = [open_viewer(url, every_ms) for _ in range(viewers)]
    print("ready", flush=True)
    until, came = time.monotonic() + seconds, 0
    while (left := until - time.monotonic()) > 0:
        for one in select.select(sockets, [], [], left)[0]:
            piece = one.recv(1 << 20)
            assert piece, "the server closed a viewer's connection"
            came += len(piece)
    print(came, flush=True)


# ------------------------------------------------------------------------------------------------------ the farm


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(farm, viewers, every_ms, seconds):
    watching = None
    if viewers:
        watching = subprocess.Popen(
            [sys.executable, __file__, "--view", farm["url"], str(viewers), str(every_ms), str(seconds + 2)],
            stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert watching.stdout.readline().strip() == "ready"
        time.sleep(1)
    before, at, done = cpu_seconds(farm["pid"]), time.monotonic(), call(farm["url"], "/api/stats")
    time.sleep(seconds)
    after, took = cpu_seconds(farm["pid"]), time.monotonic() - at
    stats = call(farm["url"], "/api/stats")
    changes = stats["total_tasks_completed"] - done["total_tasks_completed"]
    out = {
        "cpu_us_per_change": round((after - before) * 1e6 / max(1, changes), 2),
        "viewers": viewers,
        "every_ms": every_ms,
        "cpu_percent": round(100 * (after - before) / took, 2),
        "changes_per_s": round(changes / took),
        "facts_per_s": round((stats["next_event"] - done["next_event"]) / took),
    }
    if watching:
        out["bytes_per_s_each"] = round(int(watching.stdout.readline()) / (seconds + 2) / viewers)
        watching.wait(20)
    return out


def grid_of_a_million(url):
    call(url, "/api/queue/pause", {})
    job = call(url, "/api/jobs", {"engine": "builtin", "builtin": {"op": "noop"}, "count": 1_000_000})["id"]
    times = []
    for _ in range(10):
        began = time.monotonic()
        call(url, f"/api/jobs/{job}/grid")
        times.append((time.monotonic() - began) * 1000)
    call(url, f"/api/jobs/{job}/cancel", {})
    call(url, "/api/queue/resume", {})
    return {"tasks": 1_000_000, "waiting_ms": round(statistics.median(times), 2)}


def main():
    if sys.argv[1:2] == ["--view"]:
        return view(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/release/grange"))
    parser.add_argument("--changes", type=int, default=5000, help="tasks that end in a second (5000)")
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    slots = max(1, asked.changes * TASK_MS // 1000)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="grange-viewer-", dir="/var/tmp"))
    processes = []
    try:
        log = open(folder / "log", "wb")  # noqa: SIM115 (until the end)
        server = subprocess.Popen(
            [asked.binary, "server", "--json", "--port", "0", "--ws-port", "0", "--data", str(folder / "data")],
            stdout=subprocess.PIPE, stderr=log, cwd=folder)  # fmt: skip
        processes.append(server)
        farm = json.loads(server.stdout.readline())
        worker = [asked.binary, "worker", "--server", farm["url"], "--slots", str(slots), "--health-port", "0"]
        worker += ["--python", "none", "--no-probe", "--data", str(folder / "worker")]
        processes.append(subprocess.Popen(worker, stdout=subprocess.DEVNULL, stderr=log, cwd=folder))
        # Each job by a user of its own: a fair order serves all of them in turn.
        enough = int(asked.changes * (asked.seconds + 6) * 7 * asked.rounds * 1.5 / asked.jobs) + 100
        sleep = {"engine": "builtin", "builtin": {"op": "sleep", "ms": TASK_MS}, "count": enough, "cpus": 0.001}
        for n in range(asked.jobs):
            call(farm["url"], "/api/jobs", {**sleep, "user": f"u{n}"})
        time.sleep(5)
        rounds = []
        for _ in range(asked.rounds):
            for every in [0, 250, 1000]:
                none = measure(farm, 0, 0, asked.seconds)
                for viewers in [1, 5]:
                    one = measure(farm, viewers, every, asked.seconds)
                    one["cpu_us_per_change_without"] = none["cpu_us_per_change"]
                    more = (one["cpu_us_per_change"] - none["cpu_us_per_change"]) / viewers
                    one["cpu_percent_each"] = round(more * asked.changes / 1e4, 2)
                    rounds.append(one)
                    print(json.dumps(one), file=sys.stderr)
        figures = []
        for every in [0, 250, 1000]:
            for viewers in [1, 5]:
                mine = [r for r in rounds if (r["every_ms"], r["viewers"]) == (every, viewers)]
                figures.append({key: statistics.median(r[key] for r in mine) for key in mine[0]})
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT
        ).stdout.strip()
        out = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "commit": commit,
            "settings": {"jobs": asked.jobs, "slots": slots, "seconds": asked.seconds, "rounds": asked.rounds},
            "figures": figures,
            "grid": grid_of_a_million(farm["url"]),
        }
        if asked.json:
            print(json.dumps(out))
            return None
        print(f"{out['machine']}, {commit}")
        for one in figures:
            how = f"every {one['every_ms']:g} ms" if one["every_ms"] else "at once"
            load = f"{one['changes_per_s']:g} changes/s, {one['facts_per_s']:g} facts/s"
            each = f"{one['cpu_percent_each']:5.1f} % of a core and {one['bytes_per_s_each'] / 1e3:.0f} kB/s each"
            print(f"{one['viewers']:g} viewers, {how:>14}: {each} ({load})")
        print(f"grid of {out['grid']['tasks']:,} tasks: {out['grid']['waiting_ms']} ms")
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        subprocess.run(["rm", "-rf", str(folder)], check=False)
    return None


if __name__ == "__main__":
    main()
