"""Named code: functions that are kept on the server under a name and a version."""


class Model:
    """What `farm.publish` and `farm.model` return. `farm.submit(model, ...)` and `farm.map(model, ...)` take it like a
    function, and so do its own methods, on its farm. A job keeps the code that it was submitted with."""

    def __init__(self, farm, ref):
        name, slash, version = ref.partition("/")
        if not (name and slash and version) or "/" in version:
            raise ValueError(f'a model is named like "resize/1" (name/version), not {ref!r}')
        self.farm = farm
        self.ref = ref

    def __repr__(self):
        return f"<grange.Model {self.ref}>"

    def submit(self, *args, **kwargs):
        """A `grange.Future` of the call. All keyword arguments are the function's own."""
        return self.farm._submit(self, self.farm._options, args, kwargs)

    def map(self, *iterables, **kwargs):
        """`farm.map` of this model."""
        return self.farm.map(self, *iterables, **kwargs)

    def start_map(self, *iterables, **kwargs):
        """`farm.start_map` of this model."""
        return self.farm.start_map(self, *iterables, **kwargs)

    def imap(self, *iterables, **kwargs):
        """`farm.imap` of this model."""
        return self.farm.imap(self, *iterables, **kwargs)

    def imap_unordered(self, *iterables, **kwargs):
        """`farm.imap_unordered` of this model."""
        return self.farm.imap_unordered(self, *iterables, **kwargs)
