"""`grange.Executor`: the farm behind the standard library's executor interface."""

import collections
import concurrent.futures
import functools
import itertools
import threading
import uuid

from grange._calls import Initialized, function_name
from grange._map import run_imap
from grange.futures import Future
from grange.models import Model


class _ExecutorFuture(Future):
    """Keeps the standard's rule: a task that runs cannot be cancelled."""

    def cancel(self, reason=None):
        """True when the task was not running yet and is now cancelled. Asks the server whether it runs."""
        if not self.done() and self._job is not None and self._remote().get("status") == "running":
            return False
        return super().cancel(reason)


class Executor(concurrent.futures.Executor):
    """Drop-in for ProcessPoolExecutor: `with grange.Executor() as ex: ex.map(f, xs)`.

    `farm`: a `grange.Farm` (default: `grange.default_farm()`). `max_workers`: at most so many tasks are on the farm
    at once; None leaves that to the farm. `initializer` runs once in each executor process of the farm before the
    first task that lands there; when it raises, the task fails with that. `mp_context` and `max_tasks_per_child` are
    accepted and have no meaning here. `options` are Farm's (retries, cpus, ...); all keyword arguments of `submit`
    are the function's.
    """

    def __init__(
        self,
        max_workers=None,
        mp_context=None,
        initializer=None,
        initargs=(),
        *,
        max_tasks_per_child=None,
        farm=None,
        **options,
    ):
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if farm is None:
            from grange.farm import default_farm

            farm = default_farm()
        self._farm = farm.options(**options)
        self._initializer = (uuid.uuid4().hex, initializer, tuple(initargs)) if initializer else None
        self._max_workers = max_workers
        self._lock = threading.RLock()  # a future that is done already calls back at once
        self._idle = threading.Condition(self._lock)
        self._waiting = collections.deque()  # beyond max_workers: (code, options, argument, future, parents)
        self._active = set()  # futures and maps on the farm
        self._shutdown = False

    def _wrap(self, fn):
        """(function, options), with the initializer before it."""
        function, options = self._farm._unwrap(fn)
        if self._initializer:
            if isinstance(function, Model):
                raise ValueError(f"{function} cannot have an initializer before it: publish a function that does both")
            name = function_name(function)
            function = Initialized(*self._initializer, function)
            function.__qualname__ = name
        return function, options

    def submit(self, fn, /, *args, **kwargs):
        """Run fn(*args, **kwargs) on the farm; a Future. RuntimeError after shutdown; PicklingError on what cannot be
        sent."""
        self._check_open()
        function, options = self._wrap(fn)
        code, argument, parents = self._farm._prepare(function, args, kwargs, options)
        future = _ExecutorFuture()
        future._farm = self._farm
        call = (code, options, argument, future, parents)
        with self._lock:
            self._check_open()
            if self._max_workers is not None and len(self._active) >= self._max_workers:
                self._waiting.append(call)
                return future
            self._active.add(future)
        future.add_done_callback(self._ended)
        self._farm._batcher.add(*call)
        return future

    def _ended(self, ended):
        """A future or a map has ended: make room for the next."""
        with self._lock:
            self._active.discard(ended)
            call = None
            while self._waiting and call is None:
                call = self._waiting.popleft()
                if call[3].cancelled():
                    call = None
            if call is not None:
                self._active.add(call[3])
            elif not self._active:
                self._idle.notify_all()
        if call is not None:
            call[3].add_done_callback(self._ended)
            self._farm._batcher.add(*call)

    def map(self, fn, *iterables, timeout=None, chunksize=1):
        """An iterator over fn(*xs), in order. The iterables are read at once; TimeoutError when a result is not there
        `timeout` seconds after this call; an exception of a call is raised when its result is due."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        self._check_open()
        if not iterables:
            return iter(())
        if self._max_workers is not None:
            return (
                super().map(fn, *iterables, timeout=timeout)
                if chunksize == 1
                else self._chunks(fn, iterables, timeout, chunksize)
            )
        function, options = self._wrap(fn)
        return run_imap(
            self._farm.options(**options.values),
            function,
            iterables,
            chunksize,
            {},
            ordered=True,
            window=1 << 60,
            timeout=timeout,
            started=self._started,
            on_end=self._ended,
        )

    def _chunks(self, fn, iterables, timeout, chunksize):
        calls = zip(*iterables)
        chunks = iter(lambda: tuple(itertools.islice(calls, chunksize)), ())
        lists = super().map(functools.partial(_call_chunk, fn), chunks, timeout=timeout)
        return itertools.chain.from_iterable(lists)

    def _started(self, run):
        with self._lock:
            self._check_open()
            self._active.add(run)

    def shutdown(self, wait=True, *, cancel_futures=False):
        """No more submits. `wait`: until all futures are done. `cancel_futures`: those that do not run yet are
        cancelled, and of a `map` also those that run. The farm itself goes on, and its connection stays open for
        others."""
        with self._lock:
            self._shutdown = True
            doomed = []
            if cancel_futures:
                doomed = [call[3] for call in self._waiting] + list(self._active)
                self._waiting.clear()
        for item in doomed:
            if isinstance(item, Future):
                item.cancel()
            else:
                item.cancel(watch=True)
        if wait:
            with self._lock:
                while self._active or self._waiting:
                    self._idle.wait()

    def _check_open(self):
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")


def _call_chunk(fn, chunk):
    return [fn(*args) for args in chunk]
