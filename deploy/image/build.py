"""Makes the local image: `ensure_image` gives a complete OCI layout or raises.

Each layer is made in a directory of its own, renamed when complete, and kept under a key of its inputs: an interrupted
build goes on after the last complete layer, and a changed model remakes the small layer only.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy import debian
from deploy.embedded import EmbeddedError
from deploy.embedded.install import find_uv
from deploy.image import CHECKOUT, IMAGE_NAME, ImageError, Say, contents, layer
from deploy.image.layer import Layer
from deploy.image.layout import write_layout
from deploy.lock import only_one

_NEEDED_BYTES = 1500 * 2**20
_PYTHON = f"python{contents.PYTHON}"
_PACKAGES = f"usr/local/lib/{_PYTHON}/dist-packages"
"""Debian's Python looks there of itself, and so do Triton's stubs, which ignore PYTHONPATH."""

_PASSWD = f"root:x:0:0:root:/:/nonexistent\ntriton:x:{contents.USER}:{contents.USER}:triton:/tmp:/nonexistent\n"
_GROUP = f"root:x:0:\ntriton:x:{contents.USER}:\n"


@dataclass(frozen=True, slots=True)
class _Workshop:
    """Where one build keeps and makes things; there is only one build at a time."""

    root: Path
    checkout: Path
    say: Say

    @property
    def making(self) -> Path:
        return self.root / "making"

    def layer(self, name: str, key: str, fill: Callable[[Path], None]) -> Layer:
        """Return the layer of this key, made of what `fill` puts into a directory if it does not exist."""
        kept = self.root / f"layer-{name}-{key}"
        if not kept.is_dir():
            self.say(f"making the image's layer of {name}")
            contents_root = self.making / name
            contents_root.mkdir(parents=True)
            fill(contents_root)
            packed = self.making / f"{name}-packed"
            layer.pack(contents_root, packed)
            packed.rename(kept)
        return layer.read(kept)


def ensure_image(cache: Path, say: Say, checkout: Path = CHECKOUT) -> Path:
    """Return the OCI layout of this checkout's image, made first if need be below `cache`.

    Raises:
        ImageError: this machine cannot make it, or the packages could not be had.
    """
    tag = contents.content_tag(checkout)
    workshop = _Workshop(cache / "image", checkout, say)
    kept = workshop.root / f"layout-{tag}"
    if kept.is_dir():
        return kept
    _check_machine()
    try:
        workshop.root.mkdir(parents=True, exist_ok=True)
        with only_one(workshop.root / "build.lock", say, "making the image"):
            shutil.rmtree(workshop.making, ignore_errors=True)  # of a build that was interrupted
            if not kept.is_dir():
                _build(workshop, tag).rename(kept)
                say(f"image {IMAGE_NAME}:{tag} is complete")
            shutil.rmtree(workshop.making, ignore_errors=True)
    except OSError as error:
        message = f"the image cannot be made in {workshop.root}: {error}; free some space, or name another place"
        raise ImageError(message) from error
    return kept


def _check_machine() -> None:
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        message = f"the local image is made on Linux x86_64 only, this is {system} {machine}; build the Dockerfile"
        raise ImageError(message)


def _build(workshop: _Workshop, tag: str) -> Path:
    free_bytes = shutil.disk_usage(workshop.root).free
    if free_bytes < _NEEDED_BYTES:
        message = (
            f"{workshop.root} has {free_bytes // 2**20} MiB free and the image needs {_NEEDED_BYTES // 2**20} while it "
            "is made; free some, or name another place"
        )
        raise ImageError(message)
    checkout = workshop.checkout
    _uv(checkout)  # before anything takes time
    base = workshop.layer("base", contents.base_key(), lambda root: _fill_base(workshop, root))
    layers = [
        base,
        workshop.layer("server", contents.server_key(checkout), lambda root: _fill_server(workshop, base, root)),
        workshop.layer("models", contents.models_key(checkout), lambda root: _fill_models(checkout, root)),
    ]
    return write_layout(workshop.making / "layout", layers, contents.settings(tag), tag).directory


# --- the layers ------------------------------------------------------------------------------------------------------


def _fill_base(workshop: _Workshop, root: Path) -> None:
    """Put Debian's Python and C libraries there, and the files that a container's root needs."""
    try:
        archives = debian.fetch(contents.PACKAGES, workshop.root / "debian", status="empty", say=workshop.say)
        wanted = [archive for archive in archives if debian.package_name(archive) not in contents.LEFT_OUT]
        debian.unpack(wanted, root)
    except debian.DebianError as error:
        message = f"the local image is made of Debian packages: {error}"
        raise ImageError(message) from error
    for unread in ("usr/share/man", "usr/share/lintian", "usr/share/doc-base", "usr/share/info"):
        shutil.rmtree(root / unread, ignore_errors=True)
    (root / "usr/bin/python3").symlink_to(_PYTHON)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text(_PASSWD)
    (root / "etc/group").write_text(_GROUP)
    for mount_point in ("dev", "proc", "sys", "run", "tmp"):
        (root / mount_point).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    _compile(root, root, "usr/lib")


def _fill_server(workshop: _Workshop, base: Layer, root: Path) -> None:
    """Put tritonserver of the wheel there, and the Python packages of the models."""
    packages = root / _PACKAGES
    lock = str(workshop.checkout / contents.LOCK_FILE)
    workshop.say("fetching tritonserver and the Python packages, 100 MB unless they are in uv's cache")
    _run(
        [
            *_uv(workshop.checkout),
            *(
                "pip",
                "install",
                "--target",
                str(packages),
                "--python-version",
                contents.PYTHON,
                "--only-binary",
                ":all:",
            ),
            *("--no-deps", "--require-hashes", "--requirement", lock),
        ],
        "check the network and the package index, then start again",
    )
    # Commands for the Python that uv ran beside, and lists with their hashes: they would differ between machines.
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for record in packages.glob("*.dist-info/RECORD"):
        record.unlink()
    triton = packages / "pytriton/tritonserver"
    stub = triton / f"python_backend_stubs/{contents.PYTHON}/triton_python_backend_stub"
    stub.rename(triton / "backends/python" / stub.name)
    shutil.rmtree(triton / "python_backend_stubs")
    base_root = workshop.making / "base-unpacked"
    layer.unpack(base.blob, base_root)
    _compile(base_root, root, _PACKAGES)


def _fill_models(checkout: Path, root: Path) -> None:
    for path in contents.model_files(checkout):
        copy = root / "opt/radstream" / path.relative_to(checkout)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)


def _compile(base: Path, root: Path, below: str) -> None:
    """Compile Python modules with the image's own Python: its user may not write, and eight stubs would each compile.

    Of hashes instead of times, because all files of a layer are from 1970; never checked, for the layer never changes.
    """
    loader = base / "lib64/ld-linux-x86-64.so.2"
    libraries = ":".join(str(base / directory) for directory in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
    python = base / "usr/bin" / _PYTHON
    if not python.is_file():
        message = f"Debian's packages brought no {_PYTHON}; the local image needs the packages of Debian 12"
        raise ImageError(message)
    _run(
        [
            *(str(loader), "--library-path", libraries, str(python), "-I", "-B", "-m", "compileall", "-q", "-f"),
            *("--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/", str(root / below)),
        ],
        "this is a fault in deploy/image, please report it",
    )


def _uv(checkout: Path) -> list[str]:
    try:
        return find_uv(checkout)
    except EmbeddedError as error:
        raise ImageError(str(error)) from error


def _run(command: Sequence[str], next_step: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    # In the checkout, for the settings that [tool.uv] makes.
    result = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        words = " ".join((result.stderr or result.stdout).split())[-600:]
        message = f"making the image failed, {' '.join(command[:3])} ... said: {words} -- {next_step}"
        raise ImageError(message)
