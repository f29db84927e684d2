"""`grange up` stopped while it works: nothing of the farm, and nothing that its tasks started, is left."""

import os
import pathlib
import signal
import time
import uuid

import pytest
from cli_farm import ROOT, Farm, eventually


def processes_with(mark, folder):
    """Those that carry the mark in their environment, or name the farm's folder; zombies are gone already."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state not in "ZX" and (
            mark.encode() in environment or mark.encode() in command or str(folder).encode() in command
        ):
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


@pytest.fixture
def mark():
    return f"mark-{uuid.uuid4().hex}"


def test_up_leaves_no_process_when_it_is_stopped(tmp_path, mark, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "python"))
    grange = pytest.importorskip("grange")
    farm = Farm(tmp_path, "--workers", "2", "--slots", "3", FARM_MARK=mark)
    client = None
    try:
        # Each task has children of its own: in the background, and behind another shell.
        farm.submit(f"""
            script = "sleep 100 & sh -c 'sleep 101 & sleep 102' & touch {tmp_path}/command-{{index}}; sleep 100"
            count = 2
            env = {{ TASK_MARK = "{mark}" }}
        """)
        client = grange.connect(farm.url)
        folder = str(tmp_path)

        def task(i, mark=mark, folder=folder):
            import pathlib
            import subprocess
            import time

            subprocess.Popen(["sh", "-c", f"sleep 100 & sleep 100 # {mark}"])
            pathlib.Path(f"{folder}/python-{i}").touch()
            time.sleep(100)

        tasks = [client.submit(task, i) for i in range(2)]
        wanted = {"command-0", "command-1", "python-0", "python-1"}
        eventually(lambda: wanted <= set(os.listdir(tmp_path)), 40, "the start of all tasks")
        before = processes_with(mark, tmp_path)
        assert len(before) >= 10, before
        assert list(before.values()).count("sleep 101") == 2, before
        begin = time.monotonic()
        assert farm.stop(signal.SIGTERM) == 0
        assert time.monotonic() - begin < 24, "it was not killed for taking too long"
        # A killed process of another parent is there until that one has looked.
        until = time.monotonic() + 5
        while (left := processes_with(mark, tmp_path)) and time.monotonic() < until:
            time.sleep(0.05)
        assert not left
        assert len(tasks) == 2
    finally:
        farm.stop()
        if client is not None:
            client.close()
        for pid in processes_with(mark, tmp_path):
            os.kill(pid, signal.SIGKILL)
