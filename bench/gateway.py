#!/usr/bin/env python3
"""What the gateway adds to a stream: direct and through it, in turns, on an upstream that only sends.

    .venv/bin/python bench/gateway.py [--streams 1000] [--rate 5000] [--rounds 3] [--seconds 10] [--json]

Every chunk carries the time at which the upstream wrote it (the clock is one on a machine), so its latency is known
without a second clock. Three kinds of streams: `direct` rounds and `gateway` rounds take turns with the full load;
`beside` are a few direct streams within the gateway's rounds, which see the same busy cores. What is added is the
difference of percentiles. The upstream sends at uneven gaps: a relay that smooths or merges them shows.
"""

import argparse
import asyncio
import gc
import json
import os
import pathlib
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

try:
    import uvloop
except ImportError:
    uvloop = None

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHUNKS = 50  # of a stream
GAPS = (0.1, 0.4, 2.5)  # in turn, times the mean gap
STAMP = re.compile(rb"T(\d{19}) S(\d{6})")
BODY = json.dumps({"model": "bench", "stream": True, "messages": [{"role": "user", "content": "go"}]}).encode()


def fast(coroutine):
    """No collector of garbage while it measures."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.collect()
    gc.freeze()
    gc.disable()
    return (uvloop.run if uvloop else asyncio.run)(coroutine)


# ------------------------------------------------------------------------------------------------------- the upstream


def framed(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Upstream(asyncio.Protocol):
    """Just enough of HTTP and of the contract."""

    gap = 0.2

    def connection_made(self, transport):
        self.transport, self.read, self.timer = transport, b"", None

    def connection_lost(self, _):
        if self.timer:
            self.timer.cancel()

    def data_received(self, data):
        self.read += data
        while (end := self.read.find(b"\r\n\r\n")) >= 0:
            head = self.read[:end]
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self.read) < total:
                return
            self.read = self.read[total:]
            self.answer(head)

    def answer(self, head):
        if not head.startswith(b"POST"):
            known = b"/v1/models" in head.split(b"\r\n", 1)[0]
            body = (
                b'{"object":"list","data":[{"id":"bench","object":"model","created":1,"owned_by":"bench"}]}'
                if known
                else b"{}"
            )
            status = b"200 OK" if known else b"404 Not Found"
            self.transport.write(
                b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (status, len(body), body)
            )
            return
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.chunk(0)

    def chunk(self, number):
        if self.transport.is_closing():
            return
        self.transport.write(
            framed(
                b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench",'
                b'"choices":[{"index":0,"delta":{"content":"T%019d S%06d"},"finish_reason":null}]}\n\n'
                % (time.monotonic_ns(), number)
            )
        )
        if number + 1 < CHUNKS:
            wait = self.gap * GAPS[number % len(GAPS)]
            self.timer = asyncio.get_running_loop().call_later(wait, self.chunk, number + 1)
        else:
            self.transport.write(framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def upstream(gap):
    Upstream.gap = gap
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


# --------------------------------------------------------------------------------------------------------- the client


class Figures:
    def __init__(self):
        self.ttft, self.latency, self.gap_error, self.sent_gaps, self.got_gaps = [], [], [], [], []
        self.together = self.chunks = self.ended = self.broken = 0

    def summary(self):
        def spread(values):
            values = sorted(values)
            return (
                {f"p{p}": round(values[min(len(values) - 1, len(values) * p // 100)], 4) for p in (50, 90, 99)}
                if values
                else {}
            )

        ratio = statistics.pstdev(self.got_gaps) / statistics.pstdev(self.sent_gaps) if self.sent_gaps else None
        return {
            "streams_ended": self.ended,
            "streams_broken": self.broken,
            "chunks": self.chunks,
            "ttft_ms": spread(self.ttft),
            "chunk_latency_ms": spread(self.latency),
            "gap_error_ms": spread(self.gap_error),
            "gap_spread_kept": round(ratio, 5) if ratio else None,
            "chunks_merged": self.together,
        }


class Stream(asyncio.Protocol):
    """One connection; one stream after another on it, until told to stop."""

    def __init__(self, request, figures, state):
        self.request, self.figures, self.state = request, figures, state
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.begin()

    def begin(self):
        self.started, self.tail = time.monotonic_ns(), b""
        self.first, self.last = True, None
        self.transport.write(self.request)

    def data_received(self, data):
        now = time.monotonic_ns()
        data = self.tail + data
        at = 0
        counts, f = self.state["counts"], self.figures
        for in_one_read, found in enumerate(STAMP.finditer(data)):
            at = found.end()
            sent = int(found[1])
            if counts:
                f.chunks += 1
                f.latency.append((now - sent) / 1e6)
                if self.first:
                    f.ttft.append((now - self.started) / 1e6)
                elif self.last:
                    sent_gap, got_gap = (sent - self.last[0]) / 1e6, (now - self.last[1]) / 1e6
                    f.sent_gaps.append(sent_gap)
                    f.got_gaps.append(got_gap)
                    f.gap_error.append(abs(got_gap - sent_gap))
                    if in_one_read and sent_gap > 2:
                        f.together += 1
            self.first, self.last = False, (sent, now)
        rest = data[at:]
        if b"data: [DONE]" in rest and rest.endswith(b"0\r\n\r\n"):
            f.ended += counts
            if self.state["going"]:
                self.begin()
            else:
                self.transport.close()
            return
        if at == 0 and self.first and b"HTTP/1.1 " in rest and b"HTTP/1.1 200" not in rest:
            self.state["refusal"] = rest[:300].decode(errors="replace")
            self.transport.close()
            return
        self.tail = rest[-300:]

    def connection_lost(self, _):
        if not self.closed.done():
            self.closed.set_result(None)
        if self.state["going"]:
            self.figures.broken += 1


def request_to(port):
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (port, len(BODY), BODY)
    )


async def load(groups, life, seconds):
    """groups: (port, number of streams, figures). They start spread over the life of one, so that they are out of step,
    and count from then on."""
    loop, state = asyncio.get_running_loop(), {"counts": False, "going": True}
    all_of_them = sorted((i / n, port, figures) for port, n, figures in groups for i in range(n))
    open_now, began = [], loop.time()
    for when, port, figures in sorted(all_of_them, key=lambda s: s[0]):
        await asyncio.sleep(max(0, began + when * life - loop.time()))
        _, stream = await loop.create_connection(
            lambda p=port, f=figures: Stream(request_to(p), f, state), "127.0.0.1", port
        )
        open_now.append(stream)
    state["counts"] = True
    await asyncio.sleep(seconds)
    state["counts"], state["going"] = False, False
    for stream in open_now:
        stream.transport.abort()
    await asyncio.gather(*(s.closed for s in open_now))
    if "refusal" in state:
        sys.exit("the gateway refused a stream: " + state["refusal"])


# ------------------------------------------------------------------------------------------------------------ the farm


class Process:
    def __init__(self, argv, log, **more):
        with open(log, "ab") as errors:
            self.popen = subprocess.Popen(argv, stderr=errors, stdout=subprocess.PIPE, **more)

    def line(self):
        return self.popen.stdout.readline().decode()

    def memory(self):
        """Resident bytes now, and the most that they ever were."""
        status = pathlib.Path(f"/proc/{self.popen.pid}/status").read_text()
        return {n: int(re.search(rf"{k}:\s+(\d+)", status)[1]) * 1024 for n, k in (("rss", "VmRSS"), ("peak", "VmHWM"))}

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.popen.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        if self.popen.stdin:
            self.popen.stdin.close()
        self.popen.terminate()
        self.popen.wait(30)


def until_model(url, model="bench"):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url + "/v1/models", timeout=5) as answer:
                if model in [m["id"] for m in json.load(answer)["data"]]:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("the gateway did not learn of the upstream's model within 30 s")


def measure(given, folder):
    gap = given.streams / given.rate
    life = gap * sum(GAPS) / len(GAPS) * CHUNKS
    log = pathlib.Path(folder) / "log"
    env = {k: v for k, v in os.environ.items() if not k.startswith("GRANGE_")}
    mock = Process([sys.executable, __file__, "--upstream", str(gap)], log, stdin=subprocess.PIPE)
    processes = {"upstream": mock}
    try:
        port = int(mock.line())
        server = Process(
            [given.grange, "server", "--json", "--port", "0", "--ws-port", "0", "--data", f"{folder}/server"],
            log,
            env=env,
        )
        processes["server"] = server
        url = json.loads(server.line())["url"]
        processes["worker"] = Process(
            [given.grange, "worker", "--server", url, "--data", f"{folder}/worker", "--no-probe"],
            log,
            env={**env, "GRANGE_SERVICES": f"bench:openai=http://127.0.0.1:{port}"},
        )
        until_model(url)
        gate = int(url.rsplit(":", 1)[1])
        direct, through, beside, warm = Figures(), Figures(), Figures(), Figures()
        fast_run = asyncio.Runner(loop_factory=uvloop.new_event_loop) if uvloop else asyncio.Runner()
        memory, cpu = [], []
        with fast_run as runner:
            runner.run(load([(gate, given.streams, warm)], life, 1))
            for _ in range(given.rounds):
                runner.run(load([(port, given.streams, direct)], life, given.seconds))
                before = {n: p.cpu() for n, p in processes.items()}
                began = time.monotonic()
                runner.run(load([(gate, given.streams, through), (port, given.beside, beside)], life, given.seconds))
                took = time.monotonic() - began
                cpu.append({n: round((p.cpu() - before[n]) / took, 3) for n, p in processes.items()})
                memory.append({n: processes[n].memory() for n in ("server", "worker")})
                gc.collect()
        return {
            "direct": direct.summary(),
            "gateway": through.summary(),
            "beside": beside.summary(),
            "memory_after_each_round": memory,
            "cores_in_gateway_rounds": cpu,
        }
    except Exception:
        sys.stderr.write(log.read_text()[-3000:])
        raise
    finally:
        for process in reversed(processes.values()):
            process.stop()


def added(measured):
    """Percentile of the gateway's, less the same of each other kind."""
    out = {}
    for other in ("direct", "beside"):
        for what in ("ttft_ms", "chunk_latency_ms"):
            pairs = measured["gateway"][what], measured[other][what]
            out[f"{what[:-3]}_over_{other}_ms"] = {
                p: round(pairs[0][p] - pairs[1][p], 4) for p in pairs[0] if p in pairs[1]
            }
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=5000, help="chunks a second in all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="measured in each round")
    parser.add_argument("--beside", type=int, default=50, help="direct streams within the gateway's rounds")
    parser.add_argument("--grange", default=str(ROOT / "build/release/grange"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--upstream", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.upstream:
        fast(upstream(given.upstream))
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()
    before = stolen()
    with tempfile.TemporaryDirectory(prefix="grange-bench-") as folder:
        measured = measure(given, folder)
    after = stolen()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    memory = measured.pop("memory_after_each_round")
    report = {
        "what": "gateway",
        "settings": {
            "streams": given.streams,
            "chunks_per_s": given.rate,
            "rounds": given.rounds,
            "seconds": given.seconds,
            "beside": given.beside,
            "gaps": GAPS,
            "chunks_of_a_stream": CHUNKS,
            "loop": "uvloop" if uvloop else "asyncio",
        },
        "added": added(measured),
        **measured,
        "memory_first_round": memory[0],
        "memory_last_round": memory[-1],
        "machine": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.platform(),
            "load": os.getloadavg(),
            "stolen_percent": round(100 * (after[0] - before[0]) / max(1, after[1] - before[1]), 2),
        },
        "commit": commit.stdout.strip(),
    }
    if given.json:
        print(json.dumps(report))
        return
    for kind in ("direct", "beside", "gateway"):
        f = measured[kind]
        print(
            f"{kind:8} ttft {f['ttft_ms']}  chunk {f['chunk_latency_ms']}  gap error {f['gap_error_ms']}  "
            f"spread kept {f['gap_spread_kept']}  merged {f['chunks_merged']} of {f['chunks']}  "
            f"broken {f['streams_broken']}"
        )
    for name, values in report["added"].items():
        print(f"added {name}: {values}")
    print(f"memory first {memory[0]}, last {memory[-1]}")
    print(f"{report['machine']}, {report['commit']}, {report['settings']}")


def stolen():
    """Jiffies that the machine's host took for others, and all: what it takes is in every latency."""
    fields = [int(n) for n in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[7], sum(fields)


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
