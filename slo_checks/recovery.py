"""Recovery: how long the service took to answer well again after an outage [pure]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadtests.recording import Recording
from slo_checks.asserted import US_PER_S, BoolArray, FloatArray, IntArray, Rows, asserted_rows
from slo_checks.estimate import Estimate, unmeasured
from slo_checks.latency import NO_INTENDED_TIME
from slo_checks.objectives import Objective, Objectives

_NO_LATENCY_OBJECTIVE_MISS_RATIO = 0.05


@dataclass(frozen=True, slots=True)
class Outage:
    """A stretch of missed windows. Times in seconds after the start of the run.

    ``first_window_s`` and ``first_missed_s`` are when it began at the earliest and as seen, ``last_missed_s`` is the
    last miss that belongs to it; ``steady_s`` is None when the run ended before the service was steady again.
    """

    first_window_s: float
    first_missed_s: float
    last_missed_s: float
    steady_s: float | None
    failures: int


def recovery(recording: Recording, _: Objective, objectives: Objectives) -> Estimate:
    """Longest time from the first miss of an outage to the first of the steady windows that end it.

    Below it is bounded by the time between the first and the last miss, above by the edges of the windows. An outage
    that did not end is only bounded below: it can fail once it has lasted too long, and never pass.
    """
    if recording.plan.loop == "closed":
        return unmeasured(NO_INTENDED_TIME)
    rows = asserted_rows(recording)
    found = outages(rows, objectives) if len(rows) else []
    if not found:
        failures = int(rows.failed.sum())
        return unmeasured(f"no failure was observed to recover from ({failures:,} failed requests, no outage)")
    evidence = tuple(_told(outage) for outage in found)
    low = max(outage.last_missed_s - outage.first_missed_s for outage in found)
    if any(outage.steady_s is None for outage in found):
        reason = "the run ended before the service was steady again"
        return Estimate(None, low, None, len(found), reason=reason, evidence=evidence)
    ended = [outage for outage in found if outage.steady_s is not None]
    value = max((outage.steady_s or 0.0) - outage.first_missed_s for outage in ended)
    high = max((outage.steady_s or 0.0) - outage.first_window_s for outage in ended)
    return Estimate(value, low, high, len(found), evidence=evidence)


def outages(rows: Rows, objectives: Objectives) -> list[Outage]:
    """Stretches of missed windows with enough failed requests in them; windows without a request tell nothing."""
    window_us = objectives.recovery.window_s * US_PER_S
    zero_us = float(rows.intended_us[0])
    windows, place = np.unique((rows.intended_us - zero_us) // window_us, return_inverse=True)
    starts_s = (zero_us + windows * window_us) / US_PER_S
    missed = _missed(rows, place, objectives.latencies)
    bad = np.bincount(place, weights=missed) > 0
    found = []
    for first, last, steady in _stretches(bad, objectives.recovery.steady_windows):
        inside = (place >= first) & (place <= last)
        failures = int((inside & ~rows.good).sum())
        if failures >= objectives.recovery.fewest_failures:
            steady_s = None if steady is None else float(starts_s[steady])
            found.append(_outage(rows.intended_us[inside & missed], float(starts_s[first]), steady_s, failures))
    return found


def _missed(rows: Rows, place: IntArray, latencies: list[Objective]) -> BoolArray:
    """Requests that miss an objective on latency, in windows that miss the same one.

    A window misses an objective when more of its requests do than the objective allows. Where there is none, requests
    without a good answer miss.
    """
    tests = [(rows.response_s > limit.bound, limit.allowed_miss_ratio or 0.0) for limit in latencies]
    due = np.bincount(place)
    missed = np.zeros(len(rows), dtype=np.bool_)
    for misses, allowed_ratio in tests or [(~rows.good, _NO_LATENCY_OBJECTIVE_MISS_RATIO)]:
        # A tenth of ten is one, whatever the last bit of 1 - 0.9 is.
        bad = np.bincount(place, weights=misses) > np.round(due * allowed_ratio, 6)
        missed |= misses & bad[place]
    return missed


def _outage(stamps_us: FloatArray, first_window_s: float, steady_s: float | None, failures: int) -> Outage:
    first_s, last_s = float(stamps_us[0]) / US_PER_S, float(stamps_us[-1]) / US_PER_S
    return Outage(first_window_s, first_s, last_s, steady_s, failures)


def _stretches(bad: BoolArray, steady_windows: int) -> list[tuple[int, int, int | None]]:
    """First and last missed window of each stretch, and the first of the steady windows that end it."""
    found: list[tuple[int, int, int | None]] = []
    first: int | None = None
    last = 0
    calm: list[int] = []
    for window, is_bad in enumerate(bad.tolist()):
        if is_bad:
            first, last, calm = window if first is None else first, window, []
        elif first is not None:
            calm = [*calm, window]
            if len(calm) == steady_windows:
                found.append((first, last, calm[0]))
                first, calm = None, []
    if first is not None:
        found.append((first, last, None))
    return found


def _told(outage: Outage) -> str:
    if outage.steady_s is None:
        end = "not over when the run ended"
    else:
        end = f"steady again {outage.steady_s - outage.first_missed_s:.1f} s later"
    return f"outage from {outage.first_missed_s:.1f} s after the start, {outage.failures:,} requests lost: {end}"
