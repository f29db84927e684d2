"""`grange run`, `submit` and what stands around them, as a person or a script types it."""

import json
import os
import pathlib
import select
import signal

from cli_farm import eventually


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def read_until(stream, wanted, seconds=15):
    """Bytes as they arrive; the process is not waited for."""
    got = b""

    def check():
        nonlocal got
        if select.select([stream], [], [], 0)[0]:
            got += os.read(stream.fileno(), 65536)
        return wanted in got

    eventually(check, seconds, f"{wanted!r} in the output")
    return got


# ---------------------------------------------------------------------------------------------------------------- run


def test_run_passes_output_and_code_through(farm):
    done = farm("run", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert done.stdout == "out\n"
    assert done.stderr == "err\n"
    assert farm("run", "echo", "--json", "[a,b]").stdout == "--json [a,b]\n", "what follows the command is its own"
    assert farm("run", "-e", "A=b c", "--", "sh", "-c", 'echo "$A"').stdout == "b c\n"


def test_run_passes_bytes_through(farm):
    process = farm.start("run", "--", "printf", r"\377\000\001x")
    out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == (b"\xff\x00\x01x", 0), err


def test_run_of_a_program_that_is_not_there(farm):
    done = farm("run", "--", "no-such-program-anywhere", code=127)
    assert "no-such-program-anywhere" in done.stderr


def test_run_killed_by_a_signal(farm):
    assert farm("run", "--", "sh", "-c", "kill -TERM $$", code=143).stdout == ""


def test_run_output_is_live(farm, tmp_path):
    go = tmp_path / "go"
    process = farm.start("run", "--", "sh", "-c", f"echo first; until test -e {go}; do sleep 0.05; done; echo second")
    assert read_until(process.stdout, b"first\n") == b"first\n"
    assert process.poll() is None
    go.touch()
    out, _ = process.communicate(timeout=20)
    assert out == b"second\n"
    assert process.returncode == 0


def test_run_ctrl_c_cancels_on_the_worker(farm):
    process = farm.start("run", "--", "sh", "-c", "echo $$; exec sleep 300")
    pid = int(read_until(process.stdout, b"\n"))
    assert alive(pid)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    eventually(lambda: not alive(pid), what="the end of the command")


def test_run_detach_and_timeout(farm):
    job = farm("run", "--detach", "--", "echo", "later").stdout.strip()
    farm("wait", job, "--timeout", "20")
    assert farm("results", job).stdout == "later\n"
    done = farm("run", "--timeout", "200ms", "--", "sleep", "60", code=124)
    assert "time" in done.stderr.lower()


def test_run_takes_files_there_and_back(farm, tmp_path):
    (tmp_path / "in.txt").write_text("hello\n")
    (farm.folder / "near.txt").write_text("near\n")
    out = farm(
        "run",
        "--in",
        str(tmp_path / "in.txt"),
        "--in",
        "near.txt",
        "--out",
        "made/out.txt",
        "--",
        "sh",
        "-c",
        "ls; mkdir made; cat in.txt near.txt > made/out.txt",
    )
    assert out.stdout == "in.txt\nnear.txt\n"
    assert (farm.folder / "made" / "out.txt").read_text() == "hello\nnear\n"
    assert "none.bin" in farm("run", "--in", "none.bin", "--", "true", code=2).stderr
    assert "../up" in farm("run", "--out", "../up", "--", "true", code=2).stderr
    assert "gone.txt" in farm("run", "--out", "gone.txt", "--", "true", code=1).stderr
    assert "empty folder" in farm("run", "--help").stdout


def test_run_takes_what_is_piped_in(farm):
    assert farm("run", "--", "tr", "a-z", "A-Z", stdin="two\nlines\n").stdout == "TWO\nLINES\n"
    assert farm("run", "--no-stdin", "--", "cat", stdin="nothing").stdout == ""
    assert "256 KiB" in farm("run", "--", "cat", stdin="x" * 262_145, code=2).stderr
    assert len(farm("run", "--", "cat", stdin="x" * 262_144).stdout) == 262_144
    assert "UTF-8" in farm("run", "--", "cat", stdin="a\0b", code=2).stderr


# ------------------------------------------------------------------------------------------------------------- submit


def test_submit_toml_array_and_results(farm):
    job = farm.submit('name = "sweep"\ncommand = ["echo", "{index}:{}"]\nargs = ["a", "b c", 3]\n')
    farm("wait", job, "--timeout", "20")
    assert farm("results", job).stdout == "0:a\n1:b c\n2:3\n"
    rows = [json.loads(line) for line in farm("results", job, "--json").stdout.splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert rows[1]["value"] == "1:b c\n"
    assert {"status", "attempt", "worker_id", "exit_code"} <= rows[0].keys()


def test_submit_json_with_overrides(farm, tmp_path):
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"command": ["echo", "{index}"], "count": 2}))
    job = farm.json("submit", str(file), "--count", "5", "--name", "five", "--priority", "3", "--wait")
    assert (job["total_tasks"], job["name"], job["priority"], job["status"]) == (5, "five", 3, "completed")
    assert farm("results", job["id"]).stdout == "0\n1\n2\n3\n4\n"


def test_submit_wait_says_that_it_failed(farm):
    done = farm("submit", "-", "--wait", stdin='script = "exit 3"\nretries = 0\n', code=1)
    assert "failed" in done.stderr
    assert farm("results", done.stdout.strip(), code=1).stdout == ""


def test_submit_follow_shows_output(farm):
    done = farm("submit", "-", "--follow", stdin='script = "echo from {}"\nargs = ["x", "y"]\n')
    lines = sorted(done.stdout.splitlines()[1:])
    assert lines == ["[0] from x", "[1] from y"]


def test_an_argument_is_never_code(farm):
    hostile = 'it\'s $(echo gone) `echo gone` "; echo gone; " *'
    job = farm.submit(
        json.dumps({"script": "printf '%s\\n' {} \"{}\" '{}' \"$GRANGE_ARG\"", "args": [hostile]}), "--wait"
    )
    assert farm("results", job).stdout == f"{hostile}\n" * 4


def test_failed_tasks_say_why(farm):
    job = farm.submit('script = "echo no such disk >&2; exit 3"\nretries = 0\ncount = 2\n')
    farm("wait", job, code=1)
    assert "exit code 3: no such disk" in farm("tasks", job).stdout
    assert farm("jobs", job).stdout.count("exit code 3: no such disk") == 2
    shown = farm("jobs", "show", f"{job}/1").stdout
    assert f"task       {job}/1" in shown and "exit code 3: no such disk" in shown, shown
    task = farm.json("tasks", "ls", f"{job}/1")[0]
    assert (task["index"], task["failure"], task["exit_code"], task["message"]) == (
        1,
        "exit_code",
        3,
        "exit code 3: no such disk",
    )
    assert "no such disk" in farm("results", f"{job}/1", code=1).stderr


def test_one_task_by_its_name(farm):
    job = farm.submit('command = ["echo", "{index}"]\ncount = 3\n', "--wait")
    assert farm("results", f"{job}/1").stdout == "1\n"
    assert farm("results", f"{job}/0").stdout == "0\n"
    assert len(farm("tasks", "ls", f"{job}/2").stdout.splitlines()) == 2
    for command in (["results"], ["jobs", "show"], ["tasks", "ls"]):
        assert "no task 3" in farm(*command, f"{job}/3", code=4).stderr
    for command in ("wait", "retry"):
        assert f"{command} takes a job: {job}" in farm(command, f"{job}/1", code=2).stderr


def test_work_that_nobody_can_run_says_so(farm):
    job = farm.submit('command = ["true"]\ncpus = 4000\n[labels]\nplanet = "mars"\n')
    why = farm.json("explain", job)["summary"]
    assert f"waits      {why}" in farm("jobs", "show", job).stdout
    err = farm("wait", job, "--timeout", "3s", code=1).stderr
    assert err.count(why) == 1 and f"grange explain {job}" in err, err
    assert "not ended" in farm("results", job, code=1).stderr
    farm("cancel", job)
    run = farm.start("run", "--gpus", "77", "--", "true")
    assert b"77 GPUs" in read_until(run.stderr, b"says more")
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=20)


def test_args_file_of_100_000_lines(farm, tmp_path):
    (tmp_path / "lines.txt").write_text("".join(f"line {i}\n" for i in range(100_000)))
    (tmp_path / "job.toml").write_text('engine = "builtin"\nargs_file = "lines.txt"\n[builtin]\nop = "echo"\n')
    job = farm.json("submit", str(tmp_path / "job.toml"))
    assert job["total_tasks"] == 100_000
    farm("cancel", job["id"])


def test_files_in_and_out(farm, tmp_path):
    (tmp_path / "in.txt").write_text("hello\n")
    (tmp_path / "tool.sh").write_text("#!/bin/sh\ntr a-z A-Z < data/in.txt > out.txt\necho $1 >> out.txt\n")
    (tmp_path / "tool.sh").chmod(0o755)
    (tmp_path / "job.toml").write_text("""
command = ["./tool.sh", "{}"]
args = ["one", "two"]
files_in = ["tool.sh", {path = "data/in.txt", source = "in.txt"}]
files_out = ["out.txt"]
""")
    job = farm("submit", str(tmp_path / "job.toml"), "--wait").stdout.strip()
    out = tmp_path / "results"
    farm("results", job, "--out", str(out))
    assert (out / "0" / "out.txt").read_text() == "HELLO\none\n"
    assert (out / "1" / "out.txt").read_text() == "HELLO\ntwo\n"


def test_idempotency_key(farm):
    first = farm.submit('command = ["true"]\n', "--key", "the-same")
    assert farm.submit('command = ["true"]\n', "--key", "the-same") == first


# ----------------------------------------------------------------------------------------- jobs, logs, cancel, retry


def test_logs_follow_until_the_end(farm, tmp_path):
    go = tmp_path / "go"
    job = farm.submit(f'script = "echo one; until test -e {go}; do sleep 0.05; done; echo two"\n')
    process = farm.start("logs", f"{job}/0", "-f")
    assert read_until(process.stdout, b"one\n") == b"one\n"
    go.touch()
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"two\n", 0)
    assert farm("logs", job).stdout == "one\ntwo\n"


def test_cancel_and_retry(farm, tmp_path):
    gate = tmp_path / "gate"
    job = farm.submit(f'script = "test -e {gate} && exit 0; echo $$; exec sleep 300"\ncount = 3\n')
    pid = int(eventually(lambda: farm("logs", f"{job}/0").stdout.strip(), what="the first task's output"))
    assert farm.json("cancel", f"{job}/2")["cancelled"] == 1
    assert farm.json("cancel", job)["cancelled"] == 2
    eventually(lambda: not alive(pid), what="the end of the task")
    assert farm.json("jobs", "show", job)["status"] == "cancelled"
    farm("wait", job, code=1)
    gate.touch()
    assert farm.json("retry", job)["retried"] == 3
    farm("wait", job, "--timeout", "20")


def test_wait_timeout_leaves_the_job_alone(farm):
    job = farm.submit('command = ["sleep", "300"]\n')
    done = farm("wait", job, "--timeout", "300ms", code=1)
    assert "not ended" in done.stderr
    assert farm.json("jobs", "show", job)["status"] in ("pending", "running")
    farm("cancel", job)


def test_lists(farm):
    job = farm.submit('name = "listed"\ncommand = ["true"]\ncount = 2\n')
    farm("wait", job, "--timeout", "20")
    jobs = farm.json("jobs")
    assert {"id", "name", "status", "total_tasks", "completed_tasks", "created_at", "progress"} <= jobs[0].keys()
    assert "listed" in farm("jobs", "ls").stdout
    assert "listed" in farm("jobs", "show", job).stdout
    tasks = farm.json("tasks", "ls", job)
    assert [task["id"] for task in tasks] == [f"{job}/0", f"{job}/1"]
    assert f"{job}/1" in farm("tasks", "ls", job, "--status", "completed").stdout
    workers = farm.json("workers")
    assert sum(worker["connected"] for worker in workers) == 2
    assert workers[0]["id"] in farm("workers", "ls").stdout
    assert isinstance(farm.json("db", "info"), dict)
    assert "\x1b" not in farm("jobs").stdout, "no colours where nobody looks"


def test_version(farm):
    assert farm.json("version").keys() == {"version", "commit", "build_type"}
