"""Ends a process when the process that started it has ended, however that happened."""

import ctypes
import os
import signal
import sys
import threading
import time

_CHECK_INTERVAL_S = 1.0


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends; end at once if it already has.

    The kernel counts the parent's *thread* that made this process, so it must be one that lasts.
    """
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit("the process that started this one has ended")


def exit_without_parent() -> None:
    """Look once a second whether the parent still lives, and exit when it does not.

    For Triton's stubs: Triton starts them from short-lived threads, and a stub outlives a killed server for ever.
    """
    parent_pid = os.getppid()

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(_CHECK_INTERVAL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
