"""What can go wrong, by class. Every message says what to do where that is known."""

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
    """A task did not complete. `task_id`, `attempt`, `worker`, and the remote `traceback` text say more."""

    task_id = None
    attempt = 0
    worker = ""
    traceback = ""


class TaskFailed(TaskError):
    """The task failed in a way that has no exception of its own, or one that cannot be rebuilt here."""


class WorkerLost(TaskFailed):
    """The process or the worker that ran the task died, as often as the job allows."""


class OutOfMemory(TaskFailed):
    """The task used more memory than it asked for."""


class TimeLimitExceeded(TaskFailed):
    """The task ran longer than its `timeout`."""


class ResultError(TaskFailed):
    """The function ran, but its result cannot be pickled."""


class TaskCancelled(TaskError, concurrent.futures.CancelledError):
    """The task was cancelled."""
