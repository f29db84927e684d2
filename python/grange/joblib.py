"""The joblib backend "grange": `joblib.parallel_config(backend="grange")`, and scikit-learn runs on the farm.

`import grange` makes the name known to joblib; importing this module is not needed. Backend arguments: `farm` (default:
`grange.default_farm()`) and Farm's options (`cpus`, `memory`, `retries`, ...).
"""

from joblib.parallel import register_parallel_backend

from joblib._parallel_backends import (  # isort: skip
    AutoBatchingMixin,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
)


def _run(batch):
    """In an executor: one batch of joblib's calls."""
    return batch()


class GrangeBackend(AutoBatchingMixin, ParallelBackendBase):
    """Each batch of calls is one task. Parallel calls inside a task use threads, and below that one after another."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = False
    default_n_jobs = -1

    def __init__(self, nesting_level=None, inner_max_num_threads=None, farm=None, **options):
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._given = farm
        self._options = options
        self._farm = None
        self._futures = set()

    def effective_n_jobs(self, n_jobs):
        """n_jobs as asked for; -1: the farm's slots."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            n_jobs = self.default_n_jobs
        if n_jobs > 0:
            return n_jobs
        if self._farm is None:
            self._connect()
        slots = int(self._farm.stats().get("slots") or 0) or 1
        return max(1, slots + 1 + n_jobs)

    def _connect(self):
        from grange.farm import default_farm

        self._farm = (self._given or default_farm()).options(name="joblib", **self._options)

    def configure(self, n_jobs=1, parallel=None, **kwargs):
        self._connect()
        n_jobs = self.effective_n_jobs(n_jobs)
        self.parallel = parallel
        return n_jobs

    def submit(self, func, callback=None):
        future = self._farm.submit(_run, func)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit

    def retrieve_result_callback(self, out):
        return out.result()

    def abort_everything(self, ensure_ready=True):
        for future in list(self._futures):
            future.cancel()
        self._futures.clear()

    def terminate(self):
        self.abort_everything(ensure_ready=False)

    def get_nested_backend(self):
        level = (self.nesting_level or 0) + 1
        if level > 1:
            return SequentialBackend(nesting_level=level), None
        return ThreadingBackend(nesting_level=level), None


def register():
    """Make the backend known to joblib. Done by `import grange`."""
    register_parallel_backend("grange", GrangeBackend)
