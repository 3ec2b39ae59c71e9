"""`python -m deploy.embedded`: what a user's mistake gets."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.embedded import EmbeddedError, ports
from deploy.embedded.install import LOCK_FILE, find_uv

CHECKOUT = Path(__file__).resolve().parents[2]
# Loopback addresses that no embedded server gets, so that a port of one is taken on another only by these tests.
NOBODYS = ["127.0.0.251", "127.0.0.252", "127.0.0.253"]


def test_help_shows_examples_and_commands() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "deploy.embedded", "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    assert "python -m deploy.embedded --servers 3" in shown
    assert "freeze NAME SECONDS" in shown


@pytest.mark.parametrize("count", ["0", "-1", "251", "many"])
def test_an_impossible_number_of_servers_is_refused(count: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "deploy.embedded", f"--servers={count}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "--servers" in result.stderr


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.252", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=rf"port {port} on 127\.0\.0\.252 is taken; choose another --grpc-port"):
            ports.require_free(NOBODYS[:2], port)


def test_chosen_ports_are_free_on_every_address_and_differ() -> None:
    addresses = [ports.address_of(index) for index in range(3)]
    assert addresses == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    chosen = ports.choose_free(4, addresses)
    assert len(set(chosen)) == 4
    assert all(ports.is_free(address, port) for address in addresses for port in chosen)


@pytest.mark.parametrize("taken_on", NOBODYS)
def test_a_port_that_is_taken_on_one_address_is_never_chosen(taken_on: str) -> None:
    with socket.create_server((taken_on, 0)) as taken, socket.create_server((taken_on, 0)) as other:
        both = [taken.getsockname()[1], other.getsockname()[1]]
        other.close()
        assert ports.choose_free(1, NOBODYS, among=both) == both[1:]
        with pytest.raises(EmbeddedError, match="fewer than 2 free TCP ports"):
            ports.choose_free(2, NOBODYS, among=both)


def test_a_missing_uv_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedError, match="uv is not on PATH"):
        find_uv(checkout=tmp_path)


def test_everything_that_is_installed_is_pinned_with_hashes() -> None:
    pins = [line for line in LOCK_FILE.read_text().splitlines() if "==" in line]
    assert {pin.partition("==")[0] for pin in pins} == {"nvidia-pytriton", "numpy", "pillow", "pydicom"}
    assert all(pin.endswith("\\") for pin in pins)
