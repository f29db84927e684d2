"""Alerts of a real farm: they open, end, are told, silenced, and are there again after a crash."""

import http.server
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest
from cli_farm import Farm, binary, environment, eventually, grange
from farm_process import end


class Hook:
    """An address that is told of alerts. `slow`: seconds before it answers."""

    def __init__(self, slow=0.0):
        self.heard, self.paths, self.slow = [], [], slow
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.paths.append(self.path)
                time.sleep(outer.slow)
                outer.heard.append((json.loads(body), dict(self.headers)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/secret-part"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def events(self):
        return [(body["event"], body["alert"]["kind"], body["alert"]["subject"]) for body, _ in self.heard]


def ask(farm, path, body=None, method=None):
    """(status, answer)"""
    request = urllib.request.Request(
        farm.url + path,
        data=None if body is None else json.dumps(body).encode(),
        method=method or ("GET" if body is None else "POST"),
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def opened(farm, kind):
    return [a for a in farm.json("alerts")["open"] if a["kind"] == kind]


def recent(farm, kind):
    return [a for a in farm.json("alerts")["recent"] if a["kind"] == kind]


def worker(farm, folder, name="box"):
    log = open(folder / f"{name}.log", "ab")  # noqa: SIM115 (closed below)
    process = subprocess.Popen(
        [binary(), "worker", "--server", farm.url, "--name", name, "--slots", "1", "--health-port", "0", "--no-probe",
         "--data", str(folder / name)],
        stdout=subprocess.DEVNULL, stderr=log, cwd=folder, env=environment())  # fmt: skip
    log.close()
    eventually(lambda: [w for w in farm.json("workers") if w["name"] == name and w["connected"]], what=f"worker {name}")
    return process


@pytest.fixture
def server(tmp_path):
    """Starts one, and ends it however the test ends. Again: on the same data."""
    started = []

    def start(*arguments, port="0", **env):
        started.append(Farm(tmp_path, *arguments, command="server", port=port, **env))
        return started[-1]

    yield start
    for one in started:
        end(one.process)


def port_of(farm):
    return farm.url.rsplit(":", 1)[1]


@pytest.fixture
def farm(server):
    return server()


def test_a_lost_worker_is_told_and_its_return_too(server, tmp_path):
    with Hook() as hook:
        farm = server("--alert-webhook", hook.url)
        box = worker(farm, tmp_path)
        try:
            first = farm.json("top")["stats"]["next_event"]
            (known,) = farm.json("workers")
            box.kill()
            box.wait()
            (alert,) = eventually(lambda: opened(farm, "worker_lost"), 55, "the alert")
            assert alert["subject"] == alert["worker_id"] == known["id"]
            assert (alert["subject_name"], alert["severity"], alert["ended_ms"]) == ("box", "warn", None)
            assert "box was lost" in farm("alerts").stdout
            metrics = urllib.request.urlopen(farm.url + "/metrics", timeout=20).read().decode()
            assert 'grange_alerts{kind="worker_lost",severity="warn"} 1' in metrics
            box = worker(farm, tmp_path)
            ended = eventually(lambda: recent(farm, "worker_lost"), 50, "its end")
            assert [a["id"] for a in ended] == [alert["id"]]
            assert ended[0]["ended_ms"] > ended[0]["began_ms"]
            assert not opened(farm, "worker_lost")
            lost = eventually(lambda: (e := [e for e in hook.events() if e[1] == "worker_lost"])[1:] and e, what="both")
            assert lost == [("opened", "worker_lost", known["id"]), ("ended", "worker_lost", known["id"])]
            body, headers = hook.heard[0]
            assert headers["Content-Type"] == "application/json" and "Authorization" not in headers
            assert body["text"].startswith("box was lost: ")
            assert hook.paths[0] == "/hook/secret-part"
            told = eventually(lambda: (w := farm.json("alerts")["webhook"])["sent"] >= 2 and w, what="both counted")
            assert told["failed"] == 0
            assert told["url_host"] == hook.url.split("/")[2] and "secret" not in json.dumps(told)
            assert "secret" not in json.dumps(ask(farm, "/api/settings")[1])
            # The same, as those heard it who follow.
            with urllib.request.urlopen(f"{farm.url}/api/events?topics=alerts&from={first}", timeout=20) as stream:
                facts = []
                while len(facts) < 2:
                    line = stream.readline().decode()
                    if line.startswith("data:") and "topic" in (fact := json.loads(line[5:])):
                        facts.append(fact)
            types = [(f["topic"], f["type"]) for f in facts]
            assert types == [("alerts", "alert_opened"), ("alerts", "alert_ended")]
            assert facts[0]["data"]["id"] == alert["id"]
        finally:
            end(box)


def test_rules_silences_and_open_alerts_are_there_after_a_crash(server):
    farm = server()
    farm("alerts", "set", "farm_paused", "--for", "0", "--severity", "error")
    farm("alerts", "set", "job_waits", "--threshold", "0")
    farm("alerts", "set", "disk_low", "--off")
    farm("pause", "--queue")
    (paused,) = eventually(lambda: opened(farm, "farm_paused"), what="farm_paused")
    assert paused["severity"] == "error"
    said = farm("alerts", "silence", str(paused["id"]), "--for", "2h").stdout
    assert "silent for 2 h" in said
    before = farm.json("alerts", "rules")
    time.sleep(1.5)  # what a second look saw is written
    farm.stop(9)
    farm = server(port=port_of(farm))
    assert farm.json("alerts", "rules") == before
    rules = {r["kind"]: r for r in before["rules"]}
    assert rules["farm_paused"]["changed"] and rules["farm_paused"]["for_s"] == 0
    assert not rules["disk_low"]["enabled"] and rules["disk_low"]["threshold"] == 10
    assert not rules["machine_hot"]["changed"] and rules["machine_hot"]["unit"] == "°C"
    assert rules["worker_lost"]["threshold"] is None
    (again,) = opened(farm, "farm_paused")
    assert (again["id"], again["began_ms"]) == (paused["id"], paused["began_ms"])
    assert again["silenced_until_ms"] > time.time() * 1000 + 3_600_000
    farm("alerts", "silence", str(again["id"]), "--for", "1h", "--kind")
    said = farm("alerts", "silence", str(again["id"]), "--for", "0").stdout
    assert "all farm_paused alerts stay silent for" in said and "silent for 0" not in said
    farm("alerts", "silence", str(again["id"]), "--for", "2h")
    said = farm("alerts", "silence", str(again["id"]), "--for", "0", "--kind").stdout
    assert said.startswith("All farm_paused alerts: told of again; what this one is about stays silent for")
    assert "told of again" in farm("alerts", "silence", str(again["id"]), "--for", "0").stdout
    assert opened(farm, "farm_paused")[0]["silenced_until_ms"] is None
    farm("alerts", "set", "farm_paused", "--off")
    (ended,) = eventually(lambda: recent(farm, "farm_paused"), what="its end")
    assert ended["id"] == paused["id"]
    assert "is on, held for 10 min" in farm("alerts", "set", "farm_paused", "--reset").stdout
    assert not {r["kind"]: r for r in farm.json("alerts", "rules")["rules"]}["farm_paused"]["changed"]
    farm.stop()
    farm = server(port=port_of(farm))
    assert not opened(farm, "farm_paused")
    assert [a["id"] for a in recent(farm, "farm_paused")] == [paused["id"]]


def test_a_job_that_is_stuck_behind_many_that_are_to_wait(tmp_path):
    farm = Farm(tmp_path, "--workers", "1", "--slots", "2")
    try:
        stuck = farm.submit('{"name": "stuck", "command": ["true"], "labels": {"room": "7"}}')
        later = [{"name": f"later-{i}", "command": ["true"], "start_in": "1h"} for i in range(1050)]
        status, answer = ask(farm, "/api/graphs", {"jobs": later})
        assert status == 201, answer
        farm("alerts", "set", "job_waits", "--threshold", "0")
        (alert,) = eventually(lambda: opened(farm, "job_waits"), 150, "job_waits")
        assert alert["subject"] == stuck
        # It is looked at again at once, and after a start, too, where fewer jobs are known to wait.
        eventually(lambda: opened(farm, "job_waits")[0]["title"] != alert["title"], 75, "a second look")
        farm.stop()
        farm = Farm(tmp_path, "--workers", "1", "--slots", "2")
        (kept,) = opened(farm, "job_waits")
        assert kept["id"] == alert["id"]
        now = eventually(lambda: (a := opened(farm, "job_waits")[0])["title"] != kept["title"] and a, 75, "a look")
        assert now["id"] == alert["id"] and not recent(farm, "job_waits")
    finally:
        farm.stop()


def test_jobs_that_wait_or_fail(tmp_path):
    farm = Farm(tmp_path, "--workers", "1", "--slots", "2")
    try:
        farm("alerts", "set", "job_waits", "--threshold", "0")
        farm("alerts", "set", "failure_rate", "--for", "0")
        job = farm.submit('{"name": "lonely", "command": ["true"], "labels": {"room": "7"}}')
        (waits,) = eventually(lambda: opened(farm, "job_waits"), 20, "job_waits")
        assert (waits["subject"], waits["subject_name"]) == (job, "lonely")
        assert waits["job_id"] == job and "room" in waits["text"]
        failing = farm.submit('{"name": "broken", "command": ["false"], "count": 25, "retries": 0}')
        (failed,) = eventually(lambda: opened(farm, "job_failed"), 20, "job_failed")
        assert failed["subject"] == failing and "25 of 25" in failed["text"]
        (rate,) = eventually(lambda: opened(farm, "failure_rate"), 20, "failure_rate")
        assert rate["subject"] == "" and "100 %" in rate["title"]
        # The first page shows what it does not look at itself, once.
        kinds = [a["kind"] for a in ask(farm, "/api/overview")[1]["attention"]]
        eventually(lambda: "failure_rate" in [a["kind"] for a in ask(farm, "/api/overview")[1]["attention"]])
        assert kinds.count("job_failed") == 1
        farm("alerts", "silence", str(rate["id"]), "--for", "1h", "--kind")
        eventually(lambda: "failure_rate" not in [a["kind"] for a in ask(farm, "/api/overview")[1]["attention"]])
    finally:
        farm.stop()


def test_the_disk_a_machine_and_a_farm_without_workers(server, tmp_path):
    farm = server()
    for kind, more in (("disk_low", ["--threshold", "100"]), ("machine_memory", ["--threshold", "0"]),
                       ("queue_wait", ["--threshold", "0", "--on"]), ("no_workers", [])):  # fmt: skip
        farm("alerts", "set", kind, "--for", "0", *more)
    job = farm.submit('{"command": ["true"]}')
    (alert,) = eventually(lambda: opened(farm, "no_workers"), what="no_workers")
    assert alert["severity"] == "error" and "1 task waits" in alert["text"]
    (alert,) = eventually(lambda: opened(farm, "disk_low"), what="disk_low")
    assert "free where the data folder is" in alert["text"]
    box = worker(farm, tmp_path)
    try:
        farm("wait", job)
        (alert,) = eventually(lambda: opened(farm, "machine_memory"), 30, "machine_memory")
        assert alert["subject_name"] == "box" and "GiB are in use" in alert["text"]
        eventually(lambda: opened(farm, "queue_wait"), 20, "queue_wait")
        farm("alerts", "set", "machine_memory", "--reset")
        farm("alerts", "set", "disk_low", "--off")
        eventually(lambda: recent(farm, "disk_low"), what="its end")
    finally:
        end(box)


def test_a_webhook_that_is_slow_or_gone_holds_nothing_up(server, tmp_path):
    with Hook(slow=3) as hook:
        farm = server(GRANGE_ALERT_WEBHOOK=hook.url)
        farm("alerts", "set", "farm_paused", "--for", "0")
        farm("pause", "--queue")
        eventually(lambda: opened(farm, "farm_paused"), what="farm_paused")
        farm("alerts", "set", "farm_paused", "--off")
        eventually(lambda: recent(farm, "farm_paused"), what="its end")
        eventually(lambda: len(hook.heard) == 2, 30, "both calls")
        assert [e[0] for e in hook.events()] == ["opened", "ended"]
        settings = {s["name"]: s for s in ask(farm, "/api/settings")[1]}
        assert (settings["alert-webhook"]["value"], settings["alert-webhook"]["from"]) == ("set", "environment")
        hook.server.shutdown()
        hook.server.server_close()
        farm("alerts", "set", "farm_paused", "--on")
        eventually(lambda: opened(farm, "farm_paused"), what="farm_paused again")
        eventually(lambda: farm.json("alerts")["webhook"]["failed"] == 1, 40, "three tries")
        assert "could not be told once" in farm("alerts").stderr
        assert "secret" not in (tmp_path / "farm.log").read_text()


def test_what_makes_no_sense_is_refused(farm, tmp_path):
    for path, body, status, words in [
        ("/api/alerts/rules/disk_lov", {"enabled": True}, 404, "did you mean disk_low"),
        ("/api/alerts/rules/worker_lost", {"threshold": 5}, 400, "means nothing"),
        ("/api/alerts/rules/disk_low", {"threshold": 101}, 400, "from 0 to 100"),
        ("/api/alerts/rules/disk_low", {"threshold": "much"}, 400, "number"),
        ("/api/alerts/rules/disk_low", {"for_s": -1}, 400, "for_s"),
        ("/api/alerts/rules/disk_low", {"for_s": "900d"}, 400, "7 days"),
        ("/api/alerts/rules/disk_low", {"severity": "bad"}, 400, "info, warn or error"),
        ("/api/alerts/rules/disk_low", {"treshold": 5}, 400, "threshold"),
    ]:
        code, answer = ask(farm, path, body, "PUT")
        assert code == status and words in answer["error"]["message"], (path, body, code, answer)
    assert ask(farm, "/api/alerts/rules/none", method="DELETE")[0] == 404
    assert ask(farm, "/api/alerts/77/silence", {"for_s": 5})[0] == 404
    assert ask(farm, "/api/alerts/x/silence", {"for_s": 5})[0] == 400
    assert "missing" in ask(farm, "/api/alerts/1/silence", {})[1]["error"]["message"]
    assert ask(farm, "/api/alerts?limit=5000")[0] == 400
    assert "What of it?" in farm("alerts", "set", "disk_low", code=2).stderr
    assert "leave the others out" in farm("alerts", "set", "disk_low", "--reset", "--on", code=2).stderr
    assert "did you mean" in farm("alerts", "set", "job_wait", "--off", code=4).stderr
    assert "must be a number" in farm("alerts", "set", "disk_low", "--threshold", "nan", code=2).stderr
    assert "No alert is open" in farm("alerts").stdout
    assert "job_waits" in farm("alerts", "rules").stdout
    done = grange("server", "--port", "0", "--ws-port", "0", "--data", str(tmp_path / "other"),
                  "--alert-webhook", "chat.example.org")  # fmt: skip
    assert done.returncode == 2 and "--alert-webhook" in done.stderr


def test_a_job_names_its_children(farm):
    jobs = [{"name": "top", "command": ["true"]}]
    jobs += [{"name": f"child-{i}", "command": ["true"], "after": ["top"]} for i in range(101)]
    status, answer = ask(farm, "/api/graphs", {"jobs": jobs})
    assert status == 201, answer
    ids = {job["name"]: job["id"] for job in answer["jobs"]}
    top = ask(farm, f"/api/jobs/{ids['top']}")[1]
    assert len(top["children"]) == 100 and top["more_children"] is True
    assert top["children"][0] == {"job_id": ids["child-0"], "name": "child-0", "status": "pending"}
    farm("cancel", ids["child-0"])
    child = ask(farm, f"/api/jobs/{ids['child-0']}")[1]
    assert child["children"] == [] and child["more_children"] is False
    top = ask(farm, f"/api/jobs/{ids['top']}")[1]
    assert top["children"][0]["status"] == "cancelled", "ended ones stay"
