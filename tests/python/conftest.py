"""A real farm for the tests: `grange up` with two workers of one executor each."""

import grange
import pytest
from farm_process import FarmProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = FarmProcess(tmp_path_factory.mktemp("farm"), "--workers", "2", "--slots", "1")
    yield server
    server.stop()


@pytest.fixture
def farm(server):
    with grange.connect(server.url) as farm:
        yield farm


@pytest.fixture
def default_url(server, monkeypatch):
    """The server as the default farm: for @grange.task, grange.Executor() and joblib."""
    from grange import farm as module

    monkeypatch.setenv("GRANGE_URL", server.url)
    monkeypatch.setattr(module, "_default", None)
    yield server.url
    if module._default is not None:
        module._default.close()
