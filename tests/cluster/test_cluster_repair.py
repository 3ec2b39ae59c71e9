"""Whichever component is killed: `status` names it, `up` brings it back, and the pods run on."""

from __future__ import annotations

import psutil
import pytest

from deploy.local.cluster import Cluster
from tests.cluster.clusters import pids, pod_restarts, status, up

HARD = ("etcd", "kube-apiserver", "containerd", "kubelet")
"""What others depend on: each is killed alone."""
EASY = (
    "kube-controller-manager",
    "kube-scheduler",
    "registry",
    "coredns",
    "prometheus",
    "keda-operator",
    "keda-adapter",
)


def test_every_component_is_among_those_that_are_killed_here(cluster: Cluster) -> None:
    assert set(pids(cluster.name)) == {*HARD, *EASY}


@pytest.mark.parametrize("components", [*((name,) for name in HARD), EASY], ids=[*HARD, "all the others"])
def test_killed_components_are_named_and_repaired(cluster: Cluster, components: tuple[str, ...]) -> None:
    before = pids(cluster.name)
    pods = pod_restarts(cluster.name)
    killed = [psutil.Process(before[component]) for component in components]
    for process in killed:
        process.kill()
    psutil.wait_procs(killed)

    problems = status(cluster.name)["problems"]
    assert all(any(problem.startswith(f"{name}: has ended") for problem in problems) for name in components)
    up(cluster.name)

    assert status(cluster.name)["problems"] == []
    after = pids(cluster.name)
    assert {name for name in after if after[name] != before[name]} == set(components)
    assert pod_restarts(cluster.name) == pods


def test_a_component_that_hangs_is_started_again(cluster: Cluster) -> None:
    before = pids(cluster.name)
    hung = psutil.Process(before["coredns"])
    hung.suspend()
    assert any(problem.startswith("coredns: runs but does not answer") for problem in status(cluster.name)["problems"])
    up(cluster.name)
    assert pids(cluster.name)["coredns"] != before["coredns"]
    assert status(cluster.name)["problems"] == []
