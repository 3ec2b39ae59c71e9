"""Where the ensemble runs: its gRPC address and where its numbers are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

EMBEDDED: Final = "embedded"


class TargetError(Exception):
    """A target cannot be read. The message says what, where and what to do next."""


class Target(BaseModel):
    """A running service under test.

    ``grpc`` is a gRPC name such as ``host:8001`` or ``dns:///triton-headless.radstream:8001``. The metrics addresses
    are read by the watcher; where the servers come and go, ``servers_file`` names a JSON file that says which run now.
    ``capacity_per_s`` is what the service can serve, in whole studies per second, if that is known; else it is
    measured when a scenario asks for a multiple of it. ``embedded_servers`` and ``device_times`` tell how the embedded
    target was started, so that a run can be repeated; null for any other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    grpc: str = Field(min_length=1)
    tls: bool = False
    root_certificates_file: Path | None = None
    metrics_urls: tuple[str, ...] = ()
    gpu_metrics_urls: tuple[str, ...] = ()
    servers_file: Path | None = None
    capacity_per_s: float | None = Field(default=None, gt=0)
    emulated: bool = False
    embedded_servers: int | None = Field(default=None, gt=0)
    device_times: str | None = None


def read_target(text: str, metrics_urls: tuple[str, ...] = (), gpu_metrics_urls: tuple[str, ...] = ()) -> Target:
    """A target from a file (YAML or JSON) or from a bare gRPC address.

    Raises:
        TargetError: no such file, or it does not say what a target must.
    """
    path = Path(text)
    if path.suffix in {".json", ".yaml", ".yml"}:
        return _read_file(path)
    address = text.removeprefix("grpc://")
    if ":" not in address:
        msg = f"target '{text}' has no port: write HOST:8001, dns:///NAME:8001, a target file, or '{EMBEDDED}'"
        raise TargetError(msg)
    return Target(name=address, grpc=address, metrics_urls=metrics_urls, gpu_metrics_urls=gpu_metrics_urls)


def _read_file(path: Path) -> Target:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"target file {path}: {error.strerror}"
        raise TargetError(msg) from error
    try:
        document = json.loads(text) if path.suffix == ".json" else YAML(typ="safe", pure=True).load(text)
        return Target.model_validate(document)
    except (json.JSONDecodeError, YAMLError) as error:
        msg = f"target file {path}: {error}"
        raise TargetError(msg) from error
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        msg = f"target file {path}:\n" + "\n".join(lines) + f"\n  allowed: {', '.join(Target.model_fields)}"
        raise TargetError(msg) from error
