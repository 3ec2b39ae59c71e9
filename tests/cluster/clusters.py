"""Driving clusters from tests, by the commands that a user has; and what of one can be seen from outside."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from deploy.local import holder as holder_program
from deploy.local.cluster import Cluster, state_directory
from deploy.local.processes import holder
from tests.integration import runs

RADSLO = str(runs.BIN / "radslo")
NAME = "local"
"""As users have it, so that `--target local` finds it; its directory is the tests' own."""
NAMESPACE = "radstream"
CGROUPS = Path("/sys/fs/cgroup")
SYSCTLS = (*holder_program.SYSCTLS, "net/ipv4/ip_forward")


def radslo(*arguments: str, check: bool = True, **environment: str) -> str:
    """The output of a command of ours; what it says on standard error comes first."""
    result = runs.radslo(*arguments, **environment)
    told = result.stderr + result.stdout
    if check:
        assert result.returncode == 0, told
    return told


def up(name: str, *arguments: str) -> str:
    return radslo("cluster", "up", "--name", name, *arguments)


def down(name: str, *arguments: str) -> str:
    return radslo("cluster", "down", "--name", name, *arguments)


@contextmanager
def gone_at_the_end(name: str) -> Iterator[None]:
    """Take the cluster down at the end, however the tests end: when they are killed, so is what holds this pipe."""
    command = ["sh", "-c", 'read -r _; exec "$0" cluster down --force --name "$1"', RADSLO, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as waiting:
        yield
    assert waiting.returncode == 0


def status(name: str) -> dict[str, Any]:
    result = runs.radslo("cluster", "status", "--name", name, "--json")
    assert result.returncode in {0, 1}, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def pids(name: str) -> dict[str, int]:
    return {each["name"]: each["pid"] for each in status(name)["components"]}


def inside(name: str, *command: str, check: bool = True, **environment: str) -> str:
    """The standard output of a command run by `radslo cluster exec`."""
    result = runs.radslo("cluster", "exec", "--name", name, "--port", "0", *command, **environment)
    if check:
        assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


def kubectl(name: str, *arguments: str) -> Any:
    return json.loads(inside(name, "kubectl", *arguments, f"--namespace={NAMESPACE}", "--output=json"))


def pod_restarts(name: str) -> dict[str, int]:
    """Restarts of the ensemble's pods, by UID."""
    pods = kubectl(name, "get", "pods", "--selector=app.kubernetes.io/name=triton")["items"]
    told = {pod["metadata"]["uid"]: pod["status"]["containerStatuses"] for pod in pods}
    return {uid: sum(each["restartCount"] for each in containers) for uid, containers in told.items()}


@dataclass(frozen=True)
class Machine:
    """All of this machine that a cluster could leave a trace in."""

    mounts: frozenset[str]
    links: frozenset[str]
    addresses: frozenset[str]
    routes: str
    cgroups: frozenset[str]
    sysctls: tuple[str, ...]
    directories: frozenset[str]


def look_at_machine(name: str) -> Machine:
    """This machine as it is; of the cgroups those that a cluster of this name has, or that a kubelet makes."""
    links = json.loads(subprocess.run(["ip", "-json", "address"], capture_output=True, text=True, check=True).stdout)
    return Machine(
        mounts=frozenset(" ".join(line.split()[2:5]) for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        links=frozenset(link["ifname"] for link in links),
        addresses=frozenset(address["local"] for link in links for address in link["addr_info"]),
        routes=subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout,
        cgroups=frozenset(
            str(path)
            for pattern in (Cluster(name).cgroup, "kubepods*")
            for path in [*CGROUPS.glob(pattern), *CGROUPS.glob(f"*/{pattern}")]
        ),
        sysctls=tuple(path.read_text() for name in SYSCTLS if (path := Path("/proc/sys", name)).exists()),
        directories=frozenset(str(path) for path in _places() if path.exists()),
    )


@dataclass(frozen=True)
class Inhabitants:
    """Every process of a cluster, its pods' included, and all namespaces that they have to themselves."""

    processes: tuple[psutil.Process, ...]
    namespaces: frozenset[str]

    def left(self) -> list[str]:
        """What of them is still there."""
        running = [str(process) for process in self.processes if process.is_running()]
        return running + sorted(self.namespaces & _namespaces(psutil.process_iter()))


def inhabitants(name: str) -> Inhabitants:
    first = holder(Cluster(name))
    assert first is not None
    found = (first, *first.children(recursive=True))
    return Inhabitants(found, frozenset(_namespaces(found) - _namespaces([psutil.Process()])))


def _namespaces(processes: Iterable[psutil.Process]) -> set[str]:
    found = set()
    for process in processes:
        for kind in ("net", "mnt", "pid", "ipc", "uts"):
            with suppress(OSError):  # it has just ended, or is a kernel's
                found.add(str(Path(f"/proc/{process.pid}/ns/{kind}").readlink()))
    return found


def _places() -> list[Path]:
    names = (
        "/run/radslo /run/containerd /run/containerd-state /run/netns /run/runc /var/lib/kubelet /var/lib/cni "
        "/var/lib/containerd /var/log/pods /var/log/containers /etc/cni /opt/cni /usr/libexec/kubernetes "
        "/root/.kube/cache/discovery/127.0.0.1_26443"
    )
    return [*map(Path, names.split()), state_directory(), *state_directory().glob("*"), *state_directory().glob(".*")]
