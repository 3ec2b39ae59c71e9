"""The local cluster as far as it can be told without one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import LocalClusterError, forward
from deploy.local.cluster import Cluster, HpaProfile
from deploy.local.components import Component, components
from deploy.local.go_build import BuildProgress, Clock
from deploy.local.products import Product
from deploy.local.target import capacity_per_s, write_target
from loadtests.target import read_target
from tests.integration.runs import BIN, CHECKOUT

BUILDS = dict.fromkeys(
    ("kube", "coredns", "prometheus", "keda-operator", "keda-adapter", "debian", "debian-libraries"), "1"
)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RADSLO_STATE_DIR", str(tmp_path / "clusters"))
    return tmp_path / "clusters"


def by_name(profile: HpaProfile = "fast") -> dict[str, Component]:
    return {each.name: each for each in components(Cluster(), BUILDS, profile)}


# --- components


def test_the_hpa_profile_changes_the_controller_manager_and_nothing_else() -> None:
    fast, default = by_name("fast"), by_name("default")
    assert {name for name in fast if fast[name].digest != default[name].digest} == {"kube-controller-manager"}
    flags = " ".join(default["kube-controller-manager"].command)
    assert "horizontal-pod-autoscaler" not in flags


def test_a_new_build_of_a_program_starts_it_anew() -> None:
    newer = {each.name: each for each in components(Cluster(), BUILDS | {"prometheus": "2"}, "fast")}
    assert {name for name in newer if newer[name].digest != by_name()[name].digest} == {"prometheus"}


def test_two_clusters_keep_their_pods_in_cgroups_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {Cluster("a").cgroup, Cluster("b").cgroup}
    monkeypatch.setenv("RADSLO_STATE_DIR", "/elsewhere")
    assert len(ours | {Cluster("a").cgroup, Cluster("b").cgroup}) == 4


# --- its target


def test_its_target_file_is_one_and_knows_the_capacity_of_a_pod(state: Path) -> None:
    cluster = Cluster()
    state.joinpath("local").mkdir(parents=True)
    write_target(cluster, "default", "classifier=0+20,detector=0+50,encoder=0+30")
    target = read_target(str(cluster.target_file))
    assert target.capacity_per_s == 10
    assert target.emulated
    assert target.kubernetes is not None
    assert target.kubernetes.kubeconfig == cluster.kubeconfig
    assert "HPA every 15 s" in target.name


@pytest.mark.parametrize("times", ["", "detector=5+10"])
def test_device_times_without_a_known_capacity_are_refused(times: str) -> None:
    with pytest.raises(LocalClusterError, match="capacity"):
        capacity_per_s(times)


# --- the time left


def product(name: str, reference_s: float) -> Product:
    return Product(name, "v1", "pause", reference_s=reference_s)


def test_the_time_left_follows_the_speed_that_this_machine_shows() -> None:
    """Half as fast as the machine of reference: a third done after 60 s of its 30 leaves 120 s."""
    now_s = 0.0
    told: list[BuildProgress] = []
    products = [product("a", 30), product("b", 60)]
    clock = Clock(products, told.append, now=lambda: now_s)
    clock.tell("a", "compiling", 0.1)
    assert told[-1].left_s is None  # too early to know
    now_s = 60.0
    clock.finished(products[0])
    assert told[-1].done_ratio == pytest.approx(1 / 3)
    assert told[-1].left_s == pytest.approx(120)


def test_downloads_and_what_an_earlier_build_did_say_nothing_of_the_speed() -> None:
    now_s = 0.0
    told: list[BuildProgress] = []
    products = [product("a", 100), product("b", 100)]
    clock = Clock(products, told.append, now=lambda: now_s)
    with clock.downloading():
        now_s = 500.0
    clock.known(products[0], 40)  # the rest of it was compiled before
    now_s = 540.0
    clock.finished(products[0])
    assert told[-1].left_s == pytest.approx(100)


# --- the forwarder


@pytest.fixture
def forwarder() -> Iterator[tuple[int, socket.socket]]:
    """The port to connect to, and the socket that listens at the other end."""
    inner = socket.create_server(("127.0.0.1", 0))
    listener = forward.listen(0)
    assert listener is not None
    port = listener.getsockname()[1]
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    command = [sys.executable, "-m", "deploy.local.forward", str(listener.fileno()), str(network)]
    with subprocess.Popen(
        [*command, str(inner.getsockname()[1])], stdin=subprocess.PIPE, pass_fds=(listener.fileno(), network),
        cwd=CHECKOUT,
    ) as process:  # fmt: skip
        listener.close()
        os.close(network)
        yield port, inner
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
    inner.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a namespace takes root")
def test_the_forwarder_passes_both_ways_and_ends_with_either(forwarder: tuple[int, socket.socket]) -> None:
    port, inner = forwarder

    def echo() -> None:
        connection, _ = inner.accept()
        with connection:
            while chunk := connection.recv(65536):
                connection.sendall(chunk.upper())

    thread = threading.Thread(target=echo)
    thread.start()
    with socket.create_connection(("127.0.0.1", port)) as outer:
        outer.sendall(b"a" * 300_000)
        outer.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: outer.recv(65536), b""))
    thread.join()
    assert received == b"A" * 300_000


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a namespace takes root")
def test_the_forwarder_hangs_up_where_nothing_listens_inside(forwarder: tuple[int, socket.socket]) -> None:
    port, inner = forwarder
    inner.close()
    with socket.create_connection(("127.0.0.1", port)) as outer:
        assert outer.recv(1) == b""


# --- the command line


def radslo(*arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, str(BIN / "radslo"), "cluster", *arguments], env=os.environ | environment, cwd=CHECKOUT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_cluster_that_does_not_run_is_told_with_what_to_do() -> None:
    told = radslo("status")
    assert told.returncode == 1
    assert "radslo cluster up" in told.stdout
    told = radslo("exec", "--name", "other", "true")
    assert told.returncode == 2
    assert "radslo cluster up --name other" in told.stderr
    assert "does not exist" in radslo("down").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can stop being root")
def test_without_root_one_sentence_names_another_target() -> None:
    """Not by running `radslo` itself: not everybody may read where it is installed."""
    told = subprocess.run(
        [
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c"),
            "from deploy.local.preflight import why_not; print(why_not())",
        ],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if told.returncode != 0:
        pytest.skip(f"nobody cannot run Python here: {told.stderr[-200:]}")
    assert "it needs root" in told.stdout
    assert "--target embedded" in told.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give capabilities away")
def test_without_the_capabilities_one_sentence_names_them() -> None:
    told = radslo("up", prefix=("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all"))
    assert told.returncode == 2
    assert "CAP_SYS_ADMIN" in told.stderr
    assert "--target embedded" in told.stderr
    assert told.stderr.count("\n") == 1


def test_a_place_that_the_cluster_could_not_see_is_refused() -> None:
    told = radslo("up", RADSLO_CACHE_DIR="/run/cache")
    assert told.returncode == 2
    assert "/run/cache" in told.stderr
    if os.geteuid() == 0:
        assert "RADSLO_CACHE_DIR" in told.stderr


def test_where_no_cluster_can_run_building_one_if_possible_is_no_failure() -> None:
    told = radslo("build", "--if-possible", RADSLO_STATE_DIR="/run/state")
    assert told.returncode == 0
    assert "cannot run here" in told.stderr
