"""The executor: the process in which a worker runs Python functions, one task at a time.

A worker starts `python -m grange.runner` with a socketpair's descriptor in GRANGE_EXECUTOR_FD. Both ways a message is
`u32 length | u8 type | payload`, little-endian.

    worker -> executor
      1 CODE        sha256[32] | code
      2 RUN         u64 task | u32 attempt | u8 encoding (2 pickle, 3 JSON) | u8 has_checkpoint | sha256[32]
                    | u32 n | args[n] | u32 n | checkpoint[n] | u16 n | job_id[n]
                    | u32 n | n inputs: u8 encoding (1 raw, 2 pickle, 3 JSON) | u32 n | bytes[n]
                    | u32 n | n settings: u32 n | NAME=VALUE[n], in the environment while the function runs
      3 EXIT
    executor -> worker
      0 READY       JSON {"python", "pid"}
      1 RESULT      u64 task | u32 attempt | u8 status | u32 n | value[n] | u32 n | message[n] | u32 n | traceback[n]
                    | u32 n | type[n] of the exception
      2 PROGRESS    u64 task | u32 attempt | f64 done | f64 total | text
      3 LOG         u64 task | u32 attempt | text
      4 CHECKPOINT  u64 task | u32 attempt | pickle of the state

Status: 0 ok, 1 exception (value: the exception, pickled, or empty), 2 the result cannot be encoded, 3 the code cannot
be loaded, 4 PermanentError. Code is kept by its sha256 for the 64 most recently used (a CODE or a RUN is a use), so a
worker that keeps the same list knows what to send.

Start-up counts (a new executor is on the path of a task after a crash), hence the few imports here.
"""

import os
import socket
import struct
import sys
from _signal import SIGINT, SIGURG, default_int_handler, signal
from _thread import allocate_lock, get_ident

from grange import _task

_CODE_KEPT = 64
_MESSAGE_LIMIT = 4096  # bytes of the one-line message
_TYPE_LIMIT = 256  # bytes of an exception's type
_TRACEBACK_LIMIT = 60_000  # bytes; the middle is cut out of a longer one
_RUN = struct.Struct("<QIBB32sI")
_FENCE = struct.Struct("<IBQI")
_OK, _EXCEPTION, _BAD_RESULT, _BAD_CODE, _PERMANENT = range(5)


class _Runner:
    def __init__(self, sock):
        self.sock = sock
        self.pid = os.getpid()
        self.lock = allocate_lock()  # one message at a time: the user's threads may report too
        self.code = {}  # sha -> bytes (not loaded yet) or (function,); in order of use
        self.loads = None  # pickle.loads
        self.dumps = None
        self.main = get_ident()
        self.in_function = False  # the user's: only then does SIGINT, a polite stop, raise, and once
        self.sending = (
            False  # by this thread; half a message would end the executor, so an interrupt waits for the rest
        )
        self.interrupted = False

    def on_interrupt(self, *_):
        if not self.in_function:
            return
        if self.sending:
            self.interrupted = True
            return
        self.in_function = False
        raise KeyboardInterrupt

    # ------------------------------------------------------------------------------------------ out

    def send(self, parts):
        """One message from its parts, type byte first."""
        data = b"".join(parts)
        if os.getpid() != self.pid:  # a forked child of the task must not speak for it
            return
        if get_ident() != self.main:
            with self.lock:
                self.sock.sendall(data)
            return
        self.sending = True
        try:
            with self.lock:
                self.sock.sendall(data)
        finally:
            self.sending = False
            if self.interrupted:
                self.interrupted = False
                self.on_interrupt()

    def report(self, ctx, kind, body):
        if kind == 2:
            done, total, text = body
            body = struct.pack("<dd", done, total) + text.encode("utf-8", "replace")
        elif kind == 3:
            body = body.encode("utf-8", "replace")
        self.send((_FENCE.pack(13 + len(body), kind, ctx.task, ctx.attempt), body))

    def result(self, task, attempt, status, value=b"", message="", traceback="", exception=""):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass  # closed or replaced by the task
        text = message.encode("utf-8", "replace")[:_MESSAGE_LIMIT]
        trace = traceback.encode("utf-8", "replace")
        if len(trace) > _TRACEBACK_LIMIT:
            half = _TRACEBACK_LIMIT // 2
            trace = trace[:half] + b"\n  ... cut ...\n" + trace[-half:]
        kind = exception.encode("utf-8", "replace")[:_TYPE_LIMIT]
        head = _FENCE.pack(30 + len(value) + len(text) + len(trace) + len(kind), 1, task, attempt)
        self.send(
            (
                head,
                b"%c" % status,
                struct.pack("<I", len(value)),
                value,
                struct.pack("<I", len(text)),
                text,
                struct.pack("<I", len(trace)),
                trace,
                struct.pack("<I", len(kind)),
                kind,
            )
        )

    # ------------------------------------------------------------------------------------------ in

    def serve(self):
        """Read and obey until EXIT or until the worker is gone."""
        buf = bytearray(1 << 16)
        start = end = 0
        while True:
            while end - start < 4 or end - start < 4 + (size := int.from_bytes(buf[start : start + 4], "little")):
                need = 4 if end - start < 4 else 4 + size
                if start + need > len(buf):  # no room behind: move to the front, in a bigger buffer if it must be
                    fresh = bytearray(max(1 << 16, need))
                    fresh[: end - start] = memoryview(buf)[start:end]
                    buf, start, end = fresh, 0, end - start
                count = self.sock.recv_into(memoryview(buf)[end:])
                if count == 0:
                    return
                end += count
            kind = buf[start + 4]
            body = memoryview(buf)[start + 5 : start + 4 + size]
            if kind == 2:
                self.run(body)
            elif kind == 1:
                self.keep(bytes(body[:32]), bytes(body[32:]))
            elif kind == 3:
                return
            body.release()
            start += 4 + size
            if start == end:
                start = end = 0
                if len(buf) > 1 << 20:
                    buf = bytearray(1 << 16)

    def keep(self, sha, code):
        self.code.pop(sha, None)
        self.code[sha] = code
        if len(self.code) > _CODE_KEPT:
            del self.code[next(iter(self.code))]

    def run(self, body):
        task, attempt, encoding, has_checkpoint, sha, args_len = _RUN.unpack_from(body)
        at = _RUN.size
        args = body[at : at + args_len]
        at += args_len
        (state_len,) = struct.unpack_from("<I", body, at)
        state = bytes(body[at + 4 : at + 4 + state_len]) if has_checkpoint else None
        at += 4 + state_len
        (id_len,) = struct.unpack_from("<H", body, at)
        job_id = str(body[at + 2 : at + 2 + id_len], "utf-8", "replace")
        inputs, settings = _extras(body, at + 2 + id_len)

        ctx = _task.Context(task, attempt, job_id, state, None)
        ctx.send = lambda kind, message: self.report(ctx, kind, message)
        _task.current = ctx
        try:
            before = _set_environment(settings) if settings else None
            try:
                outcome = self.call(sha, encoding, args, inputs)
            finally:
                if before is not None:
                    _restore_environment(before)
        finally:
            args.release()
        try:
            ctx.flush_progress()
        finally:
            _task.current = None
        self.result(task, attempt, *outcome)

    def call(self, sha, encoding, args, inputs=()):
        """Run the function; the arguments of `result` that follow the fence."""
        try:
            function = self.load(sha)
            values, named = self.arguments(encoding, args)
        except BaseException as error:
            self.code.pop(sha, None)  # the worker forgets it as well, and sends it again with the next task
            return _BAD_CODE, b"", _load_message(error), _trace(error)
        if inputs:
            try:
                values, named = self.fill(encoding, inputs, values, named)
            except BaseException as error:
                return self.failure(error, encoding)
        try:
            try:
                self.in_function = True
                value = function(*values, **named)
            finally:
                self.in_function = False
                signal(SIGINT, self.on_interrupt)  # the function may have put its own
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: they are the task's, not ours
            return self.failure(error, encoding)
        finally:
            del values, named
        try:
            if encoding == 3:
                import json

                return _OK, json.dumps(value, separators=(",", ":")).encode()
            return _OK, self.dumps(value)
        except BaseException as error:
            how = "written as JSON" if encoding == 3 else "pickled"
            kind = type(value).__name__
            return (
                _BAD_RESULT,
                b"",
                _one_line(f"the result, a value of type {kind}, cannot be {how}: {type(error).__name__}: {error}"),
                _trace(error),
            )

    def load(self, sha):
        held = self.code.pop(sha, None)
        if held is None:
            raise LookupError(f"the executor does not have code {sha.hex()}")
        self.code[sha] = held  # now the most recently used
        if type(held) is not tuple:
            held = self.code[sha] = (self.loads(held),)
        return held[0]

    def arguments(self, encoding, args):
        if encoding == 3:
            import json

            values = json.loads(bytes(args)) if len(args) else []
            return (values if isinstance(values, list) else [values]), {}
        return self.loads(args) if len(args) else ((), {})

    def fill(self, encoding, inputs, values, named):
        """The results of other tasks, put into the arguments; with JSON they come after the others."""
        from grange._inputs import Filler

        filler = Filler(inputs, self.loads)
        if encoding == 3:
            return [*values, *filler.all()], named
        return filler.fill(tuple(values)), filler.fill(dict(named))

    def failure(self, error, encoding):
        from grange.errors import PermanentError

        status = _PERMANENT if isinstance(error, PermanentError) else _EXCEPTION
        text = _one_line(f"{type(error).__name__}: {_str(error)}".removesuffix(": "))
        trace = _trace(error)
        value = b""
        if encoding != 3:
            try:
                from grange._pickling import dumps_by_value

                value = dumps_by_value(error)
            except BaseException:
                pass  # the message and the traceback must do
        return status, value, text, trace, _type_name(error)


def _extras(body, at):
    """The inputs, as (encoding, bytes), and the settings that follow the job's id."""
    inputs, settings = [], []
    (count,) = struct.unpack_from("<I", body, at)
    at += 4
    for _ in range(count):
        encoding, size = struct.unpack_from("<BI", body, at)
        inputs.append((encoding, bytes(body[at + 5 : at + 5 + size])))
        at += 5 + size
    (count,) = struct.unpack_from("<I", body, at)
    at += 4
    for _ in range(count):
        (size,) = struct.unpack_from("<I", body, at)
        name, _, value = str(body[at + 4 : at + 4 + size], "utf-8", "replace").partition("=")
        settings.append((name, value))
        at += 4 + size
    return inputs, settings


def _set_environment(settings):
    before = [(name, os.environ.get(name)) for name, _ in settings]
    for name, value in settings:
        os.environ[name] = value
    return before


def _restore_environment(before):
    for name, value in before:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _type_name(error):
    kind = type(error)
    module = getattr(kind, "__module__", None)
    name = getattr(kind, "__qualname__", kind.__name__)
    return name if module in (None, "builtins") else f"{module}.{name}"


def _str(error):
    try:
        return str(error)
    except BaseException:
        return "(no text: its __str__ failed)"


def _one_line(text):
    return " ".join(text.split())


def _load_message(error):
    text = f"{type(error).__name__}: {_str(error)}"
    if isinstance(error, ModuleNotFoundError):
        text += f" (install it for this worker's Python: {sys.executable})"
    return _one_line("the function or its arguments cannot be loaded: " + text)


def _trace(error):
    import traceback

    try:
        tb = error.__traceback__
        return "".join(traceback.format_exception(type(error), error, tb.tb_next if tb else None))
    except BaseException:
        return ""


def main():
    """Serve the worker on GRANGE_EXECUTOR_FD until it says EXIT or goes away."""
    sock = socket.socket(fileno=int(os.environ.pop("GRANGE_EXECUTOR_FD")))
    sock.setblocking(True)
    sock.set_inheritable(False)
    runner = _Runner(sock)
    signal(SIGINT, runner.on_interrupt)
    signal(SIGURG, lambda *_: None)  # ends a call that blocks, so that a SIGINT which came just before it is seen
    version = ".".join(map(str, sys.version_info[:3]))
    ready = f'{{"python": "{version}", "pid": {os.getpid()}}}'.encode()
    runner.send((struct.pack("<IB", 1 + len(ready), 0), ready))

    # While the worker reads that: what the first task will need.
    import pickle

    try:
        import cloudpickle  # noqa: F401
    except ImportError:
        pass
    from grange._pickling import dumps

    runner.loads, runner.dumps = pickle.loads, dumps
    sys.modules["__main__"] = type(sys)("__main__")  # the user's __main__ is not this program
    os.register_at_fork(after_in_child=_after_fork)
    try:
        sys.stdout.reconfigure(line_buffering=True)  # output is followed live
    except AttributeError:
        pass
    try:
        runner.serve()
    except (ConnectionError, BrokenPipeError):
        pass
    _leave()


def _after_fork():
    _task.current = None
    signal(SIGINT, default_int_handler)


def _leave():
    """End now: threads that a task left behind must not keep the process."""
    import atexit

    try:
        atexit._run_exitfuncs()
    except BaseException:
        pass
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    os._exit(0)


if __name__ == "__main__":
    main()
