"""Latency percentiles over raw rows [pure]."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from loadtests.recording import Recording
from slo_checks.asserted import FloatArray, asserted_requests, asserted_rows, column, is_in, rows_of
from slo_checks.estimate import Estimate, nearest_rank, quantile_ranks, unmeasured
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
    waited_s = np.sort(asserted_rows(recording).response_s)
    samples = len(waited_s)
    if not samples:
        return unmeasured("no request was due in a phase that is judged")
    value = _at(waited_s, nearest_rank(samples, objective.percentile))
    misses = int((waited_s > objective.bound).sum())
    evidence = _by_kind(recording, objective.percentile)
    if recording.plan.loop == "closed":
        return Estimate(value, None, None, samples, misses, NO_INTENDED_TIME, evidence=evidence)
    low, high = quantile_ranks(samples, objective.percentile, objective.confidence)
    reason = None if high else f"too few requests to bound the {objective.percentile:.0%} percentile from above"
    return Estimate(value, _at(waited_s, low), _at(waited_s, high), samples, misses, reason, evidence=evidence)


def _at(ascending: FloatArray, place: int | None) -> float | None:
    """The value at a place counted from 1."""
    return None if place is None else float(ascending[place - 1])


def _by_kind(recording: Recording, percentile: float) -> tuple[str, ...]:
    """`classifier: p95 0.031 s of 1,200`, for each kind of request."""
    requests = asserted_requests(recording)
    kinds = sorted(pc.unique(column(requests, "kind")).to_pylist())
    lines = []
    for kind in kinds:
        waited_s = np.sort(rows_of(requests[is_in(requests, "kind", [kind])]).response_s)
        value = float(waited_s[nearest_rank(len(waited_s), percentile) - 1])
        text = f"{value:.3f} s" if np.isfinite(value) else "without a good answer"
        lines.append(f"{kind}: p{percentile * 100:g} {text}, of {len(waited_s):,} requests")
    return tuple(lines)
