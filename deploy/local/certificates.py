"""The cluster's own certificate authority, and who is who in it: certificates and kubeconfigs."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.local.cluster import API_SERVER, NODE_ADDRESS

_VALID: Final = timedelta(days=3650)
_LOOPBACK: Final = ("localhost", "127.0.0.1")
_CLIENT: Final = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_SERVER: Final = (ExtendedKeyUsageOID.SERVER_AUTH,)
_API_SERVER_NAMES: Final = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    *_LOOPBACK,
    "10.96.0.1",
    NODE_ADDRESS,
)


@dataclass(frozen=True, slots=True)
class _Identity:
    """Who a certificate speaks for. Kubernetes reads the user from the common name, groups from the organisation."""

    file: str
    common_name: str
    organisation: str | None = None
    usages: tuple[x509.ObjectIdentifier, ...] = _CLIENT
    names: tuple[str, ...] = ()


_IDENTITIES: Final = (
    _Identity("apiserver", "kube-apiserver", usages=_SERVER, names=_API_SERVER_NAMES),
    _Identity("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
    _Identity("admin", "admin", "system:masters"),
    # These serve with the certificate that they also authenticate with.
    _Identity("controller-manager", "system:kube-controller-manager", None, _CLIENT + _SERVER, _LOOPBACK),
    _Identity("scheduler", "system:kube-scheduler", None, _CLIENT + _SERVER, _LOOPBACK),
    _Identity("node", "system:node:node1", "system:nodes", _CLIENT + _SERVER, ("node1", *_LOOPBACK, NODE_ADDRESS)),
    # The API server asks KEDA's adapter under the name of its Service; adapter and operator trust each other by it.
    _Identity("keda", "keda", usages=_CLIENT + _SERVER, names=(*_LOOPBACK, "keda-metrics-apiserver.keda.svc")),
)
GENERATION: Final = hashlib.sha256(repr(_IDENTITIES).encode()).hexdigest()[:8]
"""Another one means that all certificates are made anew, and whoever uses them is started anew."""
_FRONT_PROXY: Final = _Identity("front-proxy", "front-proxy-client")
_KUBECONFIGS: Final = ("admin", "controller-manager", "scheduler", "node")


@dataclass(frozen=True, slots=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def write_certificates(pki: Path, kubeconfigs: Path) -> None:
    """Write all keys, certificates and kubeconfigs, unless they are there; keys are for their owner's eyes only."""
    done = pki / f"complete-{GENERATION}"
    if done.is_file():
        return
    for directory in (pki, kubeconfigs, pki / "keda"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    cluster, front_proxy = _authority("radslo"), _authority("radslo-front-proxy")
    _write(pki / "ca.crt", _pem(cluster.certificate))
    _write(pki / "front-proxy-ca.crt", _pem(front_proxy.certificate))
    _issue(_FRONT_PROXY, front_proxy, pki)
    for identity in _IDENTITIES:
        _issue(identity, cluster, pki)
    for name in _KUBECONFIGS:
        _write(kubeconfigs / name, _kubeconfig(name, pki).encode())
    signer = ec.generate_private_key(ec.SECP256R1())
    _write(pki / "service-account.key", _key_pem(signer))
    _write(pki / "service-account.pub", _public_pem(signer))
    for name, source in {"ca.crt": "ca.crt", "tls.crt": "keda.crt", "tls.key": "keda.key"}.items():
        _write(pki / "keda" / name, (pki / source).read_bytes())
    done.touch()


def _authority(name: str) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _draft(subject, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Authority(key, certificate)


def _issue(identity: _Identity, authority: _Authority, pki: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, identity.common_name)]
    if identity.organisation:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.organisation))
    draft = _draft(x509.Name(attributes), authority.certificate.subject, key).add_extension(
        x509.ExtendedKeyUsage(identity.usages), critical=False
    )
    if identity.names:
        draft = draft.add_extension(
            x509.SubjectAlternativeName([_name(name) for name in identity.names]), critical=False
        )
    _write(pki / f"{identity.file}.crt", _pem(draft.sign(authority.key, hashes.SHA256())))
    _write(pki / f"{identity.file}.key", _key_pem(key))


def _draft(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _VALID)
    )


def _name(text: str) -> x509.GeneralName:
    try:
        address = ip_address(text)
    except ValueError:
        return x509.DNSName(text)
    assert isinstance(address, IPv4Address)  # noqa: S101 - the names are our own
    return x509.IPAddress(address)


def _kubeconfig(name: str, pki: Path) -> str:
    """A kubeconfig (JSON is YAML) with everything in it, so that it can be read from anywhere."""

    def inline(file: str) -> str:
        return base64.b64encode((pki / file).read_bytes()).decode()

    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "radslo",
            "clusters": [
                {"name": "radslo", "cluster": {"server": API_SERVER, "certificate-authority-data": inline("ca.crt")}}
            ],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate-data": inline(f"{name}.crt"),
                        "client-key-data": inline(f"{name}.key"),
                    },
                }
            ],
            "contexts": [{"name": "radslo", "context": {"cluster": "radslo", "user": name}}],
        },
        indent=1,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
