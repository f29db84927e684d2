"""A farm for one file of tests, and doubles that are calm before each test."""

import contextlib

import pytest
from ai_farm import Farm


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    farm = Farm(tmp_path_factory.mktemp("farm"))
    yield farm
    farm.stop()


@pytest.fixture
def own_farm(tmp_path):
    """One that the test may break."""
    farm = Farm(tmp_path)
    yield farm
    farm.stop()


@pytest.fixture(scope="module")
def doubles_of_module():
    with contextlib.ExitStack() as stack:
        yield stack
