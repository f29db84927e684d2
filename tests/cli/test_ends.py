"""What commands say at the end: why a job failed, and figures as people write them."""

import json

import pytest


def test_wait_and_results_say_why_a_job_failed(farm):
    job = farm.submit('command = ["sh", "-c", "exit {}"]\nargs = ["0", "3"]\nretries = 0')
    said = farm("wait", job, code=1).stderr
    assert f"1 of its 2 tasks did, task {job}/1: exit_code" in said
    assert f"grange logs {job}" in said
    said = farm("results", job, code=1).stderr
    assert f"task {job}/1: exit_code" in said
    assert "grange tasks ls" in said
    said = farm("results", f"{job}/1", code=1).stderr
    assert "exit_code" in said
    assert f"grange logs {job}/1" in said


def test_more_than_one_failure_names_the_first(farm):
    job = farm.submit('command = ["sh", "-c", "exit 3"]\ncount = 3\nretries = 0')
    said = farm("wait", job, code=1).stderr
    assert f"3 of its 3 tasks did, the first task {job}/0: exit_code" in said
    assert f"grange tasks ls {job} --status failed" in said


def test_the_class_of_an_engine_s_failure_is_said(farm):
    said = farm("submit", "-", "--wait", stdin='[compute]\nn = 1e15\nalgorithm = "simple_sieve"', code=1).stderr
    assert "refused" in said
    assert "The n of primes (simple_sieve)" in said


def test_numbers_of_results_are_written_as_people_write_them(farm):
    job = farm.submit('[compute]\nop = "gemm"\nn = 64\nthreads = 1')
    farm("wait", job)
    text = farm("results", job).stdout
    assert json.loads(text)["n"] == 64
    assert "E" not in text.replace("compute", "")


@pytest.mark.parametrize(("count", "tasks"), [("3e0", 3), ("1_0", 10), ("1,0", 10)])
def test_counts_may_be_written_short(farm, count, tasks):
    job = farm("submit", "-", "--count", count, stdin='command = ["true"]').stdout.strip()
    assert farm.json("jobs", "show", job)["total_tasks"] == tasks


@pytest.mark.parametrize("count", ["1.5", "e", "1e", "-1e3", "1e99", "_1", "1e-1"])
def test_what_is_no_count_is_refused(farm, count):
    assert "--count" in farm("submit", "-", "--count", count, stdin='command = ["true"]', code=2).stderr
    assert "--n" in farm("race", "compute", "--n", count, code=2).stderr


def test_explain_says_what_was_meant(farm):
    (name, *_) = [w["name"] for w in farm.json("workers", "ls")]
    job = farm.submit('command = ["true"]\npool = "standart"')
    said = farm("explain", job).stdout
    assert "Did you mean 'standard'?" in said
    assert name in said
    assert name in farm.json("explain", job)["summary"]
    farm("cancel", job)
    job = farm.submit('command = ["true"]\nneeds_model = "llama3"')
    assert "grange models sync llama3 --workers NAME" in farm("explain", job).stdout
    farm("cancel", job)


def test_an_option_that_nobody_knows_is_refused(farm):
    text = '[llm]\nmodel = "m"\nprompt = "p"\noptions = {temprature = 0.1}'
    said = farm("submit", "-", stdin=text, code=2).stderr
    assert 'Did you mean "temperature"?' in said
    job = farm.submit('[llm]\nmodel = "m"\nprompt = "p"\noptions = {extra = {temprature = 0.1}}')
    farm("cancel", job)
