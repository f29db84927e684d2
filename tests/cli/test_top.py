"""`grange top` on a real pseudo-terminal, against a real farm."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import time

import pytest
from cli_farm import Farm, eventually, grange
from terminal import Terminal

LONG = 'name = "long-one"\ncommand = ["sh", "-c", "echo word-of-{}; exec sleep 300"]\nargs = ["1", "2", "3"]\n'


@contextlib.contextmanager
def top(url, *arguments, **options):
    terminal = Terminal("top", *arguments, GRANGE_URL=url, **options)
    try:
        yield terminal
    finally:
        terminal.close()


def row(text, word):
    """The line with this word."""
    return next((line for line in text.split("\n") if word in line), "")


def open_job(t, name):
    t.type(f"2/{name}\r")
    t.wait(lambda text: "1 of" in text and f"  {name} " in text)
    t.type("\r")


def test_a_job_is_seen_opened_and_cancelled(farm):
    job = farm.submit(LONG)
    with top(farm.url) as t:
        t.wait(lambda text: "running" in row(text, "  long-one "))
        t.wait("Enter open")
        open_job(t, "long-one")
        text = t.wait("word-of-1")
        assert f"Job {job}" in text and "Log" in text and "0 of 3 tasks" in text
        t.type("c")
        t.wait(f"Cancel job {job} (long-one)")
        t.type("n")
        t.wait("Nothing was done.")
        assert farm.json("jobs", "show", job)["status"] == "running"
        t.type("cy")
        t.wait("3 tasks cancelled")
        t.wait("cancelled")
        t.type("\x1b")
        t.wait(lambda text: "cancelled" in row(text, "  long-one "))
        t.type("q")
        assert t.code() == 0 and t.restored()
    assert farm.json("jobs", "show", job)["status"] == "cancelled"


def test_pause_and_resume(farm):
    job = farm.submit('name = "held"\ncommand = ["sleep", "300"]\nargs = ["1"]\n')
    with top(farm.url) as t:
        t.type("2/held\r")
        t.wait(lambda text: "running" in row(text, "  held"))
        t.type("p")
        t.wait(lambda text: "paused" in row(text, "  held"))
        t.type("p")
        t.wait(lambda text: "running" in row(text, "  held"))
    farm("cancel", job)


def test_a_job_that_nobody_can_run_says_why(farm):
    job = farm.submit('name = "too-big"\ncommand = ["true"]\nargs = ["1"]\ncpus = 900\n')
    with top(farm.url) as t:
        open_job(t, "too-big")
        t.wait("it needs 900 cores")
    farm("cancel", job)


def test_a_worker_is_opened_and_drained_and_the_server_goes_away(tmp_path):
    farm = Farm(tmp_path, "--workers", "2", "--slots", "2")
    port = farm.url.rsplit(":", 1)[1]
    try:
        with top(farm.url) as t:
            t.wait("2, 4 slots")
            t.type("3")
            t.wait(lambda text: text.count("online") == 2)
            t.type("\r")
            text = t.wait("engines")
            name = re.search(r"^ (\S+)  online", text, re.M)[1]
            t.type("d")
            t.wait(f"Drain worker {name}")
            t.type("y")
            t.wait(f"Drain of worker {name}.")
            t.type("\x1b")
            t.wait(lambda text: "offline" in row(text, name))
            states = {worker["name"]: worker["status"] for worker in farm.json("workers")}
            assert states[name] == "offline" and list(states.values()).count("online") == 1

            farm.stop(signal.SIGKILL)
            t.wait(lambda text: re.search(r"not connected, trying again in \d s", text))
            assert name in t.text(), "what was known stays"
            t.type("1")
            t.wait("slots")  # keys go on
            farm = Farm(tmp_path, "--workers", "1", port=port)
            t.wait(lambda text: "not connected" not in text and "Overview" in text, seconds=30)
            t.type("q")
            assert t.code() == 0 and t.restored()
    finally:
        farm.stop()


def test_a_server_that_does_not_answer_holds_up_no_key():
    with socket.create_server(("127.0.0.1", 0)) as silent, top(f"http://127.0.0.1:{silent.getsockname()[1]}") as t:
        t.wait("connecting")
        t.type("?")
        t.wait("drain the worker")
        t.type("x")
        t.wait("Enter open")
        t.wait("has not answered for")
        t.type("q")
        assert t.code() == 0 and t.restored()


@pytest.mark.parametrize(
    ("way", "code"),
    [("q", 0), ("\x03", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGABRT, -signal.SIGABRT)],
)
def test_the_terminal_is_given_back(farm, way, code):
    with top(farm.url) as t:
        t.wait("Overview")
        assert not t.restored()
        if isinstance(way, str):
            t.type(way)
        else:
            t.process.send_signal(way)
        assert t.code() == code
        assert t.restored()


def state_of(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_stopped_and_continued(farm):
    def state():
        return state_of(t.process.pid)

    with top(farm.url) as t:
        t.wait("Overview")
        t.type("\x1a")
        eventually(lambda: state() == "T", what="the stop")
        t.read()
        assert t.restored()
        t.screen.reset()
        t.process.send_signal(signal.SIGCONT)
        t.wait("Overview")
        t.type("q")
        assert t.code() == 0 and t.restored()


def test_a_stop_while_it_draws_is_not_lost(farm):
    with top(farm.url) as t:
        t.wait("Overview")
        for turn in range(60):
            t.type("?x")
            time.sleep(turn % 20 / 10_000)
            t.type("\x1a")
            eventually(lambda: state_of(t.process.pid) == "T", seconds=5, what=f"stop {turn}")
            t.read(0)
            t.process.send_signal(signal.SIGCONT)
        t.wait("Overview")
        t.type("q")
        assert t.code() == 0


def test_the_terminal_that_goes_ends_it(farm):
    with top(farm.url) as t:
        t.wait("Overview")
        os.close(t.keep)
        os.close(t.ours)
        assert t.process.wait(15) == 129
        t.ours, t.keep = os.pipe()


def test_sizes(farm):
    with top(farm.url, columns=38, rows=8) as t:
        t.wait("too small: 40x10")
        t.resize(40, 10)
        t.wait("Overview")
        t.wait("? help  q quit")
        t.wait("waiting")
        t.resize(140, 45)
        t.wait(lambda text: "? help" in text.split("\n")[44])
        t.resize(30, 5)
        t.wait("too small")
        t.type("q")
        assert t.code() == 0


def test_colours_and_none(farm):
    coloured = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-7]|38;[0-9;]+)m")
    with top(farm.url) as t:
        t.wait("tasks/s")
        t.type("3")
        t.wait("online")
        assert coloured.search(t.raw)
    with top(farm.url, NO_COLOR="1") as t:
        t.wait("tasks/s")
        t.type("3")
        t.wait("online")
        assert not coloured.search(t.raw)


def test_plain_where_the_language_is_c(farm):
    job = farm.submit('name = "日本語 é"\ncommand = ["true"]\nargs = ["1"]\n')
    with top(farm.url) as t:
        t.wait("日本語 é")
        assert "▁" in t.text() or "█" in t.text()
    with top(farm.url, LC_ALL="C") as t:
        t.wait("??? ?")
        t.read(0.5)
        assert t.raw.isascii()
    farm("wait", job)


def test_what_a_task_writes_does_not_reach_the_terminal(farm):
    script = r"printf 'first \033]0;evil\007\033[2J\033[31mred\033[0m\302\2331mdone\n'"
    job = farm.submit(f"name = \"writer\"\ncommand = ['sh', '-c', '''{script}''']\nargs = ['1']\n")
    farm("wait", job)
    with top(farm.url) as t:
        open_job(t, "writer")
        t.wait("first red?1mdone")
        assert b"evil" not in t.raw and b"\xc2\x9b" not in t.raw


def test_scripts_are_told_what_to_use(farm):
    no_terminal = farm("top", code=2).stderr
    assert "grange top --once" in no_terminal and "grange jobs" in no_terminal and "--json" in no_terminal
    for wrong in ("soon", "0", "-1", "1ms", "9d"):
        assert farm("top", "--interval", wrong, code=2).stderr
    frame = farm("top", "--once").stdout
    assert farm.url in frame and "WORKER" in frame and "online" in frame and "\x1b" not in frame
    assert max(len(line) for line in frame.split("\n")) <= 80
    assert json.loads(farm("top", "--json").stdout).keys() == {"stats", "jobs", "workers"}


def test_once_without_a_server():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = grange("top", "--once", GRANGE_URL=url)
    assert done.returncode == 3 and "No Grange server answers" in done.stderr


def test_a_terminal_that_cannot(farm):
    for name in ("dumb", "no-such-terminal"):
        with top(farm.url, TERM=name) as t:
            assert t.code() == 2
            assert "grange top --once" in t.text().replace("\n", "")


def test_a_token_that_is_wanted(tmp_path):
    (tmp_path / "token").write_text("secret-of-this-test\n")
    farm = Farm(tmp_path, "--workers", "1", "--token-file", str(tmp_path / "token"))
    try:
        with top(farm.url) as t:
            assert t.code() == 1
            assert "wants a token" in t.text() and t.restored()
        with top(farm.url, "--token-file", str(tmp_path / "token")) as t:
            t.wait("online")
    finally:
        farm.stop()
