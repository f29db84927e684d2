"""The examples in docs/*.md, run as they stand there: shell blocks in order, and Python blocks with one `farm`."""

import contextlib
import os
import re
import subprocess

import grange
import pytest
from farm_process import ROOT, FarmProcess, binary, environment

PAGES = ["scheduling", "graphs", "life", "explain"]


def blocks(page):
    """(line, language, text) of each fenced block."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for match in re.finditer(r"^```(sh|python)\n(.*?)^```$", text, re.M | re.S):
        yield text[: match.start()].count("\n") + 1, match[1], match[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = FarmProcess(tmp_path_factory.mktemp("farm"), "--workers", "2", "--slots", "2")
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def nothing_left(server):
    yield
    with grange.connect(server.url) as farm:
        farm.resume()
        for job in farm.jobs(limit=1000):
            if job.info()["status"] in ("pending", "running"):
                with contextlib.suppress(grange.GrangeError):  # it may have ended meanwhile
                    job.cancel()


def test_every_page_has_examples_in_each_language():
    for page in PAGES:
        assert {"sh", "python"} == {language for _, language, _ in blocks(page)}, page
        shell = "".join(text for _, language, text in blocks(page) if language == "sh")
        assert "curl" in shell and "grange " in shell, page


@pytest.mark.parametrize(
    ("page", "line", "text"),
    [pytest.param(p, n, t, id=f"{p}:{n}") for p in PAGES for n, language, t in blocks(p) if language == "sh"],
)
def test_shell(server, tmp_path, page, line, text):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "grange").symlink_to(binary())
    # curl says by its code when the server refused something.
    (tmp_path / "bin" / "curl").write_text('#!/bin/sh\nPATH=${PATH#*:}\nexec curl --fail-with-body "$@"\n')
    (tmp_path / "bin" / "curl").chmod(0o755)
    env = environment(GRANGE_URL=server.url, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=env,
        check=False,
    )
    assert done.returncode == 0, f"{page}.md line {line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_python(server, page, capsys):
    with grange.connect(server.url) as farm:
        scope = {"grange": grange, "farm": farm, "__name__": "__main__"}
        for line, language, text in blocks(page):
            if language == "python":
                # The line numbers of the page, for what goes wrong.
                exec(compile("\n" * line + text, f"docs/{page}.md", "exec"), scope)
