"""Whether this machine can run a cluster; every obstacle is one sentence that says what to use instead."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

import psutil

from deploy.image import cache_directory
from deploy.local.cluster import HIDDEN, state_directory
from deploy.local.go_build import lack_of_room

_INSTEAD: Final = "use --target embedded (no root needed), or --target kubeconfig for a cluster that you have"
_CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_CHROOT": 18, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21}
_PROGRAMS: Final = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux", "mount": "mount"}
_CONTROLLERS: Final = ("cpu", "cpuset", "memory", "pids")
_NEEDED_MEMORY_BYTES: Final = 3 * 2**30
"""1.2 GB of control plane, and four pods of less than half a GB."""


def why_not(*, starting: bool = True) -> str | None:
    """Why this machine cannot run a local cluster, or None; one that runs already has its memory."""
    obstacle = _nature() or _places() or (_memory() if starting else None)
    if obstacle:
        return f"a local Kubernetes cluster cannot run here: {obstacle}; {_INSTEAD}"
    return lack_of_room(cache_directory())


def _nature() -> str | None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"it needs Linux on x86_64, this is {platform.system()} on {platform.machine()}"
    if os.geteuid() != 0:
        return "it needs root"
    if lacking := _lacking_capabilities():
        return f"root here lacks {', '.join(lacking)}"
    for name, package in _PROGRAMS.items():
        if shutil.which(name) is None:
            return f"the program '{name}' is missing (apt-get install {package})"
    return _kernel() or _refused()


def _lacking_capabilities() -> list[str]:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    return list(_CAPABILITIES)


def _kernel() -> str | None:
    known = Path("/proc/filesystems").read_text().split()
    if "overlay" not in known and not _loadable("overlay"):
        return "this kernel has no overlayfs"
    for module in ("bridge", "veth"):
        if not Path(f"/sys/module/{module}").is_dir() and not _loadable(module):
            return f"this kernel has no network driver '{module}'"
    cgroups = Path("/sys/fs/cgroup")
    if (cgroups / "cgroup.controllers").is_file():
        offered = (cgroups / "cgroup.controllers").read_text().split()
    else:
        offered = [name for name in _CONTROLLERS if (cgroups / name).is_dir()]
    lacking = [name for name in _CONTROLLERS if name not in offered]
    if lacking:
        return f"the cgroup controllers {', '.join(lacking)} are not mounted under {cgroups}"
    if not os.access(cgroups, os.W_OK):
        return f"{cgroups} is read-only"
    return None


def _refused() -> str | None:
    """Whether something forbids in fact what the capabilities allow, as the rules of a container may."""
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "mount", "-t", "tmpfs", "radslo", "/run"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"namespaces and mounts are refused ({tried.stderr.strip()})" if tried.returncode else None


def _loadable(module: str) -> bool:
    release = os.uname().release
    for listing in ("modules.builtin", "modules.dep"):
        path = Path("/lib/modules") / release / listing
        if path.is_file() and f"/{module}.ko" in path.read_text():
            return True
    # Where nothing lists the modules, they are part of the kernel or not at all; the kernel says so at the first use.
    return not (Path("/lib/modules") / release).is_dir()


def _places() -> str | None:
    for place, variable in ((cache_directory(), "RADSLO_CACHE_DIR"), (state_directory(), "RADSLO_STATE_DIR")):
        if any(place.resolve().is_relative_to(hidden.resolve()) for hidden in HIDDEN):
            return f"{place} is not seen from within the cluster; name another place with {variable}"
    if _file_system(state_directory()) == "overlay":
        return (
            f"{state_directory()} lies on overlayfs, as in a container, which cannot hold the file systems of pods; "
            "name another place with RADSLO_STATE_DIR"
        )
    return None


def _file_system(place: Path) -> str | None:
    """The type of the file system that would hold it."""
    mounts = {mount.mountpoint: mount.fstype for mount in psutil.disk_partitions(all=True)}
    resolved = place.resolve()
    return next((mounts[str(path)] for path in (resolved, *resolved.parents) if str(path) in mounts), None)


def _memory() -> str | None:
    available = psutil.virtual_memory().available
    if available < _NEEDED_MEMORY_BYTES:
        return f"{available / 2**30:.1f} GB of memory are available, {_NEEDED_MEMORY_BYTES / 2**30:.0f} are needed"
    return None
