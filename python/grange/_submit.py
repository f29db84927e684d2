"""Jobs on their way out: the making of a submit, and the batching of many small ones."""

import concurrent.futures
import pickle
import threading
import uuid

from grange import errors
from grange._calls import failure_of
from grange._graph import place_all
from grange._graph import write as write_places
from grange._wire import wire_pb2 as pb

_BLOB = 0xFFFFFFFF  # a payload size that says: these are 64 hex characters of a blob
_IN_FLIGHT = 2  # unanswered submits, above which further ones wait and ride together
_BATCH_TASKS = 10_000
_BATCH_BYTES = 4 << 20


def submit_request(code, options, arguments, follow=True, places=(), is_open=False):
    """A Request that submits one array job: `arguments` is a list of bytes, or of str (the SHA-256 of a blob); `places`
    is what it waits for."""
    request = pb.Request()
    submit = request.submit
    submit.follow = follow
    spec = submit.spec
    spec.engine = "python"
    spec.encoding = pb.ENCODING_PICKLE
    spec.count = len(arguments)
    spec.key = uuid.uuid4().hex
    if code.model:
        spec.python.model = code.model
    else:
        spec.python.code_sha256 = code.sha
        spec.python.function = code.name[:256]
    options.fill(spec, code.name)
    spec.open = is_open
    write_places(places, spec)
    add_payloads(submit.payloads, arguments)
    return request


def add_payloads(payloads, arguments):
    """Pages of ~1 MiB, so that the server can store and load them apart."""
    page, size, start = [], 0, 0
    for i, argument in enumerate(arguments):
        page.append(argument)
        size += len(argument)
        if size >= 1 << 20 or i + 1 == len(arguments):
            payload = payloads.add(first=start)
            payload.sizes.extend([_BLOB if type(a) is str else len(a) for a in page])
            payload.bytes = b"".join([a.encode() if type(a) is str else a for a in page])
            page, size, start = [], 0, i + 1


class Resolver:
    """Turns outcomes into values. Small ones at once; big ones are fetched by a few threads, so that the session goes
    on."""

    def __init__(self, http):
        self.http = http
        self.reset()

    def reset(self):
        self._lock = threading.Lock()
        self._pool = None

    def resolve(self, outcome, task_id, good, bad):
        """Call `good(value)` or `bad(exception)`, now or from another thread."""
        if outcome.value_sha256:
            with self._lock:
                if self._pool is None:
                    self._pool = concurrent.futures.ThreadPoolExecutor(4, "grange-blobs")
                pool = self._pool
            pool.submit(self._fetch, outcome, task_id, good, bad)
        elif outcome.end == pb.TASK_COMPLETED:
            try:
                value = pickle.loads(outcome.value)
            except Exception as error:
                bad(error)
            else:
                good(value)
        else:
            bad(failure_of(outcome, task_id))

    def _fetch(self, outcome, task_id, good, bad):
        try:
            data = self.http.get_blob(outcome.value_sha256)
            if outcome.end != pb.TASK_COMPLETED:
                outcome.value = data
                bad(failure_of(outcome, task_id))
                return
            value = pickle.loads(data)
        except Exception as error:
            bad(error)
        else:
            good(value)

    def close(self):
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)


class FutureJob:
    """The sink of a job whose tasks are futures."""

    __slots__ = ("farm", "futures", "job_id", "arrived", "followed")

    def __init__(self, farm, futures):
        self.farm = farm
        self.futures = futures  # by index; None when resolved
        self.job_id = None
        self.arrived = bytearray(len(futures))
        self.followed = farm._connection.may_follow()

    def answered(self, response, error):
        if error is not None:
            self.lost(error)
            return
        self.job_id = response.job.job_id
        for index, future in enumerate(self.futures):
            future._placed(self.farm, self.job_id, index)
        self.farm._connection.watch(response, self.followed, self)

    def outcomes(self, outcomes):
        resolve = self.farm._resolver.resolve
        for outcome in outcomes:
            index = outcome.index
            if index >= len(self.futures) or self.arrived[index]:
                continue
            self.arrived[index] = 1
            future = self.futures[index]
            self.futures[index] = None
            resolve(outcome, f"{self.job_id}/{index}", future._set, future._fail)

    def ended(self, status):
        self.lost(errors.TaskCancelled(f"job {self.job_id} ended ({status.state}) without this task"))

    def lost(self, error):
        for index, future in enumerate(self.futures):
            if future is not None and not self.arrived[index]:
                self.arrived[index] = 1
                future._fail(error)

    def have(self):
        return ranges(self.arrived)


def ranges(flags):
    """The [first, end) ranges of the non-zero bytes of a bytearray."""
    out, at = [], 0
    while (first := flags.find(1, at)) >= 0:
        end = flags.find(0, first)
        at = len(flags) if end < 0 else end
        out.append((first, at))
    return out


class Batcher:
    """Submits of single calls. The first goes at once; those made while some are unanswered ride together in the next
    frame, and calls of one function with the same options share a job."""

    def __init__(self, farm):
        self.farm = farm
        self.reset()

    def reset(self):
        self._lock = threading.Lock()
        self._answer = threading.Condition()
        self._waiting = []  # (code, options, argument, future)
        self._deferred = 0  # calls whose parents are not on the farm yet
        self._bytes = 0
        self._in_flight = 0

    def add(self, code, options, argument, future, parents=()):
        """`parents`: what it waits for. It goes out when the server has taken in all of them."""
        if not parents:
            self._enqueue(code, options, argument, future)
            return
        waits_for = {id(p.future): p.future for p in parents if p.future is not None}.values()
        left = [len(waits_for)]

        def ready():
            with self._lock:
                left[0] -= 1
                go = left[0] <= 0
                if go and waits_for:
                    self._deferred -= 1
            if not go:
                return
            try:
                future._parents = place_all(parents)
            except errors.DependencyError as error:
                future._fail(error)
            else:
                self._enqueue(code, options, argument, future)

        if not waits_for:
            ready()
            return
        with self._lock:
            self._deferred += 1
        for parent in waits_for:
            parent._when_placed(ready)

    def deferred(self):
        """Whether calls wait for the server's answer about others."""
        return self._deferred > 0

    def _enqueue(self, code, options, argument, future):
        with self._lock:
            self._waiting.append((code, options, argument, future))
            self._bytes += len(argument)
            go = self._in_flight < _IN_FLIGHT or self._bytes >= _BATCH_BYTES or len(self._waiting) >= _BATCH_TASKS
            batch = self._take() if go else None
        if batch:
            self._send(batch)

    def wait_for_answer(self, predicate, timeout):
        """Wait until `predicate()`, which is looked at whenever the server has answered a submit."""
        with self._answer:
            self._answer.wait_for(predicate, timeout)

    def _take(self):
        batch, self._waiting = self._waiting, []
        self._bytes = 0
        groups = {}
        for code, options, argument, future in batch:
            if not future.cancelled():
                key = (code.sha, code.model, options.key, future._parents)
                group = groups.setdefault(key, (code, options, [], [], future._parents))
                group[2].append(argument)
                group[3].append(future)
        self._in_flight += len(groups)
        return groups.values()

    def _send(self, groups):
        for code, options, arguments, futures, places in groups:
            job = FutureJob(self.farm, futures)

            def answered(response, error, job=job):
                try:
                    job.answered(response, error)
                finally:
                    with self._answer:
                        self._answer.notify_all()
                    with self._lock:
                        self._in_flight -= 1
                        more = self._take() if self._waiting and self._in_flight < _IN_FLIGHT else None
                    if more:
                        self._send(more)

            try:
                self.farm._connection.request(submit_request(code, options, arguments, job.followed, places), answered)
            except Exception as error:
                answered(None, error)
