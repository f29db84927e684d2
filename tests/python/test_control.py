"""What the package asks the server for beside work: each call is the REST request that the documents say."""

import grange
import pytest
from fake_farm import FakeFarm


@pytest.fixture
def fake():
    fake = FakeFarm(1)
    yield fake
    fake.close()


@pytest.fixture
def farm(fake):
    with grange.connect(fake.url) as farm:
        yield farm


@pytest.fixture
def answers(fake):
    """Set an answer, and get what was asked: answers("GET", "/api/x", [1])."""

    def set_answer(method, path, data=None):
        fake.answers[method, path] = data if data is not None else {}

        def asked():
            return [(query, body) for m, p, query, body in fake.calls if (m, p) == (method, path)]

        return asked

    return set_answer


def test_the_queue_and_policies(farm, answers):
    answers("GET", "/api/queue", {"paused": False})
    assert farm.queue() == {"paused": False}
    for call, path in ((farm.pause, "pause"), (farm.resume, "resume")):
        asked = answers("POST", f"/api/queue/{path}")
        call()
        assert asked() == [({}, {})]
    answers("GET", "/api/policies", [{"name": "fifo"}])
    assert farm.policies() == [{"name": "fifo"}]
    answers("GET", "/api/policy", {"policy": "priority"})
    asked = answers("PUT", "/api/policy", {"policy": "fifo"})
    assert (farm.policy(), farm.policy("fifo"), asked()) == ("priority", "fifo", [({}, {"policy": "fifo"})])


def test_users_keep_what_is_not_named(farm, answers):
    answers("GET", "/api/users", [{"user": "anna"}])
    assert farm.users() == [{"user": "anna"}]
    answers("GET", "/api/users/a%2Fb", {"weight": 2, "running": 7, "max_running": 5})
    asked = answers("PUT", "/api/users/a%2Fb", {"max_cpus": 4})
    farm.set_user("a/b", max_cpus=4)
    assert asked() == [({}, {"weight": 2, "max_running": 5, "max_cpus": 4})]
    new = answers("PUT", "/api/users/new", {})
    farm.set_user("new", weight=3)
    assert new() == [({}, {"weight": 3})]
    gone = answers("DELETE", "/api/users/new")
    farm.clear_user("new")
    assert gone() == [({}, None)]
    with pytest.raises(TypeError, match="max_memory"):
        farm.set_user("anna", max_memory=1)


def test_schedules(farm, answers):
    asked = answers("PUT", "/api/schedules/nightly", {"name": "nightly"})
    farm.schedule("nightly", "0 3 * * *", {"command": ["true"]}, overlap=False)
    body = {"cron": "0 3 * * *", "job": {"command": ["true"]}, "overlap": False, "catch_up": False, "paused": False}
    assert asked() == [({}, body)]
    for call, method, path in (
        (farm.pause_schedule, "POST", "/pause"),
        (farm.resume_schedule, "POST", "/resume"),
        (farm.run_schedule, "POST", "/run"),
        (farm.remove_schedule, "DELETE", ""),
    ):
        asked = answers(method, f"/api/schedules/nightly{path}")
        call("nightly")
        assert len(asked()) == 1
    answers("GET", "/api/schedules", [])
    assert farm.schedules() == []


def test_dead_letters(farm, answers):
    asked = answers("GET", "/api/dead-letters", [{"id": "7/3"}])
    assert farm.dead_letters(failure="exception", user="anna", limit=5) == [{"id": "7/3"}]
    assert asked() == [({"class": "exception", "user": "anna", "limit": "5"}, None)]
    asked = answers("POST", "/api/dead-letters/redrive", {"retried": 2})
    assert farm.redrive("7", classes=["exception"]) == 2
    assert asked() == [({}, {"job": "7", "classes": ["exception"], "indices": []})]


def test_graphs_and_plans(farm, fake, answers):
    asked = answers("POST", "/api/graphs", {"jobs": [{"id": "1", "status": "pending"}, {"id": "2"}]})
    jobs = [{"name": "prep", "command": ["true"]}, {"command": ["true"], "after": ["prep"]}]
    assert [job.id for job in farm.graph(jobs)] == ["1", "2"]
    assert asked() == [({}, {"jobs": jobs})]
    asked = answers("POST", "/api/plan", {"summary": "It would start now."})
    farm.plan({"command": ["true"], "cpus": 4})
    assert farm.plan(abs, -1, cpus=4, pool="fast")["summary"] == "It would start now."
    with pytest.raises(TypeError, match="unknown option cpu;"):
        farm.plan(abs, -1, cpu=4)
    file = asked()[1][1]
    sha = file.pop("python")["code_sha256"]
    assert sha in fake.blobs and file == {"cpus": 4, "pool": "fast", "retries": 0}


def test_a_job_and_a_task(farm, fake, answers):
    future = farm.submit(abs, -1)
    assert future.result(30) == 1
    job, path = farm.job(future.job_id), f"/api/jobs/{future.job_id}"
    answers("GET", f"{path}/explain", {"summary": "of the job"})
    answers("GET", f"{path}/tasks/0/explain", {"summary": "of the task"})
    assert job.explain()["summary"] == "of the job"
    assert job.explain(0) == future.explain() == {"summary": "of the task"}
    whole, one = answers("POST", f"{path}/pause"), answers("POST", f"{path}/tasks/0/pause")
    answers("POST", f"{path}/resume"), answers("POST", f"{path}/tasks/0/resume")
    job.pause()
    job.pause(freeze=True)
    future.pause()
    future.pause(how="requeue")
    job.pause_task(0, "freeze")
    for call in (job.resume, future.resume, lambda: job.resume_task(0)):
        call()
    assert [body for _, body in whole()] == [{"freeze": False}, {"freeze": True}]
    assert [body["how"] for _, body in one()] == ["freeze", "requeue", "freeze"]
    with pytest.raises(ValueError, match="requeue"):
        future.pause("gently")
    asked = answers("POST", f"{path}/retry", {"retried": 1})
    assert job.retry() == 1
    assert [body for _, body in asked()] == [{}]
    assert job.retry(classes=["exception"], indices=[0]) == 1
    assert asked()[1][1] == {"classes": ["exception"], "indices": [0]}


def test_a_worker_out_of_quarantine(farm, answers):
    asked = answers("POST", "/api/workers/laptop%2F1/release")
    farm.release_worker("laptop/1")
    assert len(asked()) == 1


def test_a_task_that_is_not_on_the_farm_has_no_reason(farm):
    refused = farm.submit(farm.model("never/published"), 1)
    assert refused.exception(30) is not None
    with pytest.raises(grange.GrangeError, match="not on the farm"):
        refused.explain()


def test_failures_say_whose_fault_and_where(farm):
    class Picky(Exception):
        def __init__(self, a, b):
            super().__init__("only text")

    def fail():
        raise Picky(1, 2)

    with pytest.raises(grange.TaskFailed) as caught:
        farm.submit(fail).result(30)
    assert (caught.value.fault, caught.value.stage) == ("job", "execute")
