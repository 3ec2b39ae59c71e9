"""What holds for all tests."""

import os
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# A property says what is true, not how fast: on a busy machine any example may take a second.
settings.register_profile("radslo", deadline=None)
settings.load_profile("radslo")

# Tests start processes while grpcio's threads run; with its fork support on, a child may be lost before its exec.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


class ByModule(LoadFileScheduling):  # type: ignore[misc]  # untyped
    """Each test process takes whole modules, and one takes all those that share the cluster."""

    def _split_scope(self, nodeid: str) -> str:
        module = str(super()._split_scope(nodeid))
        return "tests/cluster" if module.startswith("tests/cluster/") else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    return ByModule(config, log)
