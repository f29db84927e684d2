"""Pausing, times, rules of retrying, failures, limits and reasons from Python, on a real farm."""

import contextlib
import os
import time

import grange
import pytest


def eventually(check, seconds=20):
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


@contextlib.contextmanager
def cancelled(future):
    """A future that ends with the block."""
    try:
        yield future
    finally:
        future.cancel()


def test_why_a_task_waits(farm):
    with cancelled(farm.submit(abs, -1, cpus=4000)) as task:
        why = task.explain()
        assert why["task"] == task.task_id and why["workers_could"] == 0 and "4000" in why["summary"]
        assert farm.job(task.job_id).explain()["job"] == task.job_id
    plan = farm.plan(abs, -1, any_of=[{"gpus": 64}, {"cpus": 1}])
    assert plan["workers_could"] == 2 and {w["alternative"] for w in plan["workers"]} == {1}


def test_a_task_stands_still_while_it_is_frozen(farm, tmp_path):
    ticks = tmp_path / "ticks"

    def tick(path):
        for _ in range(600):
            with open(path, "a") as file:
                file.write(".")
            time.sleep(0.05)

    with cancelled(farm.submit(tick, ticks)) as task:
        eventually(ticks.exists)
        task.pause("freeze")
        eventually(lambda: farm._task_info(task.job_id, 0)["status"] == "paused")
        size = ticks.stat().st_size
        time.sleep(0.4)
        assert ticks.stat().st_size == size
        task.resume()
        eventually(lambda: ticks.stat().st_size > size)


def test_a_requeued_task_goes_on_from_its_checkpoint(farm):
    def count():
        for i in range(grange.restore(0), 10):
            if i == 5 and grange.attempt() == 1:
                grange.progress(5, 10)
                time.sleep(60)
            grange.checkpoint(i + 1)
        return grange.attempt()

    task = farm.submit(count)
    eventually(task.progress)
    task.pause("requeue")
    eventually(lambda: not task.running())
    assert not task.done()
    task.resume()
    assert task.result(30) == 2


def test_a_paused_job_starts_nothing(farm):
    farm.pause()
    try:
        assert farm.queue()["paused"] is True
        future = farm.submit(abs, -1)
        job = farm.job(future.job_id)
        job.pause()
    finally:
        farm.resume()
    assert job.explain()["waits"][0]["code"] == "paused_job" and not future.done()
    job.resume()
    assert future.result(30) == 1


def test_deadlines_and_delayed_starts(farm):
    with pytest.raises(grange.DeadlineExceeded) as caught:
        farm.submit(time.sleep, 60, finish_in=0.5).result(30)
    assert caught.value.fault == "job"
    with cancelled(farm.submit(abs, -1, start_in="1h")) as late:
        assert late.explain()["waits"][0]["code"] == "not_before"
    assert farm.submit(abs, -1, not_before=time.time() - 5).result(30) == 1


def test_rules_of_retrying(farm, tmp_path):
    def fail(folder, kind):
        (folder / f"{kind.__name__}-{grange.attempt()}").touch()
        raise kind("no")

    rules = {ValueError: 1, "exception": 0}
    for kind, tries in ((ValueError, 2), (KeyError, 1)):
        with pytest.raises(kind):
            farm.submit(fail, tmp_path, kind, retries=5, retry_on=rules).result(60)
        assert len(list(tmp_path.glob(f"{kind.__name__}-*"))) == tries


def test_failures_say_whose_fault_and_where(farm):
    with pytest.raises(grange.TimeLimitExceeded) as caught:
        farm.submit(time.sleep, 60, timeout=0.5).result(30)
    assert (caught.value.fault, caught.value.stage) == ("job", "execute")
    with pytest.raises(grange.TimeLimitExceeded) as caught:
        farm.submit(time.sleep, 60, stages={"execute": 0.5}).result(30)
    assert caught.value.stage == "execute"
    with pytest.raises(grange.TaskFailed) as caught:
        farm.submit(os._exit, 3).result(30)
    assert caught.value.fault
    task = next(farm.job(caught.value.task_id.split("/")[0]).tasks())
    assert task["fault"] == caught.value.fault


def test_gangs(farm):
    def rank():
        return os.environ["GRANGE_NODE_RANK"], os.environ["GRANGE_NODES"]

    assert farm.submit(rank, nodes=2).result(30) == ("0", "2")


def test_one_job_with_a_word_at_a_time(farm):
    word = f"only-{time.time_ns()}"
    with cancelled(farm.submit(time.sleep, 60, unique=word)) as one:
        assert farm.submit(time.sleep, 60, unique=word).job_id == one.job_id
    key = f"key-{word}"
    assert farm.submit(abs, -1, idempotency_key=key).job_id == farm.submit(abs, -1, idempotency_key=key).job_id


def test_users_limits(farm):
    farm.set_user("anna", max_queued=3)
    try:
        assert farm.map(abs, [-1, -2], user="anna") == [1, 2]
        with pytest.raises(grange.GrangeError) as caught:
            farm.map(abs, range(10), user="anna")
        assert caught.value.code == "rate_limited"
        assert {"anna"} <= {user["name"] for user in farm.users()}
    finally:
        farm.clear_user("anna")


def test_dead_letters_are_redriven(farm, tmp_path):
    def until_there(path):
        assert path.exists()

    task = farm.submit(until_there, tmp_path / "there")
    with pytest.raises(AssertionError):
        task.result(30)
    letters = farm.dead_letters(job=task.job_id)
    assert [(one["id"], one["failure"], one["fault"]) for one in letters] == [(task.task_id, "exception", "job")]
    (tmp_path / "there").touch()
    assert farm.redrive(task.job_id, classes=["exception"]) == 1
    assert farm.job(task.job_id).wait(30)["status"] == "completed"
    assert farm.dead_letters(job=task.job_id) == []


def test_schedules(farm):
    farm.schedule("py", "@daily", {"command": ["echo", "x"]})
    job = farm.job(farm.run_schedule("py")["job_id"])
    assert job.wait(30)["status"] == "completed"
    farm.pause_schedule("py")
    assert [row["paused"] for row in farm.schedules() if row["name"] == "py"] == [True]
    farm.remove_schedule("py")
    with pytest.raises(grange.GrangeError) as caught:
        farm.run_schedule("py")
    assert caught.value.code == "not_found"


def test_graphs_of_job_files(farm):
    prep, train = farm.graph(
        [
            {"name": "prep", "command": ["echo", "{}"], "args": ["a", "b"]},
            {
                "name": "train",
                "command": ["cat", "inputs/0"],
                "count": 2,
                "after": [{"job": "prep", "each": True, "pass": True}],
            },
        ]
    )
    assert train.wait(30)["status"] == "completed"
    assert dict(train.results()) == {0: "a\n", 1: "b\n"}
    with pytest.raises(grange.GrangeError, match="cycle"):
        farm.graph(
            [
                {"name": "a", "command": ["true"], "after": ["b"]},
                {"name": "b", "command": ["true"], "after": ["a"]},
            ]
        )


def test_policies(farm):
    farm.policy("round_robin")
    try:
        assert farm.policy() == "round_robin" and farm.map(abs, range(20)) == list(range(20))
        active = next(p for p in farm.policies() if p["active"])
        assert active["name"] == "round_robin" and active["completed"] >= 20
    finally:
        farm.policy("priority")
    with pytest.raises(grange.GrangeError, match="fifo"):
        farm.policy("fastest")


def test_speculation_is_asked_for(farm):
    assert farm.map(abs, range(20), speculate={"factor": 3, "min_done": 5}) == list(range(20))
