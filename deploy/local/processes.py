"""Starting, finding and ending a cluster's processes, by process id and start time, never by name."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from deploy.local import LocalClusterError
from deploy.local.cluster import Cluster

_HERE: Final = Path(__file__).parent
_HOLDER: Final = _HERE / "holder.py"
_SPAWN: Final = _HERE / "spawn.py"
_POLITE_S: Final = 5.0


def alive(record: Path) -> psutil.Process | None:
    """The process of a record, if it is still the one that was started."""
    try:
        told = json.loads(record.read_text())
        process = psutil.Process(told["pid"])
        same = process.create_time() == told["created_at"] and process.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, ValueError, KeyError, psutil.NoSuchProcess):
        return None
    return process if same else None


def holder(cluster: Cluster) -> psutil.Process | None:
    """The first process of the cluster's namespaces, while it lives."""
    return alive(cluster.directory / "holder.json")


def make_namespaces(cluster: Cluster) -> psutil.Process:
    """Start the holder.

    Raises:
        LocalClusterError: the kernel refuses.
    """
    started = subprocess.Popen(
        [sys.executable, "-I", str(_HOLDER), str(cluster.directory)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said, problem = started.communicate()
    lines = said.split()
    if lines[-1:] != ["ready"]:
        message = f"the namespaces of cluster {cluster.name} could not be made: {problem.strip() or 'no word why'}"
        raise LocalClusterError(message)
    return _record(cluster.directory / "holder.json", int(lines[0]))


def spawn(
    cluster: Cluster, name: str, command: Sequence[str], environment: Mapping[str, str], digest: str
) -> psutil.Process:
    """Start a component inside; `digest` tells later whether it still runs as it should.

    Raises:
        LocalClusterError: it could not be started.
    """
    first = holder(cluster)
    if first is None:
        message = f"cluster {cluster.name} ended meanwhile; start it again with: radslo cluster up"
        raise LocalClusterError(message)
    log = cluster.log(name)
    log.parent.mkdir(exist_ok=True)
    started = subprocess.run(
        [sys.executable, "-I", str(_SPAWN), str(first.pid), str(log), *command],
        env=dict(environment), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if started.returncode != 0:
        message = f"{name} could not be started: {started.stderr.strip()}"
        raise LocalClusterError(message)
    return _record(record_of(cluster, name), int(started.stdout), digest)


def record_of(cluster: Cluster, component: str) -> Path:
    """The file that says which process a component is."""
    return cluster.directory / "processes" / f"{component}.json"


def digest_of(record: Path) -> str | None:
    """As what a component was started."""
    with suppress(FileNotFoundError, ValueError):
        return str(json.loads(record.read_text()).get("digest"))
    return None


def end(process: psutil.Process, polite_s: float = _POLITE_S) -> None:
    """Ask a process to end, then make it."""
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(polite_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(polite_s)


def _record(path: Path, pid: int, digest: str = "") -> psutil.Process:
    path.parent.mkdir(exist_ok=True)
    try:
        process = psutil.Process(pid)
        told = {"pid": pid, "created_at": process.create_time(), "digest": digest, "started_at": time.time()}
    except psutil.NoSuchProcess as error:
        message = f"{path.stem} ended at once"
        raise LocalClusterError(message) from error
    new = path.with_suffix(".new")
    new.write_text(json.dumps(told))
    new.rename(path)
    return process


# --- the network namespace -----------------------------------------------------------------------------------------


def is_inside(cluster: Cluster) -> bool:
    """Whether this process is in the cluster's network namespace."""
    first = holder(cluster)
    return first is not None and _network(first.pid) == _network(os.getpid())


def command_inside(cluster: Cluster, command: Sequence[str]) -> list[str]:
    """`command` so that it runs in the cluster's network, with the machine's files and processes.

    Raises:
        LocalClusterError: the cluster does not run.
    """
    first = holder(cluster)
    if first is None:
        message = f"cluster {cluster.name} does not run; start it with: radslo cluster up --name {cluster.name}"
        raise LocalClusterError(message)
    return ["nsenter", f"--net=/proc/{first.pid}/ns/net", "--", *command]


@contextmanager
def inside(cluster: Cluster) -> Iterator[None]:
    """Be in the cluster's network for a while, with this thread only."""
    first = holder(cluster)
    if first is None:
        message = f"cluster {cluster.name} does not run; start it with: radslo cluster up --name {cluster.name}"
        raise LocalClusterError(message)
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


def visitors(cluster: Cluster) -> list[psutil.Process]:
    """Other people's processes in the cluster's network: what `exec` started and `radslo run` drives."""
    first = holder(cluster)
    if first is None:
        return []
    network, processes = _network(first.pid), _process_namespace(first.pid)
    return [
        process for process in psutil.process_iter()
        if _network(process.pid) == network and _process_namespace(process.pid) != processes
    ]  # fmt: skip


def _network(pid: int) -> str | None:
    return _link(f"/proc/{pid}/ns/net")


def _process_namespace(pid: int) -> str | None:
    return _link(f"/proc/{pid}/ns/pid")


def _link(path: str) -> str | None:
    try:
        return str(Path(path).readlink())
    except OSError:
        return None


def run_quietly(command: Sequence[str], problem: str, environment: Mapping[str, str]) -> None:
    """Run a program to its end.

    Raises:
        LocalClusterError: it failed.
    """
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        message = f"{problem}: {' '.join(result.stderr.split())[-400:]}"
        raise LocalClusterError(message)
