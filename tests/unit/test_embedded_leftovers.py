"""Cleaning up: what belongs to a server goes, everything else stays. With real processes and real shared memory."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.embedded.leftovers import (
    SHARED_MEMORY,
    TOKEN_VARIABLE,
    KeeperRecord,
    new_token,
    processes_with,
    remove,
    sweep,
)


@pytest.fixture
def token() -> Iterator[str]:
    name = new_token()
    yield name
    for region in SHARED_MEMORY.glob(f"{name}*"):
        region.unlink()


def sleeper(token: str, cleanup: ExitStack, program: str = "") -> subprocess.Popen[str]:
    """Start a process of a server, in a session of its own as servers are."""
    process = subprocess.Popen(
        [sys.executable, "-c", program + "print('up', flush=True); import time; time.sleep(600)"],
        env=os.environ | {TOKEN_VARIABLE: token},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    cleanup.enter_context(process)
    cleanup.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_a_server_is_removed_with_its_shared_memory_and_its_neighbour_is_not(token: str) -> None:
    neighbour = new_token()
    with ExitStack() as cleanup:
        ignores_sigterm = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        ours, other = sleeper(token, cleanup, ignores_sigterm), sleeper(neighbour, cleanup)
        (SHARED_MEMORY / f"{token}-region").write_bytes(b"x")
        (SHARED_MEMORY / f"{neighbour}-region").write_bytes(b"x")
        cleanup.callback((SHARED_MEMORY / f"{neighbour}-region").unlink)
        assert processes_with(token) == [ours.pid]
        assert remove(token) == 1
        assert ours.wait() == -signal.SIGKILL
        assert other.poll() is None
        assert not list(SHARED_MEMORY.glob(f"{token}*"))
        assert (SHARED_MEMORY / f"{neighbour}-region").exists()


def test_a_stopped_process_is_removed_too(token: str) -> None:
    with ExitStack() as cleanup:
        process = sleeper(token, cleanup)
        process.send_signal(signal.SIGSTOP)
        assert remove(token) == 1
        assert process.wait() == -signal.SIGKILL


def test_removing_a_server_that_is_gone_does_nothing(token: str) -> None:
    assert remove(token) == 0


def test_a_sweep_ends_what_a_dead_keeper_left_and_leaves_a_living_keeper_alone(tmp_path: Path, token: str) -> None:
    living_token = new_token()
    living = KeeperRecord(tmp_path)
    living.note(living_token)
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / "tokens").write_text(f"{token}\n")
    with ExitStack() as cleanup:
        ours, other = sleeper(token, cleanup), sleeper(living_token, cleanup)
        assert sweep(tmp_path) == 1
        assert sweep(tmp_path) == 0
        assert ours.wait() == -signal.SIGKILL
        assert other.poll() is None
    assert not dead.exists()
    assert living.directory.exists()
    living.discard()
    assert not living.directory.exists()
