"""Pods as the API tells of them, to addresses of metrics [pure]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loadtests.target import Kubernetes
from loadtests.watch.endpoints import Endpoint


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that runs. Another one may come to have its name or its address, none its ``uid``."""

    uid: str
    name: str
    address: str


def running_pod(document: Mapping[str, Any]) -> Pod | None:
    """The pod of an API object, if it runs and has an address.

    It need not be ready: what it has counted when it gets its first request is what the rest is counted from. Nor is
    it left out while it is being deleted: until its end it still answers.
    """
    metadata, status = document["metadata"], document.get("status") or {}
    if status.get("phase") != "Running" or not status.get("podIP"):
        return None
    return Pod(metadata["uid"], metadata["name"], status["podIP"])


def pod_endpoints(pods: Iterable[Pod], kubernetes: Kubernetes) -> list[Endpoint]:
    """Where the metrics of these pods are read. A pod names itself so in ``served_by``."""
    ports: list[tuple[Literal["triton", "gpu"], int]] = [("triton", kubernetes.metrics_port)]
    if kubernetes.gpu_metrics_port is not None:
        ports.append(("gpu", kubernetes.gpu_metrics_port))
    found = []
    for pod in pods:
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        for kind, port in ports:
            pod_port = port if kubernetes.through_api_server else None
            found.append(Endpoint(kind, pod.name, f"http://{host}:{port}/metrics", pod_port))
    return found
