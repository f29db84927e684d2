"""What all doubles share: a server on a thread, the record of what was asked, traps, and the pace of tokens."""

import asyncio
import base64
import dataclasses
import email.utils
import hashlib
import json
import socket
import struct
import threading
import time

from aiohttp import web

CONTROL = "/__double"
WORDS = [
    "the",
    "farm",
    "has",
    "one",
    "gate",
    "and",
    "every",
    "cart",
    "that",
    "comes",
    "is",
    "seen",
    "weighed",
    "and",
    "sent",
    "to",
    "the",
    "barn",
    "with",
    "room",
]

# Each trap, and what it does. `set` leaves one on, `once` arms it for the next request that could meet it.
TRAPS = {
    "dead": "takes the request and never answers",
    "status": "refuses with this status",
    "retry_after": "with `status`: the Retry-After header; a number of seconds, or 'date:N' for the HTTP date in N s",
    "retry_after_ms": "with `status`: the retry-after-ms header",
    "message": "with `status` or `error_after`: the text of the error",
    "code": "with `status`: the error's code (OpenAI)",
    "loading": "503, loading; a fraction is how far it is",
    "first_token_s": "time before the first token",
    "early_head": "status and headers are sent before the first token is there",
    "pings": "comment lines before the first token and after each",
    "error_after": "an error in the stream after so many tokens; 0: instead of the first",
    "error_form": "llama.cpp: 'old' for a line `error: {…}`",
    "cut_after": "the connection breaks after so many tokens",
    "stall_after": "nothing more after so many tokens, and the connection stays",
    "end_after": "the stream ends cleanly after so many tokens, without its last frames",
    "piece": "writes so many bytes at a time, whatever the frames are",
    "merge": "writes so many frames at once",
    "omit_metrics": "leaves the figures out",
    "cached_prompt": "the whole prompt was cached: no figures of it",
    "floats_only": "vectors as numbers, whatever was asked for",
    "finish": "another finish reason",
    "gaps_s": "a list: the time before each token",
}


class Cut(Exception):
    """The connection is gone, by our own doing."""


class Broken(Exception):
    """An error of the engine while it answers."""


class Ended(Exception):
    """The stream just ends."""


@dataclasses.dataclass
class Seen:
    """A request that came, and what became of it."""

    method: str
    path: str
    query: dict
    headers: dict
    body: bytes
    status: int = 0
    cancelled: bool = False  # the client went away before the end
    ended: bool = False
    sent: bytes = b""  # of the answer's body, as written
    tokens: int = 0  # given so far
    times: list = dataclasses.field(default_factory=list)  # monotonic, of each frame

    @property
    def json(self):
        return json.loads(self.body)


SEEN = web.RequestKey("seen", Seen)


def compact(value) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def token(index: int) -> str:
    return WORDS[index % len(WORDS)] if index == 0 else " " + WORDS[index % len(WORDS)]


def text(tokens: int) -> str:
    """What every double says in so many tokens."""
    return "".join(token(i) for i in range(tokens))


def count(value) -> int:
    """Tokens of a prompt: its words, at least one."""
    if isinstance(value, list):
        return sum(count(v) for v in value)
    if isinstance(value, dict):
        return count(value.get("content") or value.get("text") or "")
    return max(1, len(str(value).split()))


def vector(value, size=8) -> list:
    """An embedding that depends on the text only; exact in float32."""
    raw = hashlib.sha256(json.dumps(value).encode()).digest()
    return [(raw[i % 32] - 128) / 128 for i in range(size)]


def packed(vector) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def example(schema) -> object:
    """The simplest value that a JSON schema allows."""
    if not isinstance(schema, dict):
        return {}
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: example(s) for name, s in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema.get("items", {"type": "string"}))]
    return {"string": "barn", "integer": 7, "number": 0.5, "boolean": True, "null": None}[kind]


def arguments_of(tool) -> dict:
    return example(tool.get("function", tool).get("parameters", {}))


def as_date(retry_after) -> str:
    """A Retry-After header from a trap's value."""
    if isinstance(retry_after, str) and retry_after.startswith("date:"):
        return email.utils.formatdate(time.time() + float(retry_after[5:]), usegmt=True)
    return str(retry_after)


class Stream:
    """The body of a streamed answer."""

    def __init__(self, double, request, content_type, headers=None):
        self.double, self.request, self.seen = double, request, request[SEEN]
        self.response = web.StreamResponse(headers={"Content-Type": content_type, **(headers or {})})
        self.response.enable_chunked_encoding()
        self.held, self.held_frames = b"", 0

    async def open(self):
        await self.response.prepare(self.request)
        self.seen.status = 200
        return self

    async def send(self, frame: bytes):
        self.seen.times.append(time.monotonic())
        self.held += frame
        self.held_frames += 1
        if self.held_frames >= (self.double.trap("merge") or 1):
            await self.flush()

    async def flush(self):
        data, self.held, self.held_frames = self.held, b"", 0
        step = self.double.trap("piece") or max(1, len(data))
        for at in range(0, len(data), step):
            part = data[at : at + step]
            await self.response.write(part)
            self.seen.sent += part
            if step < len(data):
                await asyncio.sleep(0)

    async def end(self):
        await self.flush()
        await self.response.write_eof()
        return self.response


class Double:
    kind = ""
    extra_traps = {}

    def __init__(self, models=("model",), tokens=20, delay_s=0.0, port=0, api_key=None, **traps):
        self.models = list(models)
        self.tokens, self.delay_s, self.api_key = tokens, delay_s, api_key
        self.requests: list[Seen] = []
        self.running = 0
        self.most_running = 0
        self._port, self._always, self._once, self._active = port, {}, {}, {}
        self._changed = threading.Condition()
        self.set(**traps)

    # ------------------------------------------------------------------------------------------------------ traps

    def set(self, **traps):
        """Traps that stay; None takes one away."""
        self._known(traps)
        for name, value in traps.items():
            if value is None:
                self._always.pop(name, None)
            else:
                self._always[name] = value

    def once(self, **traps):
        """For the next request for work only."""
        self._known(traps)
        self._once = traps

    def calm(self):
        """No traps."""
        self._always, self._once, self._active = {}, {}, {}

    def _known(self, traps):
        unknown = traps.keys() - TRAPS.keys() - self.extra_traps.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no trap {', '.join(sorted(unknown))}")

    def trap(self, name, default=None):
        """Of the request that this asyncio task serves."""
        task = asyncio.current_task()
        return {**self._always, **self._active.get(task, {})}.get(name, default)

    # ----------------------------------------------------------------------------------------------- life, record

    def __enter__(self):
        ready = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, args=(ready,), name=f"double-{self.kind}", daemon=True)
        self._thread.start()
        ready.wait(20)
        if self._failure:
            raise self._failure
        return self

    def __exit__(self, *_):
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)

    stop = __exit__

    def _run(self, ready):
        try:
            asyncio.run(self._serve(ready))
        except OSError as error:
            self._failure = error
        finally:
            ready.set()

    async def _serve(self, ready):
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        app = web.Application(middlewares=[self._record], client_max_size=1 << 28)
        app.router.add_get(CONTROL, self._show)
        app.router.add_post(CONTROL, self._control)
        self.routes(app.router)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        self.port = self._port = site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        background = await self.begin()
        ready.set()
        await self._stop.wait()
        for task in background or []:
            task.cancel()
        await runner.cleanup()

    async def begin(self):
        """Tasks that run beside the requests."""

    def routes(self, router):
        raise NotImplementedError

    def wait_for(self, check, seconds=15, what="it"):
        """Until check(self) is true, however long the other side takes to get there."""
        until = time.monotonic() + seconds
        with self._changed:
            while not (value := check(self)):
                assert time.monotonic() < until, f"{what} did not happen within {seconds} s at the {self.kind} double"
                self._changed.wait(0.05)
        return value

    def asked(self, *paths):
        """The requests for these paths; all when none is named."""
        return [r for r in self.requests if not paths or r.path in paths]

    def news(self):
        with self._changed:
            self._changed.notify_all()

    @web.middleware
    async def _record(self, request, handler):
        if request.path == CONTROL:
            return await handler(request)
        body = await request.read()
        seen = Seen(request.method, request.path, dict(request.query), dict(request.headers), body)
        request[SEEN] = seen
        self.requests.append(seen)
        self.news()
        try:
            answer = await self.allowed(request) or await handler(request)
            seen.status = answer.status
            if isinstance(answer, web.Response) and isinstance(answer.body, bytes):
                seen.sent = answer.body
            return answer
        except Cut:
            if request.transport:
                request.transport.abort()
            return web.Response()
        except (asyncio.CancelledError, ConnectionError):
            seen.cancelled = not self._stop.is_set()
            raise
        except web.HTTPException as error:
            seen.status = error.status
            answer = self.no_route(request, error)
            if answer is None:
                raise
            return answer
        finally:
            seen.ended = True
            self._active.pop(asyncio.current_task(), None)
            self.news()

    async def allowed(self, request):
        """An answer when the key is wrong."""
        if (
            self.api_key
            and request.headers.get("Authorization") != f"Bearer {self.api_key}"
            and self.needs_key(request)
        ):
            return self.error(401, self.wrong_key())
        return None

    def needs_key(self, request):
        return True

    def wrong_key(self):
        return "Invalid API Key"

    def no_route(self, request, error):
        """How this service says 404 or 405 of a route."""

    def error(self, status, message, **more):
        """How this service says that it cannot."""
        return self.json({"error": message}, status)

    def json(self, value, status=200, headers=None):
        return web.Response(body=compact(value), status=status, content_type="application/json", headers=headers)

    # --------------------------------------------------------------------------------------------------- the work

    def work(self, handler):
        """A handler behind the traps of refusing: what a busy, dead or loading engine does."""

        async def gated(request):
            if self._once:
                self._active[asyncio.current_task()], self._once = self._once, {}
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            try:
                if self.trap("dead"):
                    await asyncio.Event().wait()
                if (loading := self.trap("loading")) is not None:
                    return self.loading(loading)
                if status := self.trap("status"):
                    headers = {}
                    if (after := self.trap("retry_after")) is not None:
                        headers["Retry-After"] = as_date(after)
                    if (after := self.trap("retry_after_ms")) is not None:
                        headers["retry-after-ms"] = str(after)
                    answer = self.error(status, self.trap("message") or self.says(status), code=self.trap("code"))
                    answer.headers.update(headers)
                    return answer
                return await handler(request)
            finally:
                self.running -= 1

        return gated

    def says(self, status):
        return {429: "rate limit exceeded", 503: "server busy, please try again"}.get(status, "internal error")

    def loading(self, progress):
        return self.error(503, "Loading model")

    async def paced(self, request, tokens):
        """The tokens, each at its time, through the traps of streams."""
        seen = request[SEEN]
        gaps = self.trap("gaps_s")
        wait = self.trap("first_token_s") or 0
        for index, piece in enumerate(tokens):
            if self.trap("error_after") == index:
                raise Broken(self.trap("message") or "llama runner process has terminated: exit status 2")
            if self.trap("cut_after") == index:
                raise Cut
            if self.trap("stall_after") == index:
                await asyncio.Event().wait()
            if self.trap("end_after") == index:
                raise Ended
            pause = gaps[index % len(gaps)] if gaps else self.delay_s
            if pause + wait:
                await asyncio.sleep(pause + wait)
            wait = 0
            seen.tokens += 1
            yield index, piece

    def plan(self, limit):
        """How many tokens it says, and why it stops."""
        if limit is not None and 0 <= limit < self.tokens:
            return limit, self.trap("finish") or "length"
        return self.tokens, self.trap("finish") or "stop"

    # ---------------------------------------------------------------------------------------------------- control

    async def _show(self, _):
        shown = [
            {"method": r.method, "path": r.path, "status": r.status, "cancelled": r.cancelled} for r in self.requests
        ]
        return self.json({"kind": self.kind, "traps": self._always, "requests": shown})

    async def _control(self, request):
        wanted = json.loads(await request.read())
        try:
            self.set(**wanted.get("set", {}))
            if "once" in wanted:
                self.once(**wanted["once"])
        except TypeError as error:
            return self.json({"error": str(error)}, 400)
        if wanted.get("calm"):
            self.calm()
        return self.json({"traps": self._always})


class DeadSocket:
    """Takes connections and whatever comes, and never says a thing."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = []
        self.connections = 0
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self.connections += 1

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for connection in self._open:
            connection.close()
