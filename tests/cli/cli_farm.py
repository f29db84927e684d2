"""The command line against a real farm."""

import json
import subprocess
import time

from farm_process import ROOT, FarmProcess, binary, environment

__all__ = ["ROOT", "Farm", "binary", "environment", "eventually", "grange"]


def eventually(check, seconds=15, what="it"):
    """Until check() is true; bounded, so that a failure ends."""
    until = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < until, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)
    return value


class Farm(FarmProcess):
    """A farm to which commands can be given: farm("jobs", "ls")."""

    def start(self, *arguments, **options):
        """A command that goes on beside the test."""
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        options.setdefault("stdin", subprocess.DEVNULL)
        env = environment(GRANGE_URL=self.url)
        return subprocess.Popen([binary(), *arguments], env=env, cwd=self.folder, **options)

    def __call__(self, *arguments, code=0, stdin=None, timeout=40):
        done = grange(*arguments, stdin=stdin, timeout=timeout, cwd=self.folder, GRANGE_URL=self.url)
        assert done.returncode == code, f"{arguments} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments, **options):
        return json.loads(self(*arguments, "--json", **options).stdout)

    def submit(self, text, *arguments):
        return self("submit", "-", *arguments, stdin=text).stdout.strip()


def grange(*arguments, stdin=None, timeout=40, cwd=None, **env):
    return subprocess.run(
        [binary(), *arguments],
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=environment(**env),
        check=False,
    )
