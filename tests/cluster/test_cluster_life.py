"""A cluster comes, is left alone, is repaired after a crash, and goes without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess

import psutil
import pytest

from deploy.local import processes
from deploy.local.cluster import Cluster, known_clusters, state_directory
from tests.cluster.clusters import (
    RADSLO,
    down,
    inhabitants,
    inside,
    kubectl,
    look_at_machine,
    pids,
    radslo,
    status,
    up,
)

BESIDE = "beside"


def test_a_second_cluster_runs_beside_the_first_and_goes_without_a_trace(cluster: Cluster) -> None:
    """Also each trap of taking one down: order of ending, cgroups of pods, three sysctls of the kubelet."""
    before, neighbours = look_at_machine(BESIDE), pids(cluster.name)

    up(BESIDE)
    assert len(kubectl(BESIDE, "get", "pods")["items"]) == 1
    assert status(BESIDE)["problems"] == []
    meanwhile = look_at_machine(BESIDE)
    assert meanwhile.sysctls == before.sysctls
    assert meanwhile.mounts == before.mounts
    assert meanwhile.links == before.links
    ours = inhabitants(BESIDE)
    assert len(ours.processes) > len(neighbours)
    assert len(ours.left()) == len(ours.processes) + len(ours.namespaces)

    down(BESIDE)
    assert ours.left() == []
    assert look_at_machine(BESIDE) == before
    assert pids(cluster.name) == neighbours
    assert status(cluster.name)["problems"] == []


@pytest.mark.usefixtures("cluster")
def test_a_cluster_that_was_killed_comes_back_or_goes_without_a_trace() -> None:
    before = look_at_machine(BESIDE)
    up(BESIDE)
    inside(BESIDE, "kubectl", "create", "configmap", "kept", "--from-literal=a=b")
    first = inhabitants(BESIDE).processes[0]
    first.kill()
    psutil.wait_procs([first])
    assert status(BESIDE)["running"] is False
    assert "does not run" in radslo("cluster", "exec", "--name", BESIDE, "true", check=False)

    assert "ended without 'down'" in up(BESIDE)
    assert status(BESIDE)["problems"] == []
    assert "b" in inside(BESIDE, "kubectl", "get", "configmap", "kept", "--output=jsonpath={.data.a}")

    again = inhabitants(BESIDE)
    again.processes[0].kill()
    psutil.wait_procs(again.processes)
    assert again.left() == []
    down(BESIDE)
    assert look_at_machine(BESIDE) == before


def test_up_leaves_a_cluster_alone_that_works(cluster: Cluster) -> None:
    before = pids(cluster.name), kubectl(cluster.name, "get", "pods", "--selector=app.kubernetes.io/name=triton")
    up(cluster.name)
    after = pids(cluster.name), kubectl(cluster.name, "get", "pods", "--selector=app.kubernetes.io/name=triton")
    assert before[0] == after[0]
    assert [pod["metadata"]["uid"] for pod in before[1]["items"]] == [
        pod["metadata"]["uid"] for pod in after[1]["items"]
    ]


@pytest.mark.usefixtures("cluster")
def test_down_twice_says_that_there_is_nothing() -> None:
    assert "does not exist" in down("never-made")
    assert not (state_directory() / "never-made").exists()


def test_down_names_what_others_still_run_in_the_network_and_leaves_it_alone(cluster: Cluster) -> None:
    command = [RADSLO, "cluster", "exec", "--name", cluster.name, "--port", "0", "sh", "-c", "echo in; exec sleep 300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as visitor:
        assert visitor.stdout is not None
        assert visitor.stdout.readline() == "in\n"
        told = radslo("cluster", "down", "--name", cluster.name, check=False)
        os.killpg(visitor.pid, signal.SIGKILL)
    assert "sleep" in told
    assert "--force" in told
    assert status(cluster.name)["problems"] == []


@pytest.mark.usefixtures("cluster")
def test_what_is_no_clusters_is_neither_used_nor_deleted() -> None:
    """As when RADSLO_STATE_DIR names a directory that holds other things."""
    precious = Cluster("precious").directory / "photo"
    precious.parent.mkdir()
    precious.write_text("x")
    for verb in ("up", "down"):
        assert "is no cluster's" in radslo("cluster", verb, "--name", "precious", check=False)
    assert precious.read_text() == "x"
    assert "precious" not in [known.name for known in known_clusters()]
    shutil.rmtree(precious.parent)


@pytest.mark.usefixtures("cluster")
def test_a_record_of_a_process_that_is_another_one_now_is_not_believed() -> None:
    """After a crash numbers are given again: what is killed by number alone may be anybody."""
    stale = Cluster("stale")
    stale.directory.mkdir()
    stale.mark.touch()
    record = processes.holder_record(stale)
    record.write_text(json.dumps({"pid": os.getpid(), "identity": "another boot 123"}))
    assert processes.holder(stale) is None
    record.write_text("{")
    assert processes.holder(stale) is None
    assert status(stale.name)["running"] is False
    down(stale.name)
    assert not stale.directory.exists()


@pytest.mark.parametrize("name", ["", "A", "-x", "a" * 21, "../x"])
def test_names_that_cannot_be_names_are_refused(name: str) -> None:
    assert "cluster name" in radslo("cluster", "status", "--name", name, check=False)
