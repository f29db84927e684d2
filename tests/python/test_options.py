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


# What options become on the wire and in a job file, without a farm.


def spec_of(**options):
    from grange._options import Options
    from grange._wire import wire_pb2 as pb

    spec = pb.JobSpec()
    Options(options).fill(spec, "f")
    return spec


def test_options_on_the_wire():
    from grange._wire import wire_pb2 as pb

    spec = spec_of(
        cpus=2,
        memory="1GiB",
        gpu_memory="8GiB",
        disk="1GB",
        pool="fast",
        needs_model="llama3:8b",
        min_life="2h",
        labels={"gpu": "a100", "not": {"os": "windows"}},
        any_of=[{"gpus": 1}, {"cpus": 32, "labels": {"big": "*"}}],
        nodes=4,
        weight=2.5,
        max_running=100,
        user="anna",
        when="any_succeeded",
        speculate={"factor": 3, "min_done": 9},
        result_ttl="1d",
        grace=10,
        unique={"word": "w", "for": "10m"},
        stages={"reserve": "1m", "upload": 5},
        not_before="2026-12-01T08:00:00Z",
        idempotency_key="k",
    )
    first, second = spec.requirements, spec.any_of[0]
    assert (first.cpus_milli, first.gpus_milli) == (2000, 1000)
    assert (first.memory_bytes, first.gpu_memory_bytes) == (1 << 30, 8 << 30)
    assert (first.disk_bytes, first.pool, first.model, first.min_life_ms) == (10**9, "fast", "llama3:8b", 7_200_000)
    assert (dict(first.labels), dict(first.not_labels)) == ({"gpu": "a100"}, {"os": "windows"})
    assert (second.cpus_milli, second.gpus_milli, second.memory_bytes) == (32_000, 0, 1 << 30)
    assert (dict(second.labels), dict(second.not_labels)) == ({"big": "*"}, {})
    assert (spec.nodes, spec.weight_milli, spec.max_running, spec.user) == (4, 2500, 100, "anna")
    assert spec.when == pb.DEPENDS_ANY_SUCCEEDED
    assert (spec.speculation.on, spec.speculation.factor_milli, spec.speculation.min_done) == (True, 3000, 9)
    assert (spec.result_ttl_ms, spec.grace_ms, spec.unique, spec.unique_ms) == (86_400_000, 10_000, "w", 600_000)
    assert (spec.stages.reserve_ms, spec.stages.upload_ms, spec.stages.execute_ms) == (60_000, 5_000, 0)
    assert (spec.not_before_ms, spec.deadline_ms, spec.key) == (1_796_112_000_000, 0, "k")


def test_retry_rules_put_exception_types_first():
    from grange._wire import wire_pb2 as pb

    odd = {"retries": 2, "base": "2s", "cap": 9}
    rules = spec_of(retry_on={"exception": 5, "out_of_memory": 0, ValueError: odd}).retry.rules
    assert [(r.failure, r.exception, r.max_attempts, r.base_ms, r.cap_ms) for r in rules] == [
        (pb.FAILURE_EXCEPTION, "ValueError", 3, 2000, 9000),
        (pb.FAILURE_EXCEPTION, "", 6, 0, 0),
        (pb.FAILURE_OUT_OF_MEMORY, "", 1, 0, 0),
    ]
    assert spec_of(retry_on={grange.TaskError: 1}).retry.rules[0].exception == "grange.errors.TaskError"


def test_times_from_now_and_by_the_clock():
    import datetime

    before = time.time() * 1000
    spec = spec_of(start_in="1m", finish_in=3600)
    assert 59_990 <= spec.not_before_ms - before < 120_000
    assert 3_599_990 <= spec.deadline_ms - before < 3_660_000
    zone = datetime.timezone(datetime.timedelta(hours=1))
    assert spec_of(deadline=datetime.datetime(2026, 12, 1, 9, tzinfo=zone)).deadline_ms == 1_796_112_000_000
    assert spec_of(deadline=1_796_112_000).deadline_ms == 1_796_112_000_000
    from grange._options import Options

    assert set(Options({"start_in": 5}).merged({"not_before": 1e9}).values) == {"not_before"}, "the later word counts"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nodes": 0}, "nodes"),
        ({"nodes": 1.5}, "nodes"),
        ({"weight": 0}, "weight"),
        ({"max_running": -1}, "max_running"),
        ({"gpu_memory": "8 apples"}, "gpu_memory"),
        ({"pool": ""}, "pool"),
        ({"min_life": "soon"}, "min_life"),
        ({"labels": ["a"]}, "labels"),
        ({"labels": {"not": "windows"}}, "labels"),
        ({"any_of": []}, "any_of"),
        ({"any_of": [{"cpu": 1}]}, "any_of"),
        ({"any_of": [{"cpus": -1}]}, "cpus"),
        ({"when": "always"}, "all_succeeded"),
        ({"not_before": "tomorrow"}, "not_before"),
        ({"deadline": True}, "deadline"),
        ({"start_in": 0}, "start_in"),
        ({"start_in": 5, "not_before": 1e9}, "not both"),
        ({"finish_in": 5, "deadline": 1e9}, "not both"),
        ({"speculate": 2}, "speculate"),
        ({"speculate": {"factor": 0.5}}, "factor"),
        ({"unique": {"for": "10m"}}, "unique"),
        ({"stages": {"run": 5}}, "stages"),
        ({"retry_on": {"exceptoin": 1}}, "retry_on"),
        ({"retry_on": {"exception": -1}}, "retries"),
        ({"retry_on": {int: 1}}, "retry_on"),
        ({"retry_on": {"exception": {"base": 1}}}, "retries"),
    ],
)
def test_options_that_cannot_be_meant(options, words):
    from grange._options import Options

    with pytest.raises(ValueError, match=words):
        Options(options)


def test_options_as_a_job_file():
    from grange._options import Options

    times = {"min_life": "2h", "deadline": "2026-12-01T08:00:00Z", "start_in": "1m"}
    file = Options({"cpus": 2, "retries": 3, "retry_on": {ValueError: 0}, **times}).file()
    assert file == {
        "cpus": 2,
        "min_life": 7200.0,
        "retries": 3,
        "deadline": 1_796_112_000.0,
        "start_in": 60.0,
        "retry": {"rules": [{"on": "exception", "max_attempts": 1, "type": "ValueError"}]},
    }


def test_calls_with_unique_words_do_not_share_a_job():
    from grange._options import Options

    assert Options({"cpus": 1}).key == Options({"cpus": 1}).key
    assert Options({"unique": "w"}).key != Options({"unique": "w"}).key
