"""Who is who in a local cluster, and for whose eyes the keys are."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.local.certificates import write_certificates


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cluster")
    write_certificates(directory / "pki", directory / "kubeconfig")
    return directory


def certificate(directory: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / "pki" / f"{name}.crt").read_bytes())


def common_name(found: x509.Certificate) -> str:
    return str(found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@pytest.mark.parametrize(
    ("name", "user", "group"),
    [
        ("admin", "admin", "system:masters"),
        ("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("node", "system:node:node1", "system:nodes"),
        ("keda", "keda", None),
    ],
)
def test_each_component_is_who_kubernetes_expects(written: Path, name: str, user: str, group: str | None) -> None:
    found = certificate(written, name)
    found.verify_directly_issued_by(certificate(written, "ca"))
    assert common_name(found) == user
    assert [each.value for each in found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == (
        [group] if group else []
    )
    usages = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usages


def test_the_front_proxy_is_of_another_authority(written: Path) -> None:
    """Else any client of the cluster could pretend to be anybody."""
    found = certificate(written, "front-proxy")
    found.verify_directly_issued_by(certificate(written, "front-proxy-ca"))
    with pytest.raises(ValueError, match="issuer"):
        found.verify_directly_issued_by(certificate(written, "ca"))


def test_the_adapter_has_the_name_that_the_api_server_asks_for(written: Path) -> None:
    names = certificate(written, "keda").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "keda-metrics-apiserver.keda.svc" in names.get_values_for_type(x509.DNSName)


def test_keys_are_for_their_owner_only_and_the_authority_keeps_none(written: Path) -> None:
    keys = list(written.rglob("*.key")) + list((written / "kubeconfig").iterdir())
    assert len(keys) > 8
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)
    assert not (written / "pki/ca.key").exists()


def test_a_kubeconfig_holds_all_it_needs(written: Path) -> None:
    document = json.loads((written / "kubeconfig/admin").read_text())
    user = document["users"][0]["user"]
    assert b"BEGIN PRIVATE KEY" in base64.b64decode(user["client-key-data"])
    assert document["clusters"][0]["cluster"]["server"].startswith("https://127.0.0.1:")


def test_writing_again_changes_nothing(written: Path) -> None:
    before = {path: path.read_bytes() for path in written.rglob("*") if path.is_file()}
    write_certificates(written / "pki", written / "kubeconfig")
    assert {path: path.read_bytes() for path in written.rglob("*") if path.is_file()} == before
