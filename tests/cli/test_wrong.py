"""What is typed wrong, and what it gets: the right code, and one sentence that says what to do."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest
from cli_farm import Farm, binary, environment, eventually, grange


def says(done, code, *words):
    assert done.returncode == code, f"{done.args} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_no_server():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{s.getsockname()[1]}"
        for command in (
            ["jobs"],
            ["run", "--", "true"],
            ["wait", "1"],
            ["logs", "1", "-f"],
            ["workers"],
            ["bench", "submit", "--server", url],
        ):
            says(grange(*command, GRANGE_URL=url), 3, url, "grange up", "--url")


def test_unknown_commands_and_options():
    says(grange("job"), 2, "grange jobs")
    says(grange("frobnicate"), 2, "--help")
    says(grange("jobs", "--frobnicate"), 2, "grange jobs --help")
    says(grange("run"), 2, "grange run --")
    says(grange("wait", "1", "--timeout", "soon"), 2, "10m")
    says(grange("cancel", "7/x"), 2, "7/3")
    says(grange("jobs", "shwo", "7"), 2, "grange jobs show")
    says(grange("workers", "dran", "x"), 2, "grange workers drain")
    says(grange("db", "frobnicate"), 2, "grange db --help")
    says(grange("run", "--cpus", "-1", "--", "true"), 2, "-1 is not a number above 0")
    says(grange("run", "--gpus", "few", "--", "true"), 2, "few is not a number of 0 or more")
    says(grange("run", "--memory", "2", "--", "true"), 2, "did you mean 2GiB?")
    says(grange("server", "--port", "99999"), 2, "0", "65535")
    says(grange("schedules", "ad"), 2, "grange schedules add")
    says(grange("users", "sett", "anna"), 2, "grange users set")
    says(grange("dead", "redirve", "7"), 2, "grange dead redrive")
    says(grange("explain"), 2, "ID", "grange explain --help")
    says(grange("explain", "7/x"), 2, "7/3")
    says(grange("submit", "-", "--nodes", "0"), 2, "1", "1024")
    says(grange("submit", "-", "--when", "always"), 2, "all_finished")
    says(grange("server", "--aging", "soon"), 2, "10m")
    says(grange("--url", "ftp://x", "jobs"), 2, "http://")


@pytest.mark.parametrize(
    "command",
    [
        *[["jobs", "show"], ["wait"], ["logs"], ["logs", "-f"], ["results"], ["cancel"], ["retry"], ["tasks", "ls"]],
        *[["explain"], ["pause"], ["resume"], ["close"], ["add", "--count", "1"], ["dead", "redrive"]],
    ],
)
def test_unknown_job(farm, command):
    says(farm(*command, "999999", code=4), 4, "999999")


def test_bad_job_files(farm, tmp_path):
    def write(text, name="job.toml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    says(farm("submit", str(tmp_path / "none.toml"), code=2), 2, "none.toml")
    says(farm("submit", str(tmp_path), code=2), 2, "folder")
    says(farm("submit", write("command = [\n"), code=2), 2, "TOML", "line")
    says(farm("submit", write('{"command": ', "job.json"), code=2), 2, "JSON", "line")
    says(farm("submit", write('comand = ["true"]\n'), code=2), 2, "comand", "command")
    says(farm("submit", write('name = "nothing to do"\n'), code=2), 2)
    says(farm("submit", write('command = ["true"]\nargs_file = "none.txt"\n'), code=2), 2, "none.txt")
    says(farm("submit", write('command = ["true"]\nfiles_in = ["none.bin"]\n'), code=2), 2, "none.bin")
    says(
        farm("submit", write('command = ["true"]\nfiles_in = [{path = "../up", source = "job.toml"}]\n'), code=2),
        2,
        "../up",
    )


def start(*arguments, **env):
    return grange("server", *arguments, timeout=30, **env)


def test_port_in_use(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = str(s.getsockname()[1])
        says(start("--port", port, "--ws-port", "0", "--data", str(tmp_path), "--log-level", "off"), 1, port, "--port")


def test_data_folder_in_use(farm):
    says(start("--port", "0", "--ws-port", "0", "--data", str(farm.folder / "data"), "--log-level", "off"), 1, "data")


def test_data_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    says(
        start("--port", "0", "--ws-port", "0", "--data", str(tmp_path / "file" / "data"), "--log-level", "off"),
        1,
        "data",
    )


NOBODY = 65534


def without_rights(command):
    """The same command as a user for whom permissions count; root may write anywhere."""
    if os.geteuid() != 0:
        return command
    if not (setpriv := shutil.which("setpriv")):
        pytest.skip("root may write everywhere, and setpriv, which gives that up, is not installed")
    given_up = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
    if subprocess.run([*given_up[:4], binary(), "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the binary lies where only root may read it")
    return given_up


@pytest.mark.parametrize("there", ["folder", "nothing"])
def test_data_folder_without_permission(there):
    # Not in pytest's folder: root's may not be entered by others.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        data = pathlib.Path(folder) / "locked"
        data.mkdir()
        data.chmod(0o555)
        if there == "nothing":
            data = data / "data"
        command = without_rights(
            [binary(), "server", "--port", "0", "--ws-port", "0", "--data", str(data), "--log-level", "off"]
        )
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, cwd="/", env=environment(), check=False
        )
        says(done, 1, str(data), "ermi")
        assert not list(pathlib.Path(folder, "locked").iterdir())


def test_beyond_loopback_needs_a_token(tmp_path):
    done = start("--host", "0.0.0.0", "--port", "0", "--ws-port", "0", "--data", str(tmp_path), "--log-level", "off")
    assert (done.returncode, done.stdout) == (2, "")
    assert "grange server --host 0.0.0.0 --token-file token" in done.stderr, "what to type"
    assert "umask 077" in done.stderr
    assert (
        "grange up --host 0.0.0.0" in grange("up", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path)).stderr
    )


def test_other_wrong_settings_of_a_server(tmp_path):
    data = ["--port", "0", "--ws-port", "0", "--data", str(tmp_path), "--log-level", "off"]
    says(start(*data, "--policy", "astrology"), 2, "astrology")
    says(start(*data, "--token-file", str(tmp_path / "none")), 2, "openssl rand")
    (tmp_path / "empty").touch()
    says(start(*data, "--token-file", str(tmp_path / "empty")), 2, "empty")


def test_tokens(tmp_path):
    (tmp_path / "token").write_text("a-secret-of-some-length\n")
    farm = Farm(tmp_path, "--token-file", "token", "--workers", "1", "--slots", "1")
    try:
        says(farm("jobs", code=1), 1, "token")
        says(grange("jobs", GRANGE_URL=farm.url, GRANGE_TOKEN="another"), 1, "token")
        assert farm("run", "--token-file", "token", "--", "echo", "in").stdout == "in\n"
        for pid in farm.ready["workers"]:
            assert b"a-secret" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    finally:
        farm.stop()


# ------------------------------------------------------------------------------------------------------ `up` itself


def running(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended between the opening and the reading
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"


def test_up_stops_cleanly(tmp_path):
    farm = Farm(tmp_path, "--workers", "2", "--slots", "1")
    assert farm.ready.keys() == {"url", "ws_url", "pid", "workers"}
    assert farm.ready["pid"] == farm.process.pid
    workers = farm.ready["workers"]
    assert len(workers) == 2
    assert farm.stop(signal.SIGINT) == 0
    assert not any(running(pid) for pid in workers)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_workers_die_with_up(tmp_path, number):
    farm = Farm(tmp_path, "--workers", "2", "--slots", "1")
    farm.stop(number)
    eventually(lambda: not any(running(pid) for pid in farm.ready["workers"]), 20, "the workers' end")


def test_up_starts_a_killed_worker_again(tmp_path):
    farm = Farm(tmp_path, "--workers", "1", "--slots", "1")
    try:
        os.kill(farm.ready["workers"][0], signal.SIGKILL)
        assert farm("run", "--", "echo", "again").stdout == "again\n"
    finally:
        farm.stop()


def test_up_lets_a_drained_worker_go(tmp_path):
    farm = Farm(tmp_path, "--workers", "2", "--slots", "1")
    try:
        worker = farm.json("workers")[0]["id"]
        farm("workers", "drain", worker)
        eventually(lambda: sum(not running(pid) for pid in farm.ready["workers"]) == 1, what="the drained worker's end")
        eventually(lambda: "not started again" in (tmp_path / "farm.log").read_text(), what="the word of it")
        assert farm("run", "--", "echo", "other").stdout == "other\n"
    finally:
        farm.stop()


def test_a_worker_that_drains_gets_its_tasks_not_back(tmp_path):
    server = Farm(tmp_path, command="server")
    worker = subprocess.Popen(
        [
            binary(),
            "worker",
            "--server",
            server.url,
            "--data",
            str(tmp_path / "worker"),
            "--slots",
            "1",
            "--health-port",
            "0",
            "--drain",
            "1s",
        ],
        env=environment(),
        stderr=server.errors,
    )
    try:
        job = server.submit(json.dumps({"command": ["sleep", "60"], "count": 4}))
        eventually(lambda: any(task["worker_id"] for task in server.json("tasks", job)), what="a task's start")
        worker.terminate()
        worker.wait(20)
        tasks = server.json("tasks", job)
        assert len(tasks) == 4
        assert all(task["attempt"] <= 2 for task in tasks), tasks
    finally:
        worker.kill()
        worker.wait(20)
        server.stop()


def test_run_waits_for_a_worker_and_outlives_a_server_restart(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    server = Farm(tmp_path, port=port, command="server")
    running_command = server.start("run", "--", "echo", "at last")
    eventually(lambda: server.json("jobs"), what="the submit")
    server.stop(signal.SIGKILL)
    again = Farm(tmp_path, port=port, command="server")
    worker = subprocess.Popen(
        [
            binary(),
            "worker",
            "--server",
            again.url,
            "--data",
            str(tmp_path / "worker"),
            "--slots",
            "1",
            "--health-port",
            "0",
        ],
        env=environment(),
        stderr=again.errors,
    )
    try:
        out, err = running_command.communicate(timeout=40)
        assert (out, running_command.returncode) == (b"at last\n", 0), err
    finally:
        worker.terminate()
        worker.wait(20)
        again.stop()
