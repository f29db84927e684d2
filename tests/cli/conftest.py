"""One farm with two workers for all tests that do not break it."""

import pytest
from cli_farm import Farm


@pytest.fixture(scope="session")
def farm(tmp_path_factory):
    farm = Farm(tmp_path_factory.mktemp("farm"), "--workers", "2", "--slots", "2")
    yield farm
    farm.stop()
