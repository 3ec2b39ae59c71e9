"""Images as directories in the OCI image layout, and as archives that Docker, containerd and K3s load."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.image import ImageError
from deploy.image.layer import Layer

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """A complete OCI image layout with one image."""

    directory: Path

    @property
    def descriptor(self) -> Json:
        """What the index says of the manifest: mediaType, digest, size.

        Raises:
            ImageError: the directory holds no image.
        """
        try:
            index = json.loads((self.directory / "index.json").read_text())
        except FileNotFoundError as error:
            message = f"{self.directory} is no OCI image layout; make one with `python -m deploy.image build`"
            raise ImageError(message) from error
        descriptor: Json = index["manifests"][0]
        return descriptor

    @property
    def manifest(self) -> Json:
        """The image's manifest: its config and layers, each a descriptor."""
        manifest: Json = json.loads(self.blob(self.descriptor["digest"]).read_text())
        return manifest

    @property
    def digests(self) -> list[str]:
        """The digests of all blobs but the manifest, the config's first."""
        manifest = self.manifest
        return [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]

    @property
    def layers(self) -> list[Path]:
        """The packed layers, lowest first."""
        return [self.blob(layer["digest"]) for layer in self.manifest["layers"]]

    def blob(self, digest: str) -> Path:
        """Return the file of a digest like sha256:..."""
        return self.directory / "blobs" / digest.replace(":", "/")


def write_layout(directory: Path, layers: Sequence[Layer], settings: Mapping[str, object], tag: str) -> Layout:
    """Write an image for Linux on x86-64 into a new directory; `settings` are those of its containers."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    for layer in layers:
        _place(layer.blob, blobs / layer.digest.removeprefix("sha256:"))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _write_blob(blobs, _CONFIG_TYPE, config),
        "layers": [{"mediaType": _LAYER_TYPE, "digest": layer.digest, "size": layer.size_bytes} for layer in layers],
    }
    descriptor = _write_blob(blobs, MANIFEST_TYPE, manifest)
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    return Layout(directory)


def write_archive(layout: Layout, reference: str, to: Path) -> None:
    """Write an image as one file for `docker load`, `ctr images import`, `k3s ctr images import` and `kind load`.

    `reference` is its full name, like docker.io/library/name:tag. The file appears when it is complete.
    """
    descriptor = layout.descriptor
    tag = reference.rpartition(":")[2]
    names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag}
    blobs = [f"blobs/{digest.replace(':', '/')}" for digest in layout.digests]
    docker = {
        "Config": blobs[0],
        "RepoTags": [reference.removeprefix("docker.io/library/")],
        "Layers": blobs[1:],
    }
    written: dict[str, bytes] = {
        "oci-layout": (layout.directory / "oci-layout").read_bytes(),
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [{**descriptor, "annotations": names}]}).encode(),
        "manifest.json": json.dumps([docker]).encode(),
        f"blobs/{descriptor['digest'].replace(':', '/')}": layout.blob(descriptor["digest"]).read_bytes(),
    }
    incomplete = to.with_name(f".{to.name}.incomplete")
    try:
        with tarfile.open(incomplete, "w", format=tarfile.GNU_FORMAT) as tar:
            for name, content in written.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            for name in blobs:
                member = tarfile.TarInfo(name)
                member.size = (layout.directory / name).stat().st_size
                with (layout.directory / name).open("rb") as blob:
                    tar.addfile(member, blob)
        incomplete.rename(to)
    except OSError as error:
        incomplete.unlink(missing_ok=True)
        message = f"{to} cannot be written: {error.strerror}; name a file in a directory with room"
        raise ImageError(message) from error


def _write_blob(blobs: Path, media_type: str, content: object) -> Json:
    """Write a JSON document and return its descriptor."""
    data = json.dumps(content, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _place(blob: Path, to: Path) -> None:
    try:
        os.link(blob, to)
    except OSError:  # a file system without hard links
        shutil.copy(blob, to)
