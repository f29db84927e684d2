"""Jobs seen through REST: for looking, waiting, and coming back to work that another program has submitted."""

from __future__ import annotations

import base64
import json
import pickle
import time
import uuid
from collections.abc import Iterable
from typing import Any

from grange._calls import failure_of, pack_arguments
from grange._graph import refuse_pickle
from grange._submit import add_payloads
from grange._wire import wire_pb2 as pb

_ENDED = ("completed", "failed", "cancelled")


def _number(enum, prefix, word):
    """The number of a word that REST says, or 0."""
    name = prefix + str(word or "none").upper()
    return enum.Value(name) if name in enum.keys() else 0


class Job:
    """A job on the farm, by its id. Calls raise GrangeError (code "not_found", ...) or grange.ConnectionError."""

    def __init__(self, farm, job_id, info=None):
        self._farm = farm
        self.id = job_id
        self._info = info

    def __repr__(self):
        return f"<grange.Job {self.id} {(self._info or {}).get('status', '')}>"

    def _json(self, method, path="", body=None, **query):
        return self._farm._http.json(method, f"/api/jobs/{self.id}{path}", body, **query)

    def info(self):
        """The dict of GET /api/jobs/{id}: status, total_tasks, completed_tasks, ..."""
        self._info = self._json("GET")
        return self._info

    @property
    def status(self):
        """pending, running, completed, failed or cancelled; as it is now."""
        return self.info()["status"]

    def wait(self, timeout=None):
        """Wait until the job has ended; its info. TimeoutError after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 30.0 if end is None else min(30.0, end - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"job {self.id} has not ended after {timeout:g} s")
            self._info = self._json("GET", wait=round(left, 3))
            if self._info["status"] in _ENDED:
                return self._info

    def __reduce__(self):
        refuse_pickle(self)

    def explain(self, index: int | None = None) -> dict[str, Any]:
        """Why the job, or one of its tasks, waits: `summary` is one sentence; docs/explain.md lists the codes."""
        return self._json("GET", "/explain" if index is None else f"/tasks/{index}/explain")

    def pause(self, freeze: bool = False) -> None:
        """Start nothing new of it until `resume()`. `freeze`: what runs stands still too, and keeps its resources."""
        self._json("POST", "/pause", {"freeze": freeze})

    def resume(self) -> None:
        """Let it go on."""
        self._json("POST", "/resume", {})

    def pause_task(self, index: int, how: str = "freeze") -> None:
        """`Future.pause` of one task."""
        self._json("POST", f"/tasks/{index}/pause", {"how": how})

    def resume_task(self, index: int) -> None:
        """`Future.resume` of one task."""
        self._json("POST", f"/tasks/{index}/resume", {})

    def extend(self, values: Iterable) -> int:
        """Add a task for each value to an open job; its number of tasks. A job of Python functions gets each value as
        the one argument, a job of commands as text."""
        spec = self._json("GET", "/spec")
        if spec.get("encoding") != "pickle":
            return self._json("POST", "/tasks", {"args": list(values), "key": uuid.uuid4().hex})["total_tasks"]
        arguments = [self._farm._argument(pack_arguments((v,), {})) for v in values]
        request = pb.Request()
        request.extend.job_id = self.id
        request.extend.count = len(arguments)
        request.extend.key = uuid.uuid4().hex
        add_payloads(request.extend.payloads, arguments)
        return self._farm._connection.call(request).job.count

    def close(self) -> None:
        """No more tasks for an open job: it ends when those it has have ended."""
        self._json("POST", "/close", {})

    def cancel(self, reason=None):
        """Cancel what has not ended; the number of tasks."""
        return self._json("POST", "/cancel", {"reason": reason} if reason else {})["cancelled"]

    def retry(self, classes: Iterable[str] = (), indices: Iterable[int] = ()) -> int:
        """Run failed and cancelled tasks again, all or those of some failure classes or indices; how many."""
        body = {"classes": list(classes), "indices": list(indices)}
        return self._json("POST", "/retry", {k: v for k, v in body.items() if v})["retried"]

    def tasks(self, status=None):
        """Iterate over the task dicts of GET /api/jobs/{id}/tasks."""
        return self._pages("/tasks", "index", status=status)

    def results(self):
        """Iterate over (index, value) in order of index. A failed task's value is its exception, not raised."""
        for entry in self._pages("/results", "index"):
            yield entry["index"], self._value(entry)

    def logs(self, index=None, follow=False):
        """Iterate over log dicts: task, attempt, stream, time, text. `follow`: until the job (or the task) has
        ended."""
        if not follow:
            yield from self._pages("/logs", "cursor", index=index)
            return
        path = f"/api/jobs/{self.id}/logs?follow=1" + ("" if index is None else f"&index={index}")
        conn, response = self._farm._http.open("GET", path, timeout=3600)
        try:
            event = ""
            for line in response:
                name, _, value = line.decode().rstrip("\r\n").partition(":")
                if name == "event":
                    event = value.strip()
                elif name == "data":
                    if event == "end":
                        return
                    yield json.loads(value)
        finally:
            conn.close()

    def _pages(self, path, cursor, **query):
        after = None
        while True:
            page = self._json("GET", path, after=after, limit=1000, **query)
            yield from page
            if len(page) < 1000:
                return
            after = page[-1][cursor]

    def _value(self, entry):
        status, http = entry["status"], self._farm._http
        if status == "completed" and entry.get("encoding") != "pickle":
            return entry.get("value")
        data = base64.b64decode(entry.get("value_base64") or "")
        if entry.get("value_sha256"):
            data = http.get_blob(entry["value_sha256"])
        if status == "completed":
            return pickle.loads(data)
        outcome = pb.Outcome(index=entry["index"], value=data, message=entry.get("message") or "")
        outcome.end = pb.TASK_CANCELLED if status == "cancelled" else pb.TASK_FAILED
        outcome.traceback = entry.get("traceback") or ""
        outcome.attempt = entry.get("attempt") or 0
        outcome.worker = entry.get("worker_id") or ""
        outcome.failure = _number(pb.FailureClass, "FAILURE_", str(entry.get("failure")).removesuffix("_error"))
        outcome.stage = _number(pb.Stage, "STAGE_", entry.get("stage"))
        outcome.fault = entry.get("fault") or ""
        return failure_of(outcome, f"{self.id}/{entry['index']}")
