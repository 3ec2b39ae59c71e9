"""Packs the program that holds a pod's namespaces (deploy/local/go/pause) as an image that containerd imports."""

import shutil
import tempfile
from pathlib import Path

from deploy.image import ImageError, layer
from deploy.image.layout import write_archive, write_layout

PAUSE_REFERENCE = "localhost/pause:1"
"""The name in containerd's setting `sandbox_image`."""


def pause_archive(binary: Path, to: Path) -> None:
    """Write the image of a statically linked program, for `ctr -n k8s.io images import`.

    Raises:
        ImageError: there is no such program, or the file cannot be written.
    """
    if not binary.is_file():
        message = f"{binary} is missing; build deploy/local/go/pause first"
        raise ImageError(message)
    with tempfile.TemporaryDirectory(prefix="pause-image-") as name:
        root = Path(name) / "root"
        root.mkdir()
        shutil.copyfile(binary, root / "pause")
        (root / "pause").chmod(0o755)
        packed = layer.pack(root, Path(name) / "layer")
        # As on every Kubernetes node: a user that owns nothing.
        settings = {"User": "65535:65535", "Entrypoint": ["/pause"], "WorkingDir": "/"}
        layout = write_layout(Path(name) / "layout", [packed], settings, PAUSE_REFERENCE.rpartition(":")[2])
        write_archive(layout, PAUSE_REFERENCE, to)
