"""Verdicts: what an objective's indicator says about one recording, and whether that is enough to judge."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from slo_checks.objectives import Objective


class Outcome(StrEnum):
    """PASS and FAIL are claims that the data prove; everything else is INCONCLUSIVE."""

    PASS = "pass"  # noqa: S105 - an outcome, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Estimate:
    """One indicator's value with the interval that the data support, in the unit of its objective.

    ``value`` is None when nothing was measured; ``reason`` then says why. ``low`` and ``high`` are one-sided 95 %
    confidence bounds (or what the objective asks for). ``samples`` counts what the value rests on, ``misses`` those
    that missed. ``emulated`` is True when any of it came from an emulated device.
    """

    value: float | None
    low: float | None
    high: float | None
    samples: int
    misses: int | None = None
    reason: str | None = None
    emulated: bool = False
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """One objective judged. ``reason`` is one sentence for people, with the numbers in it.

    ``role`` says what the scenario asked: ``must_pass`` is to be proven, ``must_not_fail`` may stay unproven,
    ``not_asked`` is shown and decides nothing.
    """

    objective: Objective
    role: Literal["must_pass", "must_not_fail", "not_asked"]
    outcome: Outcome
    reason: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class ValidityCheck:
    """One condition under which the measurement itself can be trusted; ``ok`` is None when it could not be checked."""

    name: str
    ok: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class Conservation:
    """scheduled = ok + failed + in flight at end + not sent + lost. ``lost`` rows are the recorder's own failure."""

    scheduled: int | None
    ok: int
    failed: dict[str, int]
    in_flight: int
    not_sent: int
    lost: int | None


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """The whole run judged: any fail fails it; else any must_pass not proven leaves it inconclusive."""

    outcome: Outcome
    reason: str
    verdicts: tuple[Verdict, ...]
    validity: tuple[ValidityCheck, ...]
    conservation: Conservation
    emulated: bool
