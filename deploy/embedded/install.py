"""Installs the tritonserver of the nvidia-pytriton wheel into an environment of its own.

    python -m deploy.embedded.install

The environment is a directory named after the lock file's hash and the interpreter. It is built elsewhere and renamed
when complete, so that it either exists as a whole or not at all, and an interrupted installation is simply done again.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded import CHECKOUT, STATE_ROOT, EmbeddedError
from deploy.lock import only_one

LOCK_FILE = Path(__file__).with_name("requirements.lock")
_NEEDED_BYTES = 700 * 2**20
_OLDEST_GLIBC = (2, 35)
_PYTHONS = ((3, 11), (3, 12))
"""numpy 1 has wheels for these, and the wheel has stubs for them."""

_RECIPE = 1
"""Raise it when `_build` makes something else of the same lock file."""

_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class ServerInstallation:
    """A complete installation of tritonserver."""

    directory: Path

    @property
    def python(self) -> Path:
        """The interpreter that runs `triton/serve.py`."""
        return self.directory / "venv/bin/python"

    @property
    def backends(self) -> Path:
        """The directory with Triton's Python backend and the stub that fits the interpreter."""
        return self.directory / "backends"

    @property
    def libraries(self) -> Path:
        """The directory with the libpython that the stub needs."""
        return self.directory / "lib"


def ensure_installed() -> ServerInstallation:
    """Return the installation, made first if need be; progress goes to standard error.

    Raises:
        EmbeddedError: this machine cannot run it, or the packages could not be had.
    """
    installation = ServerInstallation(STATE_ROOT / f"server-{_key()}")
    if installation.directory.is_dir():
        return installation
    _check_machine()
    libpython = _find_libpython()
    STATE_ROOT.mkdir(exist_ok=True)
    with only_one(STATE_ROOT / "install.lock", _say, "installing tritonserver"):
        if not installation.directory.is_dir():
            for leftover in STATE_ROOT.glob("build-*"):
                shutil.rmtree(leftover)
            if shutil.disk_usage(STATE_ROOT).free < _NEEDED_BYTES:
                message = f"{STATE_ROOT} has less than {_NEEDED_BYTES // 2**20} MiB free; tritonserver needs that much"
                raise EmbeddedError(message)
            _build(ServerInstallation(STATE_ROOT / f"build-{os.getpid()}"), libpython).rename(installation.directory)
    return installation


def _key() -> str:
    """Identify what would be installed: the lock, this interpreter and the way `_build` puts them together."""
    digest = hashlib.sha256(LOCK_FILE.read_bytes())
    digest.update(f"{_RECIPE} {sys.base_prefix} {platform.python_version()}".encode())
    return digest.hexdigest()[:12]


def _check_machine() -> None:
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        message = f"the embedded server runs on Linux x86_64 only, this is {system} {machine}; use --target instead"
        raise EmbeddedError(message)
    library, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2]) if version else ()
    if library != "glibc" or numbers < _OLDEST_GLIBC:
        message = (
            f"the embedded server needs glibc 2.35 or newer (Debian 12, Ubuntu 22.04), this machine has "
            f"{library or 'another C library'} {version}; use --target instead"
        )
        raise EmbeddedError(message)
    if sys.version_info[:2] not in _PYTHONS:
        message = f"the embedded server needs Python 3.11 or 3.12, this is {platform.python_version()}"
        raise EmbeddedError(message)


def _find_libpython() -> Path:
    name = f"lib{_PYTHON}.so.1.0"
    beside = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib") / name
    if beside.is_file():
        return beside
    try:
        ctypes.CDLL(name)
    except OSError as error:
        message = (
            f"Triton's Python backend needs {name}, which the Python in {sys.base_prefix} does not bring; "
            f"install it (Debian and Ubuntu: apt-get install lib{_PYTHON}) or use a Python built with --enable-shared"
        )
        raise EmbeddedError(message) from error
    mapped = (line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines())
    return next(Path(path) for path in mapped if path.endswith(name))


def _build(target: ServerInstallation, libpython: Path) -> Path:
    uv = find_uv()
    _say("installing tritonserver (about 60 MB to download, 240 MB on disk; once) ...")
    python = Path(sys.base_prefix) / "bin" / _PYTHON
    venv = target.directory / "venv"
    _run([*uv, "venv", "--python", str(python), str(venv)])
    requirements = ["--no-deps", "--require-hashes", "--requirement", str(LOCK_FILE)]
    _run([*uv, "pip", "install", "--python", str(target.python), *requirements])
    triton = venv / "lib" / _PYTHON / "site-packages/pytriton/tritonserver"
    backend = target.backends / "python"
    shutil.copytree(triton / "backends/python", backend)
    shutil.copy(triton / f"python_backend_stubs/{_PYTHON.removeprefix('python')}/triton_python_backend_stub", backend)
    target.libraries.mkdir()
    (target.libraries / libpython.name).symlink_to(libpython)
    _say("tritonserver is installed")
    return target.directory


def find_uv(checkout: Path = CHECKOUT) -> list[str]:
    """Return the command that runs uv: that of UV, of PATH, of the checkout's own tools, or of this Python.

    Raises:
        EmbeddedError: there is no uv.
    """
    candidates = (os.environ.get("UV"), shutil.which("uv"), str(checkout / ".tools/bin/uv"))
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return [candidate]
    module = [sys.executable, "-m", "uv"]
    if subprocess.run([*module, "--version"], capture_output=True, check=False).returncode == 0:
        return module
    message = "uv is not on PATH, not in UV and not in .tools/bin; run `make setup`, or put uv on PATH"
    raise EmbeddedError(message)


def _run(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    result = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        words = " ".join(result.stderr.split())[-600:]
        message = (
            f"installing tritonserver failed; {' '.join(command[:3])} ... said: {words} -- "
            "check the network and the package index, then start again"
        )
        raise EmbeddedError(message)


def _say(message: str) -> None:
    print(f"embedded: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        print(ensure_installed().directory)
    except EmbeddedError as error:
        sys.exit(f"embedded: {error}")
