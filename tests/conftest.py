"""What holds for all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A property says what is true, not how fast: on a busy machine any example may take a second.
settings.register_profile("radslo", deadline=None)
settings.load_profile("radslo")

# Tests start processes while grpcio's threads run; with its fork support on, a child may be lost before its exec.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

CLUSTER = Path(__file__).parent / "cluster"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several test processes run, each takes whole modules, and one takes all that share the cluster."""
    for item in items:
        group = "cluster" if item.path.is_relative_to(CLUSTER) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
