"""What happened to the run itself: all of it for the list, and what deserves a line in the timeline [pure]."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from loadtests.recording import Recording

_QUIET: Final = frozenset({"started"})


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that happened to the run itself, ``at_s`` seconds after its start."""

    at_s: float
    event: str
    detail: str


def marks(recording: Recording) -> tuple[Mark, ...]:
    """What happened to the run, in order of time; the watcher's own troubles are in its rows, not here."""
    started_at = recording.plan.started_at
    found = [
        Mark(float(row["at"]) - started_at, str(row["event"]), str(row.get("detail") or ""))
        for row in recording.events
        if row.get("at") is not None and row.get("event") is not None
    ]
    return tuple(sorted(found, key=lambda mark: mark.at_s))


def remarkable(events: Iterable[Mark], planned_end_s: float, end_s: float) -> tuple[Mark, ...]:
    """Those that a line should show: that a run began, or stopped after its last phase, goes without saying."""
    return tuple(
        mark
        for mark in events
        if 0 <= mark.at_s <= end_s
        and mark.event not in _QUIET
        and not (mark.event == "stopped" and mark.at_s >= planned_end_s)
    )
