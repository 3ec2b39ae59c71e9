"""Whichever component is killed: `status` names it, `up` brings it back, and the pods run on."""

from __future__ import annotations

import psutil
import pytest

from deploy.local.cluster import Cluster
from tests.cluster.clusters import pids, pod_restarts, status, up

COMPONENTS = (
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "registry",
    "coredns",
    "prometheus",
    "keda-operator",
    "keda-adapter",
)


def test_every_component_is_among_those_that_are_killed_here(cluster: Cluster) -> None:
    assert set(pids(cluster.name)) == set(COMPONENTS)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_killed_component_is_named_and_repaired(cluster: Cluster, component: str) -> None:
    before = pids(cluster.name)
    pods = pod_restarts(cluster.name)
    killed = psutil.Process(before[component])
    killed.kill()
    psutil.wait_procs([killed])

    assert any(problem.startswith(f"{component}: has ended") for problem in status(cluster.name)["problems"])
    up(cluster.name)

    assert status(cluster.name)["problems"] == []
    after = pids(cluster.name)
    assert after[component] != before[component]
    assert {name for name in after if after[name] != before[name]} == {component}
    assert pod_restarts(cluster.name) == pods


def test_a_component_that_hangs_is_started_again(cluster: Cluster) -> None:
    before = pids(cluster.name)
    hung = psutil.Process(before["coredns"])
    hung.suspend()
    assert any(problem.startswith("coredns: runs but does not answer") for problem in status(cluster.name)["problems"])
    up(cluster.name)
    assert pids(cluster.name)["coredns"] != before["coredns"]
    assert status(cluster.name)["problems"] == []
