"""Whether a component works, not merely runs: each is asked something that it can only answer when it does."""

from __future__ import annotations

import socket
from pathlib import Path

import dnslib
import urllib3
from dnslib import DNSRecord

from deploy.local.cluster import Cluster
from deploy.local.components import Component

_NAME = "kubernetes.default.svc.cluster.local"


class Works:
    """Asks components; to be used inside the cluster's network."""

    def __init__(self, cluster: Cluster) -> None:
        """Take the certificates that the API server wants to see."""
        self._cluster = cluster
        pki = cluster.directory / "pki"
        self._http = urllib3.PoolManager(
            ca_certs=str(pki / "ca.crt"),
            cert_file=str(pki / "admin.crt"),
            key_file=str(pki / "admin.key"),
            retries=False,
            timeout=2.0,
        )

    def __call__(self, component: Component) -> bool:
        """Whether it answers as it should, now."""
        if component.probe:
            return self._answers(component.probe)
        if component.name == "containerd":
            return _accepts(self._cluster.directory / "containerd.sock")
        return _resolves(_NAME)

    def _answers(self, url: str) -> bool:
        try:
            return self._http.request("GET", url).status == 200  # noqa: PLR2004 - HTTP's OK
        except urllib3.exceptions.HTTPError:
            return False


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def _resolves(name: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.sendto(DNSRecord.question(name).pack(), ("127.0.0.1", 5353))
            return bool(DNSRecord.parse(asking.recv(4096)).rr)
        except (OSError, dnslib.DNSError):
            return False
