"""Tokens with a name and a role, on real sockets: REST, the JSON dialect, Protobuf, workers, and the command line."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import stat
import subprocess
import threading
import time
import urllib.parse

import grange as client
import pytest
from cli_farm import Farm, environment, eventually
from cli_farm import grange as run
from farm_process import binary, end
from grange._wire import wire_pb2 as pb
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

SECRET = "the-farms-own-token-of-this-test"
ROLES = ("admin", "user", "viewer", "worker", "models")


def ask(farm, path, token=None, method="GET", body=None, raw=None, **headers):
    """(status, value, headers)"""
    at = urllib.parse.urlsplit(farm.url)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=30)
    with contextlib.closing(connection):
        data = raw if raw is not None else None if body is None else json.dumps(body)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            given["Authorization"] = f"Bearer {token}"
        connection.request(method, path, data, given)
        answer = connection.getresponse()
        text = answer.read()
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        return answer.status, value, dict(answer.getheaders())


def status(*arguments, **options):
    return ask(*arguments, **options)[0]


def make(farm, name, role, by=SECRET, **more):
    code, made, _ = ask(farm, "/api/tokens", by, "POST", {"name": name, "role": role, **more})
    assert code == 201, made
    return made["token"]


def submit(farm, token, seconds=0, **more):
    code, job, _ = ask(farm, "/api/jobs", token, "POST",
                       {"builtin": {"op": "sleep", "ms": int(seconds * 1000)}, "count": 1, **more})  # fmt: skip
    assert code in (200, 201), job
    return job["id"]


@contextlib.contextmanager
def worker_with(farm, token, name="one"):
    folder = farm.folder / f"worker-{name}"
    with open(farm.folder / f"{name}.log", "ab") as log:
        process = subprocess.Popen(
            [binary(), "worker", "--server", farm.url, "--name", name, "--slots", "2", "--health-port", "0",
             "--python", "none", "--no-probe", "--data", str(folder)],
            stdout=subprocess.DEVNULL, stderr=log, cwd=farm.folder,
            env=environment(GRANGE_SERVICES="", GRANGE_TOKEN=token))  # fmt: skip
        try:
            yield process
        finally:
            end(process)


def state_of(farm, name="one"):
    for worker in ask(farm, "/api/workers", SECRET)[1]:
        if worker["name"] == name:
            return worker["status"]
    return None


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A farm with a token of its own, and one named token of each role."""
    farm = Farm(tmp_path_factory.mktemp("closed"), command="server", GRANGE_TOKEN=SECRET)
    farm.tokens = {role: make(farm, f"the-{role}", role) for role in ROLES}
    yield farm
    farm.stop()


# ------------------------------------------------------------------------------------------------- what a token is


def test_the_token_is_shown_once_and_only_its_hash_is_kept(closed):
    code, made, headers = ask(closed, "/api/tokens", SECRET, "POST",
                              {"name": "once", "role": "viewer", "expires_in_s": 3600})  # fmt: skip
    assert code == 201 and made["created_by"] == "token" and headers["Location"] == "/api/tokens/once"
    token = made["token"]
    assert token.startswith("gr_") and len(base64.urlsafe_b64decode(token[3:] + "=")) == 32
    assert made["expires_ms"] == made["created_ms"] + 3_600_000
    listed = ask(closed, "/api/tokens", SECRET)[1]
    assert listed["you"] == {"name": "token", "role": "admin"}
    one = next(t for t in listed["tokens"] if t["name"] == "once")
    assert one == {**{k: made[k] for k in ("name", "role", "created_ms", "created_by", "expires_ms")},
                   "last_used_ms": None, "expired": False}  # fmt: skip
    assert token not in json.dumps(listed)
    assert status(closed, "/api/stats", token) == 200
    listed = ask(closed, "/api/tokens", SECRET)[1]
    assert next(t for t in listed["tokens"] if t["name"] == "once")["last_used_ms"] >= made["created_ms"]
    kept = b"".join(p.read_bytes() for p in (closed.folder / "data").rglob("*") if p.is_file())
    assert token.encode() not in kept and token[3:].encode() not in kept
    assert hashlib.sha256(token.encode()).hexdigest().encode() in kept
    assert token not in (closed.folder / "farm.log").read_text()


def test_names_and_orders_that_are_refused(closed):
    for name in ("", "token", "local", "anonymous", "schedule", "a b", "a/b", "..", "x" * 65, "\u00e4"):
        assert status(closed, "/api/tokens", SECRET, "POST", {"name": name}) == 400, name
    for body in ({}, {"name": "x", "role": "emperor"}, {"name": "x", "expires_in_s": 0}, {"name": "x", "days": 3},
                 {"name": "x", "expires_in_s": 10**12}, {"name": 3}):  # fmt: skip
        assert status(closed, "/api/tokens", SECRET, "POST", body) == 400, body
    assert status(closed, "/api/tokens", SECRET, "POST", {"name": "the-user"}) == 409
    assert status(closed, "/api/tokens/nobody", SECRET, "DELETE") == 404


def test_me(closed):
    assert status(closed, "/api/me") == 401
    own = ask(closed, "/api/me", SECRET)[1]
    assert (own["name"], own["role"], own["kind"], own["own"]) == ("token", "admin", "token", [])
    for role, token in closed.tokens.items():
        me = ask(closed, "/api/me", token)[1]
        assert (me["name"], me["role"], me["kind"]) == (f"the-{role}", role, "named")
    assert "cancel_job" in ask(closed, "/api/me", closed.tokens["user"])[1]["own"]


# ------------------------------------------------------------------------------------------------- REST


def test_every_route_keeps_to_the_roles_that_it_names(closed):
    """Walks the whole document: who is not named gets 403 (and 401 without a token), who is named does not."""
    document = ask(closed, "/openapi.json")[1]
    seen = 0
    for path, operations in document["paths"].items():
        at = path.replace("{sha256}", "0" * 64)
        while "{" in at:
            at = at[: at.index("{")] + "no-such-thing" + at[at.index("}") + 1 :]
        for method, operation in operations.items():
            if operation.get("security") == [] or operation["x-action"] in ("clear_database", "see_events"):
                continue
            seen += 1
            roles = {one.split()[0] for one in operation["x-roles"]}
            assert "admin" in roles
            assert status(closed, at, method=method.upper()) == 401, path
            for role in set(ROLES) - {"admin"}:
                code, value, _ = ask(closed, at, closed.tokens[role], method.upper())
                assert (code == 403) == (role not in roles), (method, path, role, code, value)
                if code == 403 and method != "head":
                    assert "admin" in (value["error"] if isinstance(value["error"], str) else value["error"]["message"])
    assert seen > 70


def test_a_user_changes_only_what_is_his_own(closed):
    anna, bob = make(closed, "anna", "user"), make(closed, "bob", "user")
    with worker_with(closed, closed.tokens["worker"]):
        eventually(lambda: state_of(closed) == "online", what="the worker with its own token")
        job = submit(closed, anna, 0.01)
        assert ask(closed, f"/api/jobs/{job}?wait=20", anna)[1]["user"] == "anna"
        eventually(lambda: ask(closed, f"/api/jobs/{job}", bob)[1]["status"] == "completed", what="anna's job")
    # It has ended and there is no worker: still each of these is decided by whose job it is.
    waits = submit(closed, anna, 0.01, open=True)
    calls = [
        ("POST", "/cancel", None), ("POST", "/tasks/0/cancel", None), ("POST", "/retry", {}), ("POST", "/pause", {}),
        ("POST", "/resume", None), ("POST", "/tasks/0/pause", {}), ("POST", "/tasks/0/resume", None),
        ("POST", "/tasks", {"count": 1}), ("POST", "/close", None)]  # fmt: skip
    own = set()
    for path, operations in ask(closed, "/openapi.json")[1]["paths"].items():
        if path.startswith("/api/jobs/{id}/") and "user (own)" in operations.get("post", {}).get("x-roles", []):
            own.add(path.removeprefix("/api/jobs/{id}").replace("{index}", "0"))
    assert own == {path for _, path, _ in calls}, "a route of one's own jobs that this does not try"
    for which in (job, waits):
        for method, path, body in calls:
            code, value, _ = ask(closed, f"/api/jobs/{which}{path}", bob, method, body)
            assert code == 403 and "anna" in value["error"]["message"], (path, code, value)
    assert status(closed, "/api/dead-letters/redrive", bob, "POST", {"job": job}) == 403
    assert status(closed, f"/api/jobs/{waits}/pause", anna, "POST", {}) == 200
    assert status(closed, f"/api/jobs/{waits}/tasks", anna, "POST", {"count": 2}) == 200
    assert status(closed, f"/api/jobs/{waits}/cancel", SECRET, "POST") == 200
    # As himself only, also in a graph, a plan and a schedule; and nothing that changes a machine.
    other = {"builtin": {"op": "noop"}, "count": 1, "user": "anna"}
    machine = {"models": {"op": "pull", "model": "m"}, "count": 1}
    for job_file in (other, machine):
        assert status(closed, "/api/jobs", bob, "POST", job_file) == 403
        assert status(closed, "/api/plan", bob, "POST", job_file) == 403
        assert status(closed, "/api/graphs", bob, "POST", {"jobs": [job_file]}) == 403
        assert status(closed, "/api/schedules/x", bob, "PUT", {"cron": "@daily", "job": job_file}) == 403
    # Keys and unique words are his own, too: he takes none of another's, nor that of a schedule's next run.
    for field in ("key", "unique"):
        first, again = (submit(closed, anna, 1, **{field: "nightly"}) for _ in range(2))
        assert first == again
        others = [submit(closed, who, 2, **{field: "nightly"}) for who in (bob, SECRET)]
        assert len({first, *others}) == 3
        for one in (first, *others):
            assert status(closed, f"/api/jobs/{one}/cancel", SECRET, "POST") == 200
    nightly = {"cron": "@daily", "job": {"builtin": {"op": "noop"}, "count": 1}}
    assert ask(closed, "/api/schedules/night", anna, "PUT", nightly)[1]["user"] == "anna"
    for method, path in (("PUT", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/run")):
        assert status(closed, f"/api/schedules/night{path}", bob, method, nightly if method == "PUT" else None) == 403
    assert status(closed, "/api/schedules/night", anna, "DELETE") == 200


def test_a_race_belongs_to_who_started_it(closed):
    anna, bob = make(closed, "racer", "user"), make(closed, "onlooker", "user")
    with worker_with(closed, closed.tokens["worker"], "two"):
        eventually(lambda: state_of(closed, "two") == "online", what="the worker")
        race = {"kind": "compute", "n": 1000, "repeats": 1, "warmup": 0}
        code, run_, _ = ask(closed, "/api/runs", anna, "POST", race)
        assert code == 201, run_
        assert status(closed, f"/api/runs/{run_['run_id']}/cancel", bob, "POST") == 403
        eventually(lambda: ask(closed, f"/api/runs/{run_['run_id']}", bob)[1]["status"] != "running", 60, "the race")
    assert status(closed, f"/api/runs/{run_['run_id']}", bob, "DELETE") == 403
    assert status(closed, f"/api/runs/{run_['run_id']}", anna, "DELETE") == 200


def test_a_refusal_is_told_in_the_dialect_that_was_asked(closed):
    body = {"model": "m", "messages": []}
    for method in ("POST", "GET"):
        path = "/v1/chat/completions" if method == "POST" else "/v1/models"
        code, value, headers = ask(closed, path, method=method, body=body if method == "POST" else None)
        assert code == 401 and headers["WWW-Authenticate"] == "Bearer"
        assert value["error"]["code"] == "invalid_api_key" and value["error"]["message"]
        path = "/ollama/api/chat" if method == "POST" else "/ollama/api/tags"
        code, value, _ = ask(closed, path, method=method, body=body if method == "POST" else None)
        assert code == 401 and isinstance(value["error"], str), value
    code, value, _ = ask(closed, "/v1/chat/completions", closed.tokens["viewer"], "POST", body)
    assert code == 403 and "models" in value["error"]["message"]
    code, value, _ = ask(closed, "/v1/chat/completions", closed.tokens["models"], "POST", body)
    assert code == 404 and value["error"]["code"] == "model_not_found", value
    # What the gateway counts, it counts by the token's name.
    recent = ask(closed, "/api/gateway", SECRET)[1]["recent"]
    assert any(one["principal"] == "the-models" for one in recent)


def test_how_to_join_names_a_workers_token(closed):
    join = ask(closed, "/api/join", closed.tokens["viewer"])[1]
    assert "grange tokens create NAME --role worker" in join["note"] and "token" not in join
    assert "token" not in ask(closed, "/api/join", closed.tokens["admin"])[1]


# ------------------------------------------------------------------------------------------------- the JSON dialect


def talk(farm, token, message, how="header"):
    options = {"additional_headers": {"Authorization": f"Bearer {token}"}}
    if how == "subprotocol":
        bearer = "grange.bearer." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
        options = {"subprotocols": ["grange.json", bearer]}
    with connect(farm.url.replace("http", "ws") + "/ws", open_timeout=20, **options) as socket:
        socket.send(json.dumps(message))
        return json.loads(socket.recv(timeout=20))


def test_the_json_dialect_keeps_to_roles(closed):
    tokens = closed.tokens
    subscribe = {"type": "subscribe", "data": {"topics": ["jobs"]}}
    cancel = {"type": "cancel_job", "job_id": submit(closed, SECRET), "data": {}}
    register = {"type": "register_worker", "worker_id": "json-1", "data": {}}
    for how in ("header", "subprotocol"):
        assert talk(closed, tokens["viewer"], subscribe, how)["type"] == "subscribed"
    for role, message in (("worker", subscribe), ("viewer", cancel), ("user", cancel), ("user", register),
                          ("viewer", register)):  # fmt: skip
        answer = talk(closed, tokens[role], message)
        assert answer["type"] == "error" and answer["data"]["code"] == "forbidden", (role, message, answer)
    assert talk(closed, tokens["admin"], cancel)["type"] == "job_status"
    for token, code in ((tokens["models"], 403), ("gr_" + "x" * 43, 401), ("wrong", 401)):
        with pytest.raises(InvalidStatus) as refused:
            talk(closed, token, subscribe)
        assert refused.value.response.status_code == code


# ------------------------------------------------------------------------------------------------- Protobuf: Python


def test_the_python_client_keeps_to_roles(closed):
    others = submit(closed, SECRET)
    with client.connect(closed.url, token=closed.tokens["user"]) as farm:
        mine = farm.submit(abs, -1)
        job = eventually(lambda: [one for one in farm.jobs() if one.info()["user"] == "the-user"], what="the job")[0]
        request = pb.Request()
        request.cancel.job_id = others
        with pytest.raises(client.GrangeError, match='belongs to "token"'):
            farm._connection.call(request)
        for engine, user in (("models", ""), ("", ""), ("builtin", "anna")):
            request = pb.Request()
            spec = request.submit.spec
            spec.engine, spec.user, spec.count = engine, user, 1
            if engine == "builtin":
                spec.builtin.op = "noop"
            else:
                spec.models.op, spec.models.model = "pull", "m"
            with pytest.raises(client.GrangeError, match="takes the role admin"):
                farm._connection.call(request)
        with pytest.raises(client.GrangeError, match='belongs to "token"'):
            farm.job(others).cancel()
        farm._cancel_job(job.id)
        with pytest.raises(client.GrangeError):
            mine.result(timeout=20)
    with (
        client.connect(closed.url, token=closed.tokens["viewer"]) as farm,
        pytest.raises(client.GrangeError, match="takes the role"),
    ):
        farm.map(abs, [1])
    for token in (closed.tokens["models"], "gr_" + "x" * 43):
        with pytest.raises(client.GrangeError), client.connect(closed.url, token=token) as farm:
            farm.map(abs, [1])


# ------------------------------------------------------------------------------------------------- the end of a token


class Following(threading.Thread):
    """A stream that is read until it ends."""

    def __init__(self, farm, path, token):
        super().__init__(daemon=True)
        at = urllib.parse.urlsplit(farm.url)
        self.connection = http.client.HTTPConnection(at.hostname, at.port, timeout=30)
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        self.start()

    def run(self):
        with contextlib.suppress(http.client.HTTPException, OSError), contextlib.closing(self.connection):
            while self.answer.read(1):
                pass


def test_revoking_ends_sessions_streams_and_requests(closed):
    token = make(closed, "leaving", "admin")
    url = closed.url.replace("http", "ws") + "/ws"
    with contextlib.ExitStack() as open_:
        socket = open_.enter_context(connect(url, additional_headers={"Authorization": f"Bearer {token}"}))
        socket.send(json.dumps({"type": "subscribe", "data": {}}))
        assert json.loads(socket.recv(timeout=20))["type"] == "subscribed"
        events = Following(closed, "/api/events", token)
        job = submit(closed, token, 30)
        waiting = {}
        waiter = threading.Thread(target=lambda: waiting.update(code=status(closed, f"/api/jobs/{job}?wait=60", token)))
        waiter.start()
        python = open_.enter_context(client.connect(closed.url, token=token))
        assert python.stats()
        time.sleep(0.3)
        with worker_with(closed, token, "three"):
            eventually(lambda: state_of(closed, "three") in ("online", "busy"), what="the worker")
            assert ask(closed, "/api/tokens/leaving", SECRET, "DELETE")[:2] == (200, {"name": "leaving"})
            said = []
            with pytest.raises(ConnectionClosed) as over:
                while True:
                    said.append(json.loads(socket.recv(timeout=20)))
            assert over.value.rcvd.code == 1008 and "revoked" in over.value.rcvd.reason
            assert said[-1]["type"] == "error" and said[-1]["data"]["code"] == "unauthenticated"
            events.join(20)
            waiter.join(20)
            assert not events.is_alive() and waiting == {"code": 401}
            eventually(lambda: state_of(closed, "three") not in ("online", "busy"), what="the worker's end")
        with pytest.raises(client.GrangeError):
            python.map(abs, [1])
    assert status(closed, "/api/stats", token) == 401
    assert "leaving" not in json.dumps(ask(closed, "/api/tokens", SECRET)[1])
    assert status(closed, f"/api/jobs/{job}/cancel", SECRET, "POST") == 200


def test_an_upload_under_way_ends_with_its_token(closed):
    data = os.urandom(3 << 20)
    sha = hashlib.sha256(data).hexdigest()
    token = make(closed, "uploads", "user")
    at = urllib.parse.urlsplit(closed.url)
    with contextlib.closing(http.client.HTTPConnection(at.hostname, at.port, timeout=30)) as connection:
        connection.putrequest("PUT", f"/api/blobs/{sha}")
        connection.putheader("Authorization", f"Bearer {token}")
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data[: 1 << 20])
        eventually(lambda: ask(closed, f"/api/blobs/{sha}/status", SECRET)[1]["received"] > 0, what="a first part")
        assert status(closed, "/api/tokens/uploads", SECRET, "DELETE") == 200
        with contextlib.suppress(OSError):  # the server may have hung up by then
            connection.send(data[1 << 20 :])
            assert connection.getresponse().status == 401
    assert not ask(closed, f"/api/blobs/{sha}/status", SECRET)[1].get("complete")


def test_who_revokes_his_own_token_hears_that_it_is_done(closed):
    token = make(closed, "quits", "admin")
    assert ask(closed, "/api/tokens/quits", token, "DELETE")[:2] == (200, {"name": "quits"})
    assert status(closed, "/api/me", token) == 401


def test_a_token_expires_while_it_is_in_use(closed):
    token = make(closed, "brief", "viewer", expires_in_s=2)
    url = closed.url.replace("http", "ws") + "/ws"
    with connect(url, additional_headers={"Authorization": f"Bearer {token}"}) as socket:
        socket.send(json.dumps({"type": "subscribe", "data": {}}))
        with pytest.raises(ConnectionClosed) as over:
            while True:
                socket.recv(timeout=20)
        assert over.value.rcvd.code == 1008 and "expired" in over.value.rcvd.reason
    code, value, _ = ask(closed, "/api/me", token)
    assert code == 401 and "expired" in value["error"]["message"]
    listed = ask(closed, "/api/tokens", SECRET)[1]["tokens"]
    assert next(t for t in listed if t["name"] == "brief")["expired"] is True


def test_a_session_is_not_taken_over_by_another_token(closed):
    with client.connect(closed.url, token=closed.tokens["user"]) as first:
        second = client.Farm(closed.url, closed.tokens["viewer"])
        second._connection._session = first._connection._session
        with pytest.raises(client.GrangeError, match="another token"), contextlib.closing(second):
            second._connection.connect()
            second.map(abs, [1])
        assert first.submit(abs, -1).cancel() in (True, False)


# ------------------------------------------------------------------------------------------------- over a restart


def test_tokens_are_kept_and_a_revoked_one_stays_gone(tmp_path):
    farm = Farm(tmp_path, command="server", GRANGE_TOKEN=SECRET)
    try:
        kept, gone = make(farm, "kept", "user"), make(farm, "gone", "admin")
        assert status(farm, "/api/tokens/gone", SECRET, "DELETE") == 200
        assert status(farm, "/api/me", kept) == 200
        assert farm.stop() == 0
        farm = Farm(tmp_path, command="server", GRANGE_TOKEN=SECRET)
        assert ask(farm, "/api/me", kept)[1]["name"] == "kept"
        assert status(farm, "/api/me", gone) == 401
        listed = ask(farm, "/api/tokens", SECRET)[1]["tokens"]
        assert [one["name"] for one in listed] == ["kept"] and listed[0]["last_used_ms"]
        assert status(farm, "/api/db?confirm=yes", SECRET, "DELETE") == 200
        farm.process.kill()
        farm.stop()
        farm = Farm(tmp_path, command="server", GRANGE_TOKEN="")
        # Without a token of its own the farm is open on loopback; a named one is still who it is.
        assert ask(farm, "/api/me")[1]["kind"] == "local"
        assert ask(farm, "/api/me", "anything")[1]["name"] == "local"
        assert ask(farm, "/api/me", kept)[1]["role"] == "user"
        assert status(farm, "/api/me", gone) == 401, "what was revoked is not let in as a filler"
        assert status(farm, "/api/queue/pause", kept, "POST") == 403
    finally:
        farm.stop()


# ------------------------------------------------------------------------------------------------- the command line


def test_the_command(closed, tmp_path):
    def tokens(*arguments, code=0, token=SECRET):
        done = run("tokens", *arguments, cwd=tmp_path, GRANGE_URL=closed.url, GRANGE_TOKEN=token)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done

    made = tokens("create", "cli-user", "--expires", "30d")
    token = made.stdout.strip()
    assert token.startswith("gr_") and "\n" not in token and "shown this once" in made.stderr
    assert ask(closed, "/api/me", token)[1]["role"] == "user"
    assert "cli-user" in tokens("ls").stdout and "in 30 d" in tokens().stdout
    listed = json.loads(tokens("ls", "--json").stdout)
    assert "cli-user" in [one["name"] for one in listed["tokens"]]
    file = tmp_path / "attic.token"
    said = tokens("create", "attic", "--role", "worker", "--file", str(file))
    assert "gr_" not in said.stdout + said.stderr
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert ask(closed, "/api/me", file.read_text().strip())[1]["role"] == "worker"
    tokens("create", "attic2", "--file", str(file), code=2)  # never over another's
    assert "attic2" not in tokens("ls").stdout
    assert "already" in tokens("create", "attic", code=1).stderr
    tokens("create", "x", "--role", "emperor", code=2)
    tokens("create", "x", "--expires", "soon", code=2)
    refused = tokens("ls", token=token, code=1)
    assert "takes the role admin" in refused.stderr
    assert "opens nothing" in tokens("revoke", "cli-user").stdout
    tokens("revoke", "cli-user", code=4)
    assert "revoked" in tokens("ls", token=token, code=1).stderr
