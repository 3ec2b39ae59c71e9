"""The programs of a cluster in one directory: those built with Go, and containerd, runc and the rest from Debian."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy import debian
from deploy.local import LocalClusterError
from deploy.local.go_build import program
from deploy.local.products import ETCD_VERSION, PRODUCTS
from deploy.lock import only_one

PACKAGES: Final = ("containerd", "runc", "containernetworking-plugins", "docker-registry")
_DIRECTORY: Final = "debian-1"
"""Raise the number when something else has to be in it."""
_FROM_DEBIAN: Final = {
    "containerd": "usr/bin/containerd",
    "containerd-shim-runc-v2": "usr/bin/containerd-shim-runc-v2",
    "ctr": "usr/bin/ctr",
    "runc": "usr/sbin/runc",
    "docker-registry": "usr/bin/docker-registry",
    "cni": "usr/lib/cni",
}

Say = Callable[[str], None]


def ensure_fetched(cache: Path, say: Say) -> Path:
    """Fetch Debian's programs with the libraries that this machine lacks; nothing is installed.

    Raises:
        LocalClusterError: they cannot be had.
    """
    tree = cache / _DIRECTORY
    if tree.is_dir():
        return tree
    with only_one(cache / "debian.lock", say, "fetching the same"):
        if tree.is_dir():
            return tree
        work = cache / "fetching"
        try:
            archives = debian.fetch(PACKAGES, work, say=say)
            shutil.rmtree(work / "tree", ignore_errors=True)
            debian.unpack(archives, work / "tree")
        except debian.DebianError as error:
            raise LocalClusterError(str(error)) from error
        for name, path in _FROM_DEBIAN.items():
            if not (work / "tree" / path).exists():
                message = f"Debian's packages brought no {name} at {path}; report this with your distribution's name"
                raise LocalClusterError(message)
        versions = sorted("\t".join(archive.name.split("_")[:2]) for archive in archives)
        (work / "tree/versions").write_text("\n".join(versions) + "\n")
        (work / "tree").rename(tree)
        shutil.rmtree(work)
    return tree


def libraries(cache: Path) -> Path:
    """Where Debian's programs find the libraries that this machine lacks."""
    return cache / _DIRECTORY / "usr/lib/x86_64-linux-gnu"


def versions(cache: Path) -> dict[str, str]:
    """Versions by program name; of Debian's as Debian writes them."""
    lines = (cache / _DIRECTORY / "versions").read_text().splitlines()
    found = dict(line.split("\t") for line in lines)
    return {product.name: product.version for product in PRODUCTS} | {
        name: found[name].replace("%3a", ":") for name in PACKAGES if name in found
    }


def component_versions(cache: Path) -> dict[str, str]:
    """The version of each component; what the one binary of Kubernetes contains has that of Kubernetes."""
    found = versions(cache)
    kube = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
    named = {"etcd": ETCD_VERSION, "registry": found["docker-registry"]}
    return dict.fromkeys(kube, found["kube"]) | found | named


def builds(cache: Path) -> dict[str, str]:
    """What identifies each program's build: another one means that what runs it has to be started anew."""
    return {product.name: product.directory_name for product in PRODUCTS} | {
        "debian": _DIRECTORY,
        "debian-libraries": str(libraries(cache)),
    }


def link_tools(cache: Path, directory: Path) -> None:
    """Put all programs into one directory, by links."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {product.name: program(cache, product.name) for product in PRODUCTS}
    wanted |= {name: cache / _DIRECTORY / path for name, path in _FROM_DEBIAN.items()}
    for name, path in wanted.items():
        link = directory / name
        if not link.is_symlink() or link.readlink() != path:
            new = directory / f".{name}"
            new.unlink(missing_ok=True)
            new.symlink_to(path)
            new.rename(link)


def path_with(directory: Path) -> str:
    """The search path that finds these programs first."""
    return f"{directory}{os.pathsep}{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"
