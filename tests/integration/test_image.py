"""The local image, really made: it comes up as a user without rights on a read-only root, and registries take it."""

import json
import shutil
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.debian import DebianError, fetch, unpack
from deploy.embedded.ports import choose_free
from deploy.image import IMAGE_NAME, cache_directory, layer
from deploy.image.build import ensure_image
from deploy.image.contents import ENTRYPOINT, content_tag
from deploy.image.layout import MANIFEST_TYPE, Layout
from deploy.image.registry import push
from tests.integration.container import Container, container, why_not
from tests.integration.embedded import CHECKOUT
from tests.integration.runs import radslo_run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        shutil.which("apt-get") is None, reason="the local image is made of Debian packages: no apt-get"
    ),
]


@pytest.fixture(scope="module")
def image() -> Layout:
    return Layout(ensure_image(cache_directory(), print))


# --- it serves -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(image: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("root")
    directory.chmod(0o755)  # pytest's are closed to the image's user
    for blob in image.layers:
        layer.unpack(blob, directory)
    return directory


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    command = (*ENTRYPOINT, "--profile", "cpu")
    with container(root, tmp_path_factory.mktemp("container") / "log", *command) as running:
        running.until_ready()
        yield running


def test_the_server_runs_as_the_user_without_rights(server: Container) -> None:
    status = Path(f"/proc/{server.server_pid()}/status").read_text()
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["1000"] * 4
    assert fields["CapEff"] == "0" * 16


def test_the_server_has_the_name_of_its_pod(server: Container) -> None:
    assert json.loads(server.fetch("/v2"))["name"] == "triton-in-image"


def test_a_smoke_run_passes(server: Container, tmp_path: Path) -> None:
    target = f"{server.address}:{server.grpc_port}"
    code, output = radslo_run("smoke", tmp_path / "run", "--target", target).end()
    assert code == 0, output


def test_the_server_stops_when_asked(root: Path, tmp_path: Path) -> None:
    with container(root, tmp_path / "log", *ENTRYPOINT, "--profile", "cpu") as running:
        running.until_ready()
        assert running.stop() == 0


def test_an_option_that_makes_no_sense_is_one_sentence(root: Path, tmp_path: Path) -> None:
    with container(root, tmp_path / "log", *ENTRYPOINT, "--device-times", "detector=1+2") as refused:
        assert refused.process.wait(60) == 2
    assert "use --profile cpu" in (tmp_path / "log").read_text()


# --- it is made well -------------------------------------------------------------------------------------------------


def test_the_image_names_nothing_of_the_machine_that_made_it(image: Layout) -> None:
    traces = [str(path).encode() for path in (CHECKOUT, cache_directory())]
    for blob in image.layers:
        with tarfile.open(blob) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                if content is not None and member.size < 2**20:
                    data = content.read()
                    assert not [trace for trace in traces if trace in data], member.name


def test_an_image_that_exists_is_not_made_again(image: Layout) -> None:
    said: list[str] = []
    assert ensure_image(cache_directory(), said.append) == image.directory
    assert said == []


def test_a_build_that_was_interrupted_goes_on_with_the_layers_that_are_complete(image: Layout, tmp_path: Path) -> None:
    for kept in (cache_directory() / "image").glob("layer-*"):
        if "models" not in kept.name:
            shutil.copytree(kept, tmp_path / "image" / kept.name)
    (tmp_path / "image/making/server/half").mkdir(parents=True)
    said: list[str] = []
    again = Layout(ensure_image(tmp_path, said.append))
    assert again.descriptor["digest"] == image.descriptor["digest"]
    assert said[:1] == ["making the image's layer of models"]
    assert not (tmp_path / "image/making").exists()


# --- registries take it ----------------------------------------------------------------------------------------------


@contextmanager
def docker_registry(directory: Path) -> Iterator[str]:
    """Run Debian's registry, for the length of a `with` block."""
    program = shutil.which("docker-registry")
    if program is None:
        try:
            unpack(fetch(["docker-registry"], cache_directory() / "registry-for-tests"), directory / "unpacked")
        except DebianError as error:
            pytest.skip(f"no registry to push to: {error}")
        program = str(directory / "unpacked/usr/bin/docker-registry")
    (port,) = choose_free(1, ["127.0.0.1"])
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (directory / "registry.yml").write_text(json.dumps(settings))  # JSON is YAML
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(directory / "registry.yml")], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not _answers(url):
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v2/", timeout=10):  # noqa: S310
            return True
    except OSError:
        return False


def test_a_registry_gets_the_image_once(image: Layout, tmp_path: Path) -> None:
    with docker_registry(tmp_path) as url:
        first: list[str] = []
        digest = push(image.directory, url, IMAGE_NAME, content_tag(), first.append)
        assert len([said for said in first if said.startswith("uploading")]) == 4
        again: list[str] = []
        assert push(image.directory, url, IMAGE_NAME, content_tag(), again.append) == digest
        assert not [said for said in again if said.startswith("uploading")]
        request = urllib.request.Request(  # noqa: S310
            f"{url}/v2/{IMAGE_NAME}/manifests/{content_tag()}", headers={"Accept": MANIFEST_TYPE}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            assert answer.headers["Docker-Content-Digest"] == digest == image.descriptor["digest"]
            assert json.loads(answer.read()) == image.manifest
        for blob in image.digests:
            with urllib.request.urlopen(f"{url}/v2/{IMAGE_NAME}/blobs/{blob}", timeout=30) as answer:  # noqa: S310
                (tmp_path / "blob").write_bytes(answer.read())
            assert f"sha256:{layer.file_sha256(tmp_path / 'blob')}" == blob
