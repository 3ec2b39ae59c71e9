"""Both overlays as a real API server of the pinned version judges them."""

from __future__ import annotations

import json
import subprocess

import pytest

from deploy.local.cluster import Cluster
from deploy.local.products import KUBERNETES_VERSION
from tests.cluster.clusters import RADSLO, inside
from tests.unit.manifests import MANIFESTS, rendered

UNKNOWN_HERE = {"PodMonitor"}
"""Kinds of operators that run on EKS only."""


def test_the_server_has_the_pinned_version(cluster: Cluster) -> None:
    told = json.loads(inside(cluster.name, "kubectl", "version", "--output=json"))
    assert told["serverVersion"]["gitVersion"] == told["clientVersion"]["gitVersion"] == KUBERNETES_VERSION


@pytest.mark.parametrize("overlay", ["local", "eks"])
def test_the_server_would_take_every_object(cluster: Cluster, overlay: str) -> None:
    """Strictly: unknown and doubled fields are refused, defaults and admission included. Nothing is changed."""
    objects = [each for each in rendered(overlay) if each["kind"] not in UNKNOWN_HERE]
    left_out = {each["kind"] for each in rendered(overlay)} - {each["kind"] for each in objects}
    assert left_out == (UNKNOWN_HERE if overlay == "eks" else set())
    told = _dry_run(cluster, objects)
    assert len(told.splitlines()) == len(objects)
    assert all("server dry run" in line for line in told.splitlines())


def test_the_cluster_runs_the_local_overlay_as_it_is(cluster: Cluster) -> None:
    """`kubectl diff` finds nothing that applying it again would change; its exit code says so too."""
    assert inside(cluster.name, "kubectl", "diff", "-k", str(MANIFESTS / "overlays/local")) == ""


def test_a_pod_without_the_security_settings_is_refused(cluster: Cluster) -> None:
    pod: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root", "namespace": "radstream"},
        "spec": {"containers": [{"name": "root", "image": "127.0.0.1:5000/any:1"}]},
    }
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        _dry_run(cluster, [pod])


def test_a_pod_runs_as_nobody_in_particular_and_cannot_write_its_files(cluster: Cluster) -> None:
    run = ("kubectl", "exec", "--namespace=radstream", "deployment/triton", "--", "bash", "-c")
    lines = inside(cluster.name, *run, "while read line; do echo $line; done < /proc/self/status").splitlines()
    told = dict(line.split(":", 1) for line in lines)
    assert set(told["Uid"].split()) == set(told["Gid"].split()) == {"1000"}
    assert int(told["CapEff"], 16) == 0
    assert told["NoNewPrivs"].strip() == "1"
    assert told["Seccomp"].strip() == "2"
    assert "Read-only file system" in inside(cluster.name, *run, "(echo x > /opt/x) 2>&1 || true")


def _dry_run(cluster: Cluster, objects: list[dict[str, object]]) -> str:
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    result = subprocess.run(
        [*_radslo_kubectl(cluster), "apply", "--dry-run=server", "--validate=strict", "-f", "-"],
        input=listed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def _radslo_kubectl(cluster: Cluster) -> list[str]:
    return [RADSLO, "cluster", "exec", "--name", cluster.name, "--port", "0", "kubectl"]
