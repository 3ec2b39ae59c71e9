"""Availability and error rate: how many requests missed, and how the misses lie in time [pure].

Both are defined word by word in `objectives.yaml`.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

import numpy as np
import pyarrow.compute as pc

from loadtests.recording import STATUSES, Recording
from slo_checks.asserted import (
    US_PER_S,
    BoolArray,
    FloatArray,
    Rows,
    asserted_requests,
    asserted_rows,
    column,
)
from slo_checks.estimate import Estimate, may_be_either, share_bounds, unmeasured
from slo_checks.objectives import Objective, Objectives

SLICE_S: Final = 10
"""Failures cluster, so the worst slice of this length is shown beside the mean."""
SLICE_MISS_RATIO: Final = 0.01
"""A slice is good with at least 99 % good answers."""
MOST_SERVERS: Final = 8


def availability(recording: Recording, objective: Objective, _: Objectives) -> Estimate:
    """Share of requests due in asserted phases that got a right answer in time."""
    rows = asserted_rows(recording)
    missed = ~rows.good & ~rows.undecided
    misses, unknown = int(missed.sum()), int(rows.undecided.sum())
    samples = len(rows) - unknown
    if not samples:
        return unmeasured(_nothing(recording, rows))
    low, high = _bounds(misses, samples, unknown, objective)
    value, reason = (samples - misses) / samples, may_be_either(unknown)
    evidence = (*_by_class(rows, missed), *_in_time(rows, missed), *_by_server(recording))
    return Estimate(value, 1 - high, 1 - low, samples, misses, reason, evidence=evidence)


def error_rate(recording: Recording, objective: Objective, _: Objectives) -> Estimate:
    """Share of sent requests with a known outcome that failed; what is still in flight at the end may yet be either."""
    rows = asserted_rows(recording)
    misses, unknown = int(rows.failed.sum()), int((rows.undecided | rows.in_flight).sum())
    samples = misses + int(rows.good.sum())
    if not samples:
        return unmeasured(_nothing(recording, rows))
    low, high = _bounds(misses, samples, unknown, objective)
    evidence = list(_by_class(rows, rows.failed))
    if rows.not_sent.any():
        evidence.append(f"{int(rows.not_sent.sum()):,} were never sent and do not count here")
    return Estimate(misses / samples, low, high, samples, misses, may_be_either(unknown), evidence=tuple(evidence))


def _bounds(misses: int, samples: int, unknown: int, objective: Objective) -> tuple[float, float]:
    """Bounds of the share of misses: those unknown are good for the lower one, and misses for the upper one."""
    low, _ = share_bounds(misses, samples + unknown, objective.confidence)
    _, high = share_bounds(misses + unknown, samples + unknown, objective.confidence)
    return low, high


def _nothing(recording: Recording, rows: Rows) -> str:
    if len(rows):
        return "no request that was sent has a known outcome"
    if len(recording.requests):
        return "all requests belong to warm-up; none was due in a phase that is judged"
    return "no request was recorded"


def _by_class(rows: Rows, missed: BoolArray) -> tuple[str, ...]:
    """`missed: shed 12, deadline 3`, the most frequent first."""
    places, counts = np.unique(rows.status[missed], return_counts=True)
    named = sorted(zip(counts.tolist(), places.tolist(), strict=True), reverse=True)
    if not named:
        return ()
    texts = [f"{STATUSES[place]} {count:,}" for count, place in named]
    return (f"missed: {', '.join(texts)}",)


def _in_time(rows: Rows, missed: BoolArray) -> tuple[str, ...]:
    """The worst slice and the longest outage; nothing when nothing missed."""
    if not missed.any():
        return ()
    return (_worst_slice(rows, missed), _longest_outage(rows.intended_us, missed))


def _worst_slice(rows: Rows, missed: BoolArray) -> str:
    slices = ((rows.intended_us - rows.intended_us[0]) // (SLICE_S * US_PER_S)).astype(np.int64)
    due, lost = np.bincount(slices), np.bincount(slices, weights=missed)
    with_load = due > 0
    ratio = np.divide(lost, due, out=np.zeros(len(due)), where=with_load)
    worst = int(ratio.argmax())
    from_s = rows.intended_us[0] / US_PER_S + worst * SLICE_S
    bad = int((with_load & (ratio > SLICE_MISS_RATIO)).sum())
    return (
        f"worst {SLICE_S} s slice: {int(lost[worst]):,} of {int(due[worst]):,} missed, {from_s:.0f} s after the start; "
        f"{bad:,} of {int(with_load.sum()):,} slices below {100 * (1 - SLICE_MISS_RATIO):g} %"
    )


def _longest_outage(intended_us: FloatArray, missed: BoolArray) -> str:
    """The longest stretch of misses without a good answer between them, by intended time."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], missed, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2] - 1
    lasting_us = intended_us[ends] - intended_us[starts]
    longest = int(np.lexsort((ends - starts, lasting_us))[-1])
    count = int(ends[longest] - starts[longest] + 1)
    lasting_s, from_s = lasting_us[longest] / US_PER_S, intended_us[starts[longest]] / US_PER_S
    return f"longest run of misses: {count:,} in a row over {lasting_s:.1f} s, from {from_s:.1f} s after the start"


def _by_server(recording: Recording) -> tuple[str, ...]:
    """Who answered, the busiest first."""
    counted = pc.value_counts(pc.drop_null(column(asserted_requests(recording), "served_by"))).to_pylist()
    ranked = sorted(counted, key=lambda entry: (-entry["counts"], entry["values"]))
    if not ranked:
        return ("no server is named in any answer",)
    texts = [f"{entry['values']} {entry['counts']:,}" for entry in islice(ranked, MOST_SERVERS)]
    rest = f" and {len(ranked) - MOST_SERVERS} more servers" if len(ranked) > MOST_SERVERS else ""
    return (f"answered by: {', '.join(texts)}{rest}",)
