#!/usr/bin/env python3
"""Time to the first token as a race reports it, against what a direct client sees, in turns, on the same service.

    .venv/bin/python bench/race.py [--rounds 10] [--repeats 5] [--real] [--cache] [--json]

The service is a double of llama.cpp's server that thinks for 20 ms; with --real, a true one with SmolLM2-135M. The
direct client sends the same request on a connection of its own and stops the clock at the first piece of text.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/ai")]

from doubles import LlamaCppDouble  # noqa: E402
from gateway import Process, cpu_name, until_model  # noqa: E402
from real_llm import RealLLM  # noqa: E402

PROMPT = "Name three colours."
TOKENS = 16


def direct(url, model, number, cache):
    """Milliseconds to the first text, and the tokens that the service counted."""
    where = urllib.parse.urlparse(url)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": number,
        "cache_prompt": cache,  # as the race asks
    }
    with contextlib.closing(http.client.HTTPConnection(where.hostname, where.port, timeout=60)) as connection:
        connection.connect()
        began = time.monotonic()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        first, made = None, None
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            frame = json.loads(line[6:])
            if first is None and frame["choices"] and frame["choices"][0]["delta"].get("content"):
                first = (time.monotonic() - began) * 1000
            made = (frame.get("usage") or {}).get("completion_tokens", made)
    return first, made


def measure(given, service, folder):
    log = pathlib.Path(folder) / "log"
    env = {k: v for k, v in os.environ.items() if not k.startswith("GRANGE_")}
    processes = []
    try:
        server = Process(
            [given.grange, "server", "--json", "--port", "0", "--ws-port", "0", "--data", f"{folder}/server"],
            log,
            env=env,
        )
        processes.append(server)
        url = json.loads(server.line())["url"]
        worker = [given.grange, "worker", "--server", url, "--data", f"{folder}/worker", "--no-probe", "--name", "one"]
        processes.append(Process(worker, log, env={**env, "GRANGE_SERVICES": f"llamacpp={service.url}"}))
        until_model(url, service.model)
        race = [given.grange, "race", "llm", "--model", service.model, "--prompt", PROMPT, "--max-tokens", str(TOKENS)]
        race += ["--num-ctx", "512", "--temperature", "0", "--repeats", str(given.repeats), "--json"]
        race += ["--cache"] if given.cache else []
        raced, alone, gaps, counts = [], [], [], set()
        direct(service.url, service.model, 0, given.cache)
        for _ in range(given.rounds):
            done = subprocess.run(
                race, env={**env, "GRANGE_URL": url}, capture_output=True, text=True, check=True, timeout=300
            )
            run = json.loads(done.stdout.strip().splitlines()[-1])["run_id"]
            with urllib.request.urlopen(f"{url}/api/runs/{run}", timeout=30) as answer:
                samples = json.load(answer)["summary"]["samples"]
            here = [direct(service.url, service.model, n, given.cache) for n in range(given.repeats)]
            counts |= {s["metrics"]["gen_tokens"] for s in samples} | {made for _, made in here}
            raced += [s["metrics"]["ttft_ms"] for s in samples]
            alone += [first for first, _ in here]
            gaps.append(statistics.median(raced[-given.repeats :]) - statistics.median(alone[-given.repeats :]))
        return {
            "race_ttft_ms": round(statistics.median(raced), 3),
            "direct_ttft_ms": round(statistics.median(alone), 3),
            "difference_ms": round(statistics.median(raced) - statistics.median(alone), 3),
            "difference_of_each_round_ms": [round(g, 3) for g in gaps],
            "token_counts": sorted(counts),
        }
    except Exception:
        sys.stderr.write(log.read_text()[-3000:])
        raise
    finally:
        for process in reversed(processes):
            process.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--real", action="store_true", help="a true model")
    parser.add_argument("--cache", action="store_true", help="prompts from the cache: the model's time varies less")
    parser.add_argument("--grange", default=str(ROOT / "build/release/grange"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    double = LlamaCppDouble(models=["bench"], tokens=TOKENS, delay_s=0.005, first_token_s=0.02)
    double.model = "bench"
    with tempfile.TemporaryDirectory(prefix="grange-bench-") as folder, RealLLM() if given.real else double as service:
        measured = measure(given, service, folder)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    report = {
        "what": "race_ttft",
        "settings": {
            "rounds": given.rounds,
            "repeats": given.repeats,
            "service": "real" if given.real else "double",
            "cache": given.cache,
        },
        **measured,
        "machine": {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()},
        "commit": commit.stdout.strip(),
    }
    print(json.dumps(report) if given.json else "\n".join(f"{k}: {v}" for k, v in report.items()))


if __name__ == "__main__":
    main()
