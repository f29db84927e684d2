"""Values to bytes and back. Plain pickle where it is right, because it is ten times as fast; cloudpickle where it is
not."""

import pickle
import sys

PROTOCOL = 5


def dumps(value):
    """Pickle `value` so that another process can load it. Things defined in `__main__`, lambdas and closures go by
    value.

    Raises whatever pickling raises (PicklingError, TypeError, AttributeError, RecursionError).
    """
    cloud = sys.modules.get("cloudpickle.cloudpickle")
    if cloud is None or not cloud._PICKLE_BY_VALUE_MODULES:
        try:
            data = pickle.dumps(value, PROTOCOL)
            # A name in __main__ would be looked up in the other process's __main__, which is another program.
            if b"__main__" not in data:
                return data
        except Exception:
            pass  # cloudpickle has the last word
    import cloudpickle

    return cloudpickle.dumps(value, PROTOCOL)


def dumps_by_value(value):
    """Pickle with cloudpickle: for functions and exceptions."""
    import cloudpickle

    return cloudpickle.dumps(value, PROTOCOL)
