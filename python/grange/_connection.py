"""The session with the server: one WebSocket, one background thread, frames numbered and acknowledged, resumed after
a break.

Any thread may send: it writes to the (non-blocking) socket itself, so that a request costs no change of threads; what
the socket does not take is left to the background thread. The background thread alone reads, and calls back.
Callbacks must not block: nothing else is received while they run.
"""

import collections
import logging
import os
import random
import selectors
import socket
import threading
import time
import uuid
import weakref

from grange import __version__, _frames, errors
from grange._http import farm_error, unreachable
from grange._socket import Lost, Socket
from grange._wire import wire_pb2 as pb

log = logging.getLogger("grange")

_HEARTBEAT = 10.0  # seconds
_SILENCE = 45.0  # seconds without a byte from the server (it answers our pings): connect again
_BACKOFF_FIRST, _BACKOFF_LAST = 0.1, 10.0
_ACK_DELAY = 0.05  # seconds an acknowledgement may wait for something to ride on
_ACK_FRAMES, _ACK_BYTES = 64, 1 << 20
_UNSENT_LIMIT = 64 << 20  # bytes; senders wait above it
_FOLLOWED = 5_000  # jobs at once; the server allows 10,000

_live = weakref.WeakSet()  # all connections, for a fork


class Connection:
    """One client session. `request` and `follow` may be called from any thread, before and after `close` too (then
    they fail)."""

    def __init__(self, http):
        self.http = http
        self.inline_limit = 256 * 1024
        self.server_id = ""
        self.after_fork = []  # called in a forked child
        self._reset()
        _live.add(self)

    def _reset(self):
        self.pid = os.getpid()
        self._lock = threading.Lock()  # all below, and the socket's writing side
        self._room = threading.Condition(self._lock)
        self._socket = None  # while welcomed
        self._session = uuid.uuid4().hex
        self._resumable = False  # the server has welcomed this session
        self._sent = 0
        self._received = 0
        self._acked = 0  # what we told the server that we have
        self._owed_bytes = 0
        self._outbox = collections.deque()  # (seq, bytes of the frame's body)
        self._requests = {}  # id -> (bytes of the frame's body, callback), in order of sending
        self._unnumbered = []  # bodies of requests made while there was no connection
        self._next_id = 1
        self._sinks = {}  # job id -> sink: have(), outcomes(list), ended(status), lost(error)
        self._deferred = {}  # job id -> sink of a job that is not followed yet
        self._early = {}  # job id -> Outcomes that came before the job had a sink
        self._thread = None
        self._closed = None  # the error that all get from now on
        self._wake_r = self._wake_w = None

    # ------------------------------------------------------------------------------------------------ for users

    def connect(self):
        """Connect and start the background thread, unless done. Raises grange.ConnectionError."""
        with self._lock:
            if self._closed:
                raise self._closed
            if self._thread is not None:
                return
            self._wake_r, self._wake_w = socket.socketpair()
            self._wake_r.setblocking(False)
            self._wake_w.setblocking(False)
            try:
                frames = self._dial()
            except BaseException:
                self._drop_socket()
                self._wake_r.close()
                self._wake_w.close()
                raise
            self._thread = threading.Thread(target=self._run, args=(frames,), name="grange-client", daemon=True)
            self._thread.start()

    def request(self, body, callback=None):
        """Send a Request (its `id` is set here). `callback(response, error)` is called once, one of them None."""
        self.connect()
        with self._lock:
            while not self.is_mine() and self._socket and len(self._socket.unsent) > _UNSENT_LIMIT and not self._closed:
                self._room.wait(1.0)
            if self._closed is None:
                data = self._register(body, callback)
                if self._socket:
                    self._send_numbered(data)
                else:
                    self._unnumbered.append(data)
                return
            error = self._closed
        if callback:
            callback(None, error)

    def call(self, body, timeout=30.0, first=None):
        """Send a Request and wait for its Response. Raises GrangeError; not from the background thread. `first` gets
        the Response in the background thread, before any later frame is read: outcomes may come right behind it."""
        done = threading.Event()
        box = []

        def answered(response, error):
            try:
                if first is not None and error is None and not done.is_set():
                    first(response)
            finally:
                box.extend((response, error))
                done.set()

        self.request(body, answered)
        if not done.wait(timeout):
            done.set()  # an answer that still comes is nobody's
            raise errors.ConnectionError(f"the server at {self.http.url} did not answer within {timeout:g} s")
        if box[1]:
            raise box[1]
        return box[0]

    def is_mine(self):
        """Whether the caller is the background thread, which must not wait."""
        return threading.current_thread() is self._thread

    def may_follow(self):
        """Whether a submit may say `follow`: a session follows a limited number of jobs at once."""
        return len(self._sinks) < _FOLLOWED

    def watch(self, response, followed, sink):
        """Give the outcomes of a submitted job to `sink`, also over reconnects. `response` answered the submit,
        `followed`: it said `follow`. Jobs beyond the limit are followed when others have ended: nothing is lost, the
        server keeps it."""
        job_id = response.job.job_id
        with self._lock:
            if not followed and len(self._sinks) >= _FOLLOWED:
                self._deferred[job_id] = sink
                return
            self._sinks[job_id] = sink
            early = self._early.pop(job_id, ())
        for outcomes in early:
            self._deliver(sink, outcomes)
        if response.existed or not followed:  # what came before this answer would be missing
            self._follow(job_id, sink)

    def unwatch(self, job_id):
        """Forget a job's sink."""
        with self._lock:
            self._deferred.pop(job_id, None)
            self._sinks.pop(job_id, None)
            if not self._deferred or len(self._sinks) >= _FOLLOWED:
                return
            job_id = next(iter(self._deferred))
            sink = self._sinks[job_id] = self._deferred.pop(job_id)
        self._follow(job_id, sink)

    def _follow(self, job_id, sink):
        self.request(_frames.follow(job_id, sink.have()), self._refusal(job_id, sink))

    def _refusal(self, job_id, sink):
        def answered(response, error):
            if error is not None:  # the server does not know the job any more
                self.unwatch(job_id)
                sink.lost(error)

        return answered

    def drain(self, timeout, more=lambda: False):
        """Wait until all requests are answered, and `more()` is false, at most `timeout` seconds."""
        end = time.monotonic() + timeout
        while (self._requests or more()) and self._socket and time.monotonic() < end:
            time.sleep(0.005)

    def close(self):
        """Say goodbye and stop the thread. What is unanswered fails with grange.ConnectionError."""
        with self._lock:
            thread = self._thread
            if self._closed is None:
                self._closed = errors.ConnectionError("this connection to the farm was closed")
                if self._socket:
                    frame = pb.Frame(ack=self._received)
                    frame.goodbye.reason = "closed"
                    self._socket.send(frame.SerializeToString())
                    self._socket.leave()
        if thread is not None and thread is not threading.current_thread():
            self._wake()
            thread.join(5.0)
        self._fail_all()

    # ------------------------------------------------------------------------------------------- sending (locked)

    def _register(self, body, callback):
        """A new id for a Request; its frame's body as bytes."""
        body.id = self._next_id
        self._next_id += 1
        data = _frames.request_body(body)
        self._requests[body.id] = (data, callback)
        return data

    def _send_numbered(self, body):
        self._sent += 1
        self._outbox.append((self._sent, body))
        self._emit(self._sent, body)

    def _emit(self, seq, body):
        self._acked = self._received
        self._owed_bytes = 0
        self._socket.send(_frames.numbered(seq, self._received, body))
        if self._socket.unsent and threading.current_thread() is not self._thread:
            self._wake()  # the rest is the background thread's

    def _wake(self):
        try:
            self._wake_w.send(b"x")
        except (OSError, AttributeError):
            pass  # full: it is awake; closed: it is gone

    # ---------------------------------------------------------------------------------- connecting (locked, blocking)

    def _dial(self):
        """Connect, say Hello, read Welcome, and send what is due. Returns frames that came right behind the Welcome."""
        hello = pb.Frame(ack=self._received)
        hello.hello.protocol = 1
        hello.hello.role = pb.ROLE_CLIENT
        hello.hello.version = __version__
        hello.hello.session_id = self._session
        hello.hello.received = self._received if self._resumable else 0
        link = Socket(self.http, hello.SerializeToString())
        try:
            welcome, *frames = map(pb.Frame.FromString, link.first)
            if welcome.HasField("error"):
                raise farm_error(welcome.error.code, welcome.error.message)
            if not welcome.HasField("welcome"):
                raise unreachable(self.http.url, "it does not speak Grange's protocol")
        except BaseException:
            link.close()
            raise
        self._socket = link
        self._welcomed(welcome.welcome)
        return frames

    def _welcomed(self, welcome):
        self.server_id = welcome.server_id
        if welcome.inline_limit_bytes:
            self.inline_limit = welcome.inline_limit_bytes
        if welcome.resumed and self._resumable:
            self._trim(welcome.received)
            for seq, body in list(self._outbox):
                self._emit(seq, body)
            for body in self._unnumbered:
                self._send_numbered(body)
        else:
            # A new session: what was not answered is asked again (a submit carries its key, so twice is once), and the
            # jobs that we wait for are followed again, less what we have.
            self._outbox.clear()
            self._sent = self._received = self._acked = self._owed_bytes = 0
            self._early.clear()
            for data, _ in self._requests.values():
                self._send_numbered(data)
            for job_id, sink in list(self._sinks.items()):
                self._send_numbered(self._register(_frames.follow(job_id, sink.have()), self._refusal(job_id, sink)))
        self._unnumbered.clear()
        self._resumable = True

    def _trim(self, up_to):
        while self._outbox and self._outbox[0][0] <= up_to:
            self._outbox.popleft()

    def _drop_socket(self):
        link, self._socket = self._socket, None
        if link is not None:
            link.close()
        self._room.notify_all()

    # ------------------------------------------------------------------------------------------------- the thread

    def _run(self, frames):
        delay = since = 0.0
        warned = False
        while self._closed is None:
            try:
                if frames is None:
                    with self._lock:
                        if self._closed:
                            break
                        frames = self._dial()
                    if warned:
                        log.warning("grange: connected to %s again", self.http.url)
                    warned = False
                since = time.monotonic()
                for frame in frames:
                    self._arrived(frame, 0)
                frames = None
                self._pump()
            except Lost as error:
                frames = None
                with self._lock:
                    self._drop_socket()
                log.debug("connection lost: %s", error)
                # At once, unless it is lost again and again.
                delay = 0.0 if time.monotonic() - since > 1.0 else min(delay, 0.5)
            except errors.GrangeError as error:
                frames = None
                if error.code in ("unauthenticated", "forbidden", "version_mismatch"):
                    self._closed = error
                    break
                if not warned and delay > 1.0:
                    log.warning("grange: lost the server at %s; trying again until it is back", self.http.url)
                    warned = True
            except Exception as error:
                log.exception("grange: the client's connection broke")
                self._closed = errors.ConnectionError(f"the connection broke: {type(error).__name__}: {error}")
                break
            if self._closed is None and delay:
                self._nap(delay * random.uniform(0.9, 1.1))
            delay = min(max(delay * 2, _BACKOFF_FIRST), _BACKOFF_LAST)
        with self._lock:
            self._drop_socket()
            self._wake_r.close()
            self._wake_w.close()
        self._fail_all()

    def _nap(self, seconds):
        end = time.monotonic() + seconds
        while self._closed is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _pump(self):
        """Read until the socket is gone (raises Lost) or we close."""
        link = self._socket
        sock = link.sock
        heard = beat = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            selector.register(self._wake_r, selectors.EVENT_READ)
            writing = False
            while self._closed is None:
                with self._lock:
                    if bool(link.unsent) != writing:
                        writing = not writing
                        selector.modify(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0))
                    owed = self._received != self._acked
                ready = selector.select(_ACK_DELAY if owed else 1.0)
                now = time.monotonic()
                got = False
                for key, events in ready:
                    if key.fileobj is not sock:
                        try:
                            self._wake_r.recv(4096)
                        except BlockingIOError:
                            pass
                        continue
                    if events & selectors.EVENT_WRITE:
                        with self._lock:
                            link.flush()
                            self._room.notify_all()
                    if events & selectors.EVENT_READ:
                        got = True
                        self._read(link)
                if got:
                    heard = now
                if self._received != self._acked and (
                    not got or self._received - self._acked >= _ACK_FRAMES or self._owed_bytes >= _ACK_BYTES
                ):
                    self._say(pb.Frame(only_ack=pb.Ack()))
                if now - beat > _HEARTBEAT:
                    beat = now
                    self._say(pb.Frame(heartbeat=pb.Heartbeat()), ping=True)
                if now - heard > _SILENCE:
                    raise Lost("the server says nothing")

    def _say(self, frame, ping=False):
        """Send a frame that is not numbered."""
        with self._lock:
            if self._socket is None:
                return
            frame.ack = self._acked = self._received
            self._owed_bytes = 0
            self._socket.send(frame.SerializeToString())
            if ping:
                self._socket.ping()

    def _read(self, link):
        with self._lock:
            messages = link.read()
        for message in messages:
            self._arrived(pb.Frame.FromString(message), len(message))
        if not link.open and self._closed is None:
            raise Lost(link.why())

    def _arrived(self, frame, size):
        if frame.ack:
            with self._lock:
                self._trim(frame.ack)
        if frame.seq:
            if frame.seq <= self._received:
                return  # a repeat
            if frame.seq != self._received + 1:
                raise Lost(f"frame {frame.seq} came after {self._received}")
            self._received = frame.seq
            self._owed_bytes += size
        body = frame.WhichOneof("body")
        if body == "outcomes":
            outcomes = frame.outcomes
            sink = self._sinks.get(outcomes.job_id)
            if sink is None:
                with self._lock:
                    # Only for a submit that is still unanswered; otherwise nobody waits for it any more.
                    if self._requests:
                        self._early.setdefault(outcomes.job_id, []).append(outcomes)
            else:
                self._deliver(sink, outcomes)
        elif body == "response":
            self._answered(frame.response)
        elif body == "error":
            error = farm_error(frame.error.code, frame.error.message)
            if frame.error.fatal:
                if error.code != "unavailable":  # a server that closes comes back
                    self._closed = error
                raise Lost(str(error))
            log.warning("grange: the server says: %s", error)

    def _answered(self, response):
        if response.error.code == "unavailable":
            # It closes, or is not up yet. All that is unanswered is asked again, in a new session.
            with self._lock:
                self._resumable = False
                self._session = uuid.uuid4().hex
            raise Lost(response.error.message)
        with self._lock:
            _, callback = self._requests.pop(response.id, (None, None))
        if callback is not None:
            failed = response.HasField("error")
            error = farm_error(response.error.code, response.error.message) if failed else None
            _guard(callback, None if failed else response, error)
        if not self._requests:
            self._early.clear()

    def _deliver(self, sink, outcomes):
        if outcomes.outcomes:
            _guard(sink.outcomes, outcomes.outcomes)
        if outcomes.HasField("ended"):
            self.unwatch(outcomes.job_id)
            _guard(sink.ended, outcomes.ended)

    def _fail_all(self):
        with self._lock:
            error = self._closed or errors.ConnectionError("this connection to the farm was closed")
            requests, self._requests = list(self._requests.values()), {}
            sinks = [*self._sinks.values(), *self._deferred.values()]
            self._sinks, self._deferred = {}, {}
        for _, callback in requests:
            if callback is not None:
                _guard(callback, None, error)
        for sink in sinks:
            _guard(sink.lost, error)


def _guard(function, *args):
    try:
        function(*args)
    except Exception:
        log.exception("grange: a callback failed")


def _after_fork_in_child():
    for connection in list(_live):
        if connection._socket is not None:
            connection._socket.close()  # the child's copy; the parent's session goes on
        for end in (connection._wake_r, connection._wake_w):
            if end is not None:
                end.close()
        connection._reset()
        connection.http.reset()
        for forget in connection.after_fork:
            forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
