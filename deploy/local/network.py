"""Being in a cluster's network: this process for a while, a command for its life, and who else is there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.local.cluster import Cluster
from deploy.local.processes import holder, holder_record, read_record, require_holder


def command_inside(cluster: Cluster, command: Sequence[str]) -> list[str]:
    """`command` so that it runs in the cluster's network, with the machine's files and processes.

    Raises:
        LocalClusterError: the cluster does not run.
    """
    return ["nsenter", f"--net=/proc/{require_holder(cluster).pid}/ns/net", "--", *command]


@contextmanager
def inside(cluster: Cluster) -> Iterator[None]:
    """Be in the cluster's network for a while, with this thread only.

    Raises:
        LocalClusterError: the cluster does not run.
    """
    first = require_holder(cluster)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{first.pid}/ns/net", os.O_RDONLY)
    try:
        enter(there)
        yield
    finally:
        enter(before)
        os.close(there)
        os.close(before)


def enter(namespace: int) -> None:
    """Move this thread into a namespace given as a file descriptor (Python has it from 3.12 on)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody else's process in the cluster's network."""

    process: psutil.Process
    name: str


def visitors(cluster: Cluster) -> list[Visitor]:
    """What `exec` started and `radslo run` drives, also when the cluster itself has ended; not the one who asks."""
    network, first = read_record(holder_record(cluster)).get("network"), holder(cluster)
    if network is None:
        return []
    own = first and _link(first.pid, "pid")
    asking = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid not in asking and _link(process.pid, "net") == network and _link(process.pid, "pid") != own:
            with suppress(psutil.NoSuchProcess):
                found.append(Visitor(process, process.name()))
    return found


def _link(pid: int, kind: str) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return None
