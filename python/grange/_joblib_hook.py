"""Makes joblib know the backend "grange" after `import grange`, without importing joblib before the user does."""

import importlib.abc
import importlib.machinery
import sys


def _register():
    from grange.joblib import register

    register()


def _tell(parallel):
    backends = getattr(parallel, "EXTERNAL_BACKENDS", None)  # joblib's own table of backends that load on first use
    if backends is not None:
        backends.setdefault("grange", _register)


class _Finder(importlib.abc.MetaPathFinder):
    """Waits for the import of joblib.parallel, and adds our line to its table when it has been loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != "joblib.parallel":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            _tell(module)

        spec.loader.exec_module = exec_module
        return spec


def install():
    """Called once by `import grange`."""
    loaded = sys.modules.get("joblib.parallel")
    if loaded is not None:
        _tell(loaded)
    else:
        sys.meta_path.insert(0, _Finder())
