"""Whether the measurement itself can be trusted: one check for each way in which it might not be [pure]."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """What follows when a check is not positively ok; one that could not be made is no better than one that failed."""

    BLOCKS_PASS = "blocks_pass"  # noqa: S105 - an effect, no password
    """Nothing passes: the recording, or the counting, may lack just the requests that missed."""
    GENERATOR = "generator"
    """Nothing passes, and a fail stands only if the service's own part alone fails."""
    WATCHED = "watched"
    """Nothing passes that rests on what the watcher saw."""
    NONE = "none"
    """Shown, and decides nothing: the run was planned without it."""


@dataclass(frozen=True, slots=True)
class ValidityCheck:
    """One condition under which the measurement itself can be trusted; ``ok`` is None when it could not be checked."""

    name: str
    ok: bool | None
    reason: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class Conservation:
    """scheduled = ok + failed + in flight at end + not sent + lost. ``lost`` rows are the recorder's own failure.

    All rows count here, warm-up included. ``scheduled`` (requests that were due before the run stopped) and ``lost``
    are None when the run did not finish, or a load process never told.
    """

    scheduled: int | None
    ok: int
    failed: dict[str, int]
    in_flight: int
    not_sent: int
    lost: int | None
