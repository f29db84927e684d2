"""A small server in Python that speaks the client's half of the protocol, over real executors, and keeps nothing on
disk.

For tests of the client alone: of reconnects that a real server would have to be killed for. It can forget its sessions
(`forget_sessions`), cut all sockets (`cut`), and be run like the binary: `fake_farm.py up --slots 2 --json`.
"""

import base64
import collections
import http.server
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from grange._wire import wire_pb2 as pb
from websockets.frames import Opcode
from websockets.server import ServerProtocol

_STATES = {pb.TASK_COMPLETED: "completed", pb.TASK_FAILED: "failed", pb.TASK_CANCELLED: "cancelled"}


class Job:
    def __init__(self, number, spec, arguments):
        self.number, self.id, self.spec, self.arguments = number, str(number), spec, arguments
        self.outcomes = {}
        self.open = spec.open
        self.status = ["pending"] * spec.count
        self.attempts = [0] * spec.count
        self.crashes = [0] * spec.count
        self.checkpoints = {}
        self.progress = {}
        self.logs = []

    def ended(self):
        return len(self.outcomes) == self.spec.count and not self.open

    def state(self):
        if not self.ended():
            return "running" if any(self.attempts) else "pending"
        ends = {o.end for o in self.outcomes.values()}
        return "failed" if pb.TASK_FAILED in ends else "cancelled" if pb.TASK_CANCELLED in ends else "completed"

    def info(self):
        ends = collections.Counter(o.end for o in self.outcomes.values())
        return {
            "id": self.id,
            "job": self.number,
            "name": self.spec.name,
            "status": self.state(),
            "total_tasks": self.spec.count,
            "completed_tasks": ends[pb.TASK_COMPLETED],
            "failed_tasks": ends[pb.TASK_FAILED],
            "cancelled_tasks": ends[pb.TASK_CANCELLED],
            "running_tasks": self.status.count("running"),
        }

    def wire(self):
        info = self.info()
        return pb.JobStatus(
            job_id=self.id,
            job=self.number,
            state=info["status"],
            count=self.spec.count,
            completed=info["completed_tasks"],
            failed=info["failed_tasks"],
            cancelled=info["cancelled_tasks"],
        )


class Session:
    def __init__(self):
        self.sent = self.received = 0
        self.outbox = collections.deque()
        self.send = None  # bytes -> None, while connected
        self.followed = {}  # job -> set of indices sent


class FakeFarm:
    def __init__(self, slots=2, token=""):
        self.lock = threading.RLock()
        self.ready = threading.Condition(self.lock)
        self.queue = []  # (-priority, job, index)
        self.jobs, self.keys, self.sessions, self.blobs = {}, {}, {}, {}
        self.extended = set()  # (job, key)
        self.requests = []  # names of what clients asked for
        self.calls = []  # (method, path, query, JSON) over REST
        self.answers = {}  # (method, path) -> JSON, for what it does not know itself
        self.token = token
        self.answer = True  # False: requests are carried out, and the answers lost
        self.unavailable = 0  # so many requests are answered with that error
        self.closing = False
        self.sockets = set()
        self.running = {}  # (job, index) -> process
        self.httpd = _Server(("127.0.0.1", 0), _Handler)
        self.httpd.farm = self
        self.url = f"http://127.0.0.1:{self.httpd.server_address[1]}"
        threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True).start()
        self.slots = slots
        self.threads = [threading.Thread(target=self.executor, daemon=True) for _ in range(slots)]
        for thread in self.threads:
            thread.start()

    def close(self):
        with self.lock:
            self.closing = True
            self.ready.notify_all()
            for process in self.running.values():
                process.kill()
        self.cut()
        self.httpd.shutdown()
        self.httpd.server_close()
        for thread in self.threads:
            thread.join(5)

    def cut(self):
        """Break all connections."""
        with self.lock:
            for sock in list(self.sockets):
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def forget_sessions(self):
        """As a restart of the server does."""
        with self.lock:
            self.sessions.clear()

    # ---- sessions

    def serve(self, handler):
        ws = ServerProtocol(max_size=None)
        head = [f"GET {handler.path} HTTP/1.1", *(f"{k}: {v}" for k, v in handler.headers.items()), "", ""]
        ws.receive_data("\r\n".join(head).encode())
        ws.send_response(ws.accept(ws.events_received()[0]))
        sock = handler.connection
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = None

        def push():
            for chunk in ws.data_to_send():
                if chunk:
                    sock.sendall(chunk)

        def send(data):
            with self.lock:
                ws.send_binary(data)
                try:
                    push()
                except OSError:
                    pass

        with self.lock:
            push()
            self.sockets.add(sock)
        parts = []
        try:
            while True:
                data = sock.recv(1 << 18)
                if not data:
                    return
                with self.lock:
                    ws.receive_data(data)
                    events = ws.events_received()
                    push()
                for event in events:
                    if event.opcode not in (Opcode.BINARY, Opcode.CONT):
                        continue
                    parts.append(event.data)
                    if event.fin:
                        frame = pb.Frame.FromString(b"".join(parts))
                        parts.clear()
                        session = self.frame(session, frame, send)
        except OSError:
            pass
        finally:
            with self.lock:
                self.sockets.discard(sock)
                if session is not None and session.send is send:
                    session.send = None

    def frame(self, session, frame, send):
        with self.lock:
            if session is None:
                hello = frame.hello
                session = self.sessions.get(hello.session_id)
                answer = pb.Frame()
                answer.welcome.protocol = 1
                answer.welcome.inline_limit_bytes = 256 * 1024
                answer.welcome.resumed = session is not None
                if session is None:
                    session = self.sessions[hello.session_id] = Session()
                else:
                    while session.outbox and session.outbox[0].seq <= hello.received:
                        session.outbox.popleft()
                answer.welcome.received = session.received
                send(answer.SerializeToString())
                session.send = send
                for old in session.outbox:
                    send(old.SerializeToString())
                return session
            while session.outbox and session.outbox[0].seq <= frame.ack:
                session.outbox.popleft()
            if frame.seq:
                if frame.seq <= session.received:
                    return session
                assert frame.seq == session.received + 1, "a gap"
                session.received = frame.seq
            if frame.HasField("request"):
                self.request(session, frame.request)
            return session

    def tell(self, session, frame):
        session.sent += 1
        frame.seq, frame.ack = session.sent, session.received
        session.outbox.append(frame)
        if session.send:
            session.send(frame.SerializeToString())

    def request(self, session, request):
        op = request.WhichOneof("op")
        self.requests.append(op)
        answer = pb.Frame()
        answer.response.id = request.id
        job = None
        if self.unavailable > 0:
            self.unavailable -= 1
            answer.response.error.code = "unavailable"
            self.tell(session, answer)
            return
        if op == "submit" and request.submit.spec.python.model:
            answer.response.error.code = "not_found"
            answer.response.error.message = "there is no named code here"
        elif op == "submit":
            key = request.submit.spec.key
            answer.response.existed = key in self.keys
            job = self.keys[key] if key in self.keys else self.submit(request.submit)
            session.followed.setdefault(job, set())
        else:
            job = self.jobs.get(getattr(request, op).job_id)
            if job is None:
                answer.response.error.code = "not_found"
                answer.response.error.message = "there is no such job"
        if op == "extend" and job is not None and (job.number, request.extend.key) in self.extended:
            answer.response.job.CopyFrom(job.wire())
            if self.answer:
                self.tell(session, answer)
            return
        if op == "extend" and job is not None and not job.open:
            answer.response.error.code = "invalid_state_transition"
            answer.response.error.message = "the job takes no more tasks"
            self.tell(session, answer)
            return
        if op == "extend" and job is not None:
            if request.extend.key:
                self.extended.add((job.number, request.extend.key))
            count = request.extend.count
            job.arguments += self.arguments(request.extend.payloads) if request.extend.payloads else [b""] * count
            self.queue.extend((-job.spec.priority, job.number, job.spec.count + i) for i in range(count))
            job.spec.count += count
            for column, blank in ((job.status, "pending"), (job.attempts, 0), (job.crashes, 0)):
                column += [blank] * count
            job.open = job.open and not request.extend.close
            self.ready.notify_all()
        if job is not None:
            answer.response.job.CopyFrom(job.wire())
        if self.answer:
            self.tell(session, answer)
        if job is None:
            return
        if op == "follow":
            have = set()
            for first, end in zip(request.follow.have_first, request.follow.have_end):
                have.update(range(first, end))
            session.followed[job] = have
        if op == "cancel":
            for index in [request.cancel.index] if request.cancel.one_task else range(job.spec.count):
                self.cancel(job, index)
        self.publish(job)

    def arguments(self, payloads):
        arguments = []
        for payload in payloads:
            at = 0
            for size in payload.sizes:
                if size == 0xFFFFFFFF:
                    arguments.append(self.blobs[payload.bytes[at : at + 64].decode()])
                    at += 64
                else:
                    arguments.append(payload.bytes[at : at + size])
                    at += size
        return arguments

    def parents(self, job, index):
        """[(parent, its task's index, whether its result is passed)] of one task."""
        for one in job.spec.depends_on:
            parent = self.jobs[one.job_id]
            which = [one.index] if one.one else [index] if one.each else range(parent.spec.count)
            for i in which:
                yield parent, i, getattr(one, "pass")

    def may_run(self, job, index):
        """Whether all that it waits for has succeeded. A task of which something has not, ends."""
        for parent, i, _ in self.parents(job, index):
            outcome = parent.outcomes.get(i)
            if outcome is None:
                return False
            if outcome.end != pb.TASK_COMPLETED:
                message = f"task {parent.id}/{i} did not succeed"
                self.end(
                    job,
                    pb.Outcome(
                        index=index,
                        end=pb.TASK_FAILED,
                        failure=pb.FAILURE_DEPENDENCY,
                        fault="job",
                        message=message,
                    ),
                )
                self.publish(job)
                return True
        return True

    def submit(self, submit):
        arguments = self.arguments(submit.payloads)
        job = Job(len(self.jobs) + 1, submit.spec, arguments)
        assert len(arguments) == job.spec.count
        self.jobs[job.id] = self.keys[submit.spec.key] = job
        self.queue.extend((-job.spec.priority, job.number, i) for i in range(job.spec.count))
        self.ready.notify_all()
        return job

    def publish(self, job):
        for session in self.sessions.values():
            sent = session.followed.get(job)
            if sent is None:
                continue
            frame = pb.Frame()
            for index in [i for i in job.outcomes if i not in sent]:
                sent.add(index)
                frame.outcomes.outcomes.append(job.outcomes[index])
            ended = job.ended()
            if ended:
                frame.outcomes.ended.CopyFrom(job.wire())
                del session.followed[job]
            if ended or frame.outcomes.outcomes:
                frame.outcomes.job, frame.outcomes.job_id = job.number, job.id
                self.tell(session, frame)

    def cancel(self, job, index):
        if index in job.outcomes:
            return
        self.end(job, pb.Outcome(index=index, end=pb.TASK_CANCELLED, failure=pb.FAILURE_CANCELLED))
        process = self.running.get((job.number, index))
        if process:
            process.kill()

    def end(self, job, outcome):
        if outcome.index in job.outcomes:
            return
        outcome.worker = "fake"
        if len(outcome.value) > 256 * 1024:
            import hashlib

            outcome.value_sha256 = hashlib.sha256(outcome.value).hexdigest()
            self.blobs[outcome.value_sha256] = outcome.value
            outcome.value = b""
        job.outcomes[outcome.index] = outcome
        job.status[outcome.index] = _STATES[outcome.end]
        self.ready.notify_all()  # others may have waited for it

    # ---- executors

    def executor(self):
        process = None
        while True:
            with self.lock:
                entry = None
                while not self.closing:
                    self.queue.sort()
                    entry = next((e for e in self.queue if self.may_run(self.jobs[str(e[1])], e[2])), None)
                    if entry is not None:
                        break
                    self.ready.wait()
                if self.closing:
                    break
                self.queue.remove(entry)
                _, number, index = entry
                job = self.jobs[str(number)]
                if index in job.outcomes:
                    continue
                if process is None or process.poll() is not None:
                    process = _spawn()
                job.attempts[index] += 1
                job.status[index] = "running"
                self.running[number, index] = process
            timer = None
            if job.spec.time_limit_ms:
                process.late = False

                def stop(process=process):
                    process.late = True
                    process.kill()

                timer = threading.Timer(job.spec.time_limit_ms / 1000, stop)
                timer.start()
            try:
                outcome = self.run(process, job, index)
            except (EOFError, OSError, struct.error):
                outcome = None
                process.kill()
                process.wait()
                process.sock.close()
            if timer:
                timer.cancel()
            with self.lock:
                self.running.pop((number, index), None)
                again = False
                if outcome is None and getattr(process, "late", False):
                    outcome = pb.Outcome(index=index, end=pb.TASK_FAILED, failure=pb.FAILURE_TIME_LIMIT)
                elif outcome is None:
                    job.crashes[index] += 1
                    again = job.crashes[index] < 3 and not self.closing
                    outcome = pb.Outcome(
                        index=index, end=pb.TASK_FAILED, failure=pb.FAILURE_WORKER_LOST, message="the executor died"
                    )
                elif outcome.end == pb.TASK_FAILED and not outcome.exit_code:
                    again = job.attempts[index] - job.crashes[index] < job.spec.retry.max_attempts
                if again and index not in job.outcomes:
                    job.status[index] = "pending"
                    self.queue.append((-job.spec.priority, number, index))
                else:
                    outcome.exit_code = 0
                    self.end(job, outcome)
                    self.publish(job)
        if process is not None:
            process.kill()
            process.wait()
            process.sock.close()

    def run(self, process, job, index):
        sha = bytes.fromhex(job.spec.python.code_sha256)
        argument = job.arguments[index]
        state = job.checkpoints.get(index)
        if sha not in process.code:
            process.code.add(sha)
            process.write(1, sha + self.blobs[sha.hex()])
        fence = struct.pack("<QI", job.number << 32 | index, job.attempts[index])
        job_id = job.id.encode()
        inputs = [parent.outcomes[i] for parent, i, passed in self.parents(job, index) if passed]
        values = [self.blobs[o.value_sha256] if o.value_sha256 else o.value for o in inputs]
        process.write(
            2,
            fence
            + struct.pack("<BB", job.spec.encoding, state is not None)
            + sha
            + struct.pack("<I", len(argument))
            + argument
            + struct.pack("<I", len(state or b""))
            + (state or b"")
            + struct.pack("<H", len(job_id))
            + job_id
            + struct.pack("<I", len(values))
            + b"".join(struct.pack("<BI", 2, len(value)) + value for value in values)
            + struct.pack("<I", 0),
        )
        while True:
            kind, body = process.read()
            if kind == 0:
                continue
            assert body[:12] == fence
            body = body[12:]
            if kind == 2:
                done, total = struct.unpack_from("<dd", body)
                job.progress[index] = {"done": done, "total": total, "text": body[16:].decode()}
            elif kind == 3:
                job.logs.append(
                    {
                        "cursor": len(job.logs) + 1,
                        "task": f"{job.id}/{index}",
                        "index": index,
                        "stream": "log",
                        "text": body.decode(),
                    }
                )
            elif kind == 4:
                job.checkpoints[index] = body
            else:
                status, at, fields = body[0], 1, []
                for _ in range(4):
                    (n,) = struct.unpack_from("<I", body, at)
                    fields.append(body[at + 4 : at + 4 + n])
                    at += 4 + n
                outcome = pb.Outcome(
                    index=index,
                    value=fields[0],
                    message=fields[1].decode(),
                    traceback=fields[2].decode(),
                    attempt=job.attempts[index],
                )
                outcome.end = pb.TASK_COMPLETED if status == 0 else pb.TASK_FAILED
                outcome.failure = pb.FAILURE_NONE if status == 0 else pb.FAILURE_EXCEPTION
                if status:
                    outcome.exception, outcome.fault, outcome.stage = fields[3].decode(), "job", pb.STAGE_EXECUTE
                outcome.exit_code = int(status > 1)  # here: permanent
                return outcome


def _spawn():
    ours, theirs = socket.socketpair()
    env = {**os.environ, "GRANGE_EXECUTOR_FD": str(theirs.fileno())}
    process = subprocess.Popen(
        [sys.executable, "-m", "grange.runner"],
        pass_fds=[theirs.fileno()],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    theirs.close()
    process.sock, process.code = ours, set()
    stream = ours.makefile("rb")

    def read():
        head = stream.read(4)
        if len(head) < 4:
            raise EOFError
        data = stream.read(*struct.unpack("<I", head))
        return data[0], data[1:]

    process.read = read
    process.write = lambda kind, body: ours.sendall(struct.pack("<IB", 1 + len(body), kind) + body)
    return process


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, data=b"", head=False):
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not head:
            self.wfile.write(data)

    def handle_any(self):
        farm = self.server.farm
        if farm.token and self.headers.get("Authorization") != f"Bearer {farm.token}":
            self.answer(401, {"error": {"code": "unauthenticated", "message": "a token is needed", "details": {}}})
            return
        path, _, query = self.path.partition("?")
        query = dict(q.split("=", 1) for q in query.split("&") if q)
        if path == "/ws":
            farm.serve(self)
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = path.strip("/").split("/")
        with farm.lock:
            asked = json.loads(body) if self.headers.get("Content-Type") == "application/json" and body else None
            farm.calls.append((self.command, path, query, asked))
            if (self.command, path) in farm.answers:
                status, data = 200, farm.answers[self.command, path]
            else:
                status, data = self.rest(farm, parts[1:], query, body)
        self.answer(status, data, self.command == "HEAD")

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

    def rest(self, farm, parts, query, body):
        if parts[0] == "blobs":
            if self.command == "PUT":
                existed = parts[1] in farm.blobs
                farm.blobs[parts[1]] = body
                return (200 if existed else 201), b""
            found = farm.blobs.get(parts[1])
            return (404, _missing) if found is None else (200, found)
        if parts[0] == "stats":
            return 200, {"slots": farm.slots, "total_jobs": len(farm.jobs)}
        if parts[0] == "workers":
            return 200, [{"id": "fake", "status": "online", "slots": farm.slots}]
        if parts[0] != "jobs":
            return 404, _missing
        if len(parts) == 1:
            return 200, [j.info() for j in reversed(farm.jobs.values())]
        job = farm.jobs.get(parts[1])
        if job is None:
            return 404, _missing
        what = parts[2] if len(parts) > 2 else ""
        if not what:
            end = time.monotonic() + float(query.get("wait", 0))
            while job.state() in ("pending", "running") and time.monotonic() < end:
                farm.ready.wait(0.02)
            return 200, job.info()
        if what == "cancel":
            for index in range(job.spec.count):
                farm.cancel(job, index)
            farm.publish(job)
            return 200, {"cancelled": job.info()["cancelled_tasks"]}
        if what == "close":
            job.open = False
            farm.publish(job)
            return 200, job.info()
        if what == "spec":
            return 200, {"engine": "python", "encoding": "pickle"}
        after, limit = int(query.get("after", -1)), int(query.get("limit", 100))
        if what == "tasks":
            rows = [
                {
                    "id": f"{job.id}/{i}",
                    "index": i,
                    "status": s,
                    "attempt": job.attempts[i],
                    "progress": job.progress.get(i),
                }
                for i, s in enumerate(job.status)
            ]
        elif what == "results":
            names = {v: k for k, v in pb.FailureClass.items()}
            rows = [
                {
                    "index": i,
                    "status": _STATES[o.end],
                    "encoding": "pickle",
                    "value_base64": base64.b64encode(o.value).decode(),
                    "value_sha256": o.value_sha256,
                    "failure": names[o.failure][8:].lower(),
                    "message": o.message,
                    "traceback": o.traceback,
                }
                for i, o in sorted(job.outcomes.items())
            ]
        else:
            return 200, [entry for entry in job.logs if entry["cursor"] > after][:limit]
        return 200, [row for row in rows if row["index"] > after][:limit]


_missing = {"error": {"code": "not_found", "message": "there is no such thing", "details": {}}}


def main():
    slots = int(sys.argv[sys.argv.index("--slots") + 1]) * int(sys.argv[sys.argv.index("--workers") + 1])
    farm = FakeFarm(slots)
    print(
        json.dumps({"url": farm.url, "ws_url": farm.url.replace("http", "ws") + "/ws", "pid": os.getpid()}), flush=True
    )
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    farm.close()


if __name__ == "__main__":
    main()
