"""The embedded target: real tritonserver processes on this machine, without root and without containers."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
STATE_ROOT = CHECKOUT / ".triton-server"
"""Everything this package writes lies below: the installed server and the records of running keepers."""


class EmbeddedError(Exception):
    """What is wrong with the embedded target, where, and what to do next, in one sentence fit for a user."""
