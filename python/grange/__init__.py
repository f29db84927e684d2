"""Grange: a compute farm of your own machines.

    import grange
    farm = grange.connect()               # the local farm, or GRANGE_URL and GRANGE_TOKEN
    farm.map(f, xs)                       # ordered results
    farm.submit(f, x, retries=3).result()

Inside a function that runs on the farm: `grange.progress`, `log`, `checkpoint`, `restore`, `task_id`, `attempt`.
"""

import os as _os

from grange._task import attempt, checkpoint, log, progress, restore, task_id

__version__ = "0.1.0"

# Loaded on first use: an executor imports this package too, and must start fast.
_LAZY = {
    "connect": "farm",
    "Farm": "farm",
    "default_farm": "farm",
    "Future": "futures",
    "as_completed": "futures",
    "wait": "futures",
    "task": "tasks",
    "Task": "tasks",
    "Model": "models",
    "Executor": "executor",
    "Job": "jobs",
    "GrangeError": "errors",
    "ConnectionError": "errors",
    "PermanentError": "errors",
    "TaskError": "errors",
    "TaskFailed": "errors",
    "TaskCancelled": "errors",
    "WorkerLost": "errors",
    "OutOfMemory": "errors",
    "TimeLimitExceeded": "errors",
    "ResultError": "errors",
    "DeadlineExceeded": "errors",
    "DependencyError": "errors",
    "MapResult": "_mapped",
    "OpenMap": "_mapped",
}

__all__ = ["attempt", "checkpoint", "log", "progress", "restore", "task_id", *_LAZY]


def __getattr__(name):
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'grange' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"grange.{module}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})


if "GRANGE_EXECUTOR_FD" not in _os.environ:
    from grange._joblib_hook import install as _install

    _install()
    del _install
del _os
