"""The cgroups that hold a cluster's pods, in every hierarchy of this machine (v1, hybrid, or v2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")


def make(name: str) -> None:
    """Make the cluster's cgroup wherever pods will have one."""
    for hierarchy in _hierarchies():
        cgroup = hierarchy / name
        cgroup.mkdir(exist_ok=True)
        # On v1 a new cpuset is empty, and nothing can be put into it.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            inherited = hierarchy / setting
            if inherited.is_file() and not (cgroup / setting).read_text().strip():
                (cgroup / setting).write_text(inherited.read_text())
    if (ROOT / "cgroup.controllers").is_file():
        # On v2 a controller exists below only where it was switched on above.
        for controller in (ROOT / "cgroup.controllers").read_text().split():
            for level in (ROOT, ROOT / name):
                with suppress(OSError):
                    (level / "cgroup.subtree_control").write_text(f"+{controller}")


def remove(name: str) -> list[Path]:
    """Remove the cluster's cgroups, innermost first; return those that still hold processes."""
    left = []
    for hierarchy in _hierarchies():
        top = hierarchy / name
        if top.is_dir():
            for cgroup in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
                with suppress(OSError):
                    cgroup.rmdir()
            try:
                top.rmdir()
            except OSError:
                left.append(top)
    return left


def exist(name: str) -> bool:
    """Whether any hierarchy has the cluster's cgroup."""
    return any((hierarchy / name).is_dir() for hierarchy in _hierarchies())


def _hierarchies() -> Iterator[Path]:
    if not ROOT.is_dir():
        return
    if (ROOT / "cgroup.controllers").is_file():
        yield ROOT
        return
    for path in sorted(ROOT.iterdir()):
        if path.is_dir() and not path.is_symlink() and (path / "cgroup.procs").is_file():
            yield path
