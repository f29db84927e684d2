"""What a function can say and ask while it runs as a task on the farm.

All of these may be called from any thread of the task. Outside a task they do something harmless, so that a function
can be tried locally: `progress` does nothing, `log` prints to stderr, `checkpoint` keeps the state in memory (for this
process), and `restore` gives back that state, or None.
"""

import sys
import time

_PROGRESS_EVERY = 0.1  # seconds between two progress messages of a task

# The task that this process runs, or None. Set by the runner; see `Context`.
current = None
_local_checkpoint = None


class Context:
    """One attempt, as the runner sees it. `send(kind, body)` writes one message to the worker."""

    __slots__ = ("task", "attempt", "job_id", "state", "send", "sent_at", "held")

    def __init__(self, task, attempt, job_id, state, send):
        self.task = task  # (job << 32) | index
        self.attempt = attempt  # from 1
        self.job_id = job_id  # str
        self.state = state  # pickled bytes of the last checkpoint, or None
        self.send = send
        self.sent_at = -1.0  # monotonic seconds of the last progress message
        self.held = None  # a progress message held back by the throttle

    def flush_progress(self):
        held, self.held = self.held, None
        if held is not None:
            self.send(2, held)


def progress(done, total=0.0, text=""):
    """Say how far the task is: `done` of `total` (any unit; total 0 = unknown) and a short text.

    At most one message is sent every 100 ms, so it may be called in a tight loop; the last one is always sent.
    """
    ctx = current
    if ctx is None:
        return
    body = (float(done), float(total), str(text))
    now = time.monotonic()
    if done != total and now - ctx.sent_at < _PROGRESS_EVERY:
        ctx.held = body
        return
    ctx.sent_at = now
    ctx.held = None
    ctx.send(2, body)


def log(*values, sep=" "):
    """Write a line to the task's log (stream "log"), like print. Outside a task it goes to stderr."""
    text = sep.join(map(str, values))
    ctx = current
    if ctx is None:
        print(text, file=sys.stderr)
    else:
        ctx.send(3, text)


def checkpoint(state):
    """Keep `state` (anything that can be pickled) on the server. If this task is lost or fails and is tried again,
    `restore()` gives it back on whichever worker runs it. A later checkpoint replaces an earlier one."""
    global _local_checkpoint
    from grange._pickling import dumps

    data = dumps(state)
    ctx = current
    if ctx is None:
        _local_checkpoint = data
    else:
        ctx.state = data
        ctx.send(4, data)


def restore(default=None):
    """The state of the task's last checkpoint, or `default` when there is none."""
    data = _local_checkpoint if current is None else current.state
    if data is None:
        return default
    import pickle

    return pickle.loads(data)


def task_id():
    """This task's id, such as "7/3" (job id "/" index), or None outside a task."""
    ctx = current
    return None if ctx is None else f"{ctx.job_id}/{ctx.task & 0xFFFFFFFF}"


def attempt():
    """The number of this attempt, from 1; 0 outside a task."""
    ctx = current
    return 0 if ctx is None else ctx.attempt
