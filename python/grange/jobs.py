"""Jobs seen through REST: for looking, waiting, and coming back to work that another program has submitted."""

import base64
import json
import pickle
import time

from grange._calls import failure_of
from grange._wire import wire_pb2 as pb

_ENDED = ("completed", "failed", "cancelled")


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

    def cancel(self, reason=None):
        """Cancel what has not ended; the number of tasks."""
        return self._json("POST", "/cancel", {"reason": reason} if reason else {})["cancelled"]

    def retry(self):
        """Run failed and cancelled tasks again; the number of tasks."""
        return self._json("POST", "/retry", {})["retried"]

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
        kind = "FAILURE_" + str(entry.get("failure") or "none").upper()
        outcome.failure = pb.FailureClass.Value(kind) if kind in pb.FailureClass.keys() else 0
        return failure_of(outcome, f"{self.id}/{entry['index']}")
