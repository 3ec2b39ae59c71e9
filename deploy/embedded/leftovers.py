"""Knows which processes and shared memory belong to a server, and removes them. Never by name, never another's.

Each server gets a random token. Every process of it carries the token in its environment, and each of its regions in
/dev/shm begins with it; a record of the token lies in the keeper's directory, so that the next keeper can find what a
killed one left behind. The kernel's lock on that directory tells whether its keeper is alive.
"""

import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from deploy.embedded import EmbeddedError

TOKEN_VARIABLE = "RADSTREAM_EMBEDDED_TOKEN"  # noqa: S105 - an identity, not a secret
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX keeps it
_TOKENS = "tokens"
_DEATH_DEADLINE_S = 10.0
_POLL_S = 0.005


def new_token() -> str:
    """Return an identity that no other server has or ever had."""
    return f"radstream-{secrets.token_hex(8)}"


def processes_with(token: str) -> list[int]:
    """Return the processes of a server, wherever their parents are by now."""
    wanted = f"{TOKEN_VARIABLE}={token}".encode()
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and wanted in _environment(path)]


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:  # ended meanwhile, or another user's
        return []


def remove(token: str) -> int:
    """Kill what is left of a server and unlink its shared memory; return the number of processes killed.

    Raises:
        EmbeddedError: a process does not die although killed.
    """
    killed = processes_with(token)
    deadline = time.monotonic() + _DEATH_DEADLINE_S
    remaining = killed
    while remaining:
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _require_before(deadline, str(remaining))
        time.sleep(_POLL_S)
        remaining = processes_with(token)
    for region in SHARED_MEMORY.glob(f"{token}*"):
        region.unlink(missing_ok=True)
    return len(killed)


def become_reaper() -> None:
    """Have orphans of our servers become our children, so that `reap` can collect them; else they stay zombies."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1)


def reap(process_group: int) -> None:
    """Collect the dead of a process group whose leader has been waited for and whose other members were killed.

    Raises:
        EmbeddedError: one of them does not die.
    """
    deadline = time.monotonic() + _DEATH_DEADLINE_S
    with contextlib.suppress(ChildProcessError):  # raised when none is left
        while True:
            if os.waitpid(-process_group, os.WNOHANG) == (0, 0):
                _require_before(deadline, f"of group {process_group}")
                time.sleep(_POLL_S)


def _require_before(deadline: float, which: str) -> None:
    if time.monotonic() > deadline:
        message = f"processes {which} do not die although killed; see `ps -ef` for the state they are in"
        raise EmbeddedError(message)


class KeeperRecord:
    """A keeper's own directory, locked for as long as the keeper lives."""

    def __init__(self, run_root: Path) -> None:
        """Make and lock a fresh directory below `run_root`."""
        self.directory = run_root / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"
        with _alone_in(run_root):
            self.directory.mkdir()
            self._tokens = (self.directory / _TOKENS).open("a")
            fcntl.flock(self._tokens, fcntl.LOCK_EX)

    def note(self, token: str) -> None:
        """Record a server before it is started."""
        self._tokens.write(f"{token}\n")
        self._tokens.flush()

    def discard(self) -> None:
        """Remove the directory; what it records has been cleaned up."""
        with _alone_in(self.directory.parent):
            shutil.rmtree(self.directory)
        self._tokens.close()


def sweep(run_root: Path) -> int:
    """Clean up after keepers that were killed; return the number of processes ended. Living keepers are left alone."""
    killed = 0
    with _alone_in(run_root):
        for tokens in run_root.glob(f"*/{_TOKENS}"):
            with tokens.open() as file:
                if not _locked_by_another(file):
                    killed += sum(remove(token) for token in file.read().split())
                    shutil.rmtree(tokens.parent)
    return killed


@contextlib.contextmanager
def _alone_in(run_root: Path) -> Iterator[None]:
    """Keep other keepers from making or removing directories below `run_root` meanwhile."""
    run_root.mkdir(parents=True, exist_ok=True)
    with (run_root / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _locked_by_another(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
