"""The future of a task on the farm."""

from __future__ import annotations

import concurrent.futures
from typing import Any
from urllib.parse import quote

from grange import errors
from grange._graph import names, refuse_pickle

_PENDING = "PENDING"
_PLACE_WAIT = 10.0  # seconds


class Future(concurrent.futures.Future):
    """What `farm.submit` returns: a `concurrent.futures.Future`, so the standard `wait` and `as_completed` take it.

    `result(timeout)` raises the function's own exception (its cause carries the remote traceback), `TaskCancelled`, or
    `TaskFailed` and its kinds (`WorkerLost`, `TimeLimitExceeded`, ...). Done callbacks run in the client's background
    thread and must not block, nor wait for other futures.

    Unlike the standard one, `cancel()` stops a task that runs already. (`grange.Executor`'s futures keep the
    standard's rule.)
    """

    _farm = None
    _job = None  # the server's job id; None until the server has answered
    _index = 0
    _cancel_sent = False
    _cancel_reason = "cancelled by the client"
    _parents = ()  # places of what it waits for
    _ready = ()  # functions to call when the place is known, or never will be

    def __reduce__(self):
        refuse_pickle(self)

    @property
    def job_id(self):
        """The id of the job that the task is part of. Tasks that are submitted together may share a job.

        Waits up to 10 seconds for the server to acknowledge the submit, which it does within milliseconds. None when
        it has not, or when there is no job: the submit was refused, or the task was cancelled before it was sent. In a
        done callback it never waits.
        """
        self._await_place()
        return self._job

    @property
    def task_id(self):
        """Such as "7/3"; waits, and may be None, as `job_id`."""
        self._await_place()
        return self._known_id()

    def _known_id(self):
        return None if self._job is None else f"{self._job}/{self._index}"

    def _await_place(self):
        if self._job is None and self._farm is not None and not self._farm._connection.is_mine():
            self._farm._batcher.wait_for_answer(lambda: self._job is not None or self._state != _PENDING, _PLACE_WAIT)

    def cancel(self, reason=None):
        """Cancel the task, also when it runs. False when it had ended before. `reason` is kept with the task."""
        with self._condition:
            first = self._state == _PENDING
            if first and reason and not self._cancel_sent:
                self._cancel_reason = str(reason)
            told, self._cancel_sent = self._cancel_sent, True
        if not super().cancel():
            return False
        if first and not told:
            self.set_running_or_notify_cancel()
            if self._job is not None:
                self._farm._cancel_task(self._job, self._index, self._cancel_reason)
        return True

    def explain(self) -> dict[str, Any]:
        """Why the task waits, or where it runs: the dict of GET /api/jobs/{id}/tasks/{index}/explain. `summary` is one
        sentence; docs/explain.md lists the codes in `waits` and `workers`."""
        return self._act("GET", "explain")

    def pause(self, how: str = "freeze") -> None:
        """Hold the task back. When it runs: "freeze" stops its processes where they are, with their resources;
        "requeue" stops it politely (it may take a checkpoint), and it starts again after `resume()`."""
        if how not in ("freeze", "requeue"):
            raise ValueError(f'how must be "freeze" or "requeue", not {how!r}')
        self._act("POST", "pause", {"how": how})

    def resume(self) -> None:
        """Let a paused task go on."""
        self._act("POST", "resume", {})

    def _act(self, method, what, body=None):
        self._await_place()
        if self._job is None:
            raise errors.GrangeError("this task is not on the farm: its submit was refused, or never sent")
        return self._farm._http.json(method, f"/api/jobs/{quote(self._job)}/tasks/{self._index}/{what}", body)

    def running(self):
        """Whether a worker runs it now. Asks the server."""
        return not self.done() and self._remote().get("status") == "running"

    def progress(self):
        """The task's last `grange.progress(done, total, text)` as (done, total, text), or None. Asks the server."""
        p = self._remote().get("progress")
        if isinstance(p, dict):
            return (p.get("done", 0.0), p.get("total", 0.0), p.get("text", ""))
        return None

    def result(self, timeout=None):
        """The task's value; raises as the class says, and TimeoutError after `timeout` seconds."""
        try:
            return super().result(timeout)
        except concurrent.futures.CancelledError as error:
            if isinstance(error, errors.TaskCancelled):
                raise
            raise self._cancelled() from None

    def exception(self, timeout=None):
        """The exception of a failed task, or None."""
        try:
            return super().exception(timeout)
        except concurrent.futures.CancelledError:
            raise self._cancelled() from None

    def _cancelled(self):
        error = errors.TaskCancelled(f"task {self._known_id() or '(not sent yet)'} was cancelled")
        error.task_id = self._known_id()
        return error

    def _remote(self):
        if self._job is None or self._farm is None:
            return {}
        return self._farm._task_info(self._job, self._index)

    # For the background thread. A future that was cancelled here keeps that.

    def _placed(self, farm, job_id, index):
        self._farm, self._index = farm, index
        with self._condition:
            self._job = job_id
            cancel = self._cancel_sent
        if cancel:
            farm._cancel_task(job_id, index, self._cancel_reason)
        self._tell_ready()

    def _when_placed(self, ready):
        """Call `ready()` once: when the server has said which job the task is part of, or when it never will."""
        with self._condition:
            waits = self._job is None and self._state == _PENDING
            if waits:
                self._ready += (ready,)
        if waits:
            self.add_done_callback(Future._tell_ready)
        else:
            ready()

    def _tell_ready(self):
        with self._condition:
            ready, self._ready = self._ready, ()
        for call in ready:
            call()

    def _set(self, value):
        try:
            self.set_result(value)
        except concurrent.futures.InvalidStateError:
            pass

    def _fail(self, error):
        if isinstance(error, errors.DependencyError) and not error.parents:
            error.parents = names(self._parents)
            if error.parents and not any(name in str(error) for name in error.parents):
                error.args = (f"{error} (it waited for {', '.join(error.parents)})",)
        if isinstance(error, errors.TaskCancelled):
            with self._condition:
                told, self._cancel_sent = self._cancel_sent, True
            if not told and concurrent.futures.Future.cancel(self):
                self.set_running_or_notify_cancel()
            return
        try:
            self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            pass


def as_completed(futures, timeout=None):
    """Iterate over futures as they end. TimeoutError after `timeout` seconds from the call."""
    return concurrent.futures.as_completed(futures, timeout)


def wait(futures, timeout=None, return_when=concurrent.futures.ALL_COMPLETED):
    """(done, not_done) as concurrent.futures.wait."""
    return concurrent.futures.wait(futures, timeout, return_when)
