"""Whichever component is killed: `status` names it, `up` brings it back, and the pods run on."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from deploy.local.cluster import Cluster
from loadtests.target import read_target
from tests.cluster.clusters import pids, pod_restarts, status, up
from tests.integration.runs import LONG, radslo_run, write_scenario

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


def test_a_run_goes_on_while_components_are_killed_and_repaired(cluster: Cluster, tmp_path: Path) -> None:
    """What the run makes of it is the watcher's matter; here nothing of it may be lost."""
    run = radslo_run(write_scenario(tmp_path, LONG), tmp_path / "run", "--target", "local")
    run.until_rows(20)
    before = pids(cluster.name)
    killed = [psutil.Process(before[name]) for name in ("kube-apiserver", "containerd", "prometheus", "keda-operator")]
    for process in killed:
        process.kill()
    psutil.wait_procs(killed)
    up(cluster.name)
    run.until_rows(max(run.newest_done().values()) + 20)
    run.signal(signal.SIGINT)
    _, output = run.end()
    requests = run.recording().requests
    sent = requests[requests["status"] != "not_sent"]
    assert len(sent) > 60, output
    assert set(sent["status"]) <= {"ok", "in_flight"}, sent["status"].value_counts()
    assert {"api_lost", "api_back"} <= {row["event"] for row in run.recording().watch}


def test_another_hpa_profile_starts_the_controller_manager_anew_and_is_in_the_target(cluster: Cluster) -> None:
    before = pids(cluster.name)
    up(cluster.name, "--hpa", "default")
    try:
        after = pids(cluster.name)
        assert {name for name in after if after[name] != before[name]} == {"kube-controller-manager"}
        assert status(cluster.name)["hpa_profile"] == "default"
        assert "HPA every 15 s" in read_target(str(cluster.target_file)).name
        up(cluster.name)
        assert pids(cluster.name) == after
    finally:
        up(cluster.name, "--hpa", "fast")
    assert "HPA every 2 s" in read_target(str(cluster.target_file)).name


def test_a_component_that_hangs_is_started_again(cluster: Cluster) -> None:
    before = pids(cluster.name)
    hung = psutil.Process(before["coredns"])
    hung.suspend()
    assert any(problem.startswith("coredns: runs but does not answer") for problem in status(cluster.name)["problems"])
    up(cluster.name)
    assert pids(cluster.name)["coredns"] != before["coredns"]
    assert status(cluster.name)["problems"] == []
