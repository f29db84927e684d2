"""Explaining, pausing, graphs, growing jobs, users, schedules, dead letters and policies, as a person types them."""

import json

import pytest
from cli_farm import Farm, eventually

SLEEP = 'command = ["sleep", "60"]\n'


def status(farm, job):
    return farm.json("jobs", "show", job)["status"]


# ------------------------------------------------------------------------------------------------------ explain, plan


def test_explain_says_what_is_missing(farm):
    job = farm.submit('command = ["true"]\ncpus = 4000\nlabels = {planet = "mars"}\n')
    text = farm("explain", job).stdout
    summary = text.splitlines()[0]
    assert "4000" in summary or "planet" in summary, text
    assert "2 workers in all: 0 could run it" in text and "never" in text and "planet" in text, text
    one = farm.json("explain", f"{job}/0")
    assert (one["task"], one["workers_could"], one["workers_in_all"]) == (f"{job}/0", 0, 2)
    codes = {reason["code"] for worker in one["workers"] for reason in worker["why"]}
    assert {"cpus", "label"} <= codes
    assert farm("jobs", "show", job).stdout.count("grange explain") == 1
    farm("cancel", job)
    assert "explain" not in farm("jobs", "show", job).stdout


def test_explain_of_what_ended_and_of_nothing(farm):
    job = farm.submit('command = ["true"]\n', "--wait")
    assert farm("explain", job).stdout.strip()
    assert "999999" in farm("explain", "999999", code=4).stderr
    assert farm("explain", f"{job}/7", code=4).stderr


def test_plan_submits_nothing(farm, tmp_path):
    before = farm.json("jobs")
    file = tmp_path / "job.toml"
    file.write_text('command = ["true"]\nany_of = [{gpus = 64}, {cpus = 1}]\n')
    plan = farm.json("plan", str(file))
    assert plan["workers_could"] == 2 and {w["alternative"] for w in plan["workers"]} == {1}
    assert "any_of[1]" in farm("plan", str(file)).stdout
    assert farm.json("plan", "-", "--cpus", "4000", stdin='command = ["true"]\n')["workers_could"] == 0
    assert farm.json("jobs") == before
    assert "comand" in farm("plan", "-", stdin='comand = ["true"]\n', code=2).stderr


# ------------------------------------------------------------------------------------------------------ pause, resume


def test_a_paused_job_starts_nothing(farm):
    farm("pause", "--queue")
    job = farm.submit('command = ["true"]\ncount = 3\n')
    assert farm.json("explain", job)["waits"][0]["code"] == "paused_farm"
    assert "nothing new starts" in farm("pause", job).stdout
    farm("resume", "--queue")
    assert "paused" in farm("jobs", "show", job).stdout and "paused" in farm("jobs").stdout
    assert farm.json("jobs", "show", job)["paused"] is True
    assert farm.json("explain", job)["waits"][0]["code"] == "paused_job"
    farm("resume", job)
    farm("wait", job, "--timeout", "30s")


def test_a_frozen_task_stands_still(farm, tmp_path):
    job = farm.submit(f"script = 'while :; do date +%s%N > {tmp_path}/now; sleep 0.05; done'\n")
    eventually(lambda: (tmp_path / "now").exists(), what="the first tick")
    farm("pause", f"{job}/0")
    eventually(lambda: farm.json("tasks", "ls", job)[0]["status"] == "paused", what="the pause")

    def tick():
        return (tmp_path / "now").read_text()

    def still():
        before = tick()
        return before and all(tick() == before for _ in range(2000))

    eventually(still, what="the standstill")
    frozen = tick()
    farm("resume", f"{job}/0")
    eventually(lambda: tick() not in ("", frozen), what="the next tick")
    farm("cancel", job)


def test_a_requeued_task_starts_again(farm, tmp_path):
    job = farm.submit(
        f"script = 'echo x >> {tmp_path}/starts; test $(wc -l < {tmp_path}/starts) = 2 || exec sleep 60'\n"
    )
    eventually(lambda: (tmp_path / "starts").exists(), what="the start")
    farm("pause", f"{job}/0", "--requeue")
    eventually(lambda: farm.json("tasks", "ls", job)[0]["worker_id"] is None, what="the end of the first attempt")
    farm("resume", f"{job}/0")
    farm("wait", job, "--timeout", "30s")
    assert (tmp_path / "starts").read_text() == "x\nx\n"


def test_what_cannot_be_paused(farm):
    for words, hint in (
        (["pause"], "grange pause 7"),
        (["pause", "7", "--queue"], "not both"),
        (["pause", "7", "--requeue"], "7/0"),
        (["pause", "7/0", "--requeue", "--freeze"], "not both"),
        (["pause", "--queue", "--freeze"], "nothing that runs"),
        (["resume"], "grange resume 7"),
    ):
        assert hint in farm(*words, code=2).stderr, words
    job = farm.submit('command = ["true"]\n', "--wait")
    assert farm("pause", job, code=1).stderr


# ------------------------------------------------------------------------------------------------------------- graphs


def test_a_graph_passes_results(farm, tmp_path):
    (tmp_path / "graph.toml").write_text(
        """
[[jobs]]
name = "prep"
command = ["echo", "part {}"]
args = ["a", "b"]
[[jobs]]
name = "all"
script = 'cat "$GRANGE_INPUTS/0" "$GRANGE_INPUTS/1"'
after = [{job = "prep", pass = true}]
"""
    )
    out = farm("graph", str(tmp_path / "graph.toml"), "--wait").stdout.splitlines()
    assert out[0].split() == ["JOB", "NAME", "TASKS"]
    assert [row.split()[1:] for row in out[1:]] == [["prep", "2"], ["all", "1"]]
    assert farm("results", out[2].split()[0]).stdout == "part a\npart b\n"


def test_a_failed_parent_fails_the_rest_of_the_graph(farm):
    graph = {
        "jobs": [
            {"name": "bad", "command": ["false"], "retries": 0},
            {"name": "next", "command": ["true"], "after": ["bad"]},
            {"name": "always", "command": ["true"], "after": ["bad"], "when": "all_finished"},
        ]
    }
    done = farm("graph", "-", "--wait", "--json", stdin=json.dumps(graph), code=1)
    ids = [job["id"] for job in json.loads(done.stdout)["jobs"]]
    assert [status(farm, i) for i in ids] == ["failed", "failed", "completed"]
    task = farm.json("tasks", "ls", ids[1])[0]
    assert (task["failure"], task["fault"]) == ("dependency", "job")


def test_graphs_that_cannot_be_meant(farm):
    cycle = {
        "jobs": [
            {"name": "a", "command": ["true"], "after": ["b"]},
            {"name": "b", "command": ["true"], "after": ["a"]},
        ]
    }
    assert "cycle" in farm("graph", "-", stdin=json.dumps(cycle), code=2).stderr
    assert "[[jobs]]" in farm("graph", "-", stdin='command = ["true"]\n', code=2).stderr
    wrong = '[[jobs]]\nname = "one"\ncomand = ["true"]\n'
    assert "Job one" in farm("graph", "-", stdin=wrong, code=2).stderr
    assert farm("submit", "-", "--after", "999999", stdin='command = ["true"]\n', code=4).stderr


def test_after_one_task(farm):
    first = farm.submit('script = "test {index} = 1 || exec sleep 60"\ncount = 2\n')
    then = farm.submit('command = ["true"]\n', "--after", f"{first}/1")
    farm("wait", then, "--timeout", "30s")
    waits = farm.submit('command = ["true"]\n', "--after", first)
    assert farm.json("explain", waits)["waits"][0]["code"] == "dependency"
    assert farm.json("jobs", "show", waits)["blocked_tasks"] == 1
    farm("cancel", first)
    farm("wait", waits, "--timeout", "30s", code=1)


def test_a_job_that_grows(farm, tmp_path):
    job = farm.submit('command = ["echo", "{}"]\nargs = ["one"]\nopen = true\n')
    eventually(lambda: farm.json("jobs", "show", job)["completed_tasks"] == 1, what="the first task")
    assert status(farm, job) == "running" and "grange close" in farm("jobs", "show", job).stdout
    assert "3 tasks" in farm("add", job, "--arg", "two", "--arg", "three").stdout
    (tmp_path / "more.txt").write_text("four\nfive\n")
    assert "takes no more" in farm("add", job, "--args-file", str(tmp_path / "more.txt"), "--close").stdout
    farm("wait", job, "--timeout", "30s")
    assert farm("results", job).stdout == "one\ntwo\nthree\nfour\nfive\n"
    assert farm("add", job, "--count", "1", code=1).stderr
    assert "--arg" in farm("add", job, code=2).stderr
    assert "one of" in farm("add", job, "--arg", "x", "--count", "1", code=2).stderr
    other = farm.submit('command = ["true"]\n', "--open")
    farm("close", other)
    farm("wait", other, "--timeout", "30s")


# ------------------------------------------------------------------------------------------------- limits, rules, times


def test_retry_rules_and_faults(farm):
    job = farm.submit('command = ["false"]\nretries = 5\n', "--retry-on", "exit_code=0")
    farm("wait", job, code=1)
    task = farm.json("tasks", "ls", job)[0]
    assert (task["attempt"], task["failure"], task["fault"], task["stage"]) == (1, "exit_code", "job", "execute")
    assert "job, execute" in farm("tasks", job).stdout
    shown = farm("jobs", "show", f"{job}/0").stdout
    assert "the job's own" in shown and "execute" in shown
    said = farm("submit", "-", "--retry-on", "out_of_memroy=1", stdin='command = ["true"]\n', code=2).stderr
    assert "did you mean out_of_memory" in said


def test_times(farm):
    late = farm.submit('command = ["true"]\n', "--start-in", "1h")
    why = farm.json("explain", late)
    assert why["waits"][0]["code"] == "not_before" and why["next_change"]
    assert "in 59 min" in farm("explain", late).stdout or "in 1 h" in farm("explain", late).stdout
    farm("cancel", late)
    short = farm.submit(SLEEP, "--finish-in", "500ms")
    farm("wait", short, "--timeout", "30s", code=1)
    assert farm.json("tasks", "ls", short)[0]["failure"] == "deadline"
    both = ["--finish-in", "1h", "--deadline", "2100-01-01T00:00:00Z"]
    assert "not both" in farm("submit", "-", *both, stdin=SLEEP, code=2).stderr
    assert "2026-12-01" in farm("submit", "-", "--deadline", "soon", stdin=SLEEP, code=2).stderr


def test_unique(farm):
    one = farm.submit(SLEEP, "--unique", "only-one")
    assert farm.submit(SLEEP, "--unique", "only-one") == one
    farm("cancel", one)
    other = farm.submit(SLEEP, "--unique", "only-one")
    assert other != one
    farm("cancel", other)


def test_gangs(farm):
    job = farm.submit("script = 'echo $GRANGE_NODE_RANK/$GRANGE_NODES'\nnodes = 2\n", "--wait")
    assert farm("results", job).stdout == "0/2\n"
    never = farm.submit('command = ["true"]\n', "--nodes", "3")
    assert farm.json("explain", never)["waits"][0]["code"] == "gang"
    farm("cancel", never)


def test_max_running(farm):
    job = farm.submit('command = ["sleep", "60"]\ncount = 4\n', "--max-running", "1")
    eventually(lambda: farm.json("jobs", "show", job)["running_tasks"] == 1, what="the first")
    assert "max_running" in {w["code"] for w in farm.json("explain", f"{job}/3")["waits"]}
    farm("cancel", job)


# ---------------------------------------------------------------------------------------------------------------- users


def test_users(farm):
    farm("users", "set", "anna", "--weight", "2", "--max-running", "1")
    farm("users", "set", "anna", "--max-cpus", "8")
    anna = next(user for user in farm.json("users") if user["name"] == "anna")
    assert (anna["weight"], anna["max_running"], anna["max_cpus"]) == (2, 1, 8)
    job = farm.submit('command = ["sleep", "60"]\ncount = 2\n', "--user", "anna")
    eventually(lambda: farm.json("jobs", "show", job)["running_tasks"] == 1, what="the first")
    assert "quota_running" in {w["code"] for w in farm.json("explain", f"{job}/1")["waits"]}
    assert "1/1" in farm("users", "ls").stdout
    farm("cancel", job)
    farm("users", "set", "anna", "--max-queued", "5")
    assert farm("submit", "-", "--user", "anna", "--count", "6", stdin='command = ["true"]\n', code=1).stderr
    farm("users", "clear", "anna")
    assert "anna" not in {user["name"] for user in farm.json("users") if user["max_running"]}
    assert "--max-running" in farm("users", "set", "anna", code=2).stderr
    assert "number" in farm("users", "set", "anna", "--weight", "0", code=2).stderr


# ------------------------------------------------------------------------------------------------------------ schedules


def test_schedules(farm):
    job = 'command = ["echo", "night"]\n'
    farm("schedules", "add", "nightly", "--cron", "0 3 * * *", "--no-overlap", "-", stdin=job)
    row = farm.json("schedules")[0]
    assert (row["name"], row["cron"], row["overlap"], row["paused"]) == ("nightly", "0 3 * * *", False, False)
    job = farm("schedules", "run", "nightly").stdout.strip()
    farm("wait", job, "--timeout", "30s")
    assert farm("results", job).stdout == "night\n"
    assert "nightly" in farm("schedules").stdout
    farm("schedules", "pause", "nightly")
    assert "paused" in farm("schedules", "list").stdout
    farm("schedules", "resume", "nightly")
    farm("schedules", "remove", "nightly")
    assert "grange schedules add" in farm("schedules").stdout
    assert farm("schedules", "run", "nightly", code=4).stderr
    said = farm("schedules", "add", "x", "--cron", "61 * * * *", "-", stdin='command = ["true"]\n', code=2).stderr
    assert "minute" in said
    assert "--cron" in farm("schedules", "add", "x", "-", code=2).stderr


# --------------------------------------------------------------------------------------------------------- dead letters


def test_dead_letters(farm):
    job = farm.submit('command = ["sh", "-c", "exit 3"]\nretries = 0\ncount = 2\nuser = "ben"\n')
    farm("wait", job, code=1)
    rows = farm.json("dead", "list", "--job", job)
    assert {row["id"] for row in rows} == {f"{job}/0", f"{job}/1"}
    seen = {(row["failure"], row["fault"], row["attempts"], row["user"]) for row in rows}
    assert seen == {("exit_code", "job", 1, "ben")}
    assert f"{job}/1" in farm("dead", "--json").stdout
    assert farm.json("dead", "list", "--job", job, "--class", "exception") == []
    assert farm("dead", "list", "--class", "nonsense", code=2).stderr
    assert "1 task runs again" in farm("dead", "redrive", job, "--index", "1").stdout
    farm("wait", job, code=1)
    assert "2 tasks run again" in farm("retry", job, "--class", "exit_code").stdout
    farm("wait", job, code=1)
    assert "takes a job" in farm("dead", "redrive", f"{job}/1", code=2).stderr


# ------------------------------------------------------------------------------------------------------------- policies


def test_policies(farm):
    assert "least_loaded" in farm("policy", "least_loaded").stdout
    active = [row for row in farm.json("policy") if row["active"]]
    assert [row["name"] for row in active] == ["least_loaded"]
    farm.submit('command = ["true"]\ncount = 5\n', "--wait")
    assert next(row for row in farm.json("policy") if row["active"])["assigned"] >= 5
    assert "HANDED OUT" in farm("policy").stdout
    farm("policy", "priority")
    assert "fifo" in farm("policy", "fastest", code=2).stderr


def test_a_worker_is_released_only_when_there_is_one(farm):
    assert "nobody" in farm("workers", "release", "nobody", code=4).stderr


@pytest.mark.parametrize("policy", ["fifo", "round_robin", "performance"])
def test_a_farm_with_another_policy(tmp_path, policy):
    farm = Farm(tmp_path, "--workers", "1", "--slots", "2", "--policy", policy, "--aging", "10m")
    try:
        assert [row["name"] for row in farm.json("policy") if row["active"]] == [policy]
        farm.submit('command = ["true"]\ncount = 4\n', "--wait")
    finally:
        farm.stop()


# ------------------------------------------------------------------------------------------------ what is said


def test_words_that_tell_the_truth(farm):
    job = farm.submit(SLEEP + "open = true\n")
    farm("pause", job)
    assert [j["id"] for j in farm.json("jobs", "ls", "--state", "paused")] == [job]
    farm("resume", job)
    assert job not in [j["id"] for j in farm.json("jobs", "ls", "--state", "paused")]
    farm("cancel", job)
    assert "whole number" in farm("users", "set", "anna", "--max-running", "1.5", code=2).stderr
    assert "999999" in farm("dead", "list", "--job", "999999", code=4).stderr
    nobody = farm("dead", "list", "--user", "nobody")
    assert "No task that you ask for" in nobody.stdout and "nobody" in nobody.stderr
    worker = farm.json("workers")[0]
    farm("workers", "release", worker["name"])


def test_the_next_page_keeps_its_filters(farm):
    job = farm.submit('command = ["false"]\ncount = 3\nretries = 0\n')
    farm("wait", job, code=1)
    page = farm("dead", "list", "--job", job, "--class", "exit_code", "--limit", "2")
    assert f"--job {job} --class exit_code --limit 2 --before {job}/" in page.stderr


def test_an_open_job_without_tasks_left_says_so_when_cancelled(farm):
    job = farm.submit('command = ["true"]\nopen = true\n')
    eventually(lambda: farm.json("jobs", "show", job)["completed_tasks"] == 1, what="the task")
    assert "no task left to cancel" in farm("cancel", job).stdout
