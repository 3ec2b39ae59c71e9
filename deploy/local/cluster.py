"""Which cluster: its name, the directories it owns, and how it looks from within its namespaces."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast, get_args

from deploy.local import LocalClusterError

HpaProfile = Literal["fast", "default"]
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
    """A cluster by its name; whether it runs, `processes` and `status` tell."""

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
    def mark(self) -> Path:
        """The file that says that the directory is a cluster's, and may be deleted."""
        return self.directory / ".radslo-cluster"

    def require_own(self) -> None:
        """Make sure that its directory is its own or does not exist.

        Raises:
            LocalClusterError: something else lies there.
        """
        if self.directory.exists() and not self.mark.is_file():
            message = (
                f"{self.directory} is there but is no cluster's; choose another --name, or name another place for "
                "clusters with RADSLO_STATE_DIR"
            )
            raise LocalClusterError(message)

    @property
    def lock(self) -> Path:
        """What is held while it is brought up or down."""
        return state_directory() / f".{self.name}.lock"

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


def kept_profile(cluster: Cluster) -> HpaProfile | None:
    """The HPA profile that the cluster was last brought up with."""
    try:
        kept = json.loads((cluster.directory / "settings.json").read_text())["hpa_profile"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return cast("HpaProfile", kept) if kept in get_args(HpaProfile) else None


def known_clusters() -> list[Cluster]:
    """Every cluster that has a directory, running or not."""
    found = [Cluster(path.name) for path in sorted(state_directory().glob("*")) if _NAME.fullmatch(path.name)]
    return [cluster for cluster in found if cluster.mark.is_file()]
