"""Starting, finding and ending a cluster's processes, by process id and start, never by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

from deploy.local import LocalClusterError
from deploy.local.cluster import Cluster

_HERE: Final = Path(__file__).parent
_HOLDER: Final = _HERE / "holder.py"
_SPAWN: Final = _HERE / "spawn.py"
_POLITE_S: Final = 5.0


def alive(record: Path) -> psutil.Process | None:
    """The process of a record, if it is still the one that was started."""
    told = read_record(record)
    try:
        process = psutil.Process(told["pid"])
        same = _identity(process.pid) == told["identity"] and process.status() != psutil.STATUS_ZOMBIE
    except (KeyError, TypeError, OSError, psutil.NoSuchProcess):
        return None
    return process if same else None


def read_record(record: Path) -> dict[str, Any]:
    """What was written down of a process; nothing where there is no record, or half a one."""
    try:
        told = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def holder_record(cluster: Cluster) -> Path:
    """The file that says which process is the first of the cluster's namespaces, and which network is theirs."""
    return cluster.directory / "holder.json"


def record_of(cluster: Cluster, component: str) -> Path:
    """The file that says which process a component is, its version and as what it was started."""
    return cluster.directory / "processes" / f"{component}.json"


def holder(cluster: Cluster) -> psutil.Process | None:
    """The first process of the cluster's namespaces, while it lives."""
    return alive(holder_record(cluster))


def require_holder(cluster: Cluster) -> psutil.Process:
    """The first process of the cluster's namespaces.

    Raises:
        LocalClusterError: the cluster does not run.
    """
    first = holder(cluster)
    if first is None:
        message = f"cluster {cluster.name} does not run; start it with: radslo cluster up --name {cluster.name}"
        raise LocalClusterError(message)
    return first


def make_namespaces(cluster: Cluster) -> None:
    """Start the holder; it ends again by itself unless we live to write it down.

    Raises:
        LocalClusterError: the kernel refuses.
    """
    command = [sys.executable, "-I", str(_HOLDER), str(cluster.directory)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as started:
        assert started.stdin is not None  # noqa: S101 - asked for above
        assert started.stdout is not None  # noqa: S101
        assert started.stderr is not None  # noqa: S101
        pid, ready = started.stdout.readline(), started.stdout.readline()
        if ready.strip() != "ready":
            problem = started.stderr.read().strip() or "no word why"
            message = f"the namespaces of cluster {cluster.name} could not be made: {problem}"
            raise LocalClusterError(message)
        network = str(Path(f"/proc/{pid.strip()}/ns/net").readlink())
        _write_record(holder_record(cluster), int(pid), {"network": network})
        started.stdin.write("written down\n")


def spawn(
    cluster: Cluster, name: str, command: Sequence[str], environment: Mapping[str, str], told: Mapping[str, str]
) -> psutil.Process:
    """Start a component inside; what is `told` of it is written down with it.

    Raises:
        LocalClusterError: it could not be started.
    """
    first = require_holder(cluster)
    log = cluster.log(name)
    log.parent.mkdir(exist_ok=True)
    started = subprocess.run(
        [sys.executable, "-I", str(_SPAWN), str(first.pid), str(log), *command],
        env=dict(environment), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if started.returncode != 0:
        message = f"{name} could not be started: {started.stderr.strip()}"
        raise LocalClusterError(message)
    return _write_record(record_of(cluster, name), int(started.stdout), told)


def ended(process: psutil.Process) -> bool:
    """Whether a process is no more; one that nobody has reaped yet is."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end(process: psutil.Process, polite_s: float = _POLITE_S) -> None:
    """Ask a process to end, then make it.

    Raises:
        LocalClusterError: it does not end, though it was killed.
    """
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(polite_s)
        except psutil.TimeoutExpired:
            process.kill()
            try:
                process.wait(polite_s)
            except psutil.TimeoutExpired as error:
                message = f"process {process.pid} does not end, though it was killed; try again later"
                raise LocalClusterError(message) from error


def run_quietly(command: Sequence[str], problem: str, environment: Mapping[str, str]) -> None:
    """Run a program to its end.

    Raises:
        LocalClusterError: it failed.
    """
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        message = f"{problem}: {' '.join(result.stderr.split())[-400:]}"
        raise LocalClusterError(message)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there as a whole or as it was."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.rename(path)


def _write_record(path: Path, pid: int, told: Mapping[str, str]) -> psutil.Process:
    path.parent.mkdir(exist_ok=True)
    try:
        process = psutil.Process(pid)
        record = {"pid": pid, "identity": _identity(pid), **told}
    except (OSError, psutil.NoSuchProcess) as error:
        message = f"{path.stem} ended at once"
        raise LocalClusterError(message) from error
    write_whole(path, json.dumps(record))
    return process


def _identity(pid: int) -> str:
    """What no other process has, now or later: the boot, and the start in ticks since then. No clock can change it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # The program's name comes in brackets and may hold anything.
    return f"{boot} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
