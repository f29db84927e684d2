"""The farm, as a Python program sees it."""

from __future__ import annotations

import atexit
import copy
import os
import pickle
import threading
import urllib.parse
import weakref
from typing import TYPE_CHECKING, Any

from grange._calls import code_of, pack_arguments
from grange._connection import Connection
from grange._graph import Collector, FutureInside, after
from grange._http import Http, answer_error
from grange._options import Options, refuse_unknown, split
from grange._submit import Batcher, Resolver
from grange._wire import wire_pb2 as pb
from grange.errors import GrangeError
from grange.futures import Future
from grange.models import Model

if TYPE_CHECKING:
    from grange._mapped import MapResult, OpenMap
    from grange.jobs import Job

_LIMITS = ("weight", "max_running", "max_cpus", "max_gpus", "max_queued", "starts_per_minute", "submits_per_minute")
DEFAULT_URL = "http://127.0.0.1:8000"


class Farm:
    """A connection to a server. Made by `grange.connect`; any thread may use it; after a fork the child gets its own
    session.

    Every call takes the options `retries` (of failures; a lost worker is always retried; default 0), `cpus`, `memory`
    ("2GiB" or bytes), `gpus`, `timeout` (of each run of a task, seconds or "10m"; but in `map` of the whole call),
    `priority` (-1000..1000), `labels`, `name`, and those that docs/python.md lists.
    In `submit`, one of these names counts as an option unless the function has a parameter of that name;
    `farm.options(...)` and `@grange.task(...)` set them without that rule.
    """

    def __init__(self, url, token):
        self._http = Http(url, token)
        self._connection = Connection(self._http)
        self._resolver = Resolver(self._http)
        self._options = Options()
        self._batcher = Batcher(self)
        self._connection.after_fork += [self._resolver.reset, self._batcher.reset]

    @property
    def url(self):
        return self._http.url

    def __repr__(self):
        return f"<grange.Farm {self.url}>"

    def options(self, **options):
        """This farm with options for all that is submitted through the returned object. It shares the connection."""
        other = copy.copy(self)
        other._options = self._options.merged(options)
        return other

    # ------------------------------------------------------------------------------------------------- work

    def submit(self, function, /, *args, **kwargs):
        """Run function(*args, **kwargs) on the farm; returns a `grange.Future` at once.

        Arguments may be futures, jobs and map results, also inside lists, tuples, sets and dicts: the call starts when
        these have succeeded, and gets their values. They go from worker to worker by way of the server, not through
        this program.

        Raises PicklingError, here and now, for a function or an argument that cannot be pickled. What the server
        refuses is the future's exception.
        """
        function, base = self._unwrap(function)
        kwargs, options = split(function, kwargs)
        return self._submit(function, base.merged(options), args, kwargs)

    def map(self, function, /, *iterables, chunksize=None, progress=None, timeout=None, **options):
        """[function(*xs) for xs in zip(*iterables)], on the farm: a list, in order.

        Each call is one task; `chunksize` puts several in one (worth it for calls under a millisecond). `timeout` is
        for the whole call, in seconds or as "10m" (TimeoutError); the limit of each task is the option of that name in
        `farm.options(timeout=...)` or `@grange.task(timeout=...)`.
        `progress`: True, False, or None for a bar on stderr when that is a terminal or a notebook. The first
        exception is raised with the remote traceback as its cause; then, and on Ctrl-C, the rest is cancelled.
        """
        from grange._map import run_map

        return run_map(self, function, iterables, chunksize, progress, timeout, options)

    def imap(self, function, /, *iterables, chunksize=None, **options):
        """Like `map`, as a lazy iterator in order. The iterables are read as results are taken, so they may be
        endless. `timeout` is the option here: the limit of each task."""
        from grange._map import run_imap

        return run_imap(self, function, iterables, chunksize, options, ordered=True)

    def imap_unordered(self, function, /, *iterables, chunksize=None, **options):
        """Like `imap`, each result as soon as it is there."""
        from grange._map import run_imap

        return run_imap(self, function, iterables, chunksize, options, ordered=False)

    def start_map(self, function, /, *iterables, **options) -> MapResult:
        """Like `map`, without waiting: a `grange.MapResult`. It can stand in for its values in a further `map`,
        `start_map` or `submit`. `timeout` is the option here: the limit of each task."""
        from grange._mapped import start_map

        return start_map(self, function, iterables, options)

    def open_map(self, function, /, **options) -> OpenMap:
        """A map to which calls are added while it runs: a `grange.OpenMap`."""
        from grange._mapped import OpenMap

        function, base = self._unwrap(function)
        return OpenMap(self, function, base.merged(options))

    def graph(self, jobs: list[dict[str, Any]]) -> list[Job]:
        """Submit jobs that wait for each other by name, all of them or none: a list of job files (docs/jobs.md), whose
        `after` may name others of the list. The jobs, in the order of the list."""
        from grange.jobs import Job

        answer = self._http.json("POST", "/api/graphs", {"jobs": list(jobs)})
        return [Job(self, info["id"], info) for info in answer["jobs"]]

    def plan(self, work, /, *args, **kwargs) -> dict[str, Any]:
        """What would become of a job, were it submitted now: the dict that `Future.explain()` gives. `work` is a job
        file as a dict, or a function with the arguments and options of `submit`. Nothing is submitted."""
        if isinstance(work, dict):
            return self._http.json("POST", "/api/plan", work)
        function, base = self._unwrap(work)
        others, options = split(function, kwargs)
        refuse_unknown(function, others)
        code = code_of(function)
        self._store(code)
        file = base.merged(options).file()
        file["python"] = {"model": code.model} if code.model else {"code_sha256": code.sha, "function": code.name[:256]}
        return self._http.json("POST", "/api/plan", file)

    # ------------------------------------------------------------------------------------------------- the queue

    def queue(self) -> dict[str, Any]:
        """Whether the queue is paused, its policy, and how much waits and runs: the dict of GET /api/queue."""
        return self._http.json("GET", "/api/queue")

    def pause(self) -> None:
        """Hand out nothing at all until `resume()`. What runs goes on."""
        self._http.json("POST", "/api/queue/pause", {})

    def resume(self) -> None:
        """Let the queue go on."""
        self._http.json("POST", "/api/queue/resume", {})

    def policies(self) -> list[dict[str, Any]]:
        """The scheduling policies, with what each has done."""
        return self._http.json("GET", "/api/policies")

    def policy(self, name: str | None = None) -> str:
        """The active policy; with a name, change to that one."""
        if name is None:
            return self._http.json("GET", "/api/policy")["policy"]
        return self._http.json("PUT", "/api/policy", {"policy": name})["policy"]

    def users(self) -> list[dict[str, Any]]:
        """The users that have work or limits, with their shares."""
        return self._http.json("GET", "/api/users")

    def set_user(self, name: str, **limits: float) -> dict[str, Any]:
        """Set some of a user's `weight`, `max_running`, `max_cpus`, `max_gpus`, `max_queued`, `starts_per_minute` and
        `submits_per_minute` (0: no limit); the others stay. The user as it is then."""
        if unknown := set(limits) - set(_LIMITS):
            raise TypeError(f"unknown limit {', '.join(sorted(unknown))}; there are: {', '.join(_LIMITS)}")
        path = "/api/users/" + urllib.parse.quote(name, safe="")
        try:
            now = self._http.json("GET", path)
        except GrangeError as error:
            if error.code != "not_found":
                raise
            now = {}
        return self._http.json("PUT", path, {k: now[k] for k in _LIMITS if k in now} | limits)

    def clear_user(self, name: str) -> None:
        """Take a user's weight and limits away."""
        self._http.json("DELETE", "/api/users/" + urllib.parse.quote(name, safe=""))

    # ------------------------------------------------------------------------------------------------- schedules

    def schedules(self) -> list[dict[str, Any]]:
        """All schedules: name, cron, next, last, last_job, runs, ..."""
        return self._http.json("GET", "/api/schedules")

    def schedule(
        self,
        name: str,
        cron: str,
        job: dict[str, Any],
        *,
        overlap: bool = True,
        catch_up: bool = False,
        paused: bool = False,
    ) -> dict[str, Any]:
        """Submit a job file again and again: make or replace the schedule `name`. `cron`: minute, hour, day of the
        month, month, day of the week, in UTC. `overlap=False` leaves a run out while the one before has not ended;
        `catch_up`: one run for the time that the server was down. For Python: {"model": "name/1",
        "encoding": "json"}."""
        body = {"cron": cron, "job": job, "overlap": overlap, "catch_up": catch_up, "paused": paused}
        return self._http.json("PUT", self._schedule_path(name), body)

    def remove_schedule(self, name: str) -> None:
        """Forget a schedule. Jobs that it has submitted stay."""
        self._http.json("DELETE", self._schedule_path(name))

    def pause_schedule(self, name: str) -> None:
        """Leave its runs out until `resume_schedule`."""
        self._http.json("POST", self._schedule_path(name) + "/pause", {})

    def resume_schedule(self, name: str) -> None:
        """Let a paused schedule go on."""
        self._http.json("POST", self._schedule_path(name) + "/resume", {})

    def run_schedule(self, name: str) -> dict[str, Any]:
        """Run it now, once."""
        return self._http.json("POST", self._schedule_path(name) + "/run", {})

    def _schedule_path(self, name):
        return "/api/schedules/" + urllib.parse.quote(name, safe="")

    # ------------------------------------------------------------------------------------------------- dead letters

    def dead_letters(
        self,
        job: str | None = None,
        failure: str | None = None,
        user: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[dict[str, Any]]:
        """Tasks that failed for good, over all jobs, newest first: id, failure, fault, stage, message, attempts, ...
        `before`: the id of the last one of a page, for the next page."""
        query = {"job": job, "class": failure, "user": user, "limit": limit, "before": before}
        return self._http.json("GET", "/api/dead-letters", **query)

    def redrive(self, job: str, classes: list[str] | None = None, indices: list[int] | None = None) -> int:
        """Run a job's failed tasks again, all or those of some classes or indices; how many."""
        body = {"job": str(job), "classes": list(classes or []), "indices": list(indices or [])}
        return self._http.json("POST", "/api/dead-letters/redrive", body)["retried"]

    # ------------------------------------------------------------------------------------------------- named code

    def publish(self, name, version, function):
        """Keep a function on the server as name/version; its `grange.Model`. GrangeError with code "conflict" when that
        version is there already with other code: a version never changes. Options of a `@grange.task` stay here."""
        model = Model(self, f"{name}/{version}")
        code = code_of(self._unwrap(function)[0])
        if code.model:
            raise TypeError("a model cannot be published again: publish the function")
        path = "/models/" + "/".join(urllib.parse.quote(part, safe="") for part in model.ref.split("/"))
        status, _, answer = self._http.request("PUT", path, code.data, {"Content-Type": "application/octet-stream"})
        if status >= 400:
            raise answer_error(status, answer)
        return model

    def model(self, ref):
        """The `grange.Model` of "name/version". The server looks it up at each submit; when it is not there, that
        fails with GrangeError, code "not_found"."""
        return Model(self, ref)

    # ------------------------------------------------------------------------------------------------- looking

    def jobs(self, limit=100, state=None):
        """The newest jobs, as `grange.Job`s."""
        from grange.jobs import Job

        return [Job(self, info["id"], info) for info in self._http.json("GET", "/api/jobs", limit=limit, state=state)]

    def job(self, job_id):
        """One job, by its id. GrangeError with code "not_found" when there is none."""
        from grange.jobs import Job

        job = Job(self, str(job_id))
        job.info()
        return job

    def workers(self):
        """The workers, as the dicts of GET /api/workers."""
        return self._http.json("GET", "/api/workers")

    def release_worker(self, worker_id: str) -> None:
        """Take a worker out of quarantine."""
        self._http.json("POST", f"/api/workers/{urllib.parse.quote(worker_id, safe='')}/release", {})

    def stats(self):
        """The figures of GET /api/stats."""
        return self._http.json("GET", "/api/stats")

    # ------------------------------------------------------------------------------------------------- life

    def close(self):
        """Close the connection. Tasks that are on the farm go on there; futures that are not done fail with
        ConnectionError."""
        self._connection.drain(2.0, self._batcher.deferred)
        self._connection.close()
        self._resolver.close()
        self._http.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # ------------------------------------------------------------------------------------------------- inside

    def _unwrap(self, function):
        """(function, options) of a plain function or a grange.Task."""
        from grange.tasks import Task

        if isinstance(function, Task):
            return function.function, function.farm_options.merged(self._options.values)
        if not callable(function) and not isinstance(function, Model):
            raise TypeError(f"the first argument must be a function, not {type(function).__name__}")
        return function, self._options

    def _prepare(self, function, args, kwargs, options):
        """(Code, argument, parents) ready for the batcher: pickled, and stored where big; with what it waits for."""
        code = code_of(function)
        parents = []
        try:
            data = pack_arguments(args, kwargs)
        except FutureInside:
            collector = Collector(self)
            try:
                data = pack_arguments(collector.replace(tuple(args)), collector.replace(dict(kwargs)))
            except FutureInside as error:
                raise pickle.PicklingError(str(error)) from None
            parents = collector.parents
        if "after" in options.values:
            parents = parents + after(self, options.values["after"])
        argument = self._argument(data)
        self._store(code)
        return code, argument, parents

    def _store(self, code):
        if not code.model:
            self._http.put_blob(code.data, code.sha)

    def _submit(self, function, options, args, kwargs):
        code, argument, parents = self._prepare(function, args, kwargs, options)
        future = Future()
        future._farm = self
        self._batcher.add(code, options, argument, future, parents)
        return future

    def _argument(self, data):
        """Argument bytes as they go into a job: big ones are stored as a blob, and go by name (str)."""
        if len(data) > self._connection.inline_limit:
            return self._http.put_blob(data)
        return data

    def _cancel_task(self, job_id, index, reason="cancelled by the client"):
        request = pb.Request()
        request.cancel.job_id = job_id
        request.cancel.one_task = True
        request.cancel.index = index
        request.cancel.reason = reason
        self._connection.request(request)

    def _cancel_job(self, job_id, reason="cancelled by the client"):
        request = pb.Request()
        request.cancel.job_id = job_id
        request.cancel.reason = reason
        self._connection.request(request)

    def _task_info(self, job_id, index):
        query = {"limit": 1}
        if index:
            query["after"] = index - 1
        for info in self._http.json("GET", f"/api/jobs/{job_id}/tasks", **query):
            if info.get("index") == index:
                return info
        return {}


_farms = weakref.WeakSet()
_default = None
_default_lock = threading.Lock()


def connect(url=None, token=None):
    """Connect to a farm. `url` (default: GRANGE_URL, else http://127.0.0.1:8000), `token` (default: GRANGE_TOKEN).

    Raises grange.ConnectionError when no server answers there, or when it refuses the token.
    """
    farm = Farm(url or os.environ.get("GRANGE_URL") or DEFAULT_URL, token or os.environ.get("GRANGE_TOKEN") or "")
    farm._connection.connect()
    _farms.add(farm)
    return farm


def default_farm():
    """The farm that `@grange.task` functions, `grange.Executor()` and joblib use: `connect()`, once a process."""
    global _default
    with _default_lock:
        if _default is None or _default._connection._closed is not None:
            _default = connect()
        return _default


@atexit.register
def _close_all():
    for farm in list(_farms):
        try:
            farm.close()
        except Exception:
            pass


def _new_lock():
    global _default_lock
    _default_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
