"""Futures as arguments, maps over maps, maps that grow: on a small server of ours, and on a real farm."""

import collections
import operator
import pickle
import threading
import time

import grange
import pytest
from fake_farm import FakeFarm


@pytest.fixture
def fake():
    fake = FakeFarm(2)
    yield fake
    fake.close()


@pytest.fixture(params=["fake", "real"])
def farm(request):
    url = request.getfixturevalue("fake" if request.param == "fake" else "server").url
    with grange.connect(url) as farm:
        yield farm


@pytest.fixture
def of_fake(fake):
    with grange.connect(fake.url) as farm:
        yield farm


def fail(*_):
    raise ValueError("no")


def test_a_future_as_an_argument(farm):
    six = farm.submit(operator.mul, 2, 3)
    assert farm.submit(operator.add, six, 1).result(30) == 7
    assert farm.submit(lambda x, *, by: x * by, 2, by=six).result(30) == 12


def test_a_chain_is_submitted_without_waiting(farm):
    future = farm.submit(operator.add, 0, 1)
    for _ in range(20):
        future = farm.submit(operator.add, future, 1)
    assert future.result(60) == 21


def test_futures_at_any_depth(farm):
    Pair = collections.namedtuple("Pair", "a b")
    one, two = farm.submit(abs, -1), farm.submit(abs, -2)

    def f(nested, pair, known):
        return nested, tuple(pair), known

    nested = [one, {"two": (two, {1: [two]})}, "text"]
    assert farm.submit(f, nested, Pair(one, two), {one, 5}).result(30) == (
        [1, {"two": (2, {1: [2]})}, "text"],
        (1, 2),
        {1, 5},
    )
    assert nested[0] is one, "the caller's own list is left alone"


def test_the_same_future_twice_is_one_dependency(farm):
    twin = farm.submit(lambda: [1])

    def same(a, b):
        return a is b

    assert farm.submit(same, twin, twin).result(30) is True


def test_big_results_go_on_as_blobs(farm):
    big = farm.submit(bytes, 1_000_000)
    assert farm.submit(len, big).result(30) == 1_000_000


def test_a_parent_that_has_ended_long_ago(farm):
    done = farm.submit(abs, -5)
    assert done.result(30) == 5
    assert farm.submit(operator.neg, done).result(30) == -5


def test_a_parent_that_failed_fails_its_children(farm):
    bad = farm.submit(fail)
    child = farm.submit(abs, bad)
    grandchild = farm.submit(abs, child)
    with pytest.raises(grange.DependencyError) as caught:
        grandchild.result(30)
    assert isinstance(caught.value, grange.TaskFailed)
    with pytest.raises(grange.DependencyError) as caught:
        child.result(30)
    assert caught.value.parents == [bad.task_id] and bad.task_id in str(caught.value)
    assert caught.value.fault == "job"


def test_a_parent_that_was_refused(farm):
    refused = farm.submit(farm.model("never/published"), 1)
    child = farm.submit(abs, refused)
    with pytest.raises(grange.DependencyError, match="was not taken in"):
        child.result(30)


def test_cancelled_parents(farm):
    parent = farm.submit(time.sleep, 30)
    child = farm.submit(str, parent)
    assert parent.job_id and parent.cancel()
    with pytest.raises(grange.DependencyError):
        child.result(30)


def test_a_child_can_be_cancelled_before_its_parent_is_placed(farm):
    with grange.Executor(max_workers=1, farm=farm) as executor:
        first = executor.submit(time.sleep, 0.3)
        waiting = executor.submit(abs, -1)  # not on the farm yet
        child = farm.submit(abs, waiting)
        kept = farm.submit(operator.neg, waiting)
        assert child.cancel()
        assert kept.result(30) == -1
        first.result(30)
    with pytest.raises(grange.TaskCancelled):
        child.result(5)


def test_a_future_submitted_in_a_done_callback(farm):
    got, first = [], farm.submit(abs, -3)
    called = threading.Event()

    def then(future):
        got.append(farm.submit(operator.neg, future))
        called.set()

    first.add_done_callback(then)
    assert called.wait(30) and got[0].result(30) == -3


def test_after_waits_without_a_result(farm, tmp_path):
    def touch(name):
        time.sleep(0.2)
        (tmp_path / name).touch()

    first = farm.submit(touch, "a")
    listed = farm.submit(lambda: sorted(p.name for p in tmp_path.iterdir()), after=first)
    assert listed.result(30) == ["a"]
    assert farm.map(lambda _: sorted(p.name for p in tmp_path.iterdir()), [1], after=[first]) == [["a"]]
    again = farm.submit(abs, -1, after=[first.task_id, farm.job(first.job_id), {"job": first.job_id, "index": 0}])
    assert again.result(30) == 1


def test_maps_over_maps(farm):
    squares = farm.start_map(lambda x: x * x, range(50))
    assert len(squares) == 50
    assert farm.map(operator.neg, squares) == [-x * x for x in range(50)]
    both = farm.start_map(operator.add, squares, squares)
    assert farm.map(operator.sub, both, range(50)) == [2 * x * x - x for x in range(50)]
    assert squares.result(30) == list(squares) == [x * x for x in range(50)]
    assert squares.done()


def test_all_results_of_a_map_as_one_argument(farm):
    squares = farm.start_map(lambda x: x * x, range(20))
    assert farm.submit(sum, squares).result(30) == sum(x * x for x in range(20))
    job = farm.job(squares.job_ids[0])
    assert farm.submit(lambda d: max(d["all"]), {"all": job}).result(30) == 361


def test_a_failed_task_fails_only_its_own_followers(farm):
    first = farm.start_map(lambda x: 1 // x, [1, 0, 1])
    second = farm.start_map(operator.neg, first)
    values = []
    with pytest.raises(grange.DependencyError):
        for value in second:
            values.append(value)
    assert values == [-1]
    with pytest.raises(ZeroDivisionError):
        first.result(30)
    with pytest.raises(grange.DependencyError):
        second.result(30)


def test_what_a_map_over_a_map_refuses(farm):
    squares = farm.start_map(abs, range(10))
    with pytest.raises(ValueError, match="in chunks"):
        farm.map(abs, squares, chunksize=2)
    with pytest.raises(ValueError, match="different lengths"):
        farm.map(operator.add, squares, farm.start_map(abs, range(9)))
    with pytest.raises(ValueError, match="as many calls"):
        farm.map(operator.add, squares, range(3))
    with pytest.raises(ValueError, match="a map can be several jobs"):
        farm.map(abs, [1], unique="w")
    squares.cancel()


def test_a_map_that_grows(farm):
    with farm.open_map(lambda x: x * 10) as growing:
        assert growing.job_id is None
        assert growing.extend([1, 2]) == 0
        values = iter(growing)
        assert [next(values), next(values)] == [10, 20]
        assert growing.add(3) == 2
        assert next(values) == 30
        assert growing.extend(range(4, 40)) == 3
        with pytest.raises(RuntimeError, match="close"):
            growing.result()
    assert growing.result(30) == [10 * x for x in range(1, 40)] and len(growing) == 39
    assert list(values) == [10 * x for x in range(4, 40)]
    with pytest.raises(RuntimeError, match="closed"):
        growing.add(1)
    assert farm.job(growing.job_id).status == "completed"


def test_a_growing_map_without_calls(farm):
    with farm.open_map(abs) as nothing:
        pass
    assert nothing.result(5) == [] and nothing.job_id is None


def test_a_growing_map_with_a_failure(farm):
    with farm.open_map(lambda x: 1 // x) as growing:
        growing.extend([1, 0])
    with pytest.raises(ZeroDivisionError):
        growing.result(30)


def test_a_job_can_be_extended_by_another_program(farm):
    growing = farm.open_map(operator.neg)
    growing.extend([1])
    with grange.connect(farm.url) as other:
        job = other.job(growing.job_id)
        assert job.extend([2, 3]) == 3
        job.close()
        with pytest.raises(grange.GrangeError):
            job.extend([4])
    values = []
    for value in growing:
        values.append(value)
    assert values == [-1, -2, -3]


def test_futures_elsewhere_are_refused(farm, of_fake):
    future = farm.submit(abs, -1)

    class Holder:
        def __init__(self, x):
            self.x = x

    with pytest.raises(pickle.PicklingError, match="inside"):
        farm.submit(str, Holder(future))
    with pytest.raises(TypeError, match="farm.submit"):
        farm.map(abs, [future])
    with pytest.raises(ValueError, match="another farm"):
        of_fake.submit(abs, future)
    with pytest.raises(ValueError, match='like "7"'):
        farm.submit(abs, -1, after="7/x")
    with pytest.raises(ValueError, match="after takes"):
        farm.submit(abs, -1, after=1.5)
    with pytest.raises(ValueError, match='has "job"'):
        farm.submit(abs, -1, after={"jbo": 7})
    future.result(30)


def test_calls_with_the_same_parent_share_a_job(fake, of_fake):
    parent = of_fake.submit(time.sleep, 0.3)
    children = [of_fake.submit(lambda p, i: i, parent, i) for i in range(50)]
    assert [c.result(30) for c in children] == list(range(50))
    assert len(fake.jobs) < 20


def test_chains_over_breaks(fake, of_fake):
    stop = threading.Event()

    def breaker():
        while not stop.wait(0.1):
            fake.cut()

    thread = threading.Thread(target=breaker)
    thread.start()
    try:
        ends = []
        for _ in range(10):
            future = of_fake.submit(operator.add, 0, 0)
            for _ in range(5):
                future = of_fake.submit(operator.add, future, 1)
            ends.append(future)
        assert [f.result(40) for f in ends] == [5] * 10
        with of_fake.open_map(operator.neg) as growing:
            for x in range(20):
                growing.add(x)
        assert growing.result(30) == [-x for x in range(20)]
    finally:
        stop.set()
        thread.join()


def test_an_outcome_may_come_before_the_submit_returns(of_fake, monkeypatch):
    call = type(of_fake._connection).call

    def slow(*arguments, **options):
        response = call(*arguments, **options)
        time.sleep(0.5)  # the program's thread gets its turn late
        return response

    monkeypatch.setattr(type(of_fake._connection), "call", slow)
    with of_fake.open_map(operator.neg) as growing:
        growing.add(1)
    assert growing.result(30) == [-1]


def test_close_waits_for_chains_to_be_sent(fake):
    with grange.connect(fake.url) as farm:
        future = farm.submit(time.sleep, 0.2)
        for _ in range(5):
            future = farm.submit(str, future)
    assert len(fake.jobs) == 6
