"""The executor, through its socketpair as a worker uses it."""

import hashlib
import json
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import time

import cloudpickle
import grange
import pytest


class Runner:
    def __init__(self):
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(20)
        env = {**os.environ, "GRANGE_EXECUTOR_FD": str(theirs.fileno())}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "grange.runner"],
            pass_fds=[theirs.fileno()],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.stream = self.sock.makefile("rb")
        kind, body = self.read()
        assert kind == 0
        self.ready = json.loads(body)

    def read(self):
        data = self.stream.read(*struct.unpack("<I", self.stream.read(4)))
        return data[0], data[1:]

    def write(self, kind, body=b""):
        self.sock.sendall(struct.pack("<IB", 1 + len(body), kind) + body)

    def code(self, function):
        data = function if isinstance(function, bytes) else cloudpickle.dumps(function)
        sha = hashlib.sha256(data).digest()
        self.write(1, sha + data)
        return sha

    def send(
        self,
        sha,
        args,
        task=7 << 32 | 3,
        attempt=1,
        state=None,
        encoding=2,
        inputs=(),
        env=(),
    ):
        kept = b"" if state is None else pickle.dumps(state)
        self.write(
            2,
            struct.pack(
                "<QIBB32sI", task, attempt, encoding, state is not None, sha, len(args)
            )
            + args
            + struct.pack("<I", len(kept))
            + kept
            + struct.pack("<H", 1)
            + b"7"
            + struct.pack("<I", len(inputs))
            + b"".join(
                struct.pack("<BI", how, len(data)) + data for how, data in inputs
            )
            + struct.pack("<I", len(env))
            + b"".join(struct.pack("<I", len(one)) + one.encode() for one in env),
        )

    def result(self, task=7 << 32 | 3, attempt=1):
        """(status, value bytes, message, traceback, messages before)"""
        before = []
        while True:
            kind, body = self.read()
            assert struct.unpack_from("<QI", body) == (task, attempt)
            if kind != 1:
                before.append((kind, body[12:]))
                continue
            status, at, fields = body[12], 13, []
            for _ in range(4):
                (n,) = struct.unpack_from("<I", body, at)
                fields.append(body[at + 4 : at + 4 + n])
                at += 4 + n
            assert at == len(body)
            self.exception = fields[3].decode()
            return status, fields[0], fields[1].decode(), fields[2].decode(), before

    def call(self, function, *args, **options):
        self.send(self.code(function), pickle.dumps((args, {})), **options)
        return self.result()

    def close(self):
        self.sock.close()
        self.stream.close()
        self.process.communicate(timeout=20)


@pytest.fixture
def runner():
    runner = Runner()
    yield runner
    runner.close()


def test_it_introduces_itself(runner):
    assert runner.ready == {
        "python": ".".join(map(str, sys.version_info[:3])),
        "pid": runner.process.pid,
    }


def test_a_result(runner):
    offset = 10
    status, value, message, traceback, _ = runner.call(lambda x: x + offset, 5)
    assert (status, pickle.loads(value), message, traceback) == (0, 15, "", "")


def test_many_tasks_in_one_write(runner):
    sha = runner.code(lambda x: x * x)
    for i in range(100):
        runner.send(sha, pickle.dumps(((i,), {})), task=i)
    assert [pickle.loads(runner.result(task=i)[1]) for i in range(100)] == [
        i * i for i in range(100)
    ]


def test_megabytes_both_ways(runner):
    data = os.urandom(20 << 20)
    status, value, *_ = runner.call(lambda b: b[::-1], data)
    assert status == 0 and pickle.loads(value) == data[::-1]
    assert pickle.loads(runner.call(lambda: 1)[1]) == 1


def test_an_exception_and_its_traceback(runner):
    class Odd(Exception):
        pass

    def fail():
        raise Odd("no\nluck")

    status, value, message, traceback, _ = runner.call(fail)
    assert status == 1 and message == "Odd: no luck"
    assert isinstance(
        pickle.loads(value), Odd
    )  # the very class: cloudpickle knows it again
    assert "in fail" in traceback and "grange/runner.py" not in traceback


def test_the_type_of_an_exception(runner):
    import decimal

    class Odd(Exception):
        pass

    def fail(error):
        raise error

    for error, name in [
        (ValueError("x"), "ValueError"),
        (decimal.InvalidOperation(), "decimal.InvalidOperation"),
        (json.JSONDecodeError("a", "b", 0), "json.decoder.JSONDecodeError"),
        (grange.PermanentError("x"), "grange.errors.PermanentError"),
    ]:
        assert runner.call(fail, error)[0] in (1, 4)
        assert runner.exception == name

    def odd():
        raise Odd()

    runner.call(odd)
    assert runner.exception.rpartition(".")[2] == "Odd"
    runner.call(abs, -1)
    assert runner.exception == ""


def raw(value):
    return 2, pickle.dumps(value)


def test_results_of_others_come_as_arguments(runner):
    from collections import namedtuple

    from grange._inputs import Input, Inputs

    Pair = namedtuple("Pair", "a b")
    inputs = [
        raw({"k": 1}),
        (1, b"text\xc3\xa4"),
        (1, b"\xff\xfe"),
        (3, b"[1, 2]"),
        raw(7),
    ]

    def work(first, *rest, **named):
        return first, rest, named

    shared = [Input(4)]
    args = (
        (
            Input(0),
            [Input(1), (Input(2), {"in": Input(3)})],
            {Input(4), 8},
            Inputs(3, 2),
            Pair(Input(4), 0),
            shared,
            shared,
        ),
        {"x": frozenset([Input(4)]), "y": Inputs(0, 0)},
    )
    runner.send(runner.code(work), cloudpickle.dumps(args), inputs=inputs)
    status, value, message, *_ = runner.result()
    assert (status, message) == (0, "")
    first, rest, named = pickle.loads(value)
    assert first == {"k": 1}
    assert rest[0] == ["text\u00e4", (b"\xff\xfe", {"in": [1, 2]})]
    assert (
        rest[1] == {7, 8}
        and rest[2] == [[1, 2], 7]
        and rest[3] == (7, 0)
        and rest[4] == rest[5] == [7]
    )
    assert rest[4] is rest[5]
    assert named == {"x": frozenset([7]), "y": []}


def test_results_of_others_after_json_arguments(runner):
    sha = runner.code(lambda *args: args)
    runner.send(sha, b"[1]", encoding=3, inputs=[raw(2), (3, b'"three"'), (1, b"4")])
    assert json.loads(runner.result()[1]) == [1, 2, "three", "4"]


def test_arguments_that_hold_themselves(runner):
    from grange._inputs import Input

    loop = [Input(0)]
    loop.append(loop)
    runner.send(
        runner.code(lambda x: (x[0], x[1] is x)),
        pickle.dumps(((loop,), {})),
        inputs=[raw(5)],
    )
    assert pickle.loads(runner.result()[1]) == (5, True)


def test_inputs_that_cannot_be_used_say_so(runner):
    from grange._inputs import Input

    sha = runner.code(lambda x: x)
    runner.send(sha, pickle.dumps(((Input(3),), {})), inputs=[raw(1)])
    status, _, message, *_ = runner.result()
    assert status == 1 and "input 3" in message and "handed 1" in message
    assert runner.exception == "grange._inputs.InputError"
    runner.send(sha, pickle.dumps(((Input(0),), {})), inputs=[(2, b"not a pickle")])
    status, _, message, *_ = runner.result()
    assert status == 1 and "input 0 cannot be loaded" in message
    runner.send(
        sha, pickle.dumps(((Input(0),), {})), inputs=[(2, b"cno_such_module\nx\n.")]
    )
    assert "no_such_module" in runner.result()[2]
    assert pickle.loads(runner.call(abs, -3)[1]) == 3


def test_settings_last_as_long_as_the_run(runner):
    def look():
        return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("LANG_OF_TEST")

    sha = runner.code(look)
    empty = pickle.dumps(((), {}))
    runner.send(sha, empty, env=["CUDA_VISIBLE_DEVICES=1,2", "LANG_OF_TEST=a=b"])
    assert pickle.loads(runner.result()[1]) == ("1,2", "a=b")
    runner.send(sha, empty)
    assert pickle.loads(runner.result()[1]) == (None, None)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_exits_belong_to_the_task(runner, error):
    def leave():
        raise error

    status, value, *_ = runner.call(leave)
    assert status == 1 and type(pickle.loads(value)) is type(error)
    assert pickle.loads(runner.call(lambda: "alive")[1]) == "alive"


def test_an_exception_that_cannot_be_pickled(runner):
    def fail():
        error = ValueError("text")
        error.lock = __import__("threading").Lock()
        raise error

    status, value, message, traceback, _ = runner.call(fail)
    assert (status, value, message) == (1, b"", "ValueError: text")
    assert "in fail" in traceback


def test_permanent(runner):
    def fail():
        raise grange.PermanentError("give up")

    assert runner.call(fail)[0] == 4


def test_a_result_that_cannot_be_pickled(runner):
    status, value, message, _, _ = runner.call(lambda: (i for i in range(3)))
    assert (status, value) == (2, b"") and "generator" in message
    assert pickle.loads(runner.call(lambda: 2)[1]) == 2


def test_code_that_does_not_load(runner):
    status, _, message, _, _ = runner.call(b"not a pickle")
    assert status == 3 and "cannot be loaded" in message
    status, _, message, _, _ = runner.call(b"\x80\x05cno_such_module_at_all\nf\n.")
    assert (
        status == 3 and "no_such_module_at_all" in message and sys.executable in message
    )


def test_code_that_was_not_sent(runner):
    runner.send(b"\1" * 32, b"")
    assert runner.result()[0] == 3


def test_it_keeps_the_64_last_used(runner):
    shas = [runner.code(cloudpickle.dumps(lambda i=i: i)) for i in range(64)]
    runner.send(shas[0], b"")  # now the most recently used
    assert pickle.loads(runner.result()[1]) == 0
    runner.code(lambda: "new")  # pushes out the second
    runner.send(shas[0], b"")
    assert pickle.loads(runner.result()[1]) == 0
    runner.send(shas[1], b"")
    assert runner.result()[0] == 3


def test_json(runner):
    sha = runner.code(lambda a, b=2: {"sum": a + b, "text": "\u00e4"})
    runner.send(sha, b"[1]", encoding=3)
    status, value, *_ = runner.result()
    assert status == 0 and json.loads(value) == {"sum": 3, "text": "\u00e4"}
    runner.send(sha, b'["x"]', encoding=3)
    status, value, message, *_ = runner.result()
    assert (status, value) == (1, b"") and message.startswith("TypeError")
    runner.send(runner.code(lambda: {1, 2}), b"[]", encoding=3)
    assert runner.result()[0] == 2


def test_output_is_flushed_before_the_result(runner):
    def talk():
        sys.stdout.write("out without end of line")
        sys.stderr.write("err")
        return sys.stdin.read()

    assert pickle.loads(runner.call(talk)[1]) == ""
    assert os.read(runner.process.stdout.fileno(), 100) == b"out without end of line"
    assert os.read(runner.process.stderr.fileno(), 100) == b"err"


def test_what_a_task_can_say(runner):
    def work():
        state = grange.restore()
        for i in range(100):
            grange.progress(i + 1, 100, "steps")
        grange.log("hello", 5)
        grange.checkpoint({"at": 50})
        return state, grange.restore(), grange.task_id(), grange.attempt()

    *_, before = result = runner.call(work, state=[1, 2], attempt=1)
    assert pickle.loads(result[1]) == ([1, 2], {"at": 50}, "7/3", 1)
    progress = [struct.unpack_from("<dd", body) for kind, body in before if kind == 2]
    assert progress[0] == (1, 100) and progress[-1] == (100, 100) and len(progress) < 50
    assert [body for kind, body in before if kind == 3] == [b"hello 5"]
    assert [pickle.loads(body) for kind, body in before if kind == 4] == [{"at": 50}]


def test_the_last_progress_is_sent_though_held_back(runner):
    def work():
        for i in range(50):
            grange.progress(i, 100)

    *_, before = runner.call(work)
    assert struct.unpack_from("<dd", before[-1][1]) == (49, 100)


def test_an_interrupt_between_tasks_does_nothing(runner):
    for number in range(20):
        runner.process.send_signal(signal.SIGINT)
        assert pickle.loads(runner.call(abs, -number)[1]) == number


def test_an_interrupt_ends_the_running_function(runner):
    def wait():
        grange.log("here")
        time.sleep(30)

    for _ in range(3):
        runner.send(runner.code(wait), pickle.dumps(((), {})))
        assert runner.read()[0] == 3
        runner.process.send_signal(signal.SIGINT)
        status, _, message, _, _ = runner.result()
        assert (status, message) == (1, "KeyboardInterrupt")


def test_an_interrupt_just_before_a_call_that_blocks_is_seen_later(runner):
    def interrupted_first():
        import ctypes
        import itertools
        import operator

        libc = ctypes.CDLL(None)
        # Python looks at its signals between its own instructions, and here it runs none.
        calls = [
            (libc.kill, os.getpid(), int(signal.SIGINT)),
            (libc.write, 1, b"sleeping\n", 9),
            (time.sleep, 30),
        ]
        list(itertools.starmap(operator.call, calls))

    runner.send(runner.code(interrupted_first), pickle.dumps(((), {})))
    assert runner.process.stdout.readline() == b"sleeping\n"
    seen, _, _ = select.select([runner.sock], [], [], 0.3)
    assert not seen, "it was seen at once: then this test shows nothing"
    runner.process.send_signal(signal.SIGURG)
    status, _, message, _, _ = runner.result()
    assert (status, message) == (1, "KeyboardInterrupt")
    assert pickle.loads(runner.call(abs, -7)[1]) == 7


def test_an_interrupt_does_not_tear_a_message(runner):
    def work():
        state = bytes(8 << 20)
        grange.log("here")
        while True:
            grange.checkpoint(state)

    runner.send(runner.code(work), pickle.dumps(((), {})))
    assert runner.read()[0] == 3
    time.sleep(0.2)  # it now waits in the middle of a message that nobody reads
    runner.process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    status, _, message, _, before = runner.result()
    assert (status, message) == (1, "KeyboardInterrupt")
    assert {(kind, len(body) >> 20) for kind, body in before} == {(4, 8)}
    assert pickle.loads(runner.call(abs, -7)[1]) == 7


def test_a_forked_child_has_the_usual_interrupt(runner):
    def fork():
        pid = os.fork()
        if pid == 0:
            os._exit(
                7
                if signal.getsignal(signal.SIGINT) is signal.default_int_handler
                else 8
            )
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert pickle.loads(runner.call(fork)[1]) == 7


def test_nothing_of_a_task_stays(runner):
    runner.call(lambda: grange.checkpoint(1), state=5)
    assert pickle.loads(runner.call(lambda: grange.restore("none"))[1]) == "none"


def test_a_forked_child_does_not_speak_for_the_task(runner):
    def work():
        pid = os.fork()
        if pid == 0:
            grange.progress(1, 1)
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    status, value, *_, before = runner.call(work)
    assert (status, pickle.loads(value), before) == (0, 0, [])


def test_exit(runner):
    runner.write(3)
    assert runner.process.wait(10) == 0


def test_it_leaves_when_the_worker_is_gone(runner):
    runner.call(
        lambda: (
            __import__("threading")
            .Thread(target=__import__("time").sleep, args=(60,))
            .start()
        )
    )
    runner.stream.close()
    runner.sock.close()
    assert runner.process.wait(10) == 0


def test_outside_of_a_task(capsys):
    grange.progress(1, 2)
    grange.log("to", "stderr")
    assert capsys.readouterr().err == "to stderr\n"
    assert grange.task_id() is None and grange.attempt() == 0
    assert grange.restore("first") == "first"
    grange.checkpoint([1])
    assert grange.restore() == [1]
