"""The ensemble in K3s, as a target file of `radslo run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from deploy.k3s.server import API_PORT, K3S_IMAGE
from deploy.local.target import target_document

_INSIDE: Final = f"https://127.0.0.1:{API_PORT}"


def write_target(directory: Path, kubeconfig: str, api_port: int, grpc_port: int, device_times: str) -> Path:
    """Write the target file and, beside it, the kubeconfig as K3s has it, led to the published port."""
    (directory / "kubeconfig").touch(mode=0o600)
    (directory / "kubeconfig").write_text(kubeconfig.replace(_INSIDE, f"https://127.0.0.1:{api_port}"))
    # In the report: how requests get to the pods belongs to what was measured.
    name = (
        f"{K3S_IMAGE} in Docker, HPA every 2 s, requests by a NodePort: kube-proxy chooses a pod for each connection, "
        "anew every 10 s"
    )
    document = target_document(name, f"127.0.0.1:{grpc_port}", "kubeconfig", device_times)
    document["kubernetes"]["through_api_server"] = True
    file = directory / "target.json"
    file.write_text(json.dumps(document, indent=2))
    return file
