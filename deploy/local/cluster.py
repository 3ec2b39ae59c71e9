"""Which cluster: its name, the directories it owns, and how it looks from within its namespaces."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local import LocalClusterError

INSIDE: Final = Path("/run/radslo")
"""Where a cluster's own processes see its directory: short, as socket paths must be, and the same for every cluster."""
HIDDEN: Final = (Path("/run"), Path("/var/lib"), Path("/var/log"), Path("/proc"), Path("/sys"), Path("/dev"))
"""What a cluster's own processes see differently: nothing they need may lie there."""
NODE_ADDRESS: Final = "10.98.0.1"
API_SERVER: Final = "https://127.0.0.1:26443"
LOAD_TARGET_VARIABLE: Final = "RADSLO_LOCAL_TARGET"
"""Names the target file to whatever runs inside (`loadtests.target` reads it)."""

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,19}")


def state_directory() -> Path:
    """The directories of all clusters."""
    named = os.environ.get("RADSLO_STATE_DIR")
    root = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(named or f"{root}/radslo/clusters").expanduser().absolute()


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster by its name; whether it runs, `namespaces` and `status` tell."""

    name: str = "local"

    def __post_init__(self) -> None:
        """Refuse names that could not be part of a path or of a cgroup.

        Raises:
            LocalClusterError: the name will not do.
        """
        if not _NAME.fullmatch(self.name):
            message = f"cluster name '{self.name}': use up to 20 small letters, digits and '-', a letter first"
            raise LocalClusterError(message)

    @property
    def directory(self) -> Path:
        """All that this cluster keeps; gone after `down`."""
        return state_directory() / self.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's; its address is reached from inside the network namespace only."""
        return self.directory / "kubeconfig/admin"

    @property
    def target_file(self) -> Path:
        """The ensemble in this cluster, as `radslo run --target` reads it."""
        return self.directory / "target.yaml"

    @property
    def cgroup(self) -> str:
        """The cgroup that holds this cluster's pods, in every hierarchy; other users may have one of the same name."""
        return f"radslo-{self.name}-{hashlib.sha256(bytes(self.directory)).hexdigest()[:6]}"

    def log(self, component: str) -> Path:
        """The log of one component."""
        return self.directory / "log" / f"{component}.log"


def known_clusters() -> list[Cluster]:
    """Every cluster that has a directory, running or not."""
    found = sorted(path.name for path in state_directory().glob("*") if path.is_dir())
    return [Cluster(name) for name in found if _NAME.fullmatch(name)]
