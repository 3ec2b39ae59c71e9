"""What the local image is made of, and the names that follow from it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from deploy.image import CHECKOUT, IMAGE_NAME, ImageError

PYTHON = "3.11"
"""numpy 1 has wheels for it, the server has a stub for it, and Debian 12 has it."""

PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libpython3.11", "libstdc++6", "bash")
"""The interpreter of serve.py, the library of it that the stubs are linked with, and what tritonserver is linked with;
apt adds what these need. Triton starts its stubs through bash."""

LEFT_OUT = ("dpkg", "tar")
"""Packages that others depend on for their installation only."""

LOCK_FILE = "deploy/embedded/requirements.lock"

ENTRYPOINT = ("/usr/bin/python3", "/opt/radstream/triton/serve.py")
"""The same in the production image."""

USER = 1000

_RECIPE = 2
"""Raise it when `build` makes something else of the same contents, or layers are kept in another form."""


def model_files(checkout: Path = CHECKOUT) -> list[Path]:
    """Return the files of `triton/`, sorted, without what Python leaves there.

    Raises:
        ImageError: there is no `triton/`.
    """
    root = checkout / "triton"
    files = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    if root / "serve.py" not in files:
        message = f"{root} has no serve.py; the image is made in a checkout of the repository"
        raise ImageError(message)
    return sorted(files)


def base_key() -> str:
    """Identify the layer of Debian packages, by their names: their versions are those of the day it is made."""
    return _key([json.dumps([_RECIPE, PACKAGES, LEFT_OUT, PYTHON, USER]).encode()])


def server_key(checkout: Path = CHECKOUT) -> str:
    """Identify the layer of tritonserver and its Python packages."""
    return _key([base_key().encode(), (checkout / LOCK_FILE).read_bytes()])


def models_key(checkout: Path = CHECKOUT) -> str:
    """Identify the layer of `triton/`: names, contents, and which files are executable."""
    parts = [f"{_RECIPE}".encode()]
    for path in model_files(checkout):
        executable = bool(path.stat().st_mode & 0o100)
        parts += [f"{path.relative_to(checkout)} {executable}".encode(), path.read_bytes()]
    return _key(parts)


def content_tag(checkout: Path = CHECKOUT) -> str:
    """Return the image's tag, 12 hexadecimal digits of what it is made of.

    That is `triton/`, the lock of the Python packages, the settings and the recipe. The versions of the
    Debian packages are not in it: the tag has to be known, and pinned in manifests, without a network and without apt.
    """
    keys = (base_key(), server_key(checkout), models_key(checkout), json.dumps(settings("")))
    return _key([key.encode() for key in keys])


def settings(tag: str) -> dict[str, object]:
    """Return what the image says of its containers."""
    return {
        "User": f"{USER}:{USER}",
        "Entrypoint": list(ENTRYPOINT),
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
        "WorkingDir": "/",
        "ExposedPorts": {f"{port}/tcp": {} for port in (8000, 8001, 8002, 9400)},
        "StopSignal": "SIGTERM",
        "Labels": {
            "org.opencontainers.image.title": IMAGE_NAME,
            "org.opencontainers.image.description": "RadStream ensemble on tritonserver 2.51, CPU, stand-in networks",
            "org.opencontainers.image.version": tag,
        },
    }


def _key(parts: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)  # with lengths, or bytes could move between the parts
    return digest.hexdigest()[:12]
