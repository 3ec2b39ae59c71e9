"""Runs a command in a cluster's network, and shows its web UI to this machine's browser meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from deploy.local import forward, network, processes
from deploy.local.cluster import LOAD_TARGET_VARIABLE, Cluster
from deploy.local.tools import path_with

Say = Callable[[str], None]

_MISLEADING = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "ssl_cert_file")
"""They lead out of a network that has no way out, or away from the cluster's own certificates."""


def environment(cluster: Cluster) -> dict[str, str]:
    """What a command inside needs to know."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in _MISLEADING}
    return kept | {
        "KUBECONFIG": str(cluster.kubeconfig),
        # Else every cluster's would be in the user's one, under the same address.
        "KUBECACHEDIR": str(cluster.directory / "kubectl-cache"),
        LOAD_TARGET_VARIABLE: str(cluster.target_file),
        "PATH": path_with(cluster.directory / "tools"),
    }


def run_command(cluster: Cluster, command: Sequence[str], port: int, say: Say) -> int:
    """Run `command` inside until it ends; return its exit code, as a shell would for a signal.

    A program that is not there is told by `nsenter`, with exit code 127.

    Raises:
        LocalClusterError: the cluster does not run.
    """
    inside = network.command_inside(cluster, command)
    with _shown(cluster, port, say):
        running = subprocess.Popen(inside, env=environment(cluster))
        with _passed_on(running):
            code = running.wait()
    return 128 - code if code < 0 else code


def go_on_inside(cluster: Cluster, command: Sequence[str]) -> NoReturn:
    """Become `command`, in the cluster's network.

    Raises:
        LocalClusterError: the cluster does not run.
    """
    inside = network.command_inside(cluster, command)
    os.execvpe(inside[0], inside, environment(cluster))


@contextmanager
def _passed_on(running: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave Ctrl-C to the command, which the terminal tells as well; pass a request to end on to it."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: running.send_signal(number)),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _shown(cluster: Cluster, port: int, say: Say) -> Iterator[None]:
    """Let 127.0.0.1:`port` of this machine lead to the same port inside, where something may come to listen."""
    if not port:
        yield
        return
    listener = forward.listen(port)
    first = processes.require_holder(cluster)
    if listener is None:
        say(f"port {port} of this machine is taken, so a web UI in there is not shown here; --port names another")
        yield
        return
    inside = os.open(f"/proc/{first.pid}/ns/net", os.O_RDONLY)
    forwarder = subprocess.Popen(
        [sys.executable, "-P", "-m", "deploy.local.forward", str(listener.fileno()), str(inside), str(port)],
        stdin=subprocess.PIPE, pass_fds=(listener.fileno(), inside), start_new_session=True,
    )  # fmt: skip
    listener.close()
    os.close(inside)
    try:
        yield
    finally:
        assert forwarder.stdin is not None  # noqa: S101 - asked for above
        forwarder.stdin.close()
        forwarder.wait()
