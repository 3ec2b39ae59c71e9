"""deploy/kubernetes: the overlays are the same but for what has to differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.unit.manifests import OVERLAYS, rendered

TEMPLATE = "Deployment/triton/spec/template/spec"
SPEC = "ScaledObject/triton/spec"
DIFFERENCES = {
    # what a node has
    f"{TEMPLATE}/containers/triton/resources",
    f"{TEMPLATE}/nodeSelector",
    f"{TEMPLATE}/tolerations",
    f"{TEMPLATE}/priorityClassName",
    # the software
    f"{TEMPLATE}/containers/triton/image",
    f"{TEMPLATE}/containers/triton/args",
    f"{TEMPLATE}/containers/triton/env/POD_NAMESPACE",
    f"{TEMPLATE}/containers/triton/env/RADSTREAM_DEVICE_TIMES",
    f"{TEMPLATE}/containers/triton/ports/gpu-metrics",
    # how long a pod takes to go
    f"{TEMPLATE}/terminationGracePeriodSeconds",
    f"{TEMPLATE}/containers/triton/lifecycle",
    # how many, how fast, asked of whom
    f"{SPEC}/minReplicaCount",
    f"{SPEC}/maxReplicaCount",
    f"{SPEC}/pollingInterval",
    f"{SPEC}/fallback",
    f"{SPEC}/advanced/horizontalPodAutoscalerConfig/behavior/scaleDown",
    f"{SPEC}/triggers/in-flight/metadata/serverAddress",
    f"{SPEC}/triggers/in-flight/metadata/query",
    f"{SPEC}/triggers/pending/metadata/serverAddress",
    f"{SPEC}/triggers/worst-queue-ms/metadata/serverAddress",
    f"{SPEC}/triggers/worst-queue-ms/metadata/query",
    # who may come in
    "NetworkPolicy/triton/spec/ingress",
}
ONLY_ON_EKS = {
    "Deployment/headroom",
    "PodMonitor/triton",
    "PriorityClass/radstream-headroom",
    "PriorityClass/radstream-serving",
}


def leaves(node: Any, path: str) -> Iterator[tuple[str, object]]:
    """Return the path of each value; items of a list go by their name where they have one."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(node, list) and all(isinstance(each, dict) and "name" in each for each in node):
        for each in node:
            yield from leaves(each, f"{path}/{each['name']}")
    else:
        yield path, node


def test_overlays_differ_only_in_what_is_listed_here() -> None:
    eks, local = (
        {f"{each['kind']}/{each['metadata']['name']}": each for each in rendered(overlay)} for overlay in OVERLAYS
    )
    assert set(eks) - set(local) == ONLY_ON_EKS
    assert not set(local) - set(eks)
    on_eks, here = (dict(leaf for name in local for leaf in leaves(those[name], name)) for those in (eks, local))
    differing = {path for path in on_eks.keys() | here.keys() if on_eks.get(path) != here.get(path)}
    explained = {path: {top for top in DIFFERENCES if f"{path}/".startswith(f"{top}/")} for path in differing}
    assert [path for path, tops in explained.items() if not tops] == []
    used = {top for tops in explained.values() for top in tops}
    assert used == DIFFERENCES
