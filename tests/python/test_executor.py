"""grange.Executor keeps the promises of concurrent.futures.ProcessPoolExecutor that apply to a farm."""

import concurrent.futures
import operator
import os
import pickle
import threading
import time

import grange
import pytest


@pytest.fixture
def pool(farm):
    with grange.Executor(farm=farm) as pool:
        yield pool


def test_it_is_an_executor(pool):
    assert isinstance(pool, concurrent.futures.Executor)
    assert isinstance(pool.submit(abs, 1), concurrent.futures.Future)


def test_submit(pool):
    assert pool.submit(pow, 2, 8).result(30) == 256
    assert pool.submit(int, "ff", base=16).result(30) == 255


def test_keywords_are_the_functions(pool):
    def f(fn, self, timeout, retries):
        return fn, self, timeout, retries

    assert pool.submit(f, fn=1, self=2, timeout=3, retries=4).result(30) == (1, 2, 3, 4)
    with pytest.raises(TypeError):
        pool.submit()


def test_map(pool):
    assert list(pool.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(pool.map(pow, range(10), range(3))) == list(map(pow, range(10), range(3)))
    assert list(pool.map(abs)) == [] and list(pool.map(abs, [])) == []


@pytest.mark.parametrize("chunksize", [1, 3, 6, 50])
def test_map_with_chunksize(pool, chunksize):
    assert list(pool.map(pow, range(40), [2] * 40, chunksize=chunksize)) == [x * x for x in range(40)]


def test_a_chunksize_below_one(pool):
    with pytest.raises(ValueError):
        pool.map(pow, [2], [2], chunksize=0)


def test_map_reads_its_iterables_at_once(pool):
    numbers = iter(range(10))
    results = pool.map(abs, numbers)
    assert list(numbers) == []
    assert list(results) == list(range(10))


def test_a_maps_exception_comes_in_its_place(pool):
    results = pool.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert [next(results), next(results)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_maps_timeout(pool):
    got = []
    with pytest.raises(concurrent.futures.TimeoutError):
        for value in pool.map(time.sleep, [0, 0, 8], timeout=3):
            got.append(value)
    assert got == [None, None]


def test_exceptions_have_the_remote_traceback(pool):
    def fail():
        raise RuntimeError(123)

    future = pool.submit(fail)
    with pytest.raises(RuntimeError) as caught:
        future.result(30)
    assert caught.value.args == (123,)
    assert "in fail" in str(caught.value.__cause__)
    assert isinstance(future.exception(), RuntimeError)


def test_no_submit_after_shutdown(farm):
    pool = grange.Executor(farm=farm)
    pool.shutdown()
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(abs, 1)
    with pytest.raises(RuntimeError):
        pool.map(abs, [1])
    assert farm.submit(abs, -1).result(30) == 1  # the farm goes on


def test_shutdown_waits(farm, tmp_path):
    def work(i):
        time.sleep(0.3)
        (tmp_path / str(i)).touch()

    with grange.Executor(farm=farm) as pool:
        pool.submit(work, 1)
        pool.map(work, [2, 3])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "3"]


def test_shutdown_without_waiting(farm):
    pool = grange.Executor(farm=farm)
    future = pool.submit(time.sleep, 0.5)
    pool.shutdown(wait=False)
    assert future.result(30) is None


@pytest.mark.parametrize("limit", [None, 2])
def test_shutdown_and_cancel(farm, limit):
    with grange.Executor(limit, farm=farm) as pool:
        futures = [pool.submit(time.sleep, 1.0) for _ in range(20)]
        until(futures[0].running)
        pool.shutdown(cancel_futures=True)
    assert all(f.done() for f in futures)
    assert not futures[0].cancelled()
    assert sum(f.cancelled() for f in futures) >= 14


def test_cancel_pending_but_not_running(pool):
    futures = [pool.submit(time.sleep, 1.5) for _ in range(12)]
    until(futures[0].running)
    assert not futures[0].cancel()
    assert futures[-1].cancel() and futures[-1].cancelled()
    assert futures[0].result(30) is None
    with pytest.raises(concurrent.futures.CancelledError):
        futures[-1].result()
    for future in futures:
        future.cancel()


def test_wait_and_as_completed(pool):
    fast, slow = pool.submit(abs, -1), pool.submit(time.sleep, 2)
    done, rest = concurrent.futures.wait([fast, slow], return_when=concurrent.futures.FIRST_COMPLETED)
    assert (done, rest) == ({fast}, {slow})
    assert set(concurrent.futures.as_completed([fast, slow], timeout=30)) == {fast, slow}
    bad = pool.submit(operator.truediv, 1, 0)
    done, _ = concurrent.futures.wait([bad], return_when=concurrent.futures.FIRST_EXCEPTION)
    assert done == {bad}
    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([pool.submit(time.sleep, 1)], timeout=0.05))


def test_callbacks(pool):
    called = threading.Event()
    box = []

    def callback(future):
        box.append(future.result())
        called.set()
        raise Exception("in a callback: logged, and harms nothing")

    pool.submit(pow, 2, 5).add_done_callback(callback)
    assert called.wait(30) and box == [32]
    assert pool.submit(pow, 2, 6).result(30) == 64


def test_max_workers(farm, tmp_path):
    def work(i):
        (tmp_path / f"on-{i}").touch()
        time.sleep(0.2)
        busy = len(list(tmp_path.iterdir()))
        (tmp_path / f"on-{i}").unlink()
        return busy

    with grange.Executor(max_workers=1, farm=farm) as pool:
        assert list(pool.map(work, range(5))) == [1] * 5
        assert list(pool.map(work, range(4), chunksize=2)) == [1] * 4
    for bad in (0, -1):
        with pytest.raises(ValueError):
            grange.Executor(max_workers=bad, farm=farm)


def test_initializer(farm, tmp_path):
    def start(word):
        global started_with
        started_with = word
        (tmp_path / f"{os.getpid()}-{time.monotonic_ns()}").touch()

    def work(_):
        return started_with

    with grange.Executor(initializer=start, initargs=("hello",), farm=farm) as pool:
        assert list(pool.map(work, range(50))) == ["hello"] * 50
        assert pool.submit(work, 0).result(30) == "hello"
    pids = [p.name.partition("-")[0] for p in tmp_path.iterdir()]
    assert len(pids) == len(set(pids))
    with pytest.raises(TypeError):
        grange.Executor(initializer=1, farm=farm)


def test_a_failing_initializer(farm):
    def start():
        raise LookupError("no start")

    with grange.Executor(initializer=start, farm=farm) as pool, pytest.raises(LookupError, match="no start"):
        pool.submit(abs, 1).result(30)


def test_what_cannot_be_pickled(pool):
    with pytest.raises(pickle.PicklingError):
        pool.submit(id, threading.Lock())
    with pytest.raises(grange.TaskFailed, match="cannot be pickled"):
        pool.submit(threading.Lock).result(30)
    assert pool.submit(abs, -1).result(30) == 1


def test_a_death_harms_only_its_task(pool):
    died = pool.submit(os._exit, 1)
    assert pool.submit(abs, -1).result(55) == 1
    with pytest.raises(grange.TaskFailed):
        died.result(55)


def test_the_default_farm(default_url):
    with grange.Executor() as pool:
        assert list(pool.map(str, [1, 2])) == ["1", "2"]


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
