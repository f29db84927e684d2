"""`farm.map` and its lazy kin: many calls of one function, as array jobs, without a future for each."""

import itertools
import threading
import time
from pickle import loads

from grange import errors
from grange._bar import bar
from grange._calls import Chunk, code_of, pack_arguments
from grange._graph import after, places
from grange._options import parse_seconds
from grange._submit import ranges, submit_request
from grange._wire import wire_pb2 as pb
from grange.models import Model

_PIECE_TASKS = 100_000
_PIECE_BYTES = 4 << 20  # of arguments in one submit; well under the frame's limit
_PIECE_SECONDS = 0.1  # a slow iterable: what is there is sent
_WINDOW = 20_000  # tasks that an imap has on the farm at once
_NOTHING = object()
TASK_COMPLETED = pb.TASK_COMPLETED


class _Failure:
    __slots__ = ("error",)

    def __init__(self, error):
        self.error = error


class _Piece:
    """The sink of one job of a run: tasks [base, base + count) of it."""

    def __init__(self, run, base, count):
        self.run, self.base, self.count = run, base, count
        self.job_id = None
        self.arrived = bytearray(count)
        self.followed = run.farm._connection.may_follow()
        self.refused = None

    def place(self):
        """The job's id, once the server has said it. Raises what it said instead."""
        run = self.run
        with run.lock:
            if run.farm._connection.is_mine() and self.job_id is None and self.refused is None:
                raise RuntimeError("a done callback cannot wait for the server's answer about a map")
            run.changed.wait_for(lambda: self.job_id is not None or self.refused is not None)
        if self.refused is not None:
            raise self.refused
        return self.job_id

    def answered(self, response, error):
        if error is not None:
            self.refused = error
            self.lost(error)
            return
        with self.run.lock:
            self.job_id = response.job.job_id
            cancelled = self.run.cancelled
            self.run.changed.notify_all()
        self.run.farm._connection.watch(response, self.followed, self)
        if cancelled:
            self.run.farm._cancel_job(self.job_id)

    def outcomes(self, outcomes):
        run, base, arrived = self.run, self.base, self.arrived
        done = []
        for outcome in outcomes:
            index = outcome.index
            if index >= self.count or arrived[index]:
                continue
            arrived[index] = 1
            at = base + index
            if outcome.end == TASK_COMPLETED and not outcome.value_sha256:  # the common case, kept short
                try:
                    done.append((at, loads(outcome.value)))
                except Exception as error:
                    done.append((at, _Failure(error)))
            else:
                run.farm._resolver.resolve(
                    outcome,
                    f"{self.job_id}/{index}",
                    lambda value, at=at: run.finish([(at, value)]),
                    lambda error, at=at: run.finish([(at, _Failure(error))]),
                )
        run.finish(done)

    def ended(self, status):
        missing = self.count - self.arrived.count(1)
        if missing:
            self.lost(errors.TaskCancelled(f"job {self.job_id} ended ({status.state}) before its last {missing} tasks"))

    def lost(self, error):
        failure = _Failure(error)
        rest = [(self.base + i, failure) for i in range(self.count) if not self.arrived[i]]
        self.arrived = bytearray(b"\1") * self.count
        self.run.finish(rest)

    def have(self):
        return ranges(self.arrived)


class _Run:
    """One map or imap call."""

    def __init__(self, farm, function, iterables, chunksize, options, whole=False):
        if not iterables:
            raise TypeError("map needs at least one iterable")
        self.whole = whole  # as few jobs as can be, however slow the iterables are
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be 1 or more")
        function, base = farm._unwrap(function)
        self.options = base.merged(options)
        for name in ("unique", "idempotency_key"):
            if name in self.options.values:
                raise ValueError(f"{name} is for submit: a map can be several jobs")
        self.chunksize = chunksize or 1
        self.farm = farm
        self.places, self.cuts = (), None
        if "after" in self.options.values:
            self.places = places(after(farm, self.options.values["after"]))
        iterables = self.follow_maps(iterables)
        if len(iterables) == 1:
            self.calls = ((x,) for x in iterables[0])
        else:
            self.calls = zip(*iterables)
        if self.chunksize > 1:
            if isinstance(function, Model):
                raise ValueError(f"{function} is one call a task: it cannot be mapped in chunks")
            name = getattr(function, "__qualname__", "")
            function = Chunk(function)
            function.__qualname__ = name
            calls, size = iter(self.calls), self.chunksize
            self.calls = iter(lambda: tuple(itertools.islice(calls, size)), ())
        self.code = code_of(function)
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.results = {}  # index -> value or _Failure, until taken
        self.order = None  # for imap_unordered: (index, value) as they came
        self.failed = None  # the index of the first failure that came
        self.sent = 0
        self.done = 0
        self.pieces = []
        self.exhausted = False
        self.cancelled = False
        self.on_end = None

    def follow_maps(self, iterables):
        """Map results among the iterables become places for their values: task i waits for task i. Jobs are cut where
        theirs are."""
        from grange._graph import Parent
        from grange._inputs import Input
        from grange._mapped import MapResult

        maps = [i for i in iterables if isinstance(i, MapResult)]
        if not maps:
            return iterables
        if self.chunksize > 1:
            raise ValueError("a map over a map result cannot be in chunks: each task waits for one of the other's")
        distinct = list({id(m): m for m in maps}.values())
        cut = [[jobs for jobs in m._whole_jobs()] for m in distinct]
        if any([n for _, n in jobs] != [n for _, n in cut[0]] for jobs in cut):
            raise ValueError("these map results have different lengths, or are cut into jobs at different places")
        if any(m._farm._connection is not self.farm._connection for m in distinct):
            raise ValueError("a map result is on another farm: take its result() first, and pass that")
        # Of each job: what it waits for, and where it ends.
        end, self.cuts = 0, []
        for same in zip(*cut):
            end += same[0][1]
            self.cuts.append((end, [Parent(job=job_id, each=True, with_result=True).place() for job_id, _ in same]))
        order = {id(m): k for k, m in enumerate(distinct)}
        return [itertools.repeat(Input(order[id(i)]), len(i)) if isinstance(i, MapResult) else i for i in iterables]

    # ---- out

    def send_piece(self, room):
        """Read at most `room` calls, and submit them as a job. False when the iterables are at their end."""
        places_here = self.places
        if self.cuts is not None:
            end, parents = next(((e, p) for e, p in self.cuts if e > self.sent), (self.sent, []))
            if end == self.sent:
                self.exhausted = True
                return False
            room, places_here = end - self.sent, (*parents, *self.places)
        farm = self.farm
        inline = farm._connection.inline_limit
        arguments, size = [], 0
        # Jobs that follow others are cut as those are; a map that nobody waits for is not cut by time.
        most = _PIECE_BYTES if self.cuts is None else 3 * _PIECE_BYTES
        until = time.monotonic() + (1e9 if self.whole or self.cuts is not None else _PIECE_SECONDS)
        if self.cuts is None:
            room = min(room, _PIECE_TASKS)
        for args in self.calls:
            data = pack_arguments(args, {})
            if len(data) > inline:
                data = farm._argument(data)
            arguments.append(data)
            size += len(data)
            if size >= most or len(arguments) >= room:
                break
            if (len(arguments) & 15 == 0 or size > 1 << 16) and time.monotonic() > until:
                break
        else:
            self.exhausted = True
        if self.cuts is not None and len(arguments) < room:
            raise ValueError(
                "a map over a map result needs as many calls as that has: the other iterables are shorter, or their "
                "values too big"
            )
        if arguments:
            farm._store(self.code)
            piece = _Piece(self, self.sent, len(arguments))
            self.sent += len(arguments)
            self.pieces.append(piece)
            request = submit_request(self.code, self.options, arguments, piece.followed, places_here)
            farm._connection.request(request, piece.answered)
        return not self.exhausted

    def cancel(self, watch=False):
        """Stop what has not ended. `watch`: somebody still waits for the results, so let the cancelled ones come as
        such."""
        with self.lock:
            if self.cancelled:
                return
            self.cancelled = True
            jobs = [p.job_id for p in self.pieces if p.job_id is not None and p.arrived.count(1) < p.count]
        for job_id in jobs:
            if not watch:
                self.farm._connection.unwatch(job_id)
            self.farm._cancel_job(job_id)
        self.check_end()

    # ---- in (background threads)

    def finish(self, done):
        if not done:
            return
        with self.lock:
            for at, value in done:
                if type(value) is _Failure and (self.failed is None or at < self.failed):
                    self.failed = at
            if self.order is None:
                self.results.update(done)
            else:
                self.order += done
            self.done += len(done)
            self.changed.notify_all()
        self.check_end()

    def check_end(self):
        """Call `on_end` once, when no more will come."""
        if self.on_end is None:
            return
        with self.lock:
            over = self.cancelled or (self.exhausted and self.done == self.sent)
            on_end, self.on_end = (self.on_end, None) if over else (None, self.on_end)
        if on_end is not None:
            on_end(self)


def run_map(farm, function, iterables, chunksize, progress, timeout, options):
    timeout = None if timeout is None else parse_seconds(timeout)
    end = None if timeout is None else time.monotonic() + timeout
    run = _Run(farm, function, iterables, chunksize, options)
    try:
        total = min(len(i) for i in iterables)
    except TypeError:
        total = None
    shown = bar(progress, total, run.code.name, run.chunksize)
    try:
        while run.failed is None and run.send_piece(_PIECE_TASKS):
            shown(run.done)
            if end is not None and time.monotonic() > end:
                break
        with run.lock:
            while run.done < run.sent and run.failed is None:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"{run.done} of {run.sent} tasks were done after {timeout:g} s")
                run.changed.wait(min(0.1 if shown.active else 60.0, 60.0 if left is None else left))
                shown(run.done)
            if run.failed is not None:
                raise run.results[run.failed].error
        if not run.exhausted:
            raise TimeoutError(f"the iterable was not read to its end within {timeout:g} s")
        shown(run.done)
    except BaseException:
        run.cancel()
        raise
    finally:
        shown.close()
    values = [run.results[i] for i in range(run.sent)]
    return list(itertools.chain.from_iterable(values)) if run.chunksize > 1 else values


def run_imap(
    farm, function, iterables, chunksize, options, ordered, window=_WINDOW, timeout=None, started=None, on_end=None
):
    """The iterator of imap. The first tasks are submitted before this returns. `timeout`: seconds from now to each
    result. `started(run)` is called before the first submit, `on_end(run)` when all has ended."""
    run = _Run(farm, function, iterables, chunksize, options)
    end = None if timeout is None else time.monotonic() + timeout
    run.on_end = on_end
    if not ordered:
        run.order = []
    if started is not None:
        started(run)
    try:
        while run.sent < window and run.send_piece(window - run.sent):
            if window == _WINDOW:
                break  # the rest while results are taken
    except BaseException:
        run.cancel()
        raise
    run.check_end()
    return _iterate(run, ordered, window, end)


def _iterate(run, ordered, window, end):
    taken = 0
    try:
        while True:
            # Refill when half of the window is used up, and whenever nothing else is to be done.
            if not run.exhausted and run.sent - taken <= window // 2:
                run.send_piece(window - (run.sent - taken))
            if taken == run.sent:
                if run.exhausted:
                    return
                continue
            with run.lock:
                while True:
                    if ordered:
                        first = run.results.pop(taken, _NOTHING)
                    elif run.order:
                        ready, run.order = run.order, []
                        first = None
                    else:
                        first = _NOTHING
                    if first is not _NOTHING:
                        break
                    if not run.exhausted and run.sent - taken <= window * 3 // 4:
                        break
                    left = None if end is None else end - time.monotonic()
                    if left is not None and left <= 0:
                        raise TimeoutError("the result was not there in time")
                    run.changed.wait(60.0 if left is None else left)
            if first is _NOTHING:
                run.send_piece(window - (run.sent - taken))
                continue
            for value in [first] if ordered else [v for _, v in ready]:
                taken += 1
                if type(value) is _Failure:
                    raise value.error
                if run.chunksize > 1:
                    yield from value
                else:
                    yield value
    finally:
        if taken < run.sent or not run.exhausted:
            run.cancel()
