"""Which addresses to sample: those the target names, and those of the servers that run now."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from loadtests.target import Target


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One metrics address of one server.

    ``pod_port`` is the port where only the API server reaches it: the server is the pod of that name.
    """

    kind: Literal["triton", "gpu"]
    server: str
    url: str
    pod_port: int | None = None


def endpoints(target: Target) -> list[Endpoint]:
    """The endpoints of this moment; a servers file is read anew each time, a file that is gone means no servers."""
    found = [Endpoint("triton", server, url) for server, url in target.metrics_urls.items()]
    found += [Endpoint("gpu", server, url) for server, url in target.gpu_metrics_urls.items()]
    if target.servers_file is not None:
        found += _of_servers(target.servers_file)
    return found


def _of_servers(path: Path) -> list[Endpoint]:
    try:
        servers = json.loads(path.read_text(encoding="utf-8"))["servers"]
    except FileNotFoundError:
        return []
    alive = [server for server in servers if server["state"] != "exited"]
    return [Endpoint("triton", server["name"], server["metrics_url"]) for server in alive] + [
        Endpoint("gpu", server["name"], server["gpu_metrics_url"]) for server in alive if server["gpu_metrics_url"]
    ]
