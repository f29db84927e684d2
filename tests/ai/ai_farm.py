"""A server and workers of which each has services of its own."""

import json
import subprocess
import time
import urllib.error
import urllib.request

from farm_process import FarmProcess, binary, end, environment

# Services of the machine that the tests run on are none of theirs.
NO_KEYS = {
    "OPENAI_API_KEY": "",
    "OPENAI_API_KEY_FILE": "",
    "REPLICATE_API_TOKEN": "",
    "REPLICATE_API_TOKEN_FILE": "",
    "RUNPOD_API_KEY": "",
    "RUNPOD_API_KEY_FILE": "",
}


def eventually(check, seconds=20, what="it"):
    """Until check() is true; bounded, so that a failure ends."""
    until = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < until, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)
    return value


class Farm(FarmProcess):
    def __init__(self, folder):
        self.workers = {}
        super().__init__(folder, command="server")

    def worker(self, name, services="", slots=4, ready=True, **env):
        """Starts one; `ready`: waits until the server knows that its services are. Returns its process."""
        log = open(self.folder / f"{name}.log", "ab")  # noqa: SIM115 (closed below)
        process = subprocess.Popen(
            [
                binary(),
                "worker",
                "--server",
                self.url,
                "--name",
                name,
                "--slots",
                str(slots),
                "--health-port",
                "0",
                "--python",
                "none",
                "--no-probe",
                "--data",
                str(self.folder / f"worker-{name}"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=self.folder,
            env=environment(GRANGE_SERVICES=services, **{**NO_KEYS, **env}),
        )
        log.close()
        self.workers[name] = process
        if ready:
            wanted = len([s for s in services.split(",") if s])
            eventually(lambda: self.services(name, "ready") >= wanted, what=f"worker {name} with {services}")
            eventually(lambda: self.seen(name), what=f"worker {name}")
        return process

    def seen(self, name):
        return next((w for w in self.ask("/api/workers") if w["name"] == name and w["connected"]), None)

    def services(self, name, state):
        worker = self.seen(name)
        return 0 if worker is None else sum(s["state"] == state for s in worker["services"])

    def stop(self, *more):
        for process in self.workers.values():
            end(process)
        return super().stop(*more)

    # ---- asking

    def ask(self, path, body=None, method=None):
        status, _, answer = call(self.url + path, body, method)
        assert status < 300, f"{path}: {status} {answer[:500]}"
        return json.loads(answer)

    def __call__(self, *arguments, code=0, stdin="", timeout=60):
        done = subprocess.run(
            [binary(), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.folder,
            env=environment(GRANGE_URL=self.url),
            check=False,
        )
        assert code is None or done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def submit(self, **job):
        """By the command line, as a job file; the job's id."""
        return self("submit", "-", stdin=json.dumps(job)).stdout.strip()

    def results(self, job, seconds=40):
        """Its rows when it has ended, in whatever way."""
        self("wait", job, "--timeout", str(seconds), code=None)
        rows = self("results", job, "--json", code=None).stdout.splitlines()
        return sorted((json.loads(r) for r in rows), key=lambda r: r["index"])

    def one(self, seconds=40, **job):
        """The only row of a job of one task."""
        (row,) = self.results(self.submit(**job), seconds)
        return row

    def models(self):
        return [m["id"] for m in self.ask("/v1/models")["data"]]

    def offers(self, *models):
        eventually(lambda: set(models) <= set(self.models()), what=f"the gateway with {models}")


def call(url, body=None, method=None, headers=None, timeout=30):
    """Status, headers and body of one request."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
