"""Time limits of a map and of its tasks, ids at once after a submit, and named code, on a real farm."""

import operator
import threading
import time
import uuid

import grange
import pytest


@pytest.mark.parametrize("timeout", [0.5, "500ms"])
def test_the_timeout_of_a_map_is_of_the_whole_call(farm, timeout):
    with pytest.raises(TimeoutError, match=r"after 0.5 s"):
        farm.map(time.sleep, [30] * 3, timeout=timeout)
    assert farm.map(abs, [-1, -2], timeout="10m") == [1, 2]
    with pytest.raises(ValueError, match="timeout must be a number of seconds"):
        farm.map(abs, [1], timeout="soon")
    with pytest.raises(ValueError, match="more than 0"):
        farm.map(abs, [1], timeout=0)


def test_the_time_limit_of_each_task_of_a_map(farm):
    @grange.task(timeout="300ms")
    def limited(seconds):
        time.sleep(seconds)

    for call in (
        lambda: farm.map(limited, [30]),
        lambda: farm.options(timeout="300ms").map(time.sleep, [30]),
        lambda: list(farm.imap(time.sleep, [30], timeout="300ms")),
    ):
        with pytest.raises(grange.TimeLimitExceeded):
            call()


def test_ids_are_there_after_submit(farm):
    for i in range(20):
        future = farm.submit(abs, -i)
        assert future.task_id.startswith(future.job_id + "/")
        assert farm.job(future.job_id).id == future.job_id
        assert future.result(30) == i


def test_ids_of_what_was_refused_or_never_sent(farm, monkeypatch):
    refused = farm.submit(farm.model("never/published"), 1)
    assert refused.job_id is None and refused.task_id is None
    monkeypatch.setattr("grange.futures._PLACE_WAIT", 0.05)
    with grange.Executor(max_workers=1, farm=farm) as executor:
        running = executor.submit(time.sleep, 0.5)
        waiting = executor.submit(abs, -1)
        assert running.job_id is not None and waiting.job_id is None
        assert waiting.result(30) == 1 and waiting.job_id is not None


def test_ids_in_a_done_callback(farm):
    seen, called = [], threading.Event()
    future = farm.submit(time.sleep, 0.2)

    def done(future):
        seen.append(future.task_id)
        called.set()

    future.add_done_callback(done)
    future.result(30)
    assert called.wait(5) and seen == [future.task_id] != [None]


@pytest.fixture
def name():
    return f"model-{uuid.uuid4().hex[:8]}"


def test_named_code(farm, name):
    def scale(x, by=10):
        return x * by

    one = farm.publish(name, 1, scale)
    farm.publish(name, 1, scale)  # the same again
    two = farm.publish(name, "2", grange.task(retries=1)(operator.neg))
    assert (one.ref, repr(two)) == (f"{name}/1", f"<grange.Model {name}/2>")
    again = farm.model(f"{name}/1")
    futures = [farm.submit(again, 4), again.submit(4, by=2), farm.submit(two, 4, retries=1)]
    assert [f.result(30) for f in futures] == [40, 8, -4]
    assert farm.map(two, range(5)) == [0, -1, -2, -3, -4]
    assert again.map([1, 2], [3, 4]) == [3, 8]
    assert list(again.imap([1, 2])) == [10, 20] and sorted(again.imap_unordered([2, 1])) == [10, 20]
    with grange.Executor(farm=farm) as executor:
        assert executor.submit(again, 7).result(30) == 70
    assert farm.jobs(limit=1)[0].info()["name"] == f"{name}/1"


def test_what_named_code_refuses(farm, name):
    model = farm.publish(name, 1, abs)
    with pytest.raises(grange.GrangeError, match=name) as caught:
        farm.publish(name, 1, operator.neg)
    assert caught.value.code == "conflict"
    missing = farm.model(f"{name}/7")
    for call in (lambda: missing.submit(1).result(30), lambda: missing.map([1])):
        with pytest.raises(grange.GrangeError, match=f"{name}/7") as caught:
            call()
        assert caught.value.code == "not_found"
    with pytest.raises(ValueError, match="in chunks"):
        model.map([1], chunksize=2)
    with pytest.raises(ValueError, match="initializer"):
        grange.Executor(farm=farm, initializer=print).submit(model, 1)
    with pytest.raises(TypeError, match="publish the function"):
        farm.publish(name, 2, model)
    for ref in ("", "name", "name/", "/1", "a/b/c"):
        with pytest.raises(ValueError, match="name/version"):
            farm.model(ref)
