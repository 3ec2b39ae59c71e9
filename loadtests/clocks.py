"""How far another machine's clock is off, from questions and answers about the time [pure]."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClockReading:
    """A clock shows ``offset_s`` more than ours, give or take ``uncertainty_s``."""

    offset_s: float
    uncertainty_s: float


def read_clock(asked_at: float, answer_at: float, heard_at: float) -> ClockReading:
    """One answer, by the other clock, to a question that we asked and heard answered, by ours (all Unix seconds).

    The answer was given somewhere between the two; the middle is wrong by half of the time between them at most.
    """
    return ClockReading(answer_at - (asked_at + heard_at) / 2, (heard_at - asked_at) / 2)


def surest(readings: Iterable[ClockReading]) -> ClockReading:
    """The reading that leaves the least room for error: that of the quickest answer."""
    return min(readings, key=lambda reading: reading.uncertainty_s)
