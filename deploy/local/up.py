"""Brings a cluster up, or repairs it: whatever runs and works stays, whatever does not is started anew."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any, Final

import psutil

from deploy.image import IMAGE_NAME, cache_directory
from deploy.image.build import ensure_image
from deploy.image.pause import pause_archive
from deploy.image.pin import checked_tag
from deploy.image.registry import push
from deploy.local import LocalClusterError, cgroups, processes
from deploy.local.certificates import write_certificates
from deploy.local.cluster import Cluster, HpaProfile, kept_profile
from deploy.local.components import CONFIG, REGISTRY, Component, components
from deploy.local.go_build import Report, ensure_built, program
from deploy.local.health import Works
from deploy.local.kubectl import Kubectl
from deploy.local.network import inside
from deploy.local.preflight import why_not
from deploy.local.target import NAMESPACE, write_target
from deploy.local.tools import builds, component_versions, ensure_fetched, libraries, link_tools
from deploy.lock import only_one

OVERLAY: Final = Path(__file__).parents[1] / "kubernetes/overlays/local"
_OBJECTS: Final = Path(__file__).with_name("objects")
_PATH: Final = "/run/radslo/tools:/usr/sbin:/usr/bin:/sbin:/bin"
_POLL_S: Final = 0.1
_PATIENCE_S: Final = 15.0
"""For a component that runs and does not answer: an API server takes this long to find its etcd again."""

Say = Callable[[str], None]


def ensure_up(cluster: Cluster, say: Say, report: Report, profile: HpaProfile | None = None) -> None:
    """Bring the cluster up with the ensemble in it; what is already so stays so. `profile` null keeps the present one.

    Raises:
        LocalClusterError: this machine cannot run it, or a part does not come up; the message names its log.
        ImageError: the overlay names another image than `triton/` makes now, or it cannot be made.
    """
    tag = checked_tag("local")
    image = ensure_programs(say, report, starting=processes.holder(cluster) is None)
    cluster.require_own()
    with only_one(cluster.lock, say, f"bringing cluster {cluster.name} up or down"):
        _Rise(cluster, cache_directory(), image, tag, profile or kept_profile(cluster) or "fast", say).run()


def ensure_programs(say: Say, report: Report, *, starting: bool = False) -> Path:
    """Build and fetch what is not in the cache; return the ensemble's image.

    Raises:
        LocalClusterError: this machine cannot run a cluster, or something cannot be had.
    """
    obstacle = why_not(starting=starting)
    if obstacle:
        raise LocalClusterError(obstacle)
    cache = cache_directory()
    ensure_built(cache, report)
    ensure_fetched(cache, say)
    return ensure_image(cache, say)


class _Rise:
    """One `up`: from nothing, from ruins, or from a cluster that works."""

    def __init__(self, cluster: Cluster, cache: Path, image: Path, tag: str, profile: HpaProfile, say: Say) -> None:
        self._cluster, self._cache, self._image, self._tag = cluster, cache, image, tag
        self._profile, self._say = profile, say
        self._works = Works(cluster)
        self._running: dict[str, psutil.Process] = {}
        self._versions = component_versions(cache)
        self._kubectl = Kubectl(program(cache, "kubectl"), cluster.kubeconfig)
        self._components = {each.name: each for each in components(cluster, builds(cache), profile)}

    def run(self) -> None:
        self._prepare()
        with inside(self._cluster):
            self._start("etcd", "containerd")
            self._start("kube-apiserver")
            self._start("kube-controller-manager", "kube-scheduler", "registry", "coredns", "prometheus")
            self._wait("the first service account", lambda: self._kubectl.finds("serviceaccount/default"))
            self._import_pause()
            self._start("kubelet")
            self._wait("the node to be Ready", lambda: self._kubectl.is_ready("node/node1"))
            push(self._image, REGISTRY, IMAGE_NAME, self._tag, self._say)
            self._start_keda()
            self._deploy()
            deployment = self._kubectl.read("deployment/triton", NAMESPACE)
        write_target(self._cluster, self._profile, _device_times(deployment))

    # --- what lies on disk

    def _prepare(self) -> None:
        directory = self._cluster.directory
        if processes.holder(self._cluster) is None:
            self._after_an_end()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cluster.mark.touch()
        write_certificates(directory / "pki", directory / "kubeconfig")
        shutil.copytree(CONFIG, directory / "config", dirs_exist_ok=True)
        link_tools(self._cache, directory / "tools")
        processes.write_whole(directory / "settings.json", json.dumps({"hpa_profile": self._profile}))
        cgroups.make(self._cluster.cgroup)
        if processes.holder(self._cluster) is None:
            self._say("making the namespaces")
            processes.make_namespaces(self._cluster)

    def _after_an_end(self) -> None:
        """Clear what a cluster that ended by a crash or a reboot left; etcd's data and images are still good."""
        if (self._cluster.directory / "holder.json").is_file():
            self._say("the cluster ended without 'down'; starting it again with what it knew")
            for stale in ("processes", "holder.json", "containerd.sock", "sysctl"):
                path = self._cluster.directory / stale
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            cgroups.remove(self._cluster.cgroup)

    # --- components

    def _start(self, *names: str) -> None:
        """Start what does not run or does not answer, then wait until all of these work."""
        for name in names:
            self._running[name] = self._ensure_started(self._components[name])
        for name in names:
            component = self._components[name]
            self._wait(name, lambda component=component: self._works(component))  # type: ignore[misc]

    def _ensure_started(self, component: Component) -> psutil.Process:
        record = processes.record_of(self._cluster, component.name)
        running = processes.alive(record)
        if running and processes.read_record(record).get("digest") == component.digest:
            if self._works(component) or self._works_soon(component):
                return running
            self._say(f"{component.name} does not answer; starting it again")
        elif running is None and record.is_file():
            self._say(f"{component.name} has ended; starting it again")
        if running:
            processes.end(running)
        if component.name == "containerd":
            (self._cluster.directory / "containerd.sock").unlink(missing_ok=True)
        environment = {"PATH": _PATH, "HOME": "/run/radslo", **component.environment}
        told = {"digest": component.digest, "version": self._versions[component.name]}
        return processes.spawn(self._cluster, component.name, component.command, environment, told)

    def _works_soon(self, component: Component) -> bool:
        """Give a component that runs a moment: it may be short of something else that was just started again."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline_s:
            if self._works(component):
                return True
            time.sleep(_POLL_S)
        return False

    def _require_alive(self) -> None:
        for name, process in self._running.items():
            if processes.ended(process):
                message = (
                    f"{name} has ended; {_last_words(self._cluster.log(name))}; if that is a state from before a power "
                    f"cut, clear it with: radslo cluster down --name {self._cluster.name}"
                )
                raise LocalClusterError(message)

    def _wait(self, what: str, holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
        self._say(f"waiting for {what}")
        deadline_s = time.monotonic() + timeout_s
        while True:
            # First: another process may be answering in its place.
            self._require_alive()
            if holds():
                return
            if time.monotonic() > deadline_s:
                message = f"{what}: not within {timeout_s:g} s; see: radslo cluster status --name {self._cluster.name}"
                raise LocalClusterError(f"waited in vain for {message}")
            time.sleep(_POLL_S)

    # --- what runs in the cluster

    def _import_pause(self) -> None:
        """Give containerd the image that holds each pod's namespaces; it comes from no registry."""
        archive = self._cluster.directory / "pause.tar"
        if not archive.is_file():
            pause_archive(program(self._cache, "pause"), archive)
        processes.run_quietly(
            [
                *(
                    str(self._cluster.directory / "tools/ctr"),
                    "--address",
                    f"{self._cluster.directory}/containerd.sock",
                ),
                *("--namespace", "k8s.io", "images", "import", "--no-unpack", str(archive)),
            ],
            "containerd refused the pause image",
            {"LD_LIBRARY_PATH": str(libraries(self._cache))},
        )

    def _start_keda(self) -> None:
        crds = program(self._cache, "keda-operator").parent / "keep"
        self._kubectl.apply_directory(crds)
        self._start("keda-operator", "keda-adapter")
        bundle = base64.b64encode((self._cluster.directory / "pki/ca.crt").read_bytes()).decode()
        self._kubectl.apply_text(Template((_OBJECTS / "keda.yaml").read_text()).substitute(CA_BUNDLE=bundle))
        self._wait("KEDA's metrics", lambda: self._kubectl.is_available("apiservice/v1beta1.external.metrics.k8s.io"))

    def _deploy(self) -> None:
        """Apply the overlay as it is; that it names this checkout's image was seen at the start."""
        self._say("applying deploy/kubernetes/overlays/local")
        self._kubectl.apply_overlay(OVERLAY)
        self._wait("the ensemble to be available", lambda: self._kubectl.is_rolled_out("triton", NAMESPACE), 180.0)
        self._wait("the autoscaler to see its metrics", self._autoscaler_sees)

    def _autoscaler_sees(self) -> bool:
        hpas = self._kubectl.read("hpa", NAMESPACE)["items"]
        return bool(hpas) and all(
            condition["status"] == "True"
            for hpa in hpas
            for condition in hpa.get("status", {}).get("conditions", [{"type": "ScalingActive", "status": "False"}])
            if condition["type"] in {"AbleToScale", "ScalingActive"}
        )


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-3:] if log.is_file() else []
    return f"its log {log} ends: {' | '.join(line[-300:] for line in lines)}" if lines else f"its log {log} is empty"


def _device_times(deployment: dict[str, Any]) -> str:
    """The device times that the pods run with."""
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    return next(str(variable["value"]) for variable in environment if variable["name"] == "RADSTREAM_DEVICE_TIMES")
