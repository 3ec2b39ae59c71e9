"""The image: what its tag stands for, layers that come out the same, the layout, the Dockerfile, pins, errors."""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deploy.debian import DebianError, fetch, package_name
from deploy.image import CHECKOUT, ImageError, cache_directory, layer
from deploy.image.__main__ import main
from deploy.image.contents import ENTRYPOINT, LOCK_FILE, content_tag, settings
from deploy.image.layout import Layout, write_archive, write_layout
from deploy.image.pause import PAUSE_REFERENCE, pause_archive
from deploy.image.pin import kustomization, pin, pinned_tag
from deploy.image.registry import push

DOCKERFILE = (CHECKOUT / "deploy/image/Dockerfile").read_text()
INSTRUCTIONS = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]

KUSTOMIZATION = """\
resources: [../../base]
images:
  - name: another
    newTag: "1"
  - name: radstream-triton
    newName: registry/radstream-triton
    newTag: 0123456789ab  # of a checkout
  - name: last
    newTag: "2"
"""


def quiet(_: str) -> None:
    """Take no notice of progress."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with what the image is made of."""
    root = tmp_path / "checkout"
    shutil.copytree(CHECKOUT / "triton", root / "triton", ignore=shutil.ignore_patterns("__pycache__"))
    (root / LOCK_FILE).parent.mkdir(parents=True)
    shutil.copy(CHECKOUT / LOCK_FILE, root / LOCK_FILE)
    (root / "README.md").write_text("one")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small root file system."""
    root = tmp_path / "tree"
    (root / "opt/empty").mkdir(parents=True)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "opt/program").write_text("program")
    (root / "opt/program").chmod(0o755)
    (root / "opt/data").write_text("data")
    (root / "opt/link").symlink_to("/opt/program")
    return root


# --- the tag ---------------------------------------------------------------------------------------------------------


def test_the_tag_is_twelve_hexadecimal_digits_and_stays(checkout: Path) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", content_tag(checkout))
    assert content_tag(checkout) == content_tag(CHECKOUT)


@pytest.mark.parametrize(
    "changed",
    ["triton/models/radstream_detector/config.pbtxt", "triton/serve.py", "triton/new.py", LOCK_FILE],
)
def test_the_tag_changes_with_what_is_in_the_image(checkout: Path, changed: str) -> None:
    before = content_tag(checkout)
    with (checkout / changed).open("a") as file:
        file.write("# changed\n")
    assert content_tag(checkout) != before


def test_a_renamed_model_file_changes_the_tag(checkout: Path) -> None:
    before = content_tag(checkout)
    (checkout / "triton/serve.py").rename(checkout / "triton/server.py")
    (checkout / "triton/serve.py").write_bytes(b"")
    assert content_tag(checkout) != before


def test_the_tag_does_not_change_with_what_is_not_in_the_image(checkout: Path) -> None:
    before = content_tag(checkout)
    (checkout / "README.md").write_text("two")
    (checkout / "triton/radstream/__pycache__").mkdir()
    (checkout / "triton/radstream/__pycache__/device.pyc").write_bytes(b"compiled")
    os.utime(checkout / "triton/serve.py", (0, 0))
    (checkout / "triton/serve.py").chmod(0o600)
    assert content_tag(checkout) == before


# --- layers and layouts ----------------------------------------------------------------------------------------------


def test_a_layer_comes_out_the_same_byte_by_byte_whoever_packs_it_and_when(tree: Path, tmp_path: Path) -> None:
    first = layer.pack(tree, tmp_path / "first")
    shutil.copytree(tree, tmp_path / "later", symlinks=True)
    (tmp_path / "later/tmp").chmod(0o1700)
    (tmp_path / "later/opt/data").chmod(0o600)
    os.utime(tmp_path / "later/opt/data", (1, 1))
    second = layer.pack(tmp_path / "later", tmp_path / "second")
    assert first.blob.read_bytes() == second.blob.read_bytes()
    assert first.digest == second.digest


def test_a_layer_belongs_to_root_is_readable_and_from_1970(tree: Path, tmp_path: Path) -> None:
    with tarfile.open(layer.pack(tree, tmp_path / "packed").blob) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == sorted(members)
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}
    modes = {name: oct(member.mode) for name, member in members.items() if not member.issym()}
    assert modes == {
        "opt": "0o755",
        "opt/empty": "0o755",
        "tmp": "0o1777",
        "opt/program": "0o755",
        "opt/data": "0o644",
    }


def test_an_unpacked_layer_is_what_was_packed(tree: Path, tmp_path: Path) -> None:
    layer.unpack(layer.pack(tree, tmp_path / "packed").blob, tmp_path / "unpacked")
    assert (tmp_path / "unpacked/opt/program").read_text() == "program"
    assert (tmp_path / "unpacked/opt/program").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "unpacked/opt/link").readlink() == Path("/opt/program")
    assert (tmp_path / "unpacked/opt/empty").is_dir()


def test_a_packed_layer_is_found_again(tree: Path, tmp_path: Path) -> None:
    packed = layer.pack(tree, tmp_path / "packed")
    assert layer.read(tmp_path / "packed") == packed


def test_the_layout_holds_what_its_digests_say(tree: Path, tmp_path: Path) -> None:
    packed = layer.pack(tree, tmp_path / "packed")
    layout = write_layout(tmp_path / "layout", [packed], settings("abc"), "abc")
    assert json.loads((layout.directory / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    described = [layout.descriptor, layout.manifest["config"], *layout.manifest["layers"]]
    for descriptor in described:
        data = layout.blob(descriptor["digest"]).read_bytes()
        assert descriptor["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert descriptor["size"] == len(data)
    config = json.loads(layout.blob(layout.manifest["config"]["digest"]).read_text())
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert config["rootfs"]["diff_ids"] == [each["digest"] for each in layout.manifest["layers"]]  # not compressed


def test_the_container_is_not_root_and_starts_serve_py() -> None:
    of_container = settings("abc")
    assert of_container["User"] == "1000:1000"
    assert of_container["Entrypoint"] == ["/usr/bin/python3", "/opt/radstream/triton/serve.py"]
    assert not [name for name in map(str, of_container["Env"]) if not name.startswith("PATH=")]  # type: ignore[call-overload]


def test_an_archive_is_one_that_docker_and_containerd_load(tree: Path, tmp_path: Path) -> None:
    packed = layer.pack(tree, tmp_path / "packed")
    layout = write_layout(tmp_path / "layout", [packed], settings("abc"), "abc")
    write_archive(layout, "docker.io/library/radstream-triton:abc", tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as tar:
        files = {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}
    (docker,) = json.loads(files["manifest.json"])
    assert docker["RepoTags"] == ["radstream-triton:abc"]
    assert {docker["Config"], *docker["Layers"]} <= set(files)
    (descriptor,) = json.loads(files["index.json"])["manifests"]
    assert descriptor["annotations"]["io.containerd.image.name"] == "docker.io/library/radstream-triton:abc"
    for name, data in files.items():
        if name.startswith("blobs/sha256/"):
            assert name.rpartition("/")[2] == hashlib.sha256(data).hexdigest()


def test_pause_is_an_image_that_containerd_names_as_its_setting_does(tmp_path: Path) -> None:
    (tmp_path / "pause").write_bytes(b"\x7fELF")
    pause_archive(tmp_path / "pause", tmp_path / "pause.tar")
    with tarfile.open(tmp_path / "pause.tar") as tar:
        index = json.load(tar.extractfile("index.json") or io.BytesIO())
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == PAUSE_REFERENCE == "localhost/pause:1"


# --- the Dockerfile --------------------------------------------------------------------------------------------------


def test_the_dockerfile_pins_a_triton_that_is_new_enough() -> None:
    (base,) = re.findall(r"^ARG TRITON=nvcr\.io/nvidia/tritonserver:(\d+)\.(\d+)-py3", DOCKERFILE, re.MULTILINE)
    assert (int(base[0]), int(base[1])) >= (26, 5)
    assert [line for line in INSTRUCTIONS if line.startswith("FROM")] == ["FROM ${TRITON}"]
    assert "latest" not in DOCKERFILE


def test_the_dockerfile_is_not_root_and_has_the_entry_point_of_the_local_image() -> None:
    users = [line for line in INSTRUCTIONS if line.startswith("USER")]
    assert users == ["USER 1000:1000"]
    (entry,) = [line for line in INSTRUCTIONS if line.startswith("ENTRYPOINT")]
    assert json.loads(entry.removeprefix("ENTRYPOINT ")) == list(ENTRYPOINT)
    assert not [line for line in INSTRUCTIONS if line.startswith("HEALTHCHECK")]


def test_what_the_dockerfile_copies_exists_and_is_not_ignored() -> None:
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY (\S+) ", DOCKERFILE, re.MULTILINE):
        assert (CHECKOUT / source).exists()
        assert f"!{source}" in ignored


def test_the_production_packages_are_those_of_the_embedded_server() -> None:
    def locked(path: str) -> dict[str, str]:
        text = (CHECKOUT / path).read_text()
        return dict(re.findall(r"^(\w[\w-]*)(==(?:.*\\\n)*.*)$", text, re.MULTILINE))

    production, embedded = locked("deploy/image/requirements.lock"), locked(LOCK_FILE)
    assert set(production) == {"pillow", "pydicom"}
    assert production.items() <= embedded.items()


# --- pins ------------------------------------------------------------------------------------------------------------


def test_pinning_changes_one_line(tmp_path: Path) -> None:
    path = kustomization("local", tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(KUSTOMIZATION)
    assert pinned_tag("local", tmp_path) == "0123456789ab"
    assert pin("12e456789012", "local", tmp_path)
    assert path.read_text() == KUSTOMIZATION.replace("0123456789ab", '"12e456789012"')
    assert pinned_tag("local", tmp_path) == "12e456789012"
    entries = YAML(typ="safe").load(path.read_text())["images"]
    assert entries[1]["newTag"] == "12e456789012"  # a text to YAML, no number
    assert not pin("12e456789012", "local", tmp_path)


def test_an_overlay_without_the_image_is_told(tmp_path: Path) -> None:
    path = kustomization("eks", tmp_path)
    with pytest.raises(ImageError, match="is missing"):
        pinned_tag("eks", tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(KUSTOMIZATION.replace("    newTag: 0123456789ab  # of a checkout\n", ""))
    with pytest.raises(ImageError, match="has no newTag for the image radstream-triton"):
        pin("abc", "eks", tmp_path)


# --- errors for people -----------------------------------------------------------------------------------------------


def test_without_apt_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DebianError, match="apt-get is not on PATH"):
        fetch(["bash"], tmp_path)


def test_package_names_are_read_from_file_names() -> None:
    assert package_name(Path("libcrypt1_1%3a4.4.33-2_amd64.deb")) == "libcrypt1"


@pytest.mark.parametrize(
    ("url", "reason"),
    [("127.0.0.1:5000", "is no address of a registry"), ("http://127.0.0.1:1", "does not answer")],
)
def test_a_registry_that_is_not_there_is_one_sentence(tree: Path, tmp_path: Path, url: str, reason: str) -> None:
    packed = layer.pack(tree, tmp_path / "packed")
    layout = write_layout(tmp_path / "layout", [packed], settings("abc"), "abc")
    with pytest.raises(ImageError, match=reason):
        push(layout.directory, url, "radstream-triton", "abc", quiet)


def test_a_directory_without_an_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is no OCI image layout"):
        _ = Layout(tmp_path).manifest


def test_a_pause_that_was_not_built_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="build deploy/local/go/pause first"):
        pause_archive(tmp_path / "pause", tmp_path / "pause.tar")


def test_a_cache_that_cannot_be_written_is_one_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["build", "--cache", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("image: the image cannot be made in")
    assert len(error.splitlines()) == 1


def test_the_tag_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tag"]) == 0
    assert capsys.readouterr().out == f"{content_tag()}\n"


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("RADSLO_CACHE_DIR", raising=False)
    assert cache_directory() == tmp_path / "radslo"
    monkeypatch.setenv("RADSLO_CACHE_DIR", str(tmp_path / "chosen"))
    assert cache_directory() == tmp_path / "chosen"
