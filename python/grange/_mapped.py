"""Maps that do not block: the results of one that is under way, and one that grows."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from grange import errors
from grange._calls import code_of, pack_arguments
from grange._graph import after, places, refuse_pickle
from grange._map import _Failure, _Run
from grange._submit import add_payloads, ranges, submit_request
from grange._wire import wire_pb2 as pb

_PIECE_TASKS = 100_000


class MapResult:
    """The results of `farm.start_map`, on their way. Give it to `farm.map`, `farm.start_map` or `farm.submit` in place
    of the values: task i of the next map waits for task i of this one and gets its result on the worker, and a
    submitted call gets all of them as a list."""

    def __init__(self, run: _Run):
        self._run = run
        self._farm = run.farm

    def __reduce__(self):
        refuse_pickle(self)

    def __len__(self) -> int:
        """How many tasks it has."""
        return self._run.sent

    def __repr__(self) -> str:
        return f"<grange.MapResult of {self._run.code.name}: {self._run.done} of {self._run.sent} done>"

    @property
    def job_ids(self) -> list[str]:
        """The jobs that it is on the farm, in the order of their tasks."""
        return [job_id for job_id, _ in self._whole_jobs()]

    def done(self) -> bool:
        """Whether all its tasks have ended."""
        return self._run.done == self._run.sent

    def result(self, timeout: float | None = None) -> list:
        """The values in order. Raises what the first failed task raised, and TimeoutError after `timeout` seconds."""
        run = self._run
        with run.lock:
            if not run.changed.wait_for(lambda: run.done == run.sent or run.failed is not None, timeout):
                raise TimeoutError(f"{run.done} of {run.sent} tasks were done after {timeout:g} s")
            if run.failed is not None:
                raise run.results[run.failed].error
            return [run.results[i] for i in range(run.sent)]

    def __iter__(self) -> Iterator:
        """The values in order, each as soon as it is there; raises at a failed one."""
        run = self._run
        for i in range(run.sent):
            with run.lock:
                run.changed.wait_for(lambda i=i: i in run.results)
                value = run.results[i]
            if type(value) is _Failure:
                raise value.error
            yield value

    def cancel(self) -> None:
        """Cancel what has not ended."""
        self._run.cancel(watch=True)

    def _whole_jobs(self):
        """[(job id, tasks)], waiting for the server's answer."""
        return [(piece.place(), piece.count) for piece in self._run.pieces]


class OpenMap:
    """A map that grows: `farm.open_map(f)`.

        with farm.open_map(f) as m:
            m.extend([1, 2, 3])
            m.add(4)
        print(m.result())

    Leaving the `with` block closes it: no more can be added, and it ends when its tasks have. Its job is on the farm
    from the first call that is added.
    """

    def __init__(self, farm, function, options):
        self._farm = farm
        self._code = code_of(function)
        self._options = options
        self._places = places(after(farm, options.values["after"])) if "after" in options.values else ()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._growing = threading.Lock()  # one call to the server at a time
        self._job_id: str | None = None
        self._results: dict[int, Any] = {}
        self._arrived = bytearray()
        self._count = 0
        self._closed = False

    def __reduce__(self):
        refuse_pickle(self)

    def __enter__(self) -> OpenMap:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is None:
            self.close()
        else:
            self.cancel()

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<grange.OpenMap of {self._code.name}: {self._count} calls{', closed' if self._closed else ''}>"

    @property
    def job_id(self) -> str | None:
        """The id of its job; None before the first call."""
        return self._job_id

    def add(self, *args: Any, **kwargs: Any) -> int:
        """One more call; its index."""
        return self._grow([self._farm._argument(pack_arguments(args, kwargs))])

    def extend(self, *iterables: Iterable) -> int:
        """More calls, as in `farm.map`; the index of the first."""
        calls = ((x,) for x in iterables[0]) if len(iterables) == 1 else zip(*iterables)
        arguments, size, first = [], 0, None
        for args in calls:
            arguments.append(self._farm._argument(pack_arguments(args, {})))
            size += len(arguments[-1])
            if size > 4 << 20 or len(arguments) >= _PIECE_TASKS:
                at = self._grow(arguments)
                first = at if first is None else first
                arguments, size = [], 0
        if arguments:
            at = self._grow(arguments)
            first = at if first is None else first
        return self._count if first is None else first

    def close(self) -> None:
        """No more calls."""
        with self._growing:
            if self._closed:
                return
            if self._job_id is not None:
                request = pb.Request()
                request.extend.job_id = self._job_id
                request.extend.close = True
                request.extend.key = uuid.uuid4().hex
                self._farm._connection.call(request)
            self._closed = True
            with self._changed:
                self._changed.notify_all()

    def cancel(self) -> None:
        """Cancel what has not ended, and close."""
        self._closed = True
        if self._job_id is not None:
            self._farm._cancel_job(self._job_id)

    def result(self, timeout: float | None = None) -> list:
        """All values in order, once it is closed and all has ended; raises at the first failed one."""
        if not self._closed:
            raise RuntimeError("close() it first: an open map has no end")
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._results) >= self._count, timeout):
                raise TimeoutError(f"{len(self._results)} of {self._count} tasks were done after {timeout:g} s")
        return list(self)

    def __iter__(self) -> Iterator:
        """Values in order, each as soon as it is there, until it is closed and at its end."""
        i = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda i=i: i in self._results or (self._closed and i >= self._count))
                if i not in self._results:
                    return
                value = self._results[i]
            if type(value) is _Failure:
                raise value.error
            yield value
            i += 1

    def _grow(self, arguments):
        with self._growing:
            if self._closed:
                raise RuntimeError("this map is closed: it takes no more calls")
            first = self._count
            with self._lock:
                self._arrived += bytes(len(arguments))
                self._count += len(arguments)
            try:
                if self._job_id is None:
                    self._begin(arguments)
                else:
                    request = pb.Request()
                    request.extend.job_id = self._job_id
                    request.extend.count = len(arguments)
                    request.extend.key = uuid.uuid4().hex  # sent again after a reconnect, it adds nothing
                    add_payloads(request.extend.payloads, arguments)
                    self._farm._connection.call(request)
            except BaseException:
                with self._lock:
                    self._count = first
                    del self._arrived[first:]
                raise
            return first

    def _begin(self, arguments):
        connection = self._farm._connection
        self._farm._store(self._code)
        followed = connection.may_follow()
        request = submit_request(self._code, self._options, arguments, followed, self._places, is_open=True)

        def placed(response):
            self._job_id = response.job.job_id
            connection.watch(response, followed, self)

        connection.call(request, first=placed)

    # What the connection calls, in its thread.

    def outcomes(self, outcomes):
        for outcome in outcomes:
            index = outcome.index
            with self._lock:
                if index < len(self._arrived) and self._arrived[index]:
                    continue
                if index >= len(self._arrived):  # of tasks that another program has added
                    self._arrived += bytes(index + 1 - len(self._arrived))
                    self._count = max(self._count, index + 1)
                self._arrived[index] = 1
            self._farm._resolver.resolve(
                outcome,
                f"{self._job_id}/{index}",
                lambda value, at=index: self._finish(at, value),
                lambda error, at=index: self._finish(at, _Failure(error)),
            )

    def _finish(self, index, value):
        with self._changed:
            self._results[index] = value
            self._changed.notify_all()

    def ended(self, status):
        self._closed = True
        self.lost(errors.TaskCancelled(f"job {self._job_id} ended ({status.state}) without this task"))

    def lost(self, error):
        with self._changed:
            for index in range(self._count):
                if not self._arrived[index]:
                    self._arrived[index] = 1
                    self._results[index] = _Failure(error)
            self._changed.notify_all()

    def have(self):
        return ranges(self._arrived)


def start_map(farm, function, iterables, options) -> MapResult:
    run = _Run(farm, function, iterables, None, options, whole=True)
    try:
        while run.send_piece(_PIECE_TASKS):
            pass
    except BaseException:
        run.cancel()
        raise
    return MapResult(run)
