"""The recorded metrics that the autoscaler's queries are checked against are those of a running server."""

from __future__ import annotations

import pytest

from tests.integration.embedded import EmbeddedServers
from tests.unit.manifests import exported, series_of

pytestmark = pytest.mark.integration


def test_a_running_server_exports_every_series_that_was_recorded(servers: EmbeddedServers) -> None:
    running = series_of(servers.metrics_text(url="metrics_url"))
    for name, series in exported().items():
        for labels in series:
            assert labels in running.get(name, []), f"{name}{labels} is not exported any more"
