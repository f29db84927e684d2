"""Functions and arguments on their way to the farm, and outcomes on their way back."""

import builtins
import functools
import hashlib
import pickle
import types
import weakref

from grange import errors
from grange._graph import FutureInside
from grange._pickling import dumps, dumps_by_value
from grange._wire import wire_pb2 as pb
from grange.models import Model


class Code:
    """A function's bytes and their name. `sha` is 64 hex digits. Of a model only its name: the server has the bytes."""

    __slots__ = ("sha", "data", "name", "model", "__weakref__")

    def __init__(self, function):
        self.sha, self.data, self.model = "", b"", ""
        if isinstance(function, Model):
            self.name = self.model = function.ref
            return
        self.name = function_name(function)
        try:
            self.data = dumps_by_value(function)
        except Exception as error:
            raise _cannot_pickle(f"the function {self.name}", error) from error
        self.sha = hashlib.sha256(self.data).hexdigest()


def function_name(function):
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__name__
    return str(name).replace("<locals>.", "")


_stable = weakref.WeakKeyDictionary()  # function -> Code


def code_of(function):
    """The Code of a function as it is now. Pickled anew each time, unless nothing it captures can have changed."""
    if type(function) is not types.FunctionType:
        return Code(function)
    code = _stable.get(function)
    if code is None:
        code = Code(function)
        if _is_stable(function):
            _stable[function] = code
    return code


_CONSTANT = (type(None), bool, int, float, complex, str, bytes)


def _is_stable(function):
    """Whether its pickle cannot change: no closure, no attributes, constant defaults, and globals that are modules or
    missing."""
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    if function.__closure__ or function.__dict__ or not all(type(d) in _CONSTANT for d in defaults):
        return False
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes.extend(c for c in code.co_consts if isinstance(c, types.CodeType))
    scope = function.__globals__
    # A name that is not there yet may come, and is then part of the pickle: it must be a builtin's.
    return all(isinstance(scope[n], types.ModuleType) if n in scope else hasattr(builtins, n) for n in names)


def pack_arguments(args, kwargs):
    """The bytes of one call's arguments. Raises PicklingError that names the argument at fault."""
    try:
        return dumps((args, kwargs))
    except FutureInside:
        raise
    except Exception as error:
        for what, value in (
            *((f"argument {i + 1}", a) for i, a in enumerate(args)),
            *((f"argument {k!r}", v) for k, v in kwargs.items()),
        ):
            try:
                dumps(value)
            except Exception as at_fault:
                raise _cannot_pickle(f"{what}, a value of type {type(value).__name__},", at_fault) from at_fault
        raise _cannot_pickle("the arguments", error) from error


def _cannot_pickle(what, error):
    return pickle.PicklingError(f"{what} cannot be pickled and sent to the farm: {type(error).__name__}: {error}")


class Chunk:
    """Calls `function` on several argument tuples in one task."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *calls):
        function = self.function
        return [function(*args) for args in calls]


_initialized = set()  # in an executor process


class Initialized:
    """Calls `initializer(*initargs)` before the first call in each executor process; `token` tells initializers
    apart."""

    def __init__(self, token, initializer, initargs, function):
        self.token, self.initializer, self.initargs, self.function = token, initializer, initargs, function

    def __call__(self, *args, **kwargs):
        if self.token not in _initialized:
            self.initializer(*self.initargs)
            _initialized.add(self.token)
        return self.function(*args, **kwargs)


class RemoteTraceback(Exception):
    """The cause of an exception that came from the farm: the traceback's text, as it was there."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text


_BY_FAILURE = {
    pb.FAILURE_WORKER_LOST: errors.WorkerLost,
    pb.FAILURE_OUT_OF_MEMORY: errors.OutOfMemory,
    pb.FAILURE_TIME_LIMIT: errors.TimeLimitExceeded,
    pb.FAILURE_DEADLINE: errors.DeadlineExceeded,
    pb.FAILURE_DEPENDENCY: errors.DependencyError,
}


# What is said of a failure that came without a message.
_SAID = {
    pb.FAILURE_DEADLINE: "task {} had not ended when the deadline of its job passed",
    pb.FAILURE_DEPENDENCY: "task {} did not start: what it waited for did not succeed",
    pb.FAILURE_WORKER_LOST: "the worker that ran task {} was lost",
    pb.FAILURE_OUT_OF_MEMORY: "task {} used more memory than it asked for",
    pb.FAILURE_TIME_LIMIT: "task {} ran longer than its limit",
}


def failure_of(outcome, task_id):
    """The exception to raise for an outcome that is not TASK_COMPLETED, with the remote traceback as its cause."""
    error = None
    if outcome.end == pb.TASK_CANCELLED:
        error = errors.TaskCancelled(outcome.message or f"task {task_id} was cancelled")
    elif outcome.failure == pb.FAILURE_EXCEPTION and outcome.value:
        try:
            error = pickle.loads(outcome.value)
        except Exception:
            pass  # its class is not here, or cannot be rebuilt: its text must do
        if not isinstance(error, BaseException):
            error = None
    if error is None:
        cls = _BY_FAILURE.get(outcome.failure, errors.TaskFailed)
        if outcome.message.startswith("the result, a value of type"):
            cls = errors.ResultError
        error = cls(outcome.message or _SAID.get(outcome.failure, "task {} failed").format(task_id))
    if isinstance(error, errors.TaskError):
        error.task_id, error.attempt, error.worker = task_id, outcome.attempt, outcome.worker
        error.traceback = outcome.traceback
        error.fault = outcome.fault
        error.stage = "" if outcome.stage == pb.STAGE_NONE else pb.Stage.Name(outcome.stage)[6:].lower()
    if outcome.traceback:
        error.__cause__ = RemoteTraceback(f'\n"""\n{outcome.traceback}"""')
    return error
