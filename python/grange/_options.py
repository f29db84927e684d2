"""What a user can ask for a task, and its way into a JobSpec."""

import datetime
import inspect
import re
import time

from grange._wire import wire_pb2 as pb

NAMES = (
    # how often, how long
    "retries", "retry_on", "timeout", "stages", "grace", "result_ttl", "speculate",
    # what a task needs
    "cpus", "memory", "gpus", "gpu_memory", "disk", "labels", "pool", "needs_model", "context", "min_life", "any_of",
    "nodes",
    # whose turn it is
    "priority", "weight", "max_running", "user",
    # when, and after what
    "after", "when", "not_before", "start_in", "deadline", "finish_in", "unique", "idempotency_key",
    # for people
    "name",
)  # fmt: skip

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


def parse_bytes(value, name="memory"):
    """Bytes from an int or a text such as "2GiB" or "500 MB"."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", value)
        if not match or match[2].upper() not in _UNITS:
            raise ValueError(f'{name} must be a number of bytes or a text like "2GiB", not {value!r}')
        value = float(match[1]) * _UNITS[match[2].upper()]
    if value < 0:
        raise ValueError(f"{name} cannot be negative")
    return int(value)


def parse_seconds(value, name="timeout"):
    """Seconds from a number or a text such as "10m" or "1.5 h"."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", value)
        if not match or match[2] not in _SECONDS:
            raise ValueError(f'{name} must be a number of seconds or a text like "10m", not {value!r}')
        value = float(match[1]) * _SECONDS[match[2]]
    if value <= 0:
        raise ValueError(f"{name} must be more than 0 seconds")
    return float(value)


def parse_time(value, name):
    """Milliseconds since 1970 from a datetime (without a zone: local time), seconds since 1970, or ISO 8601 text."""
    if isinstance(value, str):
        text = value[:-1] + "+00:00" if value[-1:] in "Zz" else value
        try:
            value = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f'{name} must be a time like "2026-12-01T08:00:00Z", not {value!r}') from None
    if isinstance(value, datetime.datetime):
        value = value.timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e11:
        raise ValueError(f"{name} must be a datetime, a text, or seconds since 1970, not {value!r}")
    return round(value * 1000)


class Options:
    """Checked options; equal ones have equal `key`s, and tasks with one key may share a job."""

    __slots__ = ("values", "key")

    def __init__(self, values=()):
        self.values = dict(values)
        for name, value in self.values.items():
            _CHECKS[name](value)
        for a, b in (("not_before", "start_in"), ("deadline", "finish_in")):
            if a in self.values and b in self.values:
                raise ValueError(f"give {a} or {b}, not both")
        self.key = tuple((n, _frozen(v)) for n, v in sorted(self.values.items()) if n != "after")
        if "unique" in self.values or "idempotency_key" in self.values:
            self.key += (object(),)  # a job of its own each time

    def merged(self, values):
        """These options with `values` laid over them. None takes an option back to its default."""
        if not values:
            return self
        unknown = set(values) - set(NAMES)
        if unknown:
            raise TypeError(f"unknown option {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
        both = {**self.values, **values}
        for a, b in (("not_before", "start_in"), ("deadline", "finish_in")):
            for new, old in ((a, b), (b, a)):  # the later word counts
                if new in values and values[new] is not None and old not in values:
                    both.pop(old, None)
        return Options({n: v for n, v in both.items() if v is not None})

    def fill(self, spec, function_name):
        """Write into a JobSpec. What it waits for (`after`) is the submit's to write."""
        values, get = self.values, self.values.get
        spec.name = str(get("name") or function_name)[:256]
        # A Python exception would be the same the next time, so it is retried only when asked for. Losing a worker
        # is another matter: that is retried by the farm in any case.
        spec.retry.max_attempts = get("retries", 0) + 1
        for rule in _rules(get("retry_on")):
            spec.retry.rules.add(**rule)
        fill_needs(spec.requirements, values)
        if "any_of" in values:
            first, *others = values["any_of"]
            fill_needs(spec.requirements, first)
            for one in others:
                fill_needs(spec.any_of.add(), {**_needs(values), **one})
        for option, field in (("timeout", "time_limit_ms"), ("grace", "grace_ms"), ("result_ttl", "result_ttl_ms")):
            if option in values:
                setattr(spec, field, _milliseconds(values[option], option))
        for stage, limit in (get("stages") or {}).items():
            setattr(spec.stages, f"{stage}_ms", _milliseconds(limit, f"stages[{stage!r}]"))
        spec.priority = get("priority", 0)
        if "weight" in values:
            spec.weight_milli = max(1, round(values["weight"] * 1000))
        spec.max_running = get("max_running", 0)
        if get("nodes", 1) > 1:
            spec.nodes = values["nodes"]
        spec.user = get("user", "")
        if "when" in values:
            spec.when = _WHEN[values["when"]]
        for clock, wait in (("not_before", "start_in"), ("deadline", "finish_in")):
            if clock in values:
                setattr(spec, f"{clock}_ms", parse_time(values[clock], clock))
            elif wait in values:
                setattr(spec, f"{clock}_ms", round((time.time() + parse_seconds(values[wait], wait)) * 1000))
        speculate = get("speculate")
        if speculate:
            spec.speculation.on = True
            if isinstance(speculate, dict):
                spec.speculation.factor_milli = round(speculate.get("factor", 0) * 1000)
                spec.speculation.min_done = speculate.get("min_done", 0)
        unique = get("unique")
        if isinstance(unique, dict):
            spec.unique = unique["word"]
            if "for" in unique:
                spec.unique_ms = _milliseconds(unique["for"], "unique")
        elif unique:
            spec.unique = unique
        if "idempotency_key" in values:
            spec.key = values["idempotency_key"]

    def file(self):
        """The same as keys of a job file, for REST. Without `after`."""
        values = self.values
        out = {n: values[n] for n in _SAME_IN_FILE if n in values}
        for name in ("timeout", "grace", "result_ttl", "start_in", "finish_in", "min_life"):
            if name in values:
                out[name] = parse_seconds(values[name], name)
        for name in ("not_before", "deadline"):
            if name in values:
                out[name] = parse_time(values[name], name) / 1000
        out["retries"] = values.get("retries", 0)
        if "stages" in values:
            out["stages"] = {k: parse_seconds(v, k) for k, v in values["stages"].items()}
        if "retry_on" in values:
            names = {v: k for k, v in _CLASSES.items()}
            out["retry"] = {
                "rules": [
                    {"on": names[r["failure"]], "max_attempts": r["max_attempts"]}
                    | ({"type": r["exception"]} if "exception" in r else {})
                    | ({"base_seconds": r["base_ms"] / 1000} if "base_ms" in r else {})
                    | ({"cap_seconds": r["cap_ms"] / 1000} if "cap_ms" in r else {})
                    for r in _rules(values["retry_on"])
                ]
            }
        return out


_SAME_IN_FILE = (
    "cpus", "memory", "gpus", "gpu_memory", "disk", "labels", "pool", "needs_model", "context", "any_of", "nodes",
    "priority", "weight", "max_running", "user", "when", "unique", "speculate", "name",
)  # fmt: skip
_NEEDS = ("cpus", "memory", "gpus", "gpu_memory", "disk", "labels", "pool", "needs_model", "context", "min_life")
_WHEN = {
    "all_succeeded": pb.DEPENDS_ALL_SUCCEEDED,
    "all_finished": pb.DEPENDS_ALL_FINISHED,
    "any_succeeded": pb.DEPENDS_ANY_SUCCEEDED,
}
_STAGES = ("reserve", "startup", "download", "execute", "upload")
_CLASSES = {
    "worker_lost": pb.FAILURE_WORKER_LOST,
    "out_of_memory": pb.FAILURE_OUT_OF_MEMORY,
    "time_limit": pb.FAILURE_TIME_LIMIT,
    "exit_code": pb.FAILURE_EXIT_CODE,
    "exception": pb.FAILURE_EXCEPTION,
    "engine_error": pb.FAILURE_ENGINE,
    "refused": pb.FAILURE_REFUSED,
}


def _frozen(value):
    if isinstance(value, dict):
        return tuple(sorted((str(k), _frozen(v)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v) for v in value)
    return value


def _needs(values):
    return {n: values[n] for n in _NEEDS if n in values}


def fill_needs(needs, values):
    """Write what a task needs of a worker into Requirements; what is not named stays."""
    if "cpus" in values:
        needs.cpus_milli = max(1, round(values["cpus"] * 1000))
    if "gpus" in values:
        needs.gpus_milli = round(values["gpus"] * 1000)
    for name in ("memory", "gpu_memory", "disk"):
        if name in values:
            setattr(needs, f"{name}_bytes", parse_bytes(values[name], name))
    if "pool" in values:
        needs.pool = values["pool"]
    if "needs_model" in values:
        needs.model = values["needs_model"]
    if "context" in values:
        needs.context = values["context"]
    if "min_life" in values:
        needs.min_life_ms = _milliseconds(values["min_life"], "min_life")
    if "labels" in values:
        needs.labels.clear()
        needs.not_labels.clear()
        for name, value in values["labels"].items():
            if name == "not":
                for other, unwanted in value.items():
                    needs.not_labels[str(other)] = str(unwanted)
            else:
                needs.labels[str(name)] = str(value)


def _milliseconds(value, name):
    return max(1, round(parse_seconds(value, name) * 1000))


def _rules(retry_on):
    """{"out_of_memory": 0, ValueError: 2, "exception": {"retries": 5, "base": 1, "cap": 60}} as fields of RetryRule,
    exception types first: the first that matches decides."""
    out = []
    for what, how in (retry_on or {}).items():
        how = how if isinstance(how, dict) else {"retries": how}
        rule = {"max_attempts": how["retries"] + 1}
        if isinstance(what, str):
            rule["failure"] = _CLASSES[what]
        else:
            module = what.__module__
            rule["failure"] = pb.FAILURE_EXCEPTION
            rule["exception"] = what.__qualname__ if module == "builtins" else f"{module}.{what.__qualname__}"
        for name, field in (("base", "base_ms"), ("cap", "cap_ms")):
            if name in how:
                rule[field] = _milliseconds(how[name], name)
        out.append(rule)
    return sorted(out, key=lambda rule: "exception" not in rule)


def _whole(low, high):
    return lambda v: not isinstance(v, bool) and int(v) == v and low <= v <= high


def _check(test, message):
    def check(value):
        try:
            good = test(value)
        except (TypeError, ValueError, OverflowError):
            good = False
        if not good:
            raise ValueError(f"{message}, not {value!r}")

    return check


def _check_text(name):
    return _check(lambda v: isinstance(v, str) and 0 < len(v) <= 256, f"{name} must be a text")


def _check_labels(value):
    good = isinstance(value, dict) and isinstance(value.get("not", {}), dict)
    if not good:
        raise ValueError(f'labels must be a dict, with "not" a dict of its own, not {value!r}')


def _check_any_of(value):
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 8:
        raise ValueError(f"any_of must be a list of 1 to 8 dicts of requirements, not {value!r}")
    for one in value:
        if not isinstance(one, dict) or set(one) - set(_NEEDS):
            raise ValueError(f"an entry of any_of is a dict with some of {', '.join(_NEEDS)}, not {one!r}")
        for name, need in one.items():
            _CHECKS[name](need)


def _check_retry_on(value):
    message = f"retry_on must be a dict such as {{'out_of_memory': 0, ValueError: 3}}, not {value!r}"
    if not isinstance(value, dict):
        raise ValueError(message)
    for what, how in value.items():
        if isinstance(what, str):
            if what not in _CLASSES:
                raise ValueError(f"retry_on knows {', '.join(_CLASSES)}, and exception types; not {what!r}")
        elif not (isinstance(what, type) and issubclass(what, BaseException)):
            raise ValueError(message)
        if isinstance(how, dict):
            if "retries" not in how or set(how) - {"retries", "base", "cap"}:
                raise ValueError(f"a rule of retry_on is a number, or a dict of retries, base and cap; not {how!r}")
            for name in set(how) & {"base", "cap"}:
                parse_seconds(how[name], name)
            how = how["retries"]
        _CHECKS["retries"](how)


def _check_stages(value):
    if not isinstance(value, dict) or set(value) - set(_STAGES):
        raise ValueError(f"stages must be a dict with some of {', '.join(_STAGES)}, not {value!r}")
    for stage, limit in value.items():
        parse_seconds(limit, stage)


def _check_speculate(value):
    if isinstance(value, bool):
        return
    if not isinstance(value, dict) or set(value) - {"factor", "min_done"}:
        raise ValueError(f'speculate must be True or a dict such as {{"factor": 2.0, "min_done": 5}}, not {value!r}')
    _check(lambda v: 1 <= v <= 1000, "speculate's factor must be from 1 to 1000")(value.get("factor", 2))
    _check(_whole(1, 10_000_000), "speculate's min_done must be a whole number above 0")(value.get("min_done", 5))


def _check_unique(value):
    if isinstance(value, dict):
        if not value.get("word") or set(value) - {"word", "for"}:
            raise ValueError(f'unique must be a word, or {{"word": "...", "for": "10m"}}, not {value!r}')
        if "for" in value:
            parse_seconds(value["for"], "unique")
        value = value["word"]
    _check_text("unique")(value)


_CHECKS = {
    "retries": _check(_whole(0, 99), "retries must be a whole number from 0 to 99"),
    "retry_on": _check_retry_on,
    "timeout": parse_seconds,
    "stages": _check_stages,
    "grace": lambda v: parse_seconds(v, "grace"),
    "result_ttl": lambda v: parse_seconds(v, "result_ttl"),
    "speculate": _check_speculate,
    "cpus": _check(lambda v: 0 < v <= 1_000_000, "cpus must be a number above 0"),
    "memory": parse_bytes,
    "gpus": _check(lambda v: 0 <= v <= 1_000_000, "gpus must be a number, 0 or more"),
    "gpu_memory": lambda v: parse_bytes(v, "gpu_memory"),
    "disk": lambda v: parse_bytes(v, "disk"),
    "labels": _check_labels,
    "pool": _check_text("pool"),
    "needs_model": _check_text("needs_model"),
    "context": _check(_whole(0, 1 << 30), "context must be a whole number of tokens"),
    "min_life": lambda v: parse_seconds(v, "min_life"),
    "any_of": _check_any_of,
    "nodes": _check(_whole(1, 1024), "nodes must be a whole number from 1 to 1024"),
    "priority": _check(_whole(-1000, 1000), "priority must be from -1000 to 1000"),
    "weight": _check(lambda v: 0.001 <= v <= 1000, "weight must be a number from 0.001 to 1000"),
    "max_running": _check(_whole(0, 10_000_000), "max_running must be a whole number, 0 or more"),
    "user": _check_text("user"),
    "after": lambda v: None,  # looked at when it is submitted
    "when": _check(lambda v: v in _WHEN, f"when must be one of {', '.join(_WHEN)}"),
    "not_before": lambda v: parse_time(v, "not_before"),
    "start_in": lambda v: parse_seconds(v, "start_in"),
    "deadline": lambda v: parse_time(v, "deadline"),
    "finish_in": lambda v: parse_seconds(v, "finish_in"),
    "unique": _check_unique,
    "idempotency_key": _check_text("idempotency_key"),
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


def refuse_unknown(function, kwargs):
    """TypeError for a keyword that is neither an option nor a parameter of the function."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    takes = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    unknown = sorted(set(kwargs) - takes)
    if unknown:
        raise TypeError(
            f"unknown option {', '.join(unknown)}; the function takes no such argument either. "
            f"Options are: {', '.join(NAMES)}"
        )
