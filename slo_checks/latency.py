"""Latency percentiles over raw rows [pure]."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc

from loadtests.recording import Recording
from slo_checks.asserted import FloatArray, asserted_requests, asserted_rows, column, is_in, only
from slo_checks.estimate import Estimate, may_be_either, nearest_rank, quantile_ranks, unmeasured
from slo_checks.objectives import Objective, Objectives

NO_INTENDED_TIME = (
    "in a closed loop a slow server slows its own load down, so latencies are advisory: there is no time at which a "
    "request was due"
)


def latency(recording: Recording, objective: Objective, _: Objectives) -> Estimate:
    """Percentile of what callers waited, from the intended time; one without a good answer is infinitely late.

    The interval is made of order statistics. It meets the bound exactly when the count of requests over the bound
    passes the binomial test against the allowed share.
    """
    if objective.percentile is None:
        msg = f"{objective.name}: an objective on latency has a percentile"
        raise ValueError(msg)
    waited_s, unknown = _waited_s(recording)
    samples = len(waited_s)
    if not samples:
        return unmeasured(may_be_either(unknown) or "no request was due in a phase that is judged")
    value = _at(waited_s, nearest_rank(samples, objective.percentile))
    misses = int((waited_s > objective.bound).sum())
    evidence = _by_kind(recording, objective.percentile)
    if recording.plan.loop == "closed":
        return Estimate(value, None, None, samples, misses, NO_INTENDED_TIME, evidence=evidence)
    low, high = quantile_ranks(samples + unknown, objective.percentile, objective.confidence)
    few = None if high else f"too few requests to bound the {objective.percentile:.0%} percentile from above"
    # An unknown outcome took no time for the bound from below, and for ever for that from above.
    least = _at(waited_s, low - unknown if low else None)
    return Estimate(
        value, least, _at(waited_s, high), samples, misses, few or may_be_either(unknown), evidence=evidence
    )


def _waited_s(recording: Recording) -> tuple[FloatArray, int]:
    """What callers waited, ascending, and how many more there are of whom nothing tells."""
    rows = asserted_rows(recording)
    unknown = int(rows.undecided.sum())
    return np.sort(rows.where(~rows.undecided).response_s if unknown else rows.response_s), unknown


def waited_by_kind(recording: Recording) -> dict[str, FloatArray]:
    """What callers of each kind of request waited, ascending; infinite without a good answer."""
    requests = asserted_requests(recording)
    kinds = sorted(pc.unique(column(requests, "kind")).to_pylist())
    by_kind = {kind: replace(recording, requests=only(requests, is_in(requests, "kind", [kind]))) for kind in kinds}
    return {kind: _waited_s(own)[0] for kind, own in by_kind.items()}


def _at(ascending: FloatArray, place: int | None) -> float | None:
    """The value at a place counted from 1; nothing is known before the first, and after the last no end."""
    if place is None or place < 1:
        return None
    return float(ascending[place - 1]) if place <= len(ascending) else math.inf


def _by_kind(recording: Recording, percentile: float) -> tuple[str, ...]:
    """`classifier: p95 0.031 s of 1,200`, for each kind of request."""
    lines = []
    for kind, waited_s in waited_by_kind(recording).items():
        value = _at(waited_s, nearest_rank(len(waited_s), percentile))
        text = "without a good answer" if value is None or math.isinf(value) else f"{value:.3f} s"
        lines.append(f"{kind}: p{percentile * 100:g} {text}, of {len(waited_s):,} requests")
    return tuple(lines)
