"""Places in a task's arguments that the results of other tasks go to.

A client that submits a task whose arguments hold futures puts an `Input` in each one's place (`Inputs` for all tasks of
a job); the job depends on those tasks with `pass`, so that the worker hands their results over with the arguments, and
the runner puts them in.
"""


class Input:
    """The result with this index among those that the task is handed."""

    __slots__ = ("index",)

    def __init__(self, index):
        self.index = index

    def __reduce__(self):
        return Input, (self.index,)

    def __eq__(self, other):
        return type(other) is Input and other.index == self.index

    def __hash__(self):
        return hash((Input, self.index))

    def __repr__(self):
        return f"Input({self.index})"


class Inputs:
    """A list of `count` results from `first` on."""

    __slots__ = ("first", "count")

    def __init__(self, first, count):
        self.first = first
        self.count = count

    def __reduce__(self):
        return Inputs, (self.first, self.count)

    def __eq__(self, other):
        return type(other) is Inputs and (other.first, other.count) == (self.first, self.count)

    def __hash__(self):
        return hash((Inputs, self.first, self.count))

    def __repr__(self):
        return f"Inputs({self.first}, {self.count})"


class InputError(Exception):
    """A result that a task was handed cannot be put into its arguments."""


_RAW, _PICKLE, _JSON = 1, 2, 3


class Filler:
    """Puts results in place: `raw` is a list of (encoding, bytes). Each is decoded once, when it is first asked for, so
    that two places with the same index get the same object."""

    def __init__(self, raw, loads):
        self.raw = raw
        self.loads = loads
        self.values = {}
        self.seen = {}  # id -> (what was there, what it became): arguments may share parts, or hold themselves

    def value(self, index):
        if index in self.values:
            return self.values[index]
        if not isinstance(index, int) or not 0 <= index < len(self.raw):
            raise InputError(f"the arguments ask for input {index!r}, but the task was handed {len(self.raw)}")
        encoding, data = self.raw[index]
        try:
            if encoding == _PICKLE:
                value = self.loads(data)
            elif encoding == _JSON:
                import json

                value = json.loads(data)
            else:
                try:
                    value = str(data, "utf-8")
                except UnicodeDecodeError:
                    value = bytes(data)
        except BaseException as error:
            raise InputError(f"input {index} cannot be loaded: {type(error).__name__}: {error}") from error
        self.values[index] = value
        return value

    def all(self):
        return [self.value(index) for index in range(len(self.raw))]

    def fill(self, item):
        """`item` with all places filled; lists and dicts are changed where they are."""
        kind = type(item)
        if kind is Input:
            return self.value(item.index)
        if kind is Inputs:
            if not isinstance(item.first, int) or not isinstance(item.count, int) or item.count < 0:
                raise InputError(f"the arguments hold {item!r}, which makes no sense")
            return [self.value(item.first + offset) for offset in range(item.count)]
        if kind not in (list, dict, tuple, set, frozenset) and not (
            isinstance(item, tuple) and hasattr(item, "_fields")
        ):
            return item
        known = self.seen.get(id(item))
        if known is not None:
            return known[1]
        if kind is list:
            self.seen[id(item)] = (item, item)
            for at, part in enumerate(item):
                item[at] = self.fill(part)
            return item
        if kind is dict:
            self.seen[id(item)] = (item, item)
            filled = [(self.fill(key), self.fill(value)) for key, value in item.items()]
            item.clear()
            item.update(filled)
            return item
        parts = [self.fill(part) for part in item]
        same = all(a is b for a, b in zip(parts, item))
        out = item if same else kind(*parts) if hasattr(item, "_fields") else kind(parts)
        self.seen[id(item)] = (item, out)
        return out
