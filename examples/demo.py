"""What `./dev demo` does: a farm with two workers, real work on real data, and where to look.

./dev demo           start the farm (or use the one that runs), work, leave it running until Ctrl-C
./dev demo --once    the same on a farm of its own in a scratch folder, stopped at the end
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = os.environ.get("GRANGE_BINARY", str(ROOT / "build" / "release" / "grange"))


def say(text=""):
    print(text, flush=True)


def heading(text):
    say(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


@contextlib.contextmanager
def farm(once):
    """Yields the `ready` object of `grange up`. Ends the farm that it started, and only that."""
    folder = tempfile.mkdtemp(prefix="grange-demo-") if once else None
    argv = [BINARY, "up", "--json", "--workers", "2", "--slots", "1", "--log-level", "warn"]
    argv += ["--data", folder, "--port", "0", "--ws-port", "0"] if once else []
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(process.wait() or 1)  # the farm said why on stderr
        yield json.loads(line)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def grange(url, *argv):
    return subprocess.run([BINARY, *argv, "--url", url], text=True, capture_output=True, check=False)


def digits(url):
    heading("1. farm.map: a search for the best settings, with cross-validation, on 1,797 handwritten digits")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "digits.py")], env={**os.environ, "GRANGE_URL": url}, check=False
    )
    return done.returncode == 0


def shell(url):
    heading("2. A shell array: 24 ranges, their primes counted by awk, checked against pi(240,000) = 21,221")
    script = (
        "awk -v first={} 'BEGIN { n = 0; for (i = first; i < first + 10000; i++) { if (i < 2) continue; prime = 1;"
        " for (d = 2; d * d <= i; d++) if (i % d == 0) { prime = 0; break } n += prime } print n }'"
    )
    job = {"name": "count primes", "script": script, "args": [str(i * 10_000) for i in range(24)]}
    started = time.monotonic()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job, file)
        file.flush()
        submitted = grange(url, "submit", file.name, "--json")
    if submitted.returncode:
        say(submitted.stderr)
        return False
    job_id = json.loads(submitted.stdout)["id"]
    waited = grange(url, "wait", job_id)
    results = grange(url, "results", job_id)
    primes = sum(int(line) for line in results.stdout.split())
    seconds = time.monotonic() - started
    say(f"   job {job_id}: 24 tasks in {seconds:.2f} s, {primes:,} primes below 240,000 (known: 21,221)")
    return waited.returncode == 0 and primes == 21_221


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="on a farm of its own, stopped at the end")
    once = parser.parse_args().once
    with farm(once) as ready:
        url = ready["url"]
        say(f"A farm with 2 workers is up at {url}")
        ok = digits(url) and shell(url)
        heading("Where to look")
        say(f"   dashboard    {url}/")
        say(f"   API          {url}/docs")
        say(f"   again        GRANGE_URL={url} {BINARY} jobs")
        if not ok:
            say("\nThe demo failed: see above.")
            return 1
        if not once:
            say("\nThe farm stays up. Ctrl-C stops it.")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
    return 0


if __name__ == "__main__":
    sys.exit(main())
