"""Starts K3s in a container, puts the ensemble into it, and removes the container at the end.

Should this process be killed, testcontainers' own container (Ryuk) removes it. That one listens on a port of all
addresses of this machine meanwhile; with TESTCONTAINERS_RYUK_DISABLED=true there is none, and a kill leaves K3s behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from docker.errors import DockerException
from testcontainers.community.k3s import K3SContainer

from deploy.image import IMAGE_NAME, Say, cache_directory
from deploy.image.build import ensure_image
from deploy.image.layout import Layout, write_archive
from deploy.image.pin import checked_tag
from deploy.k3s import K3sError
from deploy.k3s.server import (
    API_PORT,
    DEVICE_TIMES,
    GRPC_PORT,
    K3S_IMAGE,
    KEDA_MANIFEST,
    published_ports,
    server_command,
)
from deploy.k3s.target import write_target
from deploy.local.target import NAMESPACE

_MANIFESTS: Final = Path(__file__).parents[1] / "kubernetes"
_INSIDE: Final = "/radslo"
_ADMIN: Final = "/etc/rancher/k3s/k3s.yaml"


@contextmanager
def running(say: Say) -> Iterator[Path]:
    """Start K3s with the ensemble, scaled by a real HPA; yield its target file. `preflight.check` found Docker before.

    Raises:
        K3sError: Docker cannot start it, or a part of it does not come up.
        ImageError: the ensemble's image cannot be made, or the overlays name another one.
    """
    reference = f"127.0.0.1:5000/{IMAGE_NAME}:{checked_tag('local')}"
    image = Layout(ensure_image(cache_directory(), say))
    say(f"starting {K3S_IMAGE} in Docker, which pulls it the first time")
    with _started() as k3s, tempfile.TemporaryDirectory(prefix="radslo-k3s-") as directory:
        inside = _Inside(k3s)
        say("loading the ensemble's image into K3s")
        inside.load(image, reference)
        say("installing KEDA, whose images K3s pulls")
        inside.install_keda()
        say("applying deploy/kubernetes/overlays/k3s")
        inside.deploy()
        yield write_target(
            Path(directory),
            inside.run("cat", _ADMIN),
            k3s.get_exposed_port(API_PORT),
            k3s.get_exposed_port(GRPC_PORT),
            inside.kubectl("get", "deployment/triton", f"--namespace={NAMESPACE}", f"--output={DEVICE_TIMES}"),
        )


@contextmanager
def _started() -> Iterator[K3SContainer]:
    with ExitStack() as stack:
        try:
            container = K3SContainer(K3S_IMAGE)
            container.with_command(server_command("fast"))
            # Instead of all addresses of this machine, which is the default.
            container.ports = published_ports()  # type: ignore[assignment]  # typed for less than docker-py takes
            stack.enter_context(container)
        except (DockerException, OSError) as error:
            words = str(error).partition("Hint:")[0]  # what follows is for programmers
            message = (
                f"Docker does not start {K3S_IMAGE}: {_short(words)}; it has to be pulled from docker.io once, and to "
                "run privileged: see whether 'docker run --privileged' works here"
            )
            raise K3sError(message) from error
        yield container


class _Inside:
    """Commands in the container, which has kubectl and ctr; each raises K3sError when it fails."""

    def __init__(self, k3s: K3SContainer) -> None:
        self._k3s = k3s

    def run(self, *command: str) -> str:
        """The output of a command."""
        try:
            result = self._k3s.exec(list(command))
        except DockerException as error:
            raise _gone(error) from error
        output = result.output.decode(errors="replace")
        if result.exit_code != 0:
            message = (
                f"'{' '.join(command)}' in the container of K3s failed: {_short(output)}; it may lack the way to "
                "docker.io, ghcr.io and github.com: check the network, then start the run again"
            )
            raise K3sError(message)
        return output

    def kubectl(self, *arguments: str) -> str:
        return self.run("kubectl", *arguments)

    def load(self, image: Layout, reference: str) -> None:
        """Give the node an image under the name by which the overlay asks for it."""
        with tempfile.TemporaryDirectory(prefix="radslo-k3s-") as directory:
            archive = Path(directory) / "image.tar"
            write_archive(image, reference, archive)
            self._copy(archive, f"{_INSIDE}/{archive.name}")
        self.run("ctr", "--namespace=k8s.io", "images", "import", f"{_INSIDE}/{archive.name}")

    def install_keda(self) -> None:
        # Server-side: on the client's, the definition of ScaledJob is too long for an annotation.
        self.kubectl("apply", "--server-side", f"--filename={KEDA_MANIFEST}")
        self._wait("Available", "deployment", "--all", "--namespace=keda")
        self._wait("Available", "apiservice/v1beta1.external.metrics.k8s.io")

    def deploy(self) -> None:
        self._copy(_MANIFESTS, _INSIDE)
        self.kubectl("apply", "--server-side", f"--kustomize={_INSIDE}/{_MANIFESTS.name}/overlays/k3s")
        self._wait("Available", "deployment/prometheus", "--namespace=monitoring")
        self._wait("Available", "deployment/triton", f"--namespace={NAMESPACE}")
        self._wait("Ready", "scaledobject/triton", f"--namespace={NAMESPACE}")
        self._wait("ScalingActive", "hpa/keda-hpa-triton", f"--namespace={NAMESPACE}")

    def _copy(self, path: Path, to: str) -> None:
        try:
            self._k3s.copy_into_container(path, to)
        except DockerException as error:
            raise _gone(error) from error

    def _wait(self, condition: str, *what: str) -> None:
        self.kubectl("wait", f"--for=condition={condition}", "--timeout=240s", *what)


def _gone(error: DockerException) -> K3sError:
    return K3sError(f"the container of K3s is gone: {_short(str(error))}; see to free memory, then start the run again")


def _short(text: str) -> str:
    """The last words of it, on one line."""
    return " ".join(text.split())[-300:]
