"""Whether this machine can start K3s in Docker; every obstacle is one sentence that says what to use instead."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from deploy.k3s import K3sError

_INSTEAD: Final = (
    "use --target embedded (no Docker, no root), --target local (root on Linux, no Docker), or --target kubeconfig for "
    "a cluster that you have"
)
_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def check() -> None:
    """Return if K3s can be started here, as far as one can tell without doing it.

    Raises:
        K3sError: it cannot.
    """
    obstacle = why_not()
    if obstacle:
        raise K3sError(obstacle)


def why_not() -> str | None:
    """Why this machine cannot start K3s, or None."""
    obstacle = _obstacle()
    return obstacle and f"K3s in Docker cannot be started here: {obstacle}; {_INSTEAD}"


def _obstacle() -> str | None:
    if find_spec("testcontainers") is None:
        return "the package testcontainers is missing (pip install 'radslo[docker]')"
    # Only now: it need not be installed.
    from docker.errors import DockerException  # noqa: PLC0415
    from testcontainers.core.config import ConnectionMode  # noqa: PLC0415
    from testcontainers.core.docker_client import DockerClient, get_docker_host  # noqa: PLC0415

    try:
        docker = DockerClient()
        info = docker.client.info()
    except DockerException as error:
        return f"no Docker daemon answers at {get_docker_host() or 'unix:///var/run/docker.sock'} ({_reason(error)})"
    try:
        host, is_of_host = docker.host(), docker.get_connection_mode() == ConnectionMode.docker_host
    finally:
        docker.client.close()
    system, machine = info.get("OSType"), info.get("Architecture")
    if (system, machine) != ("linux", "x86_64"):
        return f"its Docker runs containers of {system} {machine}, and the ensemble's image is of linux x86_64"
    if host not in _HERE:
        return f"its Docker daemon runs elsewhere ({host}), and K3s is reached by 127.0.0.1 only"
    if not is_of_host:
        return "this is a container itself, and the ports that Docker publishes are on the 127.0.0.1 of its host"
    return None


def _reason(error: BaseException) -> str:
    """What the system said, which docker-py and two libraries below it wrap."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        link = link.__cause__ or link.__context__
    return " ".join(str(error).split())[:200]
