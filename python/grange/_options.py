"""What a user can ask for a task, and its way into a JobSpec."""

import inspect
import re

NAMES = ("retries", "cpus", "memory", "gpus", "timeout", "priority", "labels", "name")

_UNITS = {
    "": 1,
    "B": 1,
    "K": 1 << 10,
    "KIB": 1 << 10,
    "M": 1 << 20,
    "MIB": 1 << 20,
    "G": 1 << 30,
    "GIB": 1 << 30,
    "T": 1 << 40,
    "TIB": 1 << 40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_bytes(value):
    """Bytes from an int or a text such as "2GiB" or "500 MB"."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", value)
        if not match or match[2].upper() not in _UNITS:
            raise ValueError(f'memory must be a number of bytes or a text like "2GiB", not {value!r}')
        value = float(match[1]) * _UNITS[match[2].upper()]
    if value < 0:
        raise ValueError("memory cannot be negative")
    return int(value)


def parse_seconds(value):
    """Seconds from a number or a text such as "10m" or "1.5 h"."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", value)
        if not match or match[2] not in _SECONDS:
            raise ValueError(f'timeout must be a number of seconds or a text like "10m", not {value!r}')
        value = float(match[1]) * _SECONDS[match[2]]
    if value <= 0:
        raise ValueError("timeout must be more than 0 seconds")
    return float(value)


class Options:
    """Checked options; equal ones have equal `key`s, and tasks with one key may share a job."""

    __slots__ = ("values", "key")

    def __init__(self, values=()):
        self.values = dict(values)
        for name, value in self.values.items():
            _CHECKS[name](value)
        labels = self.values.get("labels")
        self.key = tuple(
            (n, tuple(sorted(labels.items())) if n == "labels" else v) for n, v in sorted(self.values.items())
        )

    def merged(self, values):
        """These options with `values` laid over them. None takes an option back to its default."""
        if not values:
            return self
        unknown = set(values) - set(NAMES)
        if unknown:
            raise TypeError(f"unknown option {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
        both = {**self.values, **values}
        return Options({n: v for n, v in both.items() if v is not None})

    def fill(self, spec, function_name):
        """Write into a JobSpec."""
        get = self.values.get
        spec.name = str(get("name") or function_name)[:256]
        # A Python exception would be the same the next time, so it is retried only when asked for. Losing a worker
        # is another matter: that is retried by the farm in any case.
        spec.retry.max_attempts = get("retries", 0) + 1
        if "cpus" in self.values:
            spec.requirements.cpus_milli = max(1, round(get("cpus") * 1000))
        if "gpus" in self.values:
            spec.requirements.gpus_milli = round(get("gpus") * 1000)
        if "memory" in self.values:
            spec.requirements.memory_bytes = parse_bytes(get("memory"))
        if "timeout" in self.values:
            spec.time_limit_ms = max(1, round(parse_seconds(get("timeout")) * 1000))
        spec.priority = get("priority", 0)
        for name, value in (get("labels") or {}).items():
            spec.requirements.labels[str(name)] = str(value)


def _check(test, message):
    def check(value):
        try:
            good = test(value)
        except TypeError:
            good = False
        if not good:
            raise ValueError(f"{message}, not {value!r}")

    return check


_CHECKS = {
    "retries": _check(lambda v: int(v) == v and 0 <= v <= 99, "retries must be a whole number from 0 to 99"),
    "cpus": _check(lambda v: 0 < v <= 1_000_000, "cpus must be a number above 0"),
    "gpus": _check(lambda v: 0 <= v <= 1_000_000, "gpus must be a number, 0 or more"),
    "priority": _check(lambda v: int(v) == v and -1000 <= v <= 1000, "priority must be from -1000 to 1000"),
    "memory": parse_bytes,
    "timeout": parse_seconds,
    "labels": _check(lambda v: isinstance(v, dict), "labels must be a dict"),
    "name": _check(lambda v: isinstance(v, str), "name must be a text"),
}


def split(function, kwargs):
    """(kwargs for the function, options) of a call like submit(f, x, retries=3): a reserved name is an option unless
    the function has a parameter of that name."""
    found = [n for n in NAMES if n in kwargs]
    if not found:
        return kwargs, {}
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        parameters = {}
    options = {n: kwargs[n] for n in found if n not in parameters}
    return {n: v for n, v in kwargs.items() if n not in options}, options
