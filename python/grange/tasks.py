"""`@grange.task`: a function with its options."""

import functools

from grange._options import Options


class Task:
    """A function that can be called here as ever, and on the farm by `.submit`, `.map`, `.imap` and `.imap_unordered`
    (on `grange.default_farm()`), or by `farm.submit(this, ...)`, `farm.map(this, ...)`. All keyword arguments of
    `.submit` are the function's own."""

    def __init__(self, function, options):
        self.function = function
        self.farm_options = options
        functools.update_wrapper(self, function)

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)

    def __get__(self, instance, owner=None):
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self):
        return f"<grange.Task {getattr(self.function, '__qualname__', self.function)}>"

    def options(self, **options):
        """The same function with other options."""
        return Task(self.function, self.farm_options.merged(options))

    def submit(self, *args, **kwargs):
        """A `grange.Future` of the call."""
        from grange.farm import default_farm

        return default_farm()._submit(self.function, self.farm_options, args, kwargs)

    def map(self, *iterables, **kwargs):
        """`farm.map` of this function."""
        from grange.farm import default_farm

        return default_farm().map(self, *iterables, **kwargs)

    def start_map(self, *iterables, **kwargs):
        """`farm.start_map` of this function."""
        from grange.farm import default_farm

        return default_farm().start_map(self, *iterables, **kwargs)

    def imap(self, *iterables, **kwargs):
        """`farm.imap` of this function."""
        from grange.farm import default_farm

        return default_farm().imap(self, *iterables, **kwargs)

    def imap_unordered(self, *iterables, **kwargs):
        """`farm.imap_unordered` of this function."""
        from grange.farm import default_farm

        return default_farm().imap_unordered(self, *iterables, **kwargs)


def task(function=None, /, **options):
    """Decorator: `@grange.task` or `@grange.task(retries=3, cpus=2, memory="2GiB", timeout=60)`. The options are
    Farm's."""
    checked = Options().merged(options)
    if function is not None:
        return Task(function, checked)
    return lambda f: Task(f, checked)
