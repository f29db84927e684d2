"""The client on a real farm."""

import concurrent.futures
import functools
import itertools
import operator
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import grange
import pytest
from farm_process import FarmProcess


def test_map_keeps_order(farm):
    assert farm.map(lambda x: x * x, range(500)) == [x * x for x in range(500)]


def test_map_of_nothing(farm):
    assert farm.map(abs, []) == []


def test_map_of_several_iterables(farm):
    assert farm.map(lambda a, b: a - b, [5, 6, 7], (1, 2)) == [4, 4]


@pytest.mark.parametrize("chunksize", [1, 3, 100, 1000])
def test_map_in_chunks(farm, chunksize):
    assert farm.map(operator.neg, range(100), chunksize=chunksize) == [-x for x in range(100)]


def test_map_of_a_generator(farm):
    assert farm.map(str, (x for x in range(250))) == [str(x) for x in range(250)]


def test_closures_lambdas_partials_and_methods(farm):
    offset = 100

    class Scale:
        def __init__(self, by):
            self.by = by

        def __call__(self, x):
            return x * self.by

        def add(self, x):
            return x + self.by

    def outer(x):
        def inner():
            return x + offset

        return inner()

    assert farm.map(outer, [1, 2]) == [101, 102]
    assert farm.map(Scale(3), [1, 2]) == [3, 6]
    assert farm.map(Scale(3).add, [1, 2]) == [4, 5]
    assert farm.map(functools.partial(pow, 2), [3, 4]) == [8, 16]
    back = farm.submit(lambda x: Scale(x), 4).result(30)
    assert isinstance(back, Scale) and back.by == 4


def test_a_function_is_sent_as_it_is_at_the_call(farm):
    step = 1

    def add(x):
        return x + step

    first = farm.submit(add, 1)
    step = 10
    assert (first.result(30), farm.submit(add, 1).result(30)) == (2, 11)


def test_interactive_functions(server):
    """A program on stdin has a __main__ without a file, as in an interactive session."""
    program = """
        import grange
        class Point:
            def __init__(self, x): self.x = x
        def helper(x): return Point(x * 2)
        def f(p): return helper(p.x)
        farm = grange.connect()
        points = farm.map(f, [Point(1), Point(2)])
        assert all(type(p) is Point for p in points), points
        print([p.x for p in points])
    """
    done = subprocess.run(
        [sys.executable, "-"],
        input=textwrap.dedent(program),
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "GRANGE_URL": server.url},
    )
    assert (done.stdout, done.returncode) == ("[2, 4]\n", 0), done.stderr


def test_exceptions_come_with_the_remote_traceback(farm):
    class Odd(Exception):
        pass

    def deep(x):
        if x == 3:
            raise Odd("three", x)
        return x

    with pytest.raises(Odd) as caught:
        farm.map(deep, range(10))
    assert caught.value.args == ("three", 3)
    assert "in deep" in str(caught.value.__cause__)
    with pytest.raises(Odd):
        farm.submit(deep, 3).result(30)
    assert isinstance(farm.submit(deep, 3).exception(30), Odd)


def test_exits_are_exceptions_of_the_task(farm):
    with pytest.raises(SystemExit):
        farm.submit(sys.exit, 3).result(30)


def test_an_exception_that_cannot_be_rebuilt(farm):
    class Picky(Exception):
        def __init__(self, a, b):
            super().__init__("only text")

    def fail():
        raise Picky(1, 2)

    with pytest.raises(grange.TaskFailed, match="Picky: only text") as caught:
        farm.submit(fail).result(30)
    assert "in fail" in str(caught.value.__cause__) and caught.value.task_id


def test_permanent_errors_are_not_retried(farm, tmp_path):
    def fail(folder):
        (folder / f"attempt-{grange.attempt()}").touch()
        raise grange.PermanentError("no use")

    with pytest.raises(grange.PermanentError, match="no use"):
        farm.submit(fail, tmp_path, retries=5).result(30)
    assert [p.name for p in tmp_path.iterdir()] == ["attempt-1"]


def test_retries(farm):
    def flaky():
        if grange.attempt() < 2:
            raise OSError("not yet")
        return grange.attempt()

    assert farm.submit(flaky, retries=1).result(30) == 2
    with pytest.raises(OSError):
        farm.submit(flaky).result(30)
    assert farm.options(retries=1).map(lambda _: flaky(), [0]) == [2]


def test_reserved_names_belong_to_the_function_that_has_them(farm):
    def f(x, timeout=5):
        return x, timeout

    assert farm.submit(f, 1, timeout=7, retries=1).result(30) == (1, 7)
    with pytest.raises(ValueError, match="retries"):
        farm.submit(f, 1, retries=-1)
    with pytest.raises(TypeError, match="unknown option colour"):
        farm.map(f, [1], colour="red")


def test_a_decorated_task(default_url):
    @grange.task(retries=1, cpus=1, memory="64MiB", timeout=30)
    def triple(x):
        "Three times."
        return 3 * x

    assert triple(2) == 6 and triple.__doc__ == "Three times."
    assert triple.submit(5).result(30) == 15
    assert triple.map([1, 2]) == [3, 6]
    assert list(triple.imap([1, 2])) == [3, 6]
    assert grange.default_farm().submit(triple, 4).result(30) == 12


def test_a_recursive_task(default_url):
    @grange.task
    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    assert factorial.submit(10).result(30) == 3628800


def test_time_limits(farm):
    with pytest.raises(grange.TimeLimitExceeded):
        farm.submit(time.sleep, 50, timeout=0.3).result(40)


def test_result_timeout(farm):
    future = farm.submit(time.sleep, 30)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.05)
    assert future.cancel()


def test_map_timeout_cancels_the_rest(farm):
    with pytest.raises(TimeoutError):
        farm.map(time.sleep, [0] + [30] * 5, timeout=1)
    job = farm.jobs(limit=1)[0]
    assert job.wait(20)["status"] == "cancelled"


def test_a_failed_map_cancels_the_rest(farm):
    def work(x):
        if x == 0:
            raise ValueError("first")
        time.sleep(30)

    with pytest.raises(ValueError):
        farm.map(work, range(10))
    assert farm.jobs(limit=1)[0].wait(20)["cancelled_tasks"] >= 8


def test_cancel_a_running_task(farm, tmp_path):
    def work(path):
        path.touch()
        time.sleep(60)

    future = farm.submit(work, tmp_path / "started")
    until(lambda: (tmp_path / "started").exists())
    assert future.cancel() and future.cancelled() and future.done()
    with pytest.raises(grange.TaskCancelled):
        future.result()
    with pytest.raises(concurrent.futures.CancelledError):
        future.exception()
    assert grange.wait([future]).done == {future}
    assert farm.submit(abs, -1).result(30) == 1  # its executor is free again
    assert farm.job(future.job_id).wait(20)["cancelled_tasks"] == 1


def test_cancel_what_is_done(farm):
    future = farm.submit(abs, -1)
    future.result(30)
    assert not future.cancel() and not future.cancelled()


def test_cancel_from_elsewhere(farm):
    future = farm.submit(time.sleep, 60)
    until(lambda: future.job_id)
    farm.job(future.job_id).cancel()
    with pytest.raises(grange.TaskCancelled):
        future.result(30)
    assert future.cancelled()


def test_as_completed_and_callbacks(farm):
    called = threading.Event()
    slow, fast = farm.submit(time.sleep, 1.5), farm.submit(abs, -1)
    fast.add_done_callback(lambda f: called.set())
    assert next(iter(grange.as_completed([slow, fast], timeout=30))) is fast
    assert called.wait(5)
    assert list(concurrent.futures.as_completed([slow, fast], timeout=30))[-1] is slow
    done, rest = grange.wait([slow, fast], timeout=30)
    assert done == {slow, fast} and not rest


def test_many_small_submits(farm):
    futures = [farm.submit(operator.neg, i) for i in range(2000)]
    assert [f.result(50) for f in futures] == [-i for i in range(2000)]
    assert len({f.task_id for f in futures}) == 2000


def test_submits_from_many_threads(farm):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda i: farm.submit(operator.neg, i).result(50), range(200)))
    assert got == [-i for i in range(200)]


def test_imap_is_lazy_and_in_order(farm):
    iterator = farm.imap(operator.neg, itertools.count())
    assert list(itertools.islice(iterator, 300)) == [-x for x in range(300)]
    iterator.close()
    assert list(farm.imap(abs, [-1, -2, -3], chunksize=2)) == [1, 2, 3]


def test_imap_unordered(farm):
    assert sorted(farm.imap_unordered(abs, range(-100, 0))) == list(range(1, 101))
    assert sorted(farm.imap_unordered(abs, range(-10, 0), chunksize=4)) == list(range(1, 11))


def test_imap_raises_where_the_failure_is(farm):
    iterator = farm.imap(lambda x: 1 // x, [1, 1, 0, 1])
    assert [next(iterator), next(iterator)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(iterator)


def test_a_generator_that_raises(farm):
    def numbers():
        yield 1
        raise LookupError("in the generator")

    with pytest.raises(LookupError, match="in the generator"):
        farm.map(abs, numbers())


@pytest.mark.parametrize("size", [1 << 20, 50 << 20])
def test_big_arguments_and_results(farm, size):
    data = os.urandom(1 << 16) * (size >> 16)
    assert farm.submit(lambda b: b[::-1], data).result(55) == data[::-1]


def test_big_captured_data_goes_once(farm):
    table = os.urandom(5 << 20)
    assert farm.map(lambda i: table[i], range(200)) == list(table[:200])


def test_progress_log_checkpoint_restore(farm, tmp_path):
    def work(flag):
        state = grange.restore()
        grange.log("attempt", grange.attempt(), "found", state)
        if state is None:
            grange.checkpoint({"at": 7})
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        grange.progress(1, 4, "a quarter")
        until = time.monotonic() + 30
        while not flag.exists() and time.monotonic() < until:
            time.sleep(0.02)
        return state

    flag = tmp_path / "go"
    future = farm.submit(work, flag, retries=1)
    flag.touch()
    assert future.result(50) == {"at": 7}
    job = farm.job(future.job_id)
    lines = [entry["text"].strip() for entry in job.logs() if entry["stream"] == "log"]
    assert lines == ["attempt 1 found None", "attempt 2 found {'at': 7}"]


def test_a_task_lost_with_its_worker_resumes_from_its_checkpoint(tmp_path):
    def work(folder):
        state = grange.restore()
        if state is None:
            grange.checkpoint({"at": 7})
            grange.log("kept")
            (folder / "pid").write_text(str(os.getpid()))
            time.sleep(60)
        return state

    def worker_of(pid, workers):
        while pid > 1 and pid not in workers:
            with open(f"/proc/{pid}/stat") as stat:
                pid = int(stat.read().rsplit(")", 1)[1].split()[1])
        assert pid in workers
        return pid

    server = FarmProcess(tmp_path, "--workers", "2", "--slots", "1")
    try:
        with grange.connect(server.url) as farm:
            future = farm.submit(work, tmp_path)
            until = time.monotonic() + 20
            while not (future.job_id and [e for e in farm.job(future.job_id).logs() if e["text"].strip() == "kept"]):
                assert time.monotonic() < until, "the task did not keep its state"
                time.sleep(0.05)
            pid = int((tmp_path / "pid").read_text())
            os.kill(worker_of(pid, server.ready["workers"]), signal.SIGKILL)
            assert future.result(50) == {"at": 7}
            said = [e for e in farm.job(future.job_id).logs() if e["stream"] == "system"]
            text = "attempt 2 resumes from the checkpoint of an earlier attempt"
            assert [(e["attempt"], e["text"].strip()) for e in said] == [(2, text)]
    finally:
        server.stop()


def test_a_task_that_kills_its_process(farm):
    with pytest.raises(grange.TaskFailed):
        farm.submit(os._exit, 3).result(55)
    assert farm.map(abs, range(20)) == list(range(20))


def test_a_process_that_dies_once_is_tried_again(farm, tmp_path):
    def work(mark):
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "second try"

    assert farm.submit(work, tmp_path / "mark", retries=1).result(50) == "second try"


def test_interrupting_a_map_cancels_it(server, farm):
    code = (
        "import grange, time; print('on', flush=True); grange.connect().map(time.sleep, [60] * 5, name='interrupted')"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "GRANGE_URL": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "on\n"
    # Once it runs, the program waits for results; before, an interrupt could meet it anywhere.

    def running(job):
        return (job.info()["name"], job.info()["status"]) == ("interrupted", "running")

    until(lambda: any(running(job) for job in farm.jobs(limit=5)))
    time.sleep(0.2)
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    job = next(job for job in farm.jobs(limit=5) if job.info()["name"] == "interrupted")
    assert job.wait(20)["status"] == "cancelled"


def test_a_progress_bar(farm, capsys):
    farm.map(time.sleep, [0.05] * 8, progress=True)
    assert "8/8" in capsys.readouterr().err
    farm.map(abs, range(3))
    assert capsys.readouterr().err == ""


def test_what_cannot_be_pickled(farm):
    lock = threading.Lock()
    with pytest.raises((pickle.PicklingError, TypeError), match="the function .*cannot be pickled"):
        farm.submit(lambda: lock)
    with pytest.raises((pickle.PicklingError, TypeError), match="argument 2, a value of type lock, cannot be pickled"):
        farm.submit(pow, 1, lock)
    with pytest.raises((pickle.PicklingError, TypeError), match="argument 'mod', a value of type lock"):
        farm.submit(pow, 1, mod=lock)
    with pytest.raises((pickle.PicklingError, TypeError), match="argument 1"):
        farm.map(abs, [1, lock])
    bad, good = farm.submit(threading.Lock), farm.submit(abs, -1)
    with pytest.raises(grange.TaskFailed, match="lock.*cannot be pickled"):
        bad.result(30)
    assert good.result(30) == 1


def test_a_module_that_the_worker_has_not(farm, tmp_path, monkeypatch):
    (tmp_path / "only_here_module.py").write_text("def f(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here_module

    with pytest.raises(grange.TaskFailed, match="only_here_module"):
        farm.submit(only_here_module.f, 1).result(30)


def test_jobs_seen_from_outside(server, farm):
    def f(x):
        if x == 2:
            raise ValueError("two")
        return x * 10

    future = farm.submit(f, 1, name="a name")
    future.result(30)
    job = farm.job(future.job_id)
    assert job.info()["name"] == "a name"
    assert job.wait(10)["status"] == "completed"
    assert dict(job.results())[int(future.task_id.partition("/")[2])] == 10
    failed = farm.submit(f, 2)
    failed.exception(30)
    with grange.connect(server.url) as other:
        _, error = next(iter(other.job(failed.job_id).results()))
    assert isinstance(error, ValueError) and "in f" in str(error.__cause__)
    assert job.id in [j.id for j in farm.jobs()]
    assert farm.stats()["slots"] == 2 and len(farm.workers()) >= 1
    with pytest.raises(grange.GrangeError) as caught:
        farm.job("no-such-job")
    assert caught.value.code == "not_found"


def test_fork(farm):
    assert farm.submit(abs, -1).result(30) == 1
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, repr(farm.map(abs, [-2, -3])).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as pipe:
        assert pipe.read() == "[2, 3]"
    os.waitpid(pid, 0)
    assert farm.submit(abs, -4).result(30) == 4


def test_closing_leaves_no_thread_and_no_descriptor(server):
    def once():
        with grange.connect(server.url) as farm:
            farm.map(abs, range(5))
            farm.submit(lambda b: b, b"x" * 400_000).result(30)

    once()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        once()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_closed_farm_says_so(server):
    farm = grange.connect(server.url)
    waiting = farm.submit(time.sleep, 2)
    farm.close()
    with pytest.raises(grange.ConnectionError):
        waiting.result(10)
    with pytest.raises(grange.ConnectionError):
        farm.submit(abs, 1).result(10)


def test_no_server(monkeypatch):
    monkeypatch.delenv("GRANGE_URL", raising=False)
    with pytest.raises(grange.ConnectionError, match="grange up"):
        grange.connect("http://127.0.0.1:1")
    with pytest.raises(ConnectionError):
        grange.connect("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="must look like"):
        grange.connect("127.0.0.1:8000")


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
