"""One process at a time, for whatever a lock file stands for; who has to wait is told so."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_one(path: Path, say: Callable[[str], None], what: str) -> Iterator[None]:
    """Hold the lock; say what another process is doing while it has to be waited for. The holder may delete the file.

    The lock ends with the process that holds it, however that ends.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another process that is {what}")
                fcntl.flock(file, fcntl.LOCK_EX)
            # Who held it may have deleted it: then this is the lock of a file that nobody else will find.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return
