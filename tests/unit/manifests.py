"""The overlays of deploy/kubernetes as kubectl renders them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deploy.image import cache_directory
from deploy.local.go_build import program

CHECKOUT = Path(__file__).resolve().parents[2]
MANIFESTS = CHECKOUT / "deploy/kubernetes"
MODELS = CHECKOUT / "triton/models"
KUBERNETES = "1.36"
OVERLAYS = ("eks", "local")
for_each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)

Object = dict[str, Any]

SYNC_S = {"eks": 15, "local": 2}
"""Between two looks of the HPA: a setting of kube-controller-manager, on EKS its default."""
ENDPOINT_S = 1
"""Until a service's name knows of a new pod, or no longer of one that goes."""
RESOLVER_S = {"eks": 5, "local": 1}
"""How long a name may be remembered: CoreDNS's default; the local cluster's setting."""
AGE_JITTER = 1.1
"""gRPC spreads the ends of connections by 10 %."""


def kubectl() -> str:
    """Return the kubectl to render with: that of KUBECTL, the built one, or one on the path; else skip the test."""
    built = program(cache_directory(), "kubectl")
    found = shutil.which(os.environ.get("KUBECTL") or (str(built) if built.is_file() else "kubectl"))
    if found is None:
        pytest.skip("no kubectl: manifests are not rendered; run 'radslo cluster build', or name one by KUBECTL")
    return found


@cache
def rendered(overlay: str) -> list[Object]:
    """Return the objects that `kubectl apply -k` would send."""
    command = [kubectl(), "kustomize", str(MANIFESTS / "overlays" / overlay)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return [each for each in YAML(typ="safe").load_all(result.stdout) if each]


def all_of(overlay: str, kind: str) -> list[Object]:
    return [each for each in rendered(overlay) if each["kind"] == kind]


def one(overlay: str, kind: str, name: str = "triton") -> Object:
    (found,) = [each for each in all_of(overlay, kind) if each["metadata"]["name"] == name]
    return found


def pod(overlay: str, deployment: str = "triton") -> Object:
    """Return the spec of a Deployment's pods."""
    spec: Object = one(overlay, "Deployment", deployment)["spec"]["template"]["spec"]
    return spec


def container(overlay: str, deployment: str = "triton") -> Object:
    """Return the one container of a Deployment's pods."""
    (only,) = pod(overlay, deployment)["containers"]
    found: Object = only
    return found


def ports(overlay: str) -> dict[str, int]:
    """Return the named ports of Triton's container."""
    return {port["name"]: port["containerPort"] for port in container(overlay)["ports"]}


def seconds(duration: str) -> float:
    """Read a duration of Prometheus in the forms used here: `5s`, `2m`."""
    match = re.fullmatch(r"(\d+)([sm])", duration)
    assert match is not None, duration
    return int(match[1]) * {"s": 1, "m": 60}[match[2]]


def bytes_of(quantity: str) -> int:
    """Read a quantity of memory in the forms used here: `128Mi`, `1Gi`."""
    match = re.fullmatch(r"(\d+)(Mi|Gi)", quantity)
    assert match is not None, quantity
    return int(match[1]) * {"Mi": 2**20, "Gi": 2**30}[match[2]]


Series = dict[str, list[dict[str, str]]]
"""The labels of each series, by metric name."""


def series_of(text: str) -> Series:
    """Return what a text of Prometheus holds.

    Names are taken as they are written, which is how Prometheus keeps them; a parser may add `_total` to a counter's.
    """
    series: Series = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        series.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels)))
    return series


@cache
def exported() -> Series:
    """Return what a real tritonserver 2.51.0 with our models exports, but for its summaries."""
    return series_of((CHECKOUT / "tests/data/triton-2.51.0-metrics.txt").read_text())
