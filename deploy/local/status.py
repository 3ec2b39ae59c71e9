"""What of a cluster runs, since when, in which version, and what is wrong."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from deploy.image import cache_directory
from deploy.local import LocalClusterError, processes
from deploy.local.cluster import Cluster, kept_profile
from deploy.local.components import Component, components
from deploy.local.health import Works
from deploy.local.kubectl import Kubectl
from deploy.local.network import inside, visitors
from deploy.local.tools import builds


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """One component.

    ``problem`` is None when it works. ``since_s`` and ``pss_bytes`` (memory, where what is shared counts by its share)
    are None when it does not run.
    """

    name: str
    version: str | None
    pid: int | None
    since_s: float | None
    pss_bytes: int | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A cluster. ``objects`` are lines about what runs in it, as far as it can be asked."""

    name: str
    running: bool
    hpa_profile: str | None
    components: list[ComponentStatus] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    visitors: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What is wrong, a sentence each."""
        return [f"{each.name}: {each.problem}" for each in self.components if each.problem]

    def to_json(self) -> dict[str, Any]:
        """All of it, for a program."""
        return asdict(self) | {"problems": self.problems}


def status_of(cluster: Cluster) -> ClusterStatus:
    """Look at a cluster without changing anything."""
    profile = kept_profile(cluster)
    if processes.holder(cluster) is None:
        return ClusterStatus(cluster.name, running=False, hpa_profile=profile)
    cache = cache_directory()
    with inside(cluster):
        works = Works(cluster)
        found = [_component(cluster, each, works) for each in components(cluster, builds(cache), profile or "fast")]
        objects = _objects(Kubectl(cluster.directory / "tools/kubectl", cluster.kubeconfig))
    there = [f"{visitor.process.pid} {visitor.name}" for visitor in visitors(cluster)]
    return ClusterStatus(cluster.name, running=True, hpa_profile=profile, components=found, objects=objects,
                         visitors=there)  # fmt: skip


def _component(cluster: Cluster, component: Component, works: Works) -> ComponentStatus:
    record = processes.record_of(cluster, component.name)
    process = processes.alive(record)
    version = processes.read_record(record).get("version")
    if process is not None:
        with suppress(psutil.NoSuchProcess):
            since_s, pss_bytes = time.time() - process.create_time(), process.memory_full_info().pss
            problem = _problem(cluster, component, works)
            return ComponentStatus(component.name, version, process.pid, since_s, pss_bytes, problem)
    told = "has ended" if record.is_file() else "was never started"
    advice = f"start it again with: radslo cluster up --name {cluster.name}"
    return ComponentStatus(component.name, version, None, None, None, f"{told}; {advice}")


def _problem(cluster: Cluster, component: Component, works: Works) -> str | None:
    if not works(component):
        return f"runs but does not answer; see {cluster.log(component.name)}"
    if processes.read_record(processes.record_of(cluster, component.name)).get("digest") != component.digest:
        return "runs as an earlier version of this project started it; 'radslo cluster up' renews it"
    return None


def _objects(kubectl: Kubectl) -> list[str]:
    try:
        node = kubectl.read("node/node1")
        pods = kubectl.read("pods", "radstream")["items"]
        hpas = kubectl.read("hpa", "radstream")["items"]
    except LocalClusterError as error:
        return [f"the API server cannot be asked: {error}"]
    ready = [each for each in node["status"]["conditions"] if each["type"] == "Ready" and each["status"] == "True"]
    lines = [f"node node1 {'Ready' if ready else 'not Ready'}"]
    lines += [f"pod {pod['metadata']['name']} {_phase(pod)}" for pod in pods]
    lines += [_hpa(hpa) for hpa in hpas]
    return lines


def _phase(pod: dict[str, Any]) -> str:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return "Ready" if conditions.get("Ready") == "True" else str(pod["status"]["phase"])


def _hpa(hpa: dict[str, Any]) -> str:
    told, limits = hpa.get("status", {}), hpa["spec"]
    now, wanted = told.get("currentReplicas", "?"), told.get("desiredReplicas", "?")
    return (
        f"HPA {hpa['metadata']['name']} {now} pods, wants {wanted} ({limits['minReplicas']} to {limits['maxReplicas']})"
    )
