"""Ends a cluster and leaves the machine as it was."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import psutil

from deploy.local import LocalClusterError, cgroups, network, processes
from deploy.local.cluster import Cluster, state_directory
from deploy.lock import only_one

_GONE_S: Final = 20.0
_POLL_S: Final = 0.05

Say = Callable[[str], None]


def take_down(cluster: Cluster, say: Say, *, force: bool = False) -> bool:
    """End the cluster's processes and remove all it kept; return False when there was nothing.

    One kill is enough: the holder is the first process of a process namespace, so the kernel ends every other one in
    it, in whatever state, and dissolves the mounts, interfaces and addresses. No order of ending has to be kept.

    Raises:
        LocalClusterError: commands that others started in its network still run, or a process will not die.
    """
    cluster.require_own()
    if not cluster.directory.exists() and not cgroups.exist(cluster.cgroup):
        return False
    with only_one(cluster.lock, say, f"bringing cluster {cluster.name} up or down"):
        _see_visitors_off(cluster, say, force=force)
        first = processes.holder(cluster)
        if first:
            say("ending its processes")
            members = _members(first)
            with suppress(psutil.NoSuchProcess):
                first.kill()
            _await_end(cluster, [first, *members])
        say("removing its cgroups and its directory")
        _remove_cgroups(cluster)
        if cluster.directory.exists():
            shutil.rmtree(cluster.directory)
        cluster.lock.unlink(missing_ok=True)
    _remove_places()
    return True


def _remove_places() -> None:
    """Remove the directories that hold clusters when this was the last one; one that a user named stays."""
    if "RADSLO_STATE_DIR" not in os.environ:
        with suppress(OSError):  # not empty
            state_directory().rmdir()
            state_directory().parent.rmdir()


def _see_visitors_off(cluster: Cluster, say: Say, *, force: bool) -> None:
    visitors = network.visitors(cluster)
    if not visitors:
        return
    told = ", ".join(f"{visitor.process.pid} ({visitor.name})" for visitor in visitors[:5])
    if not force:
        message = f"in the network of cluster {cluster.name} still run: {told}; end them first, or use --force"
        raise LocalClusterError(message)
    say(f"ending {told}")
    for visitor in visitors:
        processes.end(visitor.process)


def _members(first: psutil.Process) -> list[psutil.Process]:
    """Every process in the holder's process namespace; those that containers' own namespaces hold included."""
    try:
        return first.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _await_end(cluster: Cluster, ended: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(ended, _GONE_S)
    if left:
        message = (
            f"process {left[0].pid} of cluster {cluster.name} does not end, though it was killed; the kernel may be "
            "waiting for a disk: try again later"
        )
        raise LocalClusterError(message)


def _remove_cgroups(cluster: Cluster) -> None:
    deadline_s = time.monotonic() + _GONE_S
    while left := cgroups.remove(cluster.cgroup):
        if time.monotonic() > deadline_s:
            message = f"the cgroup {left[0]} still holds processes; look at {left[0]}/cgroup.procs, then try again"
            raise LocalClusterError(message)
        time.sleep(_POLL_S)
