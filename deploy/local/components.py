"""The programs a cluster is made of: how each is started and how one sees that it works. Paths are those inside."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.local import certificates
from deploy.local.cluster import API_SERVER, INSIDE, NODE_ADDRESS, Cluster, HpaProfile

_ETCD: Final = "http://127.0.0.1:26379"
_ETCD_PEER: Final = "http://127.0.0.1:26380"
_TOOLS: Final = INSIDE / "tools"
_PKI: Final = INSIDE / "pki"
_KUBE: Final = str(_TOOLS / "kube")
CONFIG: Final = Path(__file__).with_name("config")
REGISTRY: Final = "http://127.0.0.1:5000"
KUBELET: Final = "http://127.0.0.1:10248/healthz"
PROMETHEUS: Final = "http://127.0.0.1:9090"
KEDA_OPERATOR: Final = "http://127.0.0.1:18081"

HPA_FLAGS: Final[dict[HpaProfile, tuple[str, ...]]] = {
    # Scale-out seen in seconds rather than in minutes: for tests and for a look at the mechanics.
    "fast": (
        "--horizontal-pod-autoscaler-sync-period=2s",
        "--horizontal-pod-autoscaler-downscale-stabilization=5s",
        "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
        "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
    ),
    # What EKS runs with: 15 s, 5 min, 30 s, 5 min; a managed control plane lets nobody change them.
    "default": (),
}


@dataclass(frozen=True, slots=True)
class Component:
    """One process of the cluster.

    ``build`` identifies its program. ``probe`` is an address that answers 200 when it works, or None where another sign
    is awaited (`health` knows which). ``config`` is the file of `config/` that it reads.
    """

    name: str
    command: tuple[str, ...]
    build: str
    probe: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    config: str | None = None

    @property
    def digest(self) -> str:
        """As what it is started: another one means that it has to be started anew."""
        parts = (self.command, sorted(self.environment.items()), self.build, certificates.GENERATION)
        digest = hashlib.sha256(repr(parts).encode())
        if self.config:
            digest.update((CONFIG / self.config).read_bytes())
        return digest.hexdigest()


def components(cluster: Cluster, builds: dict[str, str], profile: HpaProfile) -> list[Component]:
    """All components in the order of their start; `builds` identifies that of each program."""
    debian = {"LD_LIBRARY_PATH": builds["debian-libraries"]}
    kube, keda = builds["kube"], builds["keda-operator"]
    return [
        Component("etcd", _etcd(), kube, f"{_ETCD}/health"),
        Component("containerd", _containerd(), builds["debian"], None, debian, "containerd.toml"),
        Component("kube-apiserver", _apiserver(), kube, f"{API_SERVER}/readyz"),
        Component("kube-controller-manager", _controller_manager(profile), kube, "https://127.0.0.1:26257/healthz"),
        Component("kube-scheduler", _scheduler(), kube, "https://127.0.0.1:26259/healthz"),
        Component("kubelet", _kubelet(cluster), kube, KUBELET, config="kubelet.yaml"),
        Component("registry", _registry(), builds["debian"], f"{REGISTRY}/v2/", debian, "registry.yml"),
        Component("coredns", _coredns(), builds["coredns"], config="Corefile"),
        Component("prometheus", _prometheus(), builds["prometheus"], f"{PROMETHEUS}/-/ready", config="prometheus.yml"),
        Component("keda-operator", _keda_operator(), keda, f"{KEDA_OPERATOR}/readyz", environment=_KEDA_ENVIRONMENT),
        Component(
            "keda-adapter", _keda_adapter(), builds["keda-adapter"], "https://127.0.0.1:26444/readyz",
            environment=_KEDA_ENVIRONMENT,
        ),
    ]  # fmt: skip


def _kubeconfigs(name: str) -> tuple[str, ...]:
    path = INSIDE / "kubeconfig" / name
    return tuple(f"--{kind}kubeconfig={path}" for kind in ("", "authentication-", "authorization-"))


def _serving(name: str) -> tuple[str, ...]:
    return f"--tls-cert-file={_PKI}/{name}.crt", f"--tls-private-key-file={_PKI}/{name}.key"


def _etcd() -> tuple[str, ...]:
    return (
        *(_KUBE, "etcd", "--name=node1", f"--data-dir={INSIDE}/etcd"),
        *(f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}"),
        *(f"--listen-peer-urls={_ETCD_PEER}", f"--initial-advertise-peer-urls={_ETCD_PEER}"),
        f"--initial-cluster=node1={_ETCD_PEER}",
        # Fast on any disk; a power cut may cost this cluster's state, and `up` makes a new one.
        "--unsafe-no-fsync",
    )


def _containerd() -> tuple[str, ...]:
    return str(_TOOLS / "containerd"), f"--config={INSIDE}/config/containerd.toml"


def _apiserver() -> tuple[str, ...]:
    return (
        *(_KUBE, "kube-apiserver", f"--etcd-servers={_ETCD}"),
        # There is no default route to guess the address from.
        *("--bind-address=0.0.0.0", "--secure-port=26443", f"--advertise-address={NODE_ADDRESS}"),
        *_serving("apiserver"),
        f"--client-ca-file={_PKI}/ca.crt",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={_PKI}/service-account.pub",
        f"--service-account-signing-key-file={_PKI}/service-account.key",
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true"),
        *("--service-cluster-ip-range=10.96.0.0/16", "--profiling=false"),
        # Aggregation, for KEDA's metrics. Never --enable-aggregator-routing: it breaks services of type ExternalName.
        f"--requestheader-client-ca-file={_PKI}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        *("--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        *(f"--proxy-client-cert-file={_PKI}/front-proxy.crt", f"--proxy-client-key-file={_PKI}/front-proxy.key"),
        f"--kubelet-client-certificate={_PKI}/kubelet-client.crt",
        f"--kubelet-client-key={_PKI}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
    )


def _controller_manager(profile: HpaProfile) -> tuple[str, ...]:
    return (
        *(_KUBE, "kube-controller-manager", *_kubeconfigs("controller-manager")),
        *("--bind-address=127.0.0.1", "--secure-port=26257", *_serving("controller-manager"), "--leader-elect=false"),
        f"--root-ca-file={_PKI}/ca.crt",
        f"--service-account-private-key-file={_PKI}/service-account.key",
        "--use-service-account-credentials=true",
        *("--node-monitor-period=2s", "--node-monitor-grace-period=20s"),
        # With the defaults of 20 and 30 it is slow from ten pods on.
        *("--kube-api-qps=300", "--kube-api-burst=600"),
        f"--flex-volume-plugin-dir={INSIDE}/kubelet/volume-plugins",
        *HPA_FLAGS[profile],
    )


def _scheduler() -> tuple[str, ...]:
    listen = ("--bind-address=127.0.0.1", "--secure-port=26259", *_serving("scheduler"), "--leader-elect=false")
    return (_KUBE, "kube-scheduler", *_kubeconfigs("scheduler"), *listen)


def _kubelet(cluster: Cluster) -> tuple[str, ...]:
    return (
        *(_KUBE, "kubelet", f"--config={INSIDE}/config/kubelet.yaml", f"--kubeconfig={INSIDE}/kubeconfig/node"),
        *("--hostname-override=node1", f"--node-ip={NODE_ADDRESS}"),
        *(f"--root-dir={INSIDE}/kubelet", f"--cert-dir={INSIDE}/kubelet/pki"),
        # Of its own, as two kubelets in one cgroup end each other's pods.
        f"--cgroup-root=/{cluster.cgroup}",
    )


def _registry() -> tuple[str, ...]:
    return str(_TOOLS / "docker-registry"), "serve", f"{INSIDE}/config/registry.yml"


def _coredns() -> tuple[str, ...]:
    return str(_TOOLS / "coredns"), f"-conf={INSIDE}/config/Corefile"


def _prometheus() -> tuple[str, ...]:
    return (
        *(str(_TOOLS / "prometheus"), f"--config.file={INSIDE}/config/prometheus.yml"),
        *(f"--storage.tsdb.path={INSIDE}/prometheus", "--storage.tsdb.retention.time=1d"),
        "--web.listen-address=127.0.0.1:9090",
    )


_KEDA_ENVIRONMENT: Final = {
    "KEDA_CLUSTER_OBJECT_NAMESPACE": "keda",
    "POD_NAMESPACE": "keda",
    # All namespaces. May be empty, must exist.
    "WATCH_NAMESPACE": "",
}


def _keda_operator() -> tuple[str, ...]:
    return (
        *(str(_TOOLS / "keda-operator"), f"--kubeconfig={INSIDE}/kubeconfig/admin", f"--cert-dir={_PKI}/keda"),
        *("--metrics-bind-address=127.0.0.1:18080", "--health-probe-bind-address=127.0.0.1:18081"),
        "--metrics-service-bind-address=127.0.0.1:9666",
        *("--enable-cert-rotation=false", "--enable-webhook-patching=false", "--enable-apiservice-patching=false"),
    )


def _keda_adapter() -> tuple[str, ...]:
    admin = INSIDE / "kubeconfig/admin"
    return (
        *(str(_TOOLS / "keda-adapter"), "--secure-port=26444", "--bind-address=127.0.0.1", "--port=18082"),
        *("--metrics-service-address=127.0.0.1:9666", f"--cert-dir={_PKI}/keda"),
        *_serving("keda"),
        *(f"--lister-kubeconfig={admin}", f"--authentication-kubeconfig={admin}"),
        *(f"--authorization-kubeconfig={admin}", f"--kubeconfig={admin}"),
    )
