"""What the local cluster is built of: one version of each thing, wherever it is named."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from deploy.local import holder
from deploy.local.cluster import HIDDEN, INSIDE, LOAD_TARGET_VARIABLE, NODE_ADDRESS
from deploy.local.products import (
    COREDNS_VERSION,
    ETCD_VERSION,
    KUBERNETES_VERSION,
    MODULES,
    PRODUCTS,
    PROMETHEUS_VERSION,
    TOOLCHAIN_LOCK,
    Product,
)
from loadtests.target import LOCAL_TARGET_VARIABLE

KUBE = next(product for product in PRODUCTS if product.name == "kube")


@pytest.mark.parametrize(
    ("module", "path", "version"),
    [
        ("kube", "k8s.io/kubernetes", KUBERNETES_VERSION),
        ("kube", "go.etcd.io/etcd/server/v3", ETCD_VERSION),
        ("coredns", "github.com/coredns/coredns", COREDNS_VERSION),
        ("prometheus", "github.com/prometheus/prometheus", PROMETHEUS_VERSION),
    ],
)
def test_the_module_asks_for_the_version_that_status_shows(module: str, path: str, version: str) -> None:
    assert re.search(
        rf"{path} {re.escape(version)}( // indirect)?$", (MODULES / module / "go.mod").read_text(), re.MULTILINE
    )


def test_all_parts_of_kubernetes_are_of_one_release() -> None:
    text = (MODULES / "kube/go.mod").read_text()
    replaced = re.findall(r"^\t(k8s\.io/\S+) => (\S+) (\S+)$", text, re.MULTILINE)
    assert len(replaced) > 30
    assert {version for _, _, version in replaced} == {KUBERNETES_VERSION.replace("v1.", "v0.", 1)}
    assert all(old == new for old, new, _ in replaced)


def test_every_module_has_its_sums() -> None:
    for product in PRODUCTS:
        if product.remote_sum is None and product.name != "pause":  # that needs nothing but Go
            assert (MODULES / product.module / "go.sum").stat().st_size > 1000
        assert product.remote_sum is None or product.remote_sum.startswith("h1:")
    assert TOOLCHAIN_LOCK.read_text().count("--hash=sha256:") >= 1


@pytest.mark.parametrize(
    "changed",
    [
        replace(KUBE, link_flags=""),
        replace(KUBE, tags="x"),
        replace(KUBE, package="./other"),
        replace(KUBE, module="coredns"),
        replace(KUBE, keep=("x",)),
    ],
)
def test_what_is_built_otherwise_lies_elsewhere(changed: Product) -> None:
    assert changed.directory_name != KUBE.directory_name
    assert replace(KUBE).directory_name == KUBE.directory_name


def test_the_first_process_and_the_commands_agree_on_places() -> None:
    """`holder` is run by its path and can import nothing of ours, so it repeats them."""
    assert holder.INSIDE == INSIDE
    assert holder.NODE_ADDRESS == NODE_ADDRESS
    assert set(holder.HIDDEN) < {str(path) for path in HIDDEN}
    assert LOAD_TARGET_VARIABLE == LOCAL_TARGET_VARIABLE
