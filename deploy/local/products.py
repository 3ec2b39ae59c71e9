"""What is built from source with Go, at which version; the modules and their sums lie in `go/`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODULES: Final = Path(__file__).with_name("go")
TOOLCHAIN_LOCK: Final = MODULES / "toolchain.lock"

KUBERNETES_VERSION: Final = "v1.36.4"
ETCD_VERSION: Final = "v3.6.14"
"""Linked into `kube`."""
KEDA_VERSION: Final = "v2.20.2"
PROMETHEUS_VERSION: Final = "v0.316.0"
COREDNS_VERSION: Final = "v1.12.4"

_KUBE_FLAGS: Final = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": "1",
        "gitMinor": KUBERNETES_VERSION.split(".")[1],
        "gitTreeState": "clean",
    }.items()
)


@dataclass(frozen=True, slots=True)
class Product:
    """One program.

    ``module`` is a directory of `go/` or, where ``remote_sum`` is given, a module path with version that is built in
    its own directory, with its own replacements. ``reference_s`` is how long it took on two cores, from nothing but
    downloaded sources; it weighs the progress.
    """

    name: str
    version: str
    module: str
    reference_s: float
    package: str = "."
    link_flags: str = ""
    tags: str = ""
    remote_sum: str | None = None
    keep: tuple[str, ...] = ()
    """Files beside the sources that are needed later, as patterns."""

    @property
    def key(self) -> str:
        """Identifies by content what is built: sources or sums, flags, and the toolchain."""
        digest = hashlib.sha256(TOOLCHAIN_LOCK.read_bytes())
        digest.update(
            repr((self.module, self.package, self.link_flags, self.tags, self.remote_sum, self.keep)).encode()
        )
        if self.remote_sum is None:
            for path in sorted((MODULES / self.module).iterdir()):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:12]

    @property
    def directory_name(self) -> str:
        """Where in the cache it lies once built."""
        return f"{self.name}-{self.version}-{self.key}"


_KEDA: Final = f"github.com/kedacore/keda/v2@{KEDA_VERSION}"
_KEDA_SUM: Final = "h1:SR60v8uIcelbveS8n/1jcl8tLdBBIbHMxmdOHw8tKqA="
_KEDA_FLAGS: Final = f"-X github.com/kedacore/keda/v2/version.Version={KEDA_VERSION.removeprefix('v')}"

PRODUCTS: Final = (
    Product("kube", KUBERNETES_VERSION, "kube", reference_s=285, link_flags=_KUBE_FLAGS),
    Product(
        "kubectl",
        KUBERNETES_VERSION,
        "kube",
        reference_s=18,
        package="k8s.io/kubernetes/cmd/kubectl",
        link_flags=_KUBE_FLAGS,
    ),
    Product("coredns", COREDNS_VERSION, "coredns", reference_s=52),
    Product(
        "prometheus",
        PROMETHEUS_VERSION,
        "prometheus",
        reference_s=138,
        package="github.com/prometheus/prometheus/cmd/prometheus",
        # Without these it holds the service discoveries of twenty clouds, twice the time to compile.
        tags="remove_all_sd,enable_kubernetes_sd",
        link_flags=f"-X github.com/prometheus/common/version.Version={PROMETHEUS_VERSION.removeprefix('v')}",
    ),
    Product(
        "keda-operator",
        KEDA_VERSION,
        _KEDA,
        reference_s=218,
        package="./cmd/operator",
        remote_sum=_KEDA_SUM,
        link_flags=_KEDA_FLAGS,
        keep=("config/crd/bases/*.yaml",),
    ),
    Product(
        "keda-adapter",
        KEDA_VERSION,
        _KEDA,
        reference_s=43,
        package="./cmd/adapter",
        remote_sum=_KEDA_SUM,
        link_flags=_KEDA_FLAGS,
    ),
    Product("pause", "v1", "pause", reference_s=1),
)
