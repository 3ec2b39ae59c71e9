"""What the container runs: versions, the command line of K3s, and its ports."""

from __future__ import annotations

from typing import Final

from deploy.local.cluster import HpaProfile
from deploy.local.components import HPA_FLAGS
from deploy.local.products import KEDA_VERSION

K3S_IMAGE: Final = "rancher/k3s:v1.36.4-k3s1"
"""The Kubernetes that deploy/local builds. Never pulled where this was written."""
KEDA_MANIFEST: Final = (
    f"https://github.com/kedacore/keda/releases/download/{KEDA_VERSION}/keda-{KEDA_VERSION.removeprefix('v')}.yaml"
)
"""Of the same KEDA as deploy/local builds; its images come from ghcr.io."""
API_PORT: Final = 6443
GRPC_PORT: Final = 30801
"""The node's port in deploy/kubernetes/overlays/k3s/nodeport.yaml."""
DEVICE_TIMES: Final = "jsonpath={.spec.template.spec.containers[0].env[?(@.name=='RADSTREAM_DEVICE_TIMES')].value}"
"""Where the Deployment of the pods says them."""


def server_command(profile: HpaProfile) -> list[str]:
    """The arguments of the image's entry point."""
    return [
        "server",
        # Nothing here needs them, and they take their time to start.
        *(f"--disable={addon}" for addon in ("traefik", "servicelb", "metrics-server", "local-storage")),
        "--tls-san=127.0.0.1",
        *(f"--kube-controller-manager-arg={flag.removeprefix('--')}" for flag in HPA_FLAGS[profile]),
    ]


def published_ports() -> dict[str, tuple[str]]:
    """The container's ports, each on a free port of this machine's loopback, as docker-py wants them told."""
    return {f"{port}/tcp": ("127.0.0.1",) for port in (API_PORT, GRPC_PORT)}
