"""What can go wrong, by class. Every message says what to do where that is known."""

from __future__ import annotations

import builtins
import concurrent.futures


class GrangeError(Exception):
    """The base of all errors that come from the farm. `code` is the server's name for it, or ""."""

    code = ""


class ConnectionError(GrangeError, builtins.ConnectionError):
    """The server cannot be reached, refuses us, or the connection was closed."""


class PermanentError(GrangeError):
    """Raise this in a task when trying again is of no use: the task fails at once."""


class TaskError(GrangeError):
    """A task did not complete. `task_id`, `attempt`, `worker`, and the remote `traceback` text say more.

    `fault`: "job" when the task itself, its limits or its user are the reason, "system" when a machine, an engine or
    the network is, "" when that is not known. `stage`: where the attempt was: "reserve", "startup", "download",
    "execute", "upload", or "".
    """

    task_id: str | None = None
    attempt: int = 0
    worker: str = ""
    traceback: str = ""
    fault: str = ""
    stage: str = ""


class TaskFailed(TaskError):
    """The task failed in a way that has no exception of its own, or one that cannot be rebuilt here."""


class WorkerLost(TaskFailed):
    """The process or the worker that ran the task died, as often as the job allows."""


class OutOfMemory(TaskFailed):
    """The task used more memory than it asked for."""


class TimeLimitExceeded(TaskFailed):
    """The task ran longer than its `timeout`."""


class DeadlineExceeded(TaskFailed):
    """The job's `deadline` (or `finish_in`) passed before the task had ended."""


class DependencyError(TaskFailed):
    """A task that this one waited for did not succeed; the message says which. `parents`: all that it waited for, such
    as ["7/3"], where this program has submitted it."""

    parents: list[str] = []


class ResultError(TaskFailed):
    """The function ran, but its result cannot be pickled."""


class TaskCancelled(TaskError, concurrent.futures.CancelledError):
    """The task was cancelled."""
