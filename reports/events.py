"""What happened to the run itself [pure]."""

from __future__ import annotations

from dataclasses import dataclass

from loadtests.recording import Recording


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that happened to the run itself, ``at_s`` seconds after its start."""

    at_s: float
    event: str
    detail: str


def marks(recording: Recording) -> list[Mark]:
    """What happened to the run, in order of time; the watcher's own troubles are in its rows, not here."""
    started_at = recording.plan.started_at
    found = [
        Mark(float(row["at"]) - started_at, str(row["event"]), str(row.get("detail") or ""))
        for row in recording.events
        if row.get("at") is not None and row.get("event") is not None
    ]
    return sorted(found, key=lambda mark: mark.at_s)
