"""Real servers that the tests of several modules share; whoever kills, freezes or adds one starts their own."""

from collections.abc import Iterator
from json import dumps
from pathlib import Path

import pytest

from tests.integration.embedded import FAST, EmbeddedServers, embedded_servers
from tests.integration.runs import end_all


@pytest.fixture(autouse=True)
def no_run_outlives_its_test() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    with embedded_servers(2, FAST) as running:
        yield running


@pytest.fixture(scope="session")
def target(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("target") / "target.json"
    path.write_text(dumps(servers.target))
    return path
