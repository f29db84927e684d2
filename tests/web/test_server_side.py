"""What a browser gets of the server: files and their headers, events in batches, history, and the worker's buttons."""

import base64
import contextlib
import gzip
import http.client
import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from farm_process import FarmProcess, binary, end, environment
from websockets.sync.client import connect

TOKEN = "a-token-for-the-dashboard-tests"


def ask(url, path="", method="GET", body=None, **headers):
    """(status, headers, bytes), whatever the status; redirects are answers."""
    at = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=20)
    with contextlib.closing(connection):
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def get(url, path, **headers):
    status, _, body = ask(url, path, **headers)
    assert status == 200, (path, status, body[:300])
    return json.loads(body)


def eventually(check, seconds=20, what="it"):
    until = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < until, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)
    return value


@contextlib.contextmanager
def worker_of(farm, name, *arguments):
    with open(farm.folder / f"{name}.log", "ab") as log:
        process = subprocess.Popen(
            [binary(), "worker", "--server", farm.url, "--name", name, "--slots", "1", "--health-port", "0",
             "--python", "none", "--no-probe", "--data", str(farm.folder / f"worker-{name}"), *arguments],
            stdout=subprocess.DEVNULL, stderr=log, cwd=farm.folder, env=environment(GRANGE_SERVICES=""))  # fmt: skip
        try:
            yield process
        finally:
            end(process)


def worker_named(farm, name):
    return next((one for one in get(farm.url, "/api/workers") if one["name"] == name), None)


def online(farm, name):
    return eventually(lambda: (one := worker_named(farm, name)) and one["connected"] and one, what=f"worker {name}")


@pytest.fixture
def farm(tmp_path):
    farm = FarmProcess(tmp_path, command="server")
    yield farm
    farm.stop()


@pytest.fixture
def locked(tmp_path):
    farm = FarmProcess(tmp_path, command="server", GRANGE_TOKEN=TOKEN)
    yield farm
    farm.stop()


# ------------------------------------------------------------------------------------------------------------- files


def assets(url):
    """The page and all files that it names, as paths relative to it."""
    status, headers, body = ask(url, "/")
    assert status == 200
    return headers, body.decode(), re.findall(r'(?:src|href)="([^"#]+)"', body.decode())


def test_the_page_and_its_files_have_the_right_headers(farm):
    headers, page, files = assets(farm.url)
    policy = headers["content-security-policy"]
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ]:
        assert part in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-type"].startswith("text/html")
    assert not re.search(r"<script>|<style>|\sstyle=|\son\w+=", page), "our own policy forbids these"
    assert files, "the page names no file"
    for file in files:
        assert not file.startswith(("/", "http:", "https:", "data:")), f"{file} does not work below a path"
        status, head, body = ask(farm.url, "/" + file.removeprefix("./"))
        assert status == 200 and body, file
        assert head["content-security-policy"] == policy
    types = {file.rsplit(".", 1)[-1]: ask(farm.url, "/" + file.removeprefix("./"))[1]["content-type"] for file in files}
    if "js" in types:
        assert types["js"].startswith("text/javascript")
    if "css" in types:
        assert types["css"].startswith("text/css")


def test_a_file_is_sent_packed_and_only_when_it_changed(farm):
    _, _, files = assets(farm.url)
    script = next((f for f in files if f.endswith(".js")), None)
    if script is None:
        pytest.skip("this binary was built without the dashboard")
    path = "/" + script.removeprefix("./")
    status, plain, body = ask(farm.url, path)
    assert "content-encoding" not in plain
    assert plain["cache-control"] == "public, max-age=31536000, immutable"
    status, packed, small = ask(farm.url, path, Accept_Encoding="gzip")
    assert packed["content-encoding"] == "gzip" and packed["vary"] == "Accept-Encoding"
    assert gzip.decompress(small) == body and len(small) < len(body)
    _, best, smallest = ask(farm.url, path, Accept_Encoding="gzip, deflate, br")
    assert best["content-encoding"] == "br" and len(smallest) < len(small)
    assert len({plain["etag"], packed["etag"], best["etag"]}) == 3, "the forms of one file are told apart"
    for accept, tag in [("gzip", packed["etag"]), ("identity", plain["etag"])]:
        status, again, nothing = ask(farm.url, path, Accept_Encoding=accept, If_None_Match=tag)
        assert (status, nothing) == (304, b"") and again["etag"] == tag
    assert ask(farm.url, path, If_None_Match='"another"')[0] == 200
    head = ask(farm.url, "/", Accept_Encoding="gzip")[1]
    assert head["cache-control"] == "no-cache" and head["content-encoding"] == "gzip"
    assert ask(farm.url, "/", Accept_Encoding="gzip", If_None_Match=head["etag"])[0] == 304
    status, _, nothing = ask(farm.url, path, method="HEAD")
    assert (status, nothing) == (200, b"")


def test_old_addresses_lead_to_their_pages(farm):
    for path, place in [("/compute", "./#/race/compute"), ("/image", "./#/race/image"), ("/admin", "./#/admin"),
                        ("/compute/", "../#/race/compute"), ("/docs/", "../docs")]:  # fmt: skip
        status, headers, _ = ask(farm.url, path)
        assert (status, headers["location"]) == (302, place), path
    assert ask(farm.url, "/assets/none.js")[0] == 404
    assert ask(farm.url, "/assets/../index.html")[0] == 404
    assert ask(farm.url, "/none")[0] == 404


def test_the_documentation_keeps_to_the_policy_and_works_below_a_path(farm):
    status, headers, page = ask(farm.url, "/docs")
    assert status == 200 and "default-src 'none'" in headers["content-security-policy"]
    for file in re.findall(r'(?:src|href)="([^"]+)"', page.decode()):
        assert not file.startswith("/"), file
        assert ask(farm.url, "/" + file.removeprefix("./"))[0] == 200, file
    assert b"<style" not in page and b"style=" not in page


# ------------------------------------------------------------------------------------------------------------ events


def ws(farm, *protocols, **more):
    return connect(farm.url.replace("http", "ws") + "/ws", subprotocols=protocols or None, open_timeout=10, **more)


def test_a_browser_sends_its_token_as_a_subprotocol(locked):
    token = "grange.bearer." + base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
    with ws(locked, "grange.json", token) as socket:
        assert socket.subprotocol == "grange.json", "never the token"
        socket.send('{"type":"ping","data":{}}')
        assert json.loads(socket.recv(10))["type"] == "pong"
    for wrong in [["grange.json"], ["grange.json", token + "AA"], ["grange.bearer.%%%"]]:
        with pytest.raises(Exception, match="401"):
            ws(locked, *wrong)
    assert ask(locked.url, "/")[0] == 200, "the page itself is open"
    assert ask(locked.url, "/api/overview")[0] == 401


def test_events_come_in_batches_of_the_newest_progress(farm):
    with worker_of(farm, "one"), ws(farm, "grange.json") as socket:
        online(farm, "one")
        socket.send(json.dumps({"type": "subscribe", "data": {"topics": ["jobs"], "every_ms": 400}}))
        assert json.loads(socket.recv(10))["type"] == "subscribed"
        made = ask(
            farm.url, "/api/jobs", "POST", {"engine": "builtin", "builtin": {"op": "sleep", "ms": 10}, "count": 150}
        )
        job = json.loads(made[2])["id"]
        frames, facts = 0, []
        while not any(fact["type"] == "job_ended" for fact in facts):
            message = json.loads(socket.recv(20))
            assert message["type"] == "events", "nothing comes alone"
            frames += 1
            batch = message["data"]["events"]
            progress = [fact["job_id"] for fact in batch if fact["type"] == "job_progress"]
            assert len(progress) == len(set(progress)), "of a job only the newest"
            assert message["data"]["next"] > max(fact["event"] for fact in batch)
            facts += batch
        numbers = [fact["event"] for fact in facts]
        assert numbers == sorted(set(numbers))
        turns = [f["type"] for f in facts if f["type"] not in ("job_progress", "job_submitted")]
        assert turns == ["job_started", "job_ended"]
        assert facts[-1]["job_id"] == job and facts[-1]["data"]["completed_tasks"] == 150
        assert frames < 150 / 4, "it took more frames than intervals"
        for wrong in [0, 99, 5001, "often"]:
            socket.send(json.dumps({"type": "subscribe", "data": {"every_ms": wrong}}))
            assert json.loads(socket.recv(10))["type"] == "error"


# ----------------------------------------------------------------------------------------------- overview and history


def test_the_overview_tells_what_happens_and_what_needs_attention(farm):
    page = get(farm.url, "/api/overview")
    assert [one["kind"] for one in page["attention"]] == ["no_workers"]
    assert page["wait_ms"] == {"p50": None, "p95": None}
    with worker_of(farm, "one"):
        online(farm, "one")
        ask(farm.url, "/api/jobs", "POST", {"engine": "builtin", "builtin": {"op": "noop"}, "count": 200})
        ask(
            farm.url,
            "/api/jobs",
            "POST",
            {"name": "bad", "engine": "builtin", "builtin": {"op": "fail", "permanent": True}},
        )

        def seen():
            page = get(farm.url, "/api/overview")
            return page if page["stats"]["total_tasks_completed"] == 200 and page["stats"]["failed_jobs"] == 1 else None

        page = eventually(seen)
        page = eventually(lambda: (p := get(farm.url, "/api/overview"))["wait_ms"]["p50"] is not None and p)

        def known():
            kinds = {one["kind"]: one for one in get(farm.url, "/api/overview")["attention"]}
            return kinds if {"job_failed", "dead_letters"} <= set(kinds) else None

        kinds = eventually(known)
        assert kinds["job_failed"]["title"].startswith("bad failed") and kinds["job_failed"]["job_id"]
        assert sum(page["failures"].values()) == 1
        assert page["use"]["cores"]["total"] > 0 and page["use"]["memory"]["total_bytes"] > 0
        assert [one["completed"] for one in page["distribution"]] == [200]
        assert page["throughput"]["completed_per_s"] > 0
        ask(farm.url, "/api/queue/pause", "POST")
        eventually(lambda: "farm_paused" in [one["kind"] for one in get(farm.url, "/api/overview")["attention"]])


def test_history_outlives_a_restart(tmp_path):
    farm = FarmProcess(tmp_path, command="server")
    try:
        with worker_of(farm, "one"):
            online(farm, "one")
            ask(farm.url, "/api/jobs", "POST", {"engine": "builtin", "builtin": {"op": "noop"}, "count": 500})
            eventually(lambda: sum(n or 0 for n in get(farm.url, "/api/history")["series"]["completed"]) >= 400)
        past = get(farm.url, "/api/history?span=6h")
        assert past["step_ms"] == 30_000 and max(past["series"]["completed"]) > 0
        lists = [past["times_ms"], *past["series"].values()]
        assert len({len(one) for one in lists}) == 1
        assert farm.stop() == 0
        farm = FarmProcess(tmp_path, command="server")
        after = get(farm.url, "/api/history?span=6h")
        assert after["times_ms"][: len(past["times_ms"])] == past["times_ms"]
        assert max(after["series"]["completed"]) > 0 and any(after["series"]["wait_p95_ms"])
        assert max(get(farm.url, "/api/history?span=7d")["series"]["completed"]) > 0
        assert get(farm.url, f"/api/history?span=6h&since={2**50}")["times_ms"] == []
        assert ask(farm.url, "/api/history?span=1y")[0] == 400
    finally:
        farm.stop()


def test_the_grid_of_a_job_adds_up(farm):
    with worker_of(farm, "one"):
        online(farm, "one")
        made = ask(farm.url, "/api/jobs", "POST",
                   {"command": "test $(( {index} % 10 )) -ne 3", "count": 100, "retries": 0})  # fmt: skip
        job = json.loads(made[2])["id"]

        def whole(grid):
            return {state: sum(cells) for state, cells in grid["states"].items()}

        grid = get(farm.url, f"/api/jobs/{job}/grid?cells=20")
        assert (grid["total"], grid["per_cell"]) == (100, 5) and sum(whole(grid).values()) == 100
        ended = eventually(lambda: (j := get(farm.url, f"/api/jobs/{job}"))["status"] == "failed" and j)
        grid = eventually(
            lambda: (g := get(farm.url, f"/api/jobs/{job}/grid?cells=20")) and "failed" in g["states"] and g
        )
        assert whole(grid) == {"completed": 90, "failed": ended["failed_tasks"]}
        assert grid["states"]["failed"] == [1 if cell % 2 == 0 else 0 for cell in range(20)]
        part = get(farm.url, f"/api/jobs/{job}/grid?from=3&to=4")
        assert part["states"] == {"failed": [1]}
        # One that waits, and is then dropped as a range.
        ask(farm.url, "/api/queue/pause", "POST")
        waits = json.loads(ask(farm.url, "/api/jobs", "POST", {"command": ["true"], "count": 1_000_000})[2])["id"]
        grid = get(farm.url, f"/api/jobs/{waits}/grid")
        assert whole(grid) == {"pending": 1_000_000} and len(grid["states"]["pending"]) <= 2048
        ask(farm.url, f"/api/jobs/{waits}/cancel", "POST")
        eventually(lambda: whole(get(farm.url, f"/api/jobs/{waits}/grid")) == {"cancelled": 1_000_000})
        assert ask(farm.url, "/api/jobs/none/grid")[0] == 404


# ----------------------------------------------------------------------------------------------------------- workers


def test_a_worker_is_paused_over_a_restart_and_resumed(tmp_path):
    farm = FarmProcess(tmp_path, command="server")
    try:
        with worker_of(farm, "one"):
            worker = online(farm, "one")
            assert worker["paused"] is False
            assert ask(farm.url, f"/api/workers/{worker['id']}/pause", "POST")[0] == 200
            job = json.loads(ask(farm.url, "/api/jobs", "POST", {"command": ["true"]})[2])["id"]
            why = eventually(lambda: (e := get(farm.url, f"/api/jobs/{job}/explain"))["waits"] and e)
            assert "paused" in why["summary"], why["summary"]
            assert worker_named(farm, "one")["status"] == "paused"
            port = farm.url.rsplit(":", 1)[1]
            assert farm.stop() == 0
            farm = FarmProcess(tmp_path, command="server", port=port)
            worker = online(farm, "one")
            assert worker["paused"] is True and get(farm.url, f"/api/jobs/{job}")["status"] == "pending"
            assert ask(farm.url, f"/api/workers/{worker['id']}", "DELETE")[0] == 409, "it is connected"
            look = get(farm.url, f"/api/workers/{worker['id']}")
            assert look["name"] == "one" and look["tasks"] == []
            assert ask(farm.url, f"/api/workers/{worker['id']}/resume", "POST")[0] == 200
            eventually(lambda: get(farm.url, f"/api/jobs/{job}")["status"] == "completed")
        # Its goodbye was heard: it can be taken off the list, and comes back when it does.
        eventually(lambda: ask(farm.url, f"/api/workers/{worker['id']}", "DELETE")[0] == 200)
        assert worker_named(farm, "one") is None
        assert ask(farm.url, f"/api/workers/{worker['id']}")[0] == 404
        assert ask(farm.url, "/api/workers/none", "DELETE")[0] == 404
        with worker_of(farm, "one"):
            assert online(farm, "one")["id"] == worker["id"]
    finally:
        farm.stop()


def test_the_command_line_pauses_and_removes(farm):
    def grange(*arguments):
        done = subprocess.run([binary(), *arguments, "--url", farm.url], capture_output=True, text=True, timeout=30,
                              env=environment(), cwd=farm.folder)  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    with worker_of(farm, "one"):
        online(farm, "one")
        code, said = grange("workers", "pause", "one")
        assert code == 0 and "gets nothing new" in said
        assert "paused" in grange("workers")[1]
        assert grange("workers", "resume", "one")[0] == 0
        code, said = grange("workers", "rm", "one")
        assert code != 0 and "offline" in said
    eventually(lambda: grange("workers", "rm", "one")[0] == 0)
    assert "No workers yet" in grange("workers")[1]


def test_load_of_machines_is_measured_and_kept(farm):
    with worker_of(farm, "one"):
        worker = online(farm, "one")
        assert set(worker["load"]) >= {"network_in_bytes_per_s", "temperature_c", "gpus"}
        one = eventually(lambda: get(farm.url, "/api/workers/history").get(worker["id"]), 30, "a heartbeat")
        assert len({len(values) for values in one.values()}) == 1
        assert one["memory_used_bytes"][0] > 0


def test_how_to_join_says_no_secret(locked):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    join = get(locked.url, "/api/join", **headers)
    assert TOKEN not in join["command"] and join["token_needed"] is True and join["token"] == TOKEN
    assert join["url"] == locked.url and join["command"].startswith("grange worker --server ")
    assert ask(locked.url, "/api/join")[0] == 401
    settings = {one["name"]: one for one in get(locked.url, "/api/settings", **headers)}
    assert TOKEN not in json.dumps(settings)
    assert settings["token"]["value"] == "set" and settings["token"]["from"] == "environment"
    assert settings["port"]["from"] == "command line" and settings["retain"]["from"] == "default"
    assert all(one["help"] for one in settings.values())
