"""The ensemble in a local cluster, as a target file of `radslo run`."""

from __future__ import annotations

import re
from typing import Any, Final

from ruamel.yaml import YAML

from deploy.local import LocalClusterError
from deploy.local.cluster import Cluster, HpaProfile
from deploy.local.components import HPA_FLAGS

NAMESPACE: Final = "radstream"
SELECTOR: Final = "app.kubernetes.io/name=triton"
GRPC: Final = f"dns://127.0.0.1:5353/triton-headless.{NAMESPACE}.svc.cluster.local:8001"


def write_target(cluster: Cluster, profile: HpaProfile, device_times: str) -> None:
    """Write the target file; `device_times` are those that the pods run with, so their capacity is known."""
    seconds = "2 s" if HPA_FLAGS[profile] else "15 s"
    name = f"cluster {cluster.name} on this machine, HPA every {seconds}"
    with cluster.target_file.open("w") as file:
        YAML().dump(target_document(name, GRPC, str(cluster.kubeconfig), device_times), file)


def target_document(name: str, grpc: str, kubeconfig: str, device_times: str) -> dict[str, Any]:
    """What a target file says of the stand-ins in a cluster, at the ports of `deploy/kubernetes/overlays/local`.

    Raises:
        LocalClusterError: these device times have no capacity known in advance.
    """
    return {
        "name": name,
        "grpc": grpc,
        "emulated": True,
        "device_times": device_times,
        "capacity_per_s": capacity_per_s(device_times),
        "kubernetes": {
            "kubeconfig": kubeconfig,
            "namespace": NAMESPACE,
            "selector": SELECTOR,
            "metrics_port": 8002,
            "gpu_metrics_port": 9400,
        },
    }


def capacity_per_s(device_times: str) -> float:
    """What one pod serves in whole studies per second: its models share one device, a batch of n takes a + b*n ms.

    Raises:
        LocalClusterError: a batch has a fixed part, so that capacity depends on how requests meet.
    """
    terms = re.findall(r"=([\d.]+)\+([\d.]+)", device_times)
    if not terms or any(float(fixed) for fixed, _ in terms):
        message = f"the overlay's device times '{device_times}' have no capacity known in advance; write each as 0+b"
        raise LocalClusterError(message)
    return 1000 / sum(float(per_item) for _, per_item in terms)
