"""No load process outlives the one that started it: the kernel sees to that, however the other ended [Linux]."""

from __future__ import annotations

import ctypes
import os
import signal
from dataclasses import dataclass, field
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process ``number`` when its parent is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


@dataclass(slots=True)
class KilledWithParent:
    """While ``on``, whatever this process forks is killed with it; what it forked stays bound to it afterwards."""

    on: bool = True
    _parent_pid: int = field(default_factory=os.getpid)

    def __post_init__(self) -> None:
        os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        if not self.on:
            return
        end_with_parent(signal.SIGKILL)
        if os.getppid() != self._parent_pid:
            os._exit(1)  # it was gone before the kernel knew of our wish
