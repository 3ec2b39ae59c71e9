"""Fetches Debian packages and unpacks them into a directory: nothing is installed, and apt's own state stays as it is.

apt-get works on package lists, archives, locks and a copy of dpkg's status that all lie in the caller's directory. The
machine's package sources, proxies and certificates are used as they are configured.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Say = Callable[[str], None]
Status = Literal["host", "empty"]

HOST_STATUS = Path("/var/lib/dpkg/status")

_CONFIGURATION = """\
// Hooks that the machine runs after `apt-get update` would clear its caches and tell its desktop.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State "{directory}";
Dir::State::lists "{directory}/lists";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}";
Dir::Cache::archives "{directory}/archives";
Dir::Log "{directory}";
// Else a root apt-get would download as a user who may not enter this directory.
APT::Sandbox::User "";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
"""


class DebianError(Exception):
    """Why Debian packages could not be had, and what to do next, in one sentence fit for a user."""


@dataclass(frozen=True, slots=True)
class _Apt:
    directory: Path
    program: str

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # -c is read after the machine's own files, APT_CONFIG would be before them and lose.
        command = [self.program, "-c", str(self.directory / "apt.conf"), "--quiet=2", "--yes", *arguments]
        environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )


def fetch(
    packages: Sequence[str], directory: Path, *, status: Status = "host", say: Say = lambda _: None
) -> list[Path]:
    """Download packages with those that they depend on and that are missing; return the .deb files.

    With status "host" a package that this machine has installed is not missing, but for `packages` themselves. With
    "empty" everything is missing, down to the C library. What `directory` holds already is not
    downloaded again; two callers must not share it at the same time.

    Raises:
        DebianError: there is no apt-get, no network, or no such package.
    """
    apt = _Apt(directory.resolve(), _program("apt-get"))
    for name in ("lists/partial", "archives/partial", "no-archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "status").write_text(_without(packages, HOST_STATUS.read_text()) if status == "host" else "")
    (directory / "apt.conf").write_text(_CONFIGURATION.format(directory=apt.directory))
    say("reading the package lists of Debian")
    updated = apt.run("update")
    if not any((directory / "lists").glob("*_Packages*")):
        message = f"apt-get fetched no package lists: {_reason(updated)}; check the network and the sources in /etc/apt"
        raise DebianError(message)
    plan = _plan(apt, packages)
    missing = {name: size for name, size in plan.items() if not (directory / "archives" / name).is_file()}
    if missing:
        say(f"fetching {len(missing)} Debian packages, {sum(missing.values()) / 1e6:.0f} MB")
        fetched = apt.run("install", "--download-only", *packages)
        if fetched.returncode != 0:
            message = f"apt-get could not fetch {', '.join(packages)}: {_reason(fetched)}; check the network, try again"
            raise DebianError(message)
    return [directory / "archives" / name for name in plan]


def _without(packages: Sequence[str], status: str) -> str:
    """Return dpkg's status as if these packages were not installed."""
    paragraphs = status.split("\n\n")
    unwanted = {f"Package: {name}" for name in packages}
    return "\n\n".join(each for each in paragraphs if each.lstrip().partition("\n")[0] not in unwanted)


def unpack(archives: Sequence[Path], root: Path) -> None:
    """Unpack .deb files below a directory; their installation scripts do not run.

    Raises:
        DebianError: there is no dpkg-deb, or a file is damaged.
    """
    program = _program("dpkg-deb")
    root.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        result = subprocess.run(
            [program, "--extract", str(archive), str(root)], capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            message = f"{archive} cannot be unpacked: {_reason(result)}; delete that file and start again"
            raise DebianError(message)


def package_name(archive: Path) -> str:
    """Return the package's name of a file like libc6_2.36-9+deb12u14_amd64.deb."""
    return archive.name.partition("_")[0]


def _plan(apt: _Apt, packages: Sequence[str]) -> dict[str, int]:
    """Return the files that make up the packages, with their sizes in bytes."""
    # apt-get leaves out what it has, so it is asked as if it had nothing.
    nothing = f"Dir::Cache::archives={apt.directory / 'no-archives'}"
    planned = apt.run("install", "--print-uris", "-o", nothing, *packages)
    if planned.returncode != 0:
        message = (
            f"this machine's package sources do not offer {', '.join(packages)}: {_reason(planned)}; "
            "use Debian 12, or add its sources to /etc/apt"
        )
        raise DebianError(message)
    lines = re.findall(r"^'\S+' (\S+\.deb) (\d+)", planned.stdout, re.MULTILINE)
    return {name: int(size) for name, size in lines}


def _program(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        message = f"{name} is not on PATH; Debian packages can be fetched on Debian and its relatives only"
        raise DebianError(message)
    return program


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    """Return the first complaint of a program, without apt's prefix."""
    lines = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
    complaints = [line for line in lines if line.startswith(("E:", "Err:", "W:"))] or lines
    return re.sub(r"^(E|Err|W):\s*", "", complaints[0])[:300] if complaints else f"exit code {result.returncode}"
