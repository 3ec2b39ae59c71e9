"""Where the ensemble runs: its gRPC address and where its numbers are read."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from scenarios.strict import Strict, Text, problems

EMBEDDED: Final = "embedded"
LOCAL: Final = "local"
LOCAL_TARGET_VARIABLE: Final = "RADSLO_LOCAL_TARGET"
"""Names the target file of the local cluster, where this process runs in its network."""
K3S: Final = "k3s"
KUBECONFIG: Final = "kubeconfig"
_FILE_ENDINGS: Final = frozenset({".json", ".yaml", ".yml"})


class TargetError(Exception):
    """A target cannot be read. The message says what, where and what to do next."""


def _by_server(given: object) -> object:
    """``{NAME: URL}`` of a mapping, or of a list of ``NAME=URL`` or ``URL``; without a name it is ``host:port``."""
    if isinstance(given, dict):
        named = [(str(name), str(url)) for name, url in given.items()]
    elif isinstance(given, list | tuple):
        named = [_named(str(entry)) for entry in given]
    else:
        return given
    for name, url in named:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            msg = f"'{url}' is no address of metrics: write http://HOST:PORT/metrics, or NAME=http://HOST:PORT/metrics"
            raise ValueError(msg)
        if parts.username or parts.password:
            msg = f"the address of {name} holds a user name or password, which would be recorded; leave it out"
            raise ValueError(msg)
    if len(dict(named)) < len(named):
        raise ValueError("two addresses have the same name; write NAME=URL to tell the servers apart")
    return dict(named)


def _named(entry: str) -> tuple[str, str]:
    name, equals, url = entry.partition("=")
    return (name, url) if equals and "://" not in name else (urlsplit(entry).netloc.rpartition("@")[2], entry)


ServerUrls = Annotated[dict[str, str], BeforeValidator(_by_server)]
"""Addresses by the name of the server behind each, as it answers in ``served_by`` (its pod's name)."""


class Kubernetes(Strict):
    """Which pods serve, and the API server that tells; nothing there is ever changed, and no credential recorded.

    Without a ``kubeconfig`` it is found as kubectl finds it; without a ``context`` it is the current one.
    ``gpu_metrics_port`` is null where GPUs have no exporter in the pod itself.
    ``through_api_server``: pods cannot be reached from here, so the API server fetches their metrics; the account needs
    to ``get`` ``pods/proxy`` for that.
    """

    kubeconfig: Annotated[Path | None, Field(strict=False)] = None
    context: Text | None = None
    namespace: Text = "radstream"
    selector: Text = "app.kubernetes.io/name=triton"
    metrics_port: int = Field(default=8002, gt=0, lt=2**16)
    gpu_metrics_port: int | None = Field(default=None, gt=0, lt=2**16)
    through_api_server: bool = False


class Target(Strict):
    """A running service under test.

    ``grpc`` is a gRPC name such as ``host:8001`` or ``dns:///triton-headless.radstream:8001``. The metrics addresses
    are read by the watcher, each that of one server; where the servers come and go, ``servers_file`` names a JSON file
    that says which run now, or ``kubernetes`` the pods.
    ``capacity_per_s`` is what the service can serve, in whole studies per second, if that is known: of pods that are
    scaled, as many as there are before the load. Else it is measured when a scenario asks for a multiple of it.
    ``device_times`` are those of emulated devices, ``embedded_servers`` says how many servers were started for the run.
    """

    name: str
    grpc: str = Field(min_length=1)
    tls: bool = False
    root_certificates_file: Annotated[Path | None, Field(strict=False)] = None
    metrics_urls: ServerUrls = Field(default_factory=dict)
    gpu_metrics_urls: ServerUrls = Field(default_factory=dict)
    servers_file: Annotated[Path | None, Field(strict=False)] = None
    kubernetes: Kubernetes | None = None
    capacity_per_s: float | None = Field(default=None, gt=0)
    emulated: bool = False
    embedded_servers: int | None = Field(default=None, gt=0)
    device_times: str | None = None

    @property
    def is_watched(self) -> bool:
        """Whether there is anything to read besides the answers."""
        return bool(self.metrics_urls or self.gpu_metrics_urls or self.servers_file or self.kubernetes)


def read_target(text: str, metrics_urls: tuple[str, ...] = (), gpu_metrics_urls: tuple[str, ...] = ()) -> Target:
    """The target that ``--target`` names; metrics addresses given here are added.

    Raises:
        TargetError: no such file, or it does not say what a target must.
    """
    target = _named_target(text)
    added = _valid(
        "the command line",
        {"name": "-", "grpc": "-", "metrics_urls": metrics_urls, "gpu_metrics_urls": gpu_metrics_urls},
    )
    return target.model_copy(
        update={
            "metrics_urls": target.metrics_urls | added.metrics_urls,
            "gpu_metrics_urls": target.gpu_metrics_urls | added.gpu_metrics_urls,
        }
    )


def _named_target(text: str) -> Target:
    kind, colon, context = text.partition(":")
    if text == LOCAL:
        return _local()
    if text == K3S:
        msg = (
            f"target '{K3S}' is there only for the run that starts it: use 'radslo run SCENARIO --target {K3S}', "
            f"'{EMBEDDED}', or a cluster that stays, '{LOCAL}' or '{KUBECONFIG}'"
        )
        raise TargetError(msg)
    if kind == KUBECONFIG and (context or not colon):
        kubernetes = Kubernetes(context=context or None)
        address = f"dns:///triton-headless.{kubernetes.namespace}.svc.cluster.local:8001"
        return Target(name=text, grpc=address, kubernetes=kubernetes)
    return _of_file(Path(text)) if Path(text).suffix in _FILE_ENDINGS else _of_address(text)


def _local() -> Target:
    file = os.environ.get(LOCAL_TARGET_VARIABLE)
    if file is None:
        msg = (
            f"target '{LOCAL}' is reached only from inside the local cluster's network: start this command with "
            f"'radslo cluster exec', or use 'radslo run SCENARIO --target {LOCAL}', which goes there by itself"
        )
        raise TargetError(msg)
    return _of_file(Path(file))


def _of_file(path: Path) -> Target:
    """Files that a target file names lie beside it, unless it says otherwise."""
    target = _valid(f"target file {path}", _read_file(path))
    roots, kubernetes = target.root_certificates_file, target.kubernetes
    if kubernetes is not None and kubernetes.kubeconfig is not None:
        kubeconfig = path.parent / kubernetes.kubeconfig.expanduser()
        kubernetes = kubernetes.model_copy(update={"kubeconfig": kubeconfig})
    return target.model_copy(update={"root_certificates_file": roots and path.parent / roots, "kubernetes": kubernetes})


def _of_address(text: str) -> Target:
    address = text.removeprefix("grpc://")
    if not re.search(r":\d+$", address):
        msg = (
            f"target '{text}' has no port: write HOST:8001, dns:///NAME:8001, a target file, '{EMBEDDED}', '{LOCAL}', "
            f"'{K3S}' or '{KUBECONFIG}[:CONTEXT]'"
        )
        raise TargetError(msg)
    return Target(name=address, grpc=address)


def _read_file(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else YAML(typ="safe", pure=True).load(text)
    except OSError as error:
        msg = f"target file {path}: {error.strerror}"
    except (ValueError, YAMLError) as error:
        msg = f"target file {path}: {error}"
    raise TargetError(msg)


def _valid(where: str, document: object) -> Target:
    try:
        return Target.model_validate(document)
    except ValidationError as error:
        raise TargetError("\n".join(f"{where}: {problem}" for problem in problems(error))) from error
