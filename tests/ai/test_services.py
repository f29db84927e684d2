"""Services under care: a worker starts them, keeps them running, and tells how they are."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
from ai_farm import call, eventually
from farm_process import ROOT, FarmProcess, binary, end, environment

PLAIN = str(ROOT / "tests" / "doubles" / "plain_service.py")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def alive(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def gone(pid, what):
    eventually(lambda: not alive(pid), what=f"the end of {what}")


class Kept:
    """What a worker keeps: services.toml in its data folder, and a folder for each service."""

    def __init__(self, farm, worker="w"):
        self.farm, self.name = farm, worker
        self.data = farm.folder / f"worker-{worker}"
        self.data.mkdir(exist_ok=True)
        self.file = self.data / "services.toml"

    def plain(self, name, more="", arguments=()):
        """Adds one of plain_service.py; its folder."""
        folder = self.data / name
        folder.mkdir(exist_ok=True)
        port = free_port()
        command = json.dumps([sys.executable, PLAIN, str(port), *arguments])
        self._add(f'name = "{name}"\nkind = "other"\nurl = "http://127.0.0.1:{port}"\ncommand = {command}\n'
                  f'cwd = "{name}"\n{more}')  # fmt: skip
        return folder

    def ollama(self, name="ollama", more="", model="tiny:1b"):
        port = free_port()
        command = json.dumps([sys.executable, "-m", "doubles", "ollama", "--port", str(port), "--model", model])
        self._add(f'name = "{name}"\nkind = "ollama"\nurl = "http://127.0.0.1:{port}"\ncommand = {command}\n'
                  f'env = {{ PYTHONPATH = "{ROOT / "tests"}" }}\n{more}')  # fmt: skip

    def _add(self, text):
        with self.file.open("a") as file:
            file.write(f"[[service]]\n{text}\n")
        self.file.chmod(0o644)

    def start(self, **env):
        return self.farm.worker(self.name, ready=False, **env)

    def __call__(self, service):
        """How it is, by the worker's page; None while nobody knows it."""
        worker = self.farm.seen(self.name)
        if worker is None:
            return None
        seen = self.farm.ask(f"/api/workers/{worker['id']}")
        return next((s for s in seen["services"] if s["name"] == service), None)

    def becomes(self, service, state, seconds=30):
        return eventually(lambda: (s := self(service)) and s["state"] == state and s, seconds, f"{service} {state}")

    def order(self, service, op):
        """By REST; the row of its job when that has ended."""
        path = f"/api/workers/{self.name}/services/{service}/{op}"
        status, _, body = call(self.farm.url + path, {}, "POST")
        assert status == 202, body
        job = json.loads(body)["job_id"]
        (row,) = self.farm.results(job)
        return row

    def log(self, service, query=""):
        status, headers, body = call(f"{self.farm.url}/api/workers/{self.name}/services/{service}/log{query}")
        assert status == 200, body
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        return body.decode(), headers["X-Log-End"]


@pytest.fixture
def kept(own_farm):
    return Kept(own_farm)


def test_they_start_in_order_and_do_as_they_are_told(kept):
    farm = kept.farm
    kept.plain("front", 'after = ["ollama"]\nenv = { WHO = "the front" }')
    kept.ollama()
    kept.start()
    first = kept.becomes("front", "ready")
    ollama = kept("ollama")
    assert ollama["state"] == "ready" and ollama["managed"] and ollama["restarts"] == 0
    assert alive(ollama["pid"]) and ollama["last_error"] is None
    assert ollama["since_ms"] <= first["since_ms"]
    farm.offers("tiny:1b")
    said = {"model": "tiny:1b", "messages": [{"role": "user", "content": "hi"}]}
    assert call(farm.url + "/v1/chat/completions", said)[0] == 200

    row = kept.order("ollama", "stop")
    assert row["status"] == "completed" and row["value"]["state"] == "stopped", row
    assert not alive(ollama["pid"])
    stopped = kept.becomes("ollama", "stopped")
    assert stopped["models"] == []
    eventually(lambda: (s := kept("ollama")) and s["pid"] is None and "start it" in s["note"], what="its end")
    eventually(lambda: "tiny:1b" not in farm.models(), what="the end of the offer")
    assert kept.order("ollama", "stop")["status"] == "completed"  # it is
    assert kept("front")["state"] == "ready"

    row = kept.order("ollama", "start")
    assert row["status"] == "completed" and row["value"]["ready_ms"] > 0, row
    again = kept.becomes("ollama", "ready")
    assert again["pid"] == row["value"]["pid"] != ollama["pid"] and again["restarts"] == 0
    farm.offers("tiny:1b")
    assert kept.order("ollama", "start")["value"]["pid"] == again["pid"]  # it runs
    row = kept.order("ollama", "restart")
    assert row["value"]["pid"] != again["pid"] and alive(row["value"]["pid"])
    log, _ = kept.log("front")
    assert "as the front" in log


def test_one_that_is_killed_comes_back(kept):
    kept.plain("plain")
    kept.ollama()
    kept.start()
    before = kept.becomes("ollama", "ready")
    kept.farm.offers("tiny:1b")
    other = kept.becomes("plain", "ready")
    os.kill(before["pid"], signal.SIGKILL)
    after = eventually(lambda: (s := kept("ollama")) and s["restarts"] == 1 and s["state"] == "ready" and s,
                       what="its return")  # fmt: skip
    assert after["pid"] != before["pid"] and alive(after["pid"])
    assert "signal 9 (SIGKILL)" in after["last_error"]
    kept.farm.offers("tiny:1b")
    assert kept("plain")["pid"] == other["pid"]  # nobody else's business
    log, _ = kept.log("ollama")
    assert log.count("-- grange ") == 3  # started, ended, started


def test_a_crash_loop_ends_in_failed_with_its_last_words(kept):
    folder = kept.plain("plain", "restarts = 1")
    (folder / "crash").touch()
    kept.start()
    failed = kept.becomes("plain", "failed")
    assert failed["restarts"] == 1 and failed["pid"] is None
    assert "exit code 3" in failed["last_error"]
    assert failed["last_error"].endswith("reading the configuration\nno room left: giving up")
    row = kept.order("plain", "start")
    assert row["status"] == "failed" and "no room left" in row["message"], row
    kept.becomes("plain", "failed")
    shown = kept.farm("services", "start", "w/plain", code=1)
    assert "no room left" in shown.stderr
    kept.becomes("plain", "failed")
    (folder / "crash").unlink()
    assert kept.order("plain", "start")["status"] == "completed"
    assert kept.becomes("plain", "ready")["last_error"] is None


def test_a_command_that_is_not_there(kept):
    kept.plain("plain", "restarts = 0")
    kept.file.write_text(kept.file.read_text().replace(sys.executable, "/no/such/program"))
    kept.start()
    assert "/no/such/program: command not found" in kept.becomes("plain", "failed")["last_error"]


def test_one_that_answers_badly_is_started_again(kept):
    folder = kept.plain("plain", 'hang_timeout = "1s"\nstop_timeout = "1s"')
    (folder / "stubborn").touch()
    kept.start()
    before = kept.becomes("plain", "ready")
    (folder / "sick").touch()
    unhealthy = kept.becomes("plain", "unhealthy")
    assert "500" in unhealthy["note"]
    eventually(lambda: (s := kept("plain")) and s["restarts"] == 1, what="its restart")
    gone(before["pid"], "the one that hung")
    (folder / "sick").unlink()
    assert kept.becomes("plain", "ready")["last_error"].startswith("It gave no good answer for 1 s.")


def test_one_that_takes_too_much_memory_is_started_again(kept):
    folder = kept.plain("plain", 'memory = "150MiB"')
    kept.start()
    before = kept.becomes("plain", "ready")
    measured = eventually(lambda: (s := kept("plain")) and s["memory_bytes"] and s, what="a measure")
    assert 1 << 20 < measured["memory_bytes"] < 150 << 20
    (folder / "eat").write_text("200")
    after = eventually(lambda: (s := kept("plain")) and s["restarts"] == 1 and s["state"] == "ready" and s,
                       what="its restart")  # fmt: skip
    assert after["pid"] != before["pid"] and "its limit is 150 MiB" in after["last_error"]


@pytest.mark.parametrize("guardian_too", [False, True])
def test_nothing_is_left_behind_by_a_worker_that_was_killed(kept, guardian_too):
    folder = kept.plain("plain")
    (folder / "child").touch()
    worker = kept.start()
    first = kept.becomes("plain", "ready")
    child = int((folder / "child.pid").read_text())
    assert alive(child)
    guardian = [p for p in children(worker.pid) if name_of(p) == "grange-guard"]
    assert len(guardian) == 1
    if guardian_too:
        os.kill(guardian[0], signal.SIGKILL)
    worker.kill()
    worker.wait()
    gone(first["pid"], "the service")
    if not guardian_too:
        gone(child, "its child")
    assert not guardian_too or alive(child)  # nobody is there to end it, until the next start
    kept.start()
    gone(child, "its child")
    again = eventually(lambda: (s := kept("plain")) and s["state"] == "ready" and s["pid"] != first["pid"] and s,
                       what="the next one")  # fmt: skip
    assert again["restarts"] == 0


def children(pid):
    out = []
    for one in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = one.read_text()
        except OSError:
            continue
        if int(stat[stat.rindex(")") + 2 :].split()[1]) == pid:
            out.append(int(one.parent.name))
    return out


def name_of(pid):
    return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()


def test_they_end_with_their_worker(kept):
    folder = kept.plain("plain")
    worker = kept.start()
    pid = kept.becomes("plain", "ready")["pid"]
    assert end(worker) == 0
    assert not alive(pid)
    assert (folder / "ended").read_text() == "ended politely"
    assert "ended politely" in (kept.data / "services" / "plain.log").read_text()


def test_a_stubborn_one_ends_with_its_worker_too(kept):
    folder = kept.plain("plain", 'stop_timeout = "300ms"')
    (folder / "stubborn").touch()
    worker = kept.start()
    pid = kept.becomes("plain", "ready")["pid"]
    assert end(worker) == 0
    assert not alive(pid)


def test_a_log_of_hostile_bytes(kept):
    folder = kept.plain("plain")
    kept.start()
    kept.becomes("plain", "ready")
    _, at = kept.log("plain")
    hostile = b"\x1b]0;owned\x07\x1b[2Jclear\xff\xfe\x00 <script>alert(1)</script> \xe2\x82\xac\r50%\rdone\n" + bytes(
        range(256)
    )
    (folder / "talk").write_bytes(hostile + b"\nthe end\n")
    log = eventually(lambda: "the end" in (text := kept.log("plain", f"?after={at}")[0]) and text, what="its words")
    assert log.startswith("clear\ufffd\ufffd <script>alert(1)</script> €\n50%\ndone\n")
    assert all(c in "\n\t" or ord(c) >= 32 for c in log) and "\x7f" not in log
    assert hostile in (kept.data / "services" / "plain.log").read_bytes()  # as it was, on the machine
    shown = kept.farm("services", "logs", "w/plain", "-n", "5").stdout
    assert "\x1b" not in shown and shown.endswith("the end\n")
    # Much of it: the newest lines, in bounds.
    (folder / "talk").write_bytes(b"".join(b"line %d %s\n" % (i, b"x" * 300) for i in range(40_000)))
    log = eventually(lambda: "line 39999 " in (text := kept.log("plain", "?lines=5000")[0]) and text, what="its words")
    assert len(log) <= 1 << 20 and log.count("\n") > 3000 and log.startswith("line 3")
    sizes = [p.stat().st_size for p in (kept.data / "services").glob("plain.log*")]
    assert len(sizes) == 2 and max(sizes) <= 8 << 20
    assert kept.log("plain", "?lines=1")[0].startswith("line 39999 ")
    for bad in ("lines=0", "lines=5001", "lines=x", "after=-1"):
        assert call(f"{kept.farm.url}/api/workers/w/services/plain/log?{bad}")[0] == 400, bad


def test_a_log_is_followed(kept):
    folder = kept.plain("plain")
    kept.start()
    kept.becomes("plain", "ready")
    with subprocess.Popen([binary(), "services", "logs", "plain", "-f", "-n", "1"], stdout=subprocess.PIPE, text=True,
                          env=environment(GRANGE_URL=kept.farm.url)) as follow:  # fmt: skip
        assert follow.stdout.readline()
        (folder / "talk").write_text("same\nsame\n")
        assert [follow.stdout.readline() for _ in range(2)] == ["same\n", "same\n"]
        (folder / "talk").write_text("same\n")
        assert follow.stdout.readline() == "same\n"
        end(follow, signal.SIGINT)


def test_a_service_that_was_only_found_is_left_alone(kept, doubles_of_module):
    from doubles import OllamaDouble

    double = doubles_of_module.enter_context(OllamaDouble())
    farm = kept.farm
    farm.worker("w", f"mine:ollama={double.url}")
    found = kept("mine")
    assert found["managed"] is False and found["pid"] is None and found["state"] == "ready"
    for path, method in (("stop", "POST"), ("start", "POST"), ("restart", "POST"), ("log", "GET")):
        status, _, body = call(f"{farm.url}/api/workers/w/services/mine/{path}", method=method)
        assert status == 409 and "services file" in json.loads(body)["error"]["message"], body
    assert call(f"{farm.url}/api/workers/w/services/nothing/stop", method="POST")[0] == 404
    assert call(f"{farm.url}/api/workers/nobody/services/mine/stop", method="POST")[0] == 404
    # Nor by a job that somebody writes himself.
    worker = farm.seen("w")["id"]
    row = farm.one(engine="models", models={"op": "stop", "service": "mine"}, labels={"grange.worker": worker})
    assert row["status"] == "failed" and "services file" in row["message"]
    refused = farm("submit", "-", code=2, stdin=json.dumps(
        {"engine": "models", "models": {"op": "start", "service": "mine", "command": ["sh"]}}))  # fmt: skip
    assert "command" in refused.stderr
    assert "services file" in farm("services", "stop", "w/mine", code=None).stderr


def test_what_is_needed_must_run(kept):
    kept.plain("page", 'after = ["base"]')
    kept.plain("base")
    kept.start()
    kept.becomes("page", "ready")
    for service in ("page", "base"):
        assert kept.order(service, "stop")["status"] == "completed"
    row = kept.order("page", "start")
    assert row["status"] == "failed" and 'after "base"' in row["message"], row
    assert kept.order("base", "start")["status"] == "completed"
    assert kept.order("page", "start")["status"] == "completed"


def test_the_command_line(kept):
    farm = kept.farm
    kept.plain("plain")
    kept.start()
    kept.becomes("plain", "ready")
    listed = farm("services").stdout
    assert "plain" in listed and "ready" in listed
    (row,) = json.loads(farm("services", "ls", "--json").stdout)
    assert row["worker_name"] == "w" and row["managed"] is True and "models" not in row
    assert "is stopped" in farm("services", "stop", "plain").stdout
    eventually(lambda: "start it with" in farm("services").stdout, what="its end")
    done = json.loads(farm("services", "start", "w/plain", "--json").stdout)
    assert done["status"] == "completed" and done["result"]["ready_ms"] > 0
    assert "is ready after" in farm("services", "restart", "w/plain").stdout
    assert "job_id" in json.loads(farm("services", "restart", "plain", "--no-wait", "--json").stdout)
    assert json.loads(farm("services", "logs", "plain", "-n", "1", "--json").stdout)["service"] == "plain"
    farm("services", "stop", "w/nothing", code=4)
    farm("services", "stop", "nobody/plain", code=4)
    farm("services", "stop", "w/", code=2)
    farm("services", "logs", "plain", "-n", "0", code=2)


def test_a_server_that_is_killed_does_not_touch_them(kept):
    kept.plain("plain")
    kept.start()
    before = kept.becomes("plain", "ready")
    farm, port = kept.farm, kept.farm.url.rsplit(":", 1)[1]
    farm.process.kill()
    farm.process.wait()
    time.sleep(0.3)
    assert alive(before["pid"])
    workers = farm.workers
    farm.process.stdout.close()
    farm.errors.close()
    FarmProcess.__init__(farm, farm.folder, command="server", port=port)
    farm.workers = workers
    after = eventually(lambda: (s := kept("plain")) and s["state"] == "ready" and s, what="the worker's return")
    assert after["pid"] == before["pid"] and after["since_ms"] == before["since_ms"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[service]]\nname = 'a'", "kind"),
        ("[[service]", "line 1"),
        ("[[service]]\nname='a'\nkind='other'\nurl='http://x:1'\ncommand=['x']\nafter=['a']", "waits for itself"),
        ("[[service]]\nname='a'\nkind='other'\nurl='http://x:1'\ncommand=['x']\nrestart=1", 'Did you mean "restarts"'),
    ],
)
def test_a_bad_file_is_said_at_the_start(tmp_path, text, said):
    (tmp_path / "bad.toml").write_text(text)
    (tmp_path / "bad.toml").chmod(0o644)
    for command in (["worker", "--server", "http://127.0.0.1:9", "--data", "d"], ["up", "--port", "0", "--data", "d"]):
        done = subprocess.run([binary(), *command, "--services-file", "bad.toml"], cwd=tmp_path, env=environment(),
                              capture_output=True, text=True, timeout=30)  # fmt: skip
        assert done.returncode == 2 and "bad.toml" in done.stderr and said in done.stderr, done.stderr


def test_a_file_that_others_can_write_is_not_used(tmp_path):
    (tmp_path / "open.toml").write_text("")
    (tmp_path / "open.toml").chmod(0o666)
    done = subprocess.run([binary(), "worker", "--data", "d", "--services-file", "open.toml"], cwd=tmp_path,
                          env=environment(), capture_output=True, text=True, timeout=30)  # fmt: skip
    assert done.returncode == 2 and "chmod go-w" in done.stderr


def test_a_farm_on_one_machine_takes_the_file_of_its_folder(tmp_path):
    folder = tmp_path / "data"
    (folder / "plain").mkdir(parents=True)
    port = free_port()
    command = json.dumps([sys.executable, PLAIN, str(port)])
    (folder / "services.toml").write_text(
        f'[[service]]\nname = "plain"\nkind = "other"\nurl = "http://127.0.0.1:{port}"\ncommand = {command}\n'
        'cwd = "plain"\n'
    )
    (folder / "services.toml").chmod(0o644)
    farm = FarmProcess(tmp_path, "--workers", "2", "--no-probe", "--python", "none")
    try:

        def ready():
            workers = json.loads(call(farm.url + "/api/workers")[2])
            return [s for w in workers for s in w["services"] if s["state"] == "ready"]

        (service,) = eventually(ready)
        assert service["name"] == "plain"
    finally:
        farm.stop()
    assert not alive(service["pid"])
    assert (folder / "plain" / "starts").read_text().count("\n") == 1  # by one of the workers
