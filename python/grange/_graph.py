"""What a task waits for: futures among its arguments, and the option `after`."""

from __future__ import annotations

from typing import Any

from grange import errors
from grange._inputs import Input, Inputs


class FutureInside(TypeError):
    """Something that stands for a result was about to be pickled as it is."""


def refuse_pickle(thing: Any) -> None:
    raise FutureInside(
        f"a {type(thing).__name__} cannot be sent by itself; it is understood in an argument of farm.submit, also "
        "inside lists, tuples, sets and dicts"
    )


class Parent:
    """One thing to wait for. `job`: a job's id; or `future`, whose job is known when the server has answered.
    `index`: one task of it; None: the whole job."""

    __slots__ = ("job", "future", "index", "each", "with_result")

    def __init__(self, job=None, future=None, index=None, each=False, with_result=False):
        self.job, self.future, self.index, self.each, self.with_result = job, future, index, each, with_result

    def place(self) -> tuple:
        """(job id, index or None, each, with_result). Raises DependencyError when there is no such task."""
        if self.future is None:
            return (self.job, self.index, self.each, self.with_result)
        future = self.future
        if future._job is None:
            raise never_sent(future)
        return (future._job, future._index, self.each, self.with_result)


def place_all(parents) -> tuple:
    """The places of parents. One that gives its result is not waited for a second time without it."""
    out: dict[tuple, None] = {parent.place(): None for parent in parents}
    return tuple(p for p in out if p[3] or (*p[:3], True) not in out)


def never_sent(future) -> errors.DependencyError:
    """Why a task cannot follow this one: it is on no farm."""
    error = None
    if future.done() and not future.cancelled():
        error = future.exception()
    why = f"was not taken in: {error}" if error else "was cancelled before it was sent"
    wrapped = errors.DependencyError(f"the task that it waits for {why}")
    wrapped.__cause__ = error
    return wrapped


def write(places, spec) -> None:
    """The places of parents into a JobSpec."""
    for job_id, index, each, with_result in places:
        one = spec.depends_on.add()
        one.job_id = job_id
        if index is not None:
            one.one, one.index = True, index
        one.each = each
        setattr(one, "pass", with_result)  # a word of Python's own


def names(places) -> list[str]:
    return [job_id if index is None else f"{job_id}/{index}" for job_id, index, _, _ in places]


class Collector:
    """Replaces futures, jobs and map results in arguments by places for their results, and remembers the parents in
    the order in which the results will come."""

    def __init__(self, farm):
        self.farm = farm
        self.parents: list[Parent] = []
        self.count = 0  # of results so far
        self.known: dict[int, tuple] = {}  # id -> (the object, its place)

    def replace(self, value: Any) -> Any:
        from grange._mapped import MapResult
        from grange.futures import Future
        from grange.jobs import Job

        kind = type(value)
        if isinstance(value, (Future, Job, MapResult)):
            if id(value) not in self.known:
                self.known[id(value)] = (value, self._place(value))
            return self.known[id(value)][1]
        if kind is list:
            return [self.replace(v) for v in value]
        if kind is dict:
            return {self.replace(k): self.replace(v) for k, v in value.items()}
        if kind in (tuple, set, frozenset):
            return kind(self.replace(v) for v in value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return kind(*(self.replace(v) for v in value))
        return value

    def _place(self, value):
        first = self.count
        parents, count, one = parents_of(self.farm, value)
        for parent in parents:
            parent.with_result = True
        self.parents += parents
        self.count += count
        return Input(first) if one else Inputs(first, count)


def parents_of(farm, value) -> tuple:
    """(parents, how many results, whether it is one value and not a list) of a future, a job, or a map result."""
    from grange._mapped import MapResult
    from grange.futures import Future

    if value._farm is None or value._farm._connection is not farm._connection:
        raise ValueError(f"{value!r} is on another farm: take its result() first, and pass that")
    if isinstance(value, Future):
        return [Parent(future=value)], 1, True
    if isinstance(value, MapResult):
        jobs = value._whole_jobs()
        return [Parent(job=job_id) for job_id, _ in jobs], sum(count for _, count in jobs), False
    return [Parent(job=value.id)], value.info()["total_tasks"], False


def after(farm, value: Any) -> list[Parent]:
    """The option `after`: a future, a job, a map result, an id ("7", "7/3", 7), a dict with "job" and, as in a job
    file, "index", "each", "pass"; or a list of these."""
    out = []
    for one in value if isinstance(value, (list, tuple)) else [value]:
        each = with_result = False
        index = None
        if isinstance(one, dict):
            if "job" not in one or set(one) - {"job", "index", "each", "pass"}:
                raise ValueError(f'a dict in after has "job" and maybe "index", "each", "pass", not {one!r}')
            each, with_result, index = bool(one.get("each")), bool(one.get("pass")), one.get("index")
            one = one["job"]
        if isinstance(one, int) and not isinstance(one, bool):
            one = str(one)
        if isinstance(one, str):
            job_id, slash, number = one.partition("/")
            if not job_id or (slash and not number.isdigit()):
                raise ValueError(f'after names a job like "7" or a task like "7/3", not {one!r}')
            parents = [Parent(job=job_id, index=int(number) if slash else index)]
        elif hasattr(one, "_farm"):
            parents = parents_of(farm, one)[0]
            if index is not None:
                parents = [Parent(job=parents[0].job, index=index)]
        else:
            raise ValueError(f"after takes futures, jobs, map results and ids, not {one!r}")
        for parent in parents:
            parent.each, parent.with_result = each, with_result
        out += parents
    return out


def places(parents) -> tuple:
    """The places of parents, waiting until the server has answered for their futures."""
    for parent in parents:
        if parent.future is not None:
            parent.future._await_place()
    return place_all(parents)
