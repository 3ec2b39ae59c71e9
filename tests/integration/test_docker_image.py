"""The local image as Docker runs it: loaded from its archive, started through testcontainers, asked by a real run."""

import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.image import IMAGE_NAME, cache_directory
from deploy.image.build import ensure_image
from deploy.image.contents import content_tag
from deploy.image.layout import Layout, write_archive
from tests.integration.runs import radslo_run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    # testcontainers warns of its own decorators.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
REFERENCE = f"{IMAGE_NAME}:{content_tag()}"
READY_S = 120.0
MEMORY = {"/tmp": "mode=1777,size=256m"}  # noqa: S108 - in the container


@dataclass(frozen=True, slots=True)
class Served:
    """Where the container's ports are on this machine."""

    host: str
    grpc_port: int
    http_port: int

    def get(self, path: str) -> int:
        """Return the status with which the server answers."""
        with urllib.request.urlopen(f"http://{self.host}:{self.http_port}{path}", timeout=10) as answer:
            status: int = answer.status
        return status


def why_no_daemon() -> str | None:
    """Return why no Docker daemon can be asked, if so."""
    if shutil.which("docker") is None:
        return "docker is not on PATH"
    asked = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    return f"no Docker daemon: {' '.join(asked.stderr.split())[-200:]}" if asked.returncode else None


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    reason = why_no_daemon()
    if reason:
        pytest.skip(reason)
    core = pytest.importorskip("testcontainers.core.container")
    settings = pytest.importorskip("testcontainers.core.config")
    # Its reaper is an image of its own to download; the `with` block below ends what was started.
    settings.testcontainers_config.ryuk_disabled = True
    archive = tmp_path_factory.mktemp("image") / "image.tar"
    write_archive(Layout(ensure_image(cache_directory(), print)), f"docker.io/library/{REFERENCE}", archive)
    subprocess.run(["docker", "load", "--input", str(archive)], check=True, capture_output=True)
    container = (
        core.DockerContainer(REFERENCE)
        .with_command(["--profile", "cpu", "--address", "0.0.0.0"])  # noqa: S104 - in the container
        .with_exposed_ports(8000, 8001)
        .with_env("POD_NAME", "triton-in-docker")
        .with_kwargs(read_only=True, tmpfs=MEMORY, shm_size="512m", cap_drop=["ALL"])
    )
    with container as started:
        host = started.get_container_host_ip()
        running = Served(host, int(started.get_exposed_port(8001)), int(started.get_exposed_port(8000)))
        _wait_ready(running, started)
        yield running


def _wait_ready(running: Served, container: object) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            running.get("/v2/models/radstream_ensemble/ready")
        except OSError:  # refused or cut off by Docker's proxy: the ports open once the models are loaded
            assert time.monotonic() < deadline, f"not ready after {READY_S:g} s: {container}"
            time.sleep(0.2)
        else:
            return


def test_the_ensemble_is_ready(served: Served) -> None:
    assert served.get("/v2/health/ready") == 200
    assert served.get("/v2/models/radstream_ensemble/ready") == 200


def test_a_smoke_run_passes(served: Served, tmp_path: Path) -> None:
    code, output = radslo_run("smoke", tmp_path / "run", "--target", f"{served.host}:{served.grpc_port}").end()
    assert code == 0, output
