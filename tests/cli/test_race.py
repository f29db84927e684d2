"""Races on the command line: wrong input, and a race over two workers with a known result."""

import csv
import json

import pytest
from cli_farm import eventually


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["race"], "needs one of its commands"),
        (["race", "horses"], "horses"),
        (["race", "llm"], "--model"),
        (["race", "llm", "--model", "m"], "--prompt"),
        (["race", "llm", "--model", "m", "--prompt", "p", "--max-tokens", "0"], "--max-tokens"),
        (["race", "llm", "--model", "m", "--prompt", "p", "--concurrency", "0"], "--concurrency"),
        (["race", "llm", "--model", "m", "--prompt", "p", "--concurrency", "a"], "--concurrency"),
        (["race", "compute", "--n", "-5"], "--n"),
        (["race", "compute", "--repeats", "0"], "--repeats"),
        (["race", "compute", "--algorithm", "guess"], "algorithm"),
        (["race", "compute", "--op", "nap"], "op"),
        (["race", "compute", "--timeout", "soon"], "soon"),
        (["race", "compute", "--out", "race.pdf"], "--out"),
        (["race", "image"], "checkpoint"),
        (["race", "image", "--checkpoint", "c"], "prompt"),
        (["race", "image", "--workflow", "/nowhere.json"], "/nowhere.json"),
        (["runs", "show"], "ID"),
        (["runs", "export", "x", "--format", "pdf"], "--format"),
        (["runs", "ls", "--kind", "horses"], "kind"),
    ],
)
def test_wrong_input(farm, arguments, says):
    assert says in farm(*arguments, code=2).stderr


def test_what_is_not_there(farm):
    for what in (["show"], ["compare"], ["export"], ["rm"]):
        assert "no run" in farm("runs", *what, "2024-01-15_143022_abc123", code=4).stderr
    missing = farm("race", "compute", "--n", "1000", "--workers", "nobody", code=2).stderr
    there = [w["name"] for w in farm.json("workers", "ls")]
    assert "nobody" in missing and all(name in missing for name in there)
    near = farm("race", "compute", "--n", "1000", "--workers", there[0] + "x", code=2).stderr
    assert f'Did you mean "{there[0]}"' in near
    nothing = farm("race", "llm", "--model", "no-such-model", "--prompt", "p", code=1).stderr
    assert "No machine is left" in nothing


def test_preflight_starts_nothing(farm):
    before = farm.json("runs")
    checked = farm.json("race", "compute", "--n", "1000", "--preflight")
    assert checked["ok"] and [m["chosen"] for m in checked["machines"]] == [True, True]
    assert "MACHINE" in farm("race", "compute", "--preflight").stdout
    assert farm.json("runs") == before


def test_a_compute_race_over_two_workers(farm, tmp_path):
    report = tmp_path / "race.html"
    sieve = ["--n", "1000000", "--algorithm", "segmented_sieve", "--threads", "1"]
    done = farm("race", "compute", *sieve, "--repeats", "3", "--warmup", "1", "--out", str(report), "--json")
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["kind"] == "compute" and summary["status"] == "completed"
    assert len(summary["machines"]) == 2
    for machine in summary["machines"].values():
        assert machine["primes_found"] == 78498 and machine["correct"] is True
        assert machine["engine"] == "compute" and machine["status"] == "completed"
        assert machine["wall_seconds"] >= 0 and machine["ok"] == 3
    page = report.read_text()
    assert "<svg" in page and "<script" not in page and "78498" in page

    run = summary["run_id"]
    folder = farm.folder / "data" / "results" / "runs" / run
    lines = [json.loads(line) for line in (folder / "events.ndjson").read_text().splitlines()]
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "run_lifecycle" and lines[-1]["payload"]["type"] == "run_end"
    assert kinds.count("compute_done") == 8 and "compute_line" in kinds
    assert json.loads((folder / "metadata.json").read_text())["settings"]["n"] == 1000000
    assert {m["primes_found"] for m in json.loads((folder / "summary.json").read_text()).values()} == {78498}

    assert run in farm("runs").stdout
    assert "78498" in farm("runs", "show", run).stdout
    assert len(farm.json("runs", "show", run)["summary"]["samples"]) == 8
    rows = list(csv.DictReader(farm("runs", "export", run, "--format", "csv").stdout.splitlines()))
    assert len(rows) == 8 and {row["primes_found"] for row in rows} == {"78498"}
    assert farm.json("runs", "compare", run)["compared_with"] == []

    text = farm("race", "compute", *sieve, "--repeats", "2")
    assert "MACHINE" in text.stdout and "78498" in text.stdout
    assert "starts" in text.stderr and "primes 78498" in text.stderr
    newest = farm.json("runs", "ls", "--limit", "1")[0]["run_id"]
    assert farm.json("runs", "compare", newest)["compared_with"][0]["run_id"] == run
    assert run in farm("runs", "compare", newest).stdout
    farm("runs", "rm", run, newest)
    eventually(lambda: not folder.exists(), what="the files are gone")
    assert "no run" in farm("runs", "show", run, code=4).stderr


def test_an_interrupt_cancels_the_race(farm):
    race = farm.start("race", "compute", "--n", "200000000", "--algorithm", "trial_division", "--threads", "1")
    try:
        run = eventually(
            lambda: next((r["run_id"] for r in farm.json("runs") if r["status"] == "running"), None), what="the race"
        )
        race.send_signal(2)
        assert race.wait(30) == 130
    finally:
        race.kill()
        race.communicate()
    assert eventually(lambda: farm.json("runs", "show", run)["status"] != "running" and run)
    assert farm.json("runs", "show", run)["status"] == "cancelled"
    farm("runs", "rm", run)
