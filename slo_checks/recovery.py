"""Recovery: how long the service took to answer well again after an outage [pure]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from loadtests.recording import IN_FLIGHT, Recording
from slo_checks.asserted import (
    US_PER_S,
    BoolArray,
    FloatArray,
    IntArray,
    Rows,
    asserted_phases,
    asserted_rows,
    asserted_spans,
    completed,
    is_in,
    only,
    rows_of,
    time_before,
)
from slo_checks.estimate import Estimate, unmeasured
from slo_checks.latency import NO_INTENDED_TIME
from slo_checks.objectives import Objective, Objectives

_NO_LATENCY_OBJECTIVE_MISS_RATIO: Final = 0.05
_CLOCK_S: Final = 0.001
"""What sums of Unix seconds may be off."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A stretch of missed windows. Times in seconds after the start of the run.

    ``first_window_s`` and ``first_missed_s`` are when it began at the earliest and as seen, ``last_missed_s`` is the
    last miss that belongs to it, all in asserted phases. ``first_window_s`` is None when nobody saw it begin: the first
    window of the run was missed, or warm-up was. ``steady_s`` is None when the run ended before the service was steady
    again.
    """

    first_window_s: float | None
    first_missed_s: float
    last_missed_s: float
    steady_s: float | None
    failures: int


def recovery(recording: Recording, _: Objective, objectives: Objectives) -> Estimate:
    """Longest time from the first miss of an outage to the first of the steady windows that end it.

    Below it is bounded by the time between the first and the last miss that is certain, above by the edges of the
    windows. An outage that did not end, or that nobody saw begin, is only bounded below: it can fail once it has lasted
    too long, and never pass.
    """
    if recording.plan.loop == "closed":
        return unmeasured(NO_INTENDED_TIME)
    found = outages(recording, objectives)
    if not found:
        failures = int(asserted_rows(recording).failed.sum())
        return unmeasured(f"no failure was observed to recover from ({failures:,} failed requests, no outage)")
    evidence = tuple(_told(outage) for outage in found)
    certain = outages(recording, objectives, undecided_missed=False)
    low = max((outage.last_missed_s - outage.first_missed_s for outage in certain), default=0.0)
    reasons = []
    if any(outage.first_window_s is None for outage in found):
        reasons.append("an outage was there before the judged phases were, so when it began is not known")
    if any(outage.steady_s is None for outage in found):
        reasons.append("the run ended before the service was steady again")
    if reasons:
        return Estimate(None, low, None, len(found), reason="; ".join(reasons), evidence=evidence)
    value = max((outage.steady_s or 0.0) - outage.first_missed_s for outage in found)
    high = max((outage.steady_s or 0.0) - (outage.first_window_s or 0.0) for outage in found)
    return Estimate(value, low, high, len(found), evidence=evidence)


def outages(recording: Recording, objectives: Objectives, *, undecided_missed: bool = True) -> list[Outage]:
    """Stretches of missed windows with enough failed requests in them; windows without a request tell nothing.

    Misses of warm-up count for one thing only: an outage that they belong to was there before.
    """
    rows, judged = _all_rows(recording)
    may_miss = ~rows.undecided | undecided_missed
    windows = _windows(recording, rows, objectives.recovery.window_s)
    missed = _missed(rows, may_miss, windows.place, objectives.latencies)
    in_warm_up, in_judged = (windows.any(missed & part) for part in (~judged, judged))
    found = []
    for first, last, steady in _stretches(in_warm_up, in_judged, windows.whole, objectives.recovery.steady_windows):
        inside = judged & (windows.place >= first) & (windows.place <= last)
        failures = int((inside & may_miss & ~rows.good).sum())
        stamps_s = rows.intended_us[inside & missed] / US_PER_S
        if len(stamps_s) and failures >= objectives.recovery.fewest_failures:
            unseen = first == 0 or in_warm_up[first]
            found.append(
                Outage(
                    first_window_s=None if unseen else float(windows.starts_s[first]),
                    first_missed_s=float(stamps_s[0]),
                    last_missed_s=float(stamps_s[-1]),
                    steady_s=None if steady is None else float(windows.starts_s[steady]),
                    failures=failures,
                )
            )
    return found


def _all_rows(recording: Recording) -> tuple[Rows, BoolArray]:
    """Request rows, warm-up included, by their intended time, and which of them are judged.

    Those that an interruption cut off are no outage, and left out.
    """
    columns = ["intended_us", "sent_us", "done_us", "status", "phase"]
    requests = recording.requests[columns].sort_values("intended_us", kind="stable")
    if not completed(recording):
        requests = only(requests, ~is_in(requests, "status", [IN_FLIGHT]))
    return rows_of(recording, requests), is_in(requests, "phase", asserted_phases(recording))


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one length in which requests were due, ascending; the first judged phase begins with one.

    ``starts_s`` is after the start of the run, ``whole`` says that a window lies in judged phases from end to end, and
    ``place`` is the window of each row.
    """

    starts_s: FloatArray
    whole: BoolArray
    place: IntArray

    def any(self, chosen: BoolArray) -> BoolArray:
        """Windows that hold at least one of the chosen rows."""
        return np.bincount(self.place[chosen], minlength=len(self.starts_s)) > 0


def _windows(recording: Recording, rows: Rows, window_s: float) -> Windows:
    spans, started_at = asserted_spans(recording), recording.plan.started_at
    zero_us = round((spans[0][0] - started_at) * US_PER_S) if spans else 0
    numbers, place = np.unique((rows.intended_us - zero_us) // (window_s * US_PER_S), return_inverse=True)
    starts_s = zero_us / US_PER_S + numbers * window_s
    inside_s = time_before(spans, started_at + starts_s + window_s) - time_before(spans, started_at + starts_s)
    return Windows(starts_s, inside_s > window_s - _CLOCK_S, place)


def _missed(rows: Rows, may_miss: BoolArray, place: IntArray, latencies: list[Objective]) -> BoolArray:
    """Requests that miss an objective on latency, in windows that miss the same one.

    A window misses an objective when more of its requests do than the objective allows. Where there is none, requests
    without a good answer miss.
    """
    tests = [(may_miss & (rows.response_s > limit.bound), limit.allowed_miss_ratio or 0.0) for limit in latencies]
    due = np.bincount(place)
    missed = np.zeros(len(rows), dtype=np.bool_)
    for misses, allowed_ratio in tests or [(may_miss & ~rows.good, _NO_LATENCY_OBJECTIVE_MISS_RATIO)]:
        # A tenth of ten is one, whatever the last bit of 1 - 0.9 is.
        bad = np.bincount(place, weights=misses) > np.round(due * allowed_ratio, 6)
        missed |= misses & bad[place]
    return missed


def _stretches(
    in_warm_up: BoolArray, in_judged: BoolArray, whole: BoolArray, steady_windows: int
) -> list[tuple[int, int, int | None]]:
    """First and last missed window of each stretch, and the first of the steady windows that end it.

    Once judged requests are missed, only a whole window of judged time is steady; warm-up may be less load.
    """
    found: list[tuple[int, int, int | None]] = []
    first: int | None = None
    last, judged = 0, False
    calm: list[int] = []
    for window in range(len(whole)):
        if in_warm_up[window] or in_judged[window]:
            first, last, calm = window if first is None else first, window, []
            judged = judged or bool(in_judged[window])
        elif first is not None and (whole[window] or not judged):
            calm.append(window)
            if len(calm) == steady_windows:
                found.append((first, last, calm[0]))
                first, judged, calm = None, False, []
    if first is not None:
        found.append((first, last, None))
    return found


def _told(outage: Outage) -> str:
    if outage.steady_s is None:
        end = "not over when the run ended"
    else:
        end = f"steady again {outage.steady_s - outage.first_missed_s:.1f} s later"
    earlier = " or earlier" if outage.first_window_s is None else ""
    return (
        f"outage from {outage.first_missed_s:.1f} s after the start{earlier}, {outage.failures:,} requests lost: {end}"
    )
