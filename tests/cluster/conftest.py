"""One cluster that the tests of several modules share; it is brought up by the first of them and taken down at the end.

Whether this machine can run one is asked first: elsewhere these tests are skipped, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.cluster import Cluster
from deploy.local.preflight import why_not
from tests.cluster.clusters import NAME, gone_at_the_end, look_at_machine, up
from tests.integration.runs import end_all

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip here what cannot run here. The first cluster may have to be built: that takes as long as it takes."""
    obstacle = why_not()
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.integration)
            if obstacle:
                item.add_marker(pytest.mark.skip(reason=obstacle))


@pytest.fixture(autouse=True)
def no_run_outlives_its_test() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster; a user's own of the same name stays out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADSLO_STATE_DIR", str(tmp_path_factory.mktemp("clusters")))
        before = look_at_machine(NAME)
        with gone_at_the_end(NAME):
            up(NAME)
            yield Cluster(NAME)
        # What all the tests did in between included; what a second cluster alone would leave could be there before.
        assert look_at_machine(NAME) == before
