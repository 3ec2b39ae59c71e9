"""When each server inferred, as far as its counters tell [pure]."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import pyarrow.compute as pc

from loadtests.recording import Recording
from slo_checks.asserted import (
    US_PER_S,
    Spans,
    asserted_requests,
    asserted_spans,
    by_key,
    column,
    is_in,
    length_s,
    overlap,
    stamps,
    without,
)
from slo_checks.objectives import GpuLimits

Sample: TypeAlias = dict[str, Any]

NOT_ON_THE_GPU: Final = ("radstream_ensemble", "radstream_preprocess")
"""Models whose work says nothing about the GPU: the ensemble only routes, preprocessing runs on the CPU."""
_ONE_INTERVAL: Final = 1.5
"""Steps up to this many sample intervals are one interval with jitter; over 2 they are a hole."""


@dataclass(frozen=True, slots=True)
class Inferring:
    """When one server inferred, in asserted time; ``unknown`` is when its counters do not tell."""

    active: Spans
    unknown: Spans

    @property
    def at_most_s(self) -> float:
        return length_s(self.active) + length_s(self.unknown)


def inferring(recording: Recording, limits: GpuLimits) -> dict[str, Inferring]:
    """When each server inferred, for every server that any source knows of."""
    asserted = asserted_spans(recording)
    counters = by_key(recording.triton, lambda sample: str(sample["server"]))
    lives = _lives(recording)
    found = {}
    for server, life in lives.items():
        active, known = _activity(counters.get(server, []), limits)
        alive = overlap(asserted, (life,))
        found[server] = Inferring(overlap(alive, active), without(alive, known))
    return found


def _lives(recording: Recording) -> dict[str, tuple[float, float]]:
    """From the first to the last sign of each server: its counters, its GPU, its answers. Unix seconds."""
    signs: dict[str, list[float]] = {}
    for sample in (*recording.triton, *recording.gpu):
        signs.setdefault(str(sample["server"]), []).append(float(sample["at"]))
    requests = asserted_requests(recording)
    for server in pc.unique(pc.drop_null(column(requests, "served_by"))).to_pylist():
        done_us = stamps(requests[is_in(requests, "served_by", [server])], "done_us")
        seen_us = done_us[np.isfinite(done_us)]
        if len(seen_us):
            ends_us = (float(seen_us.min()), float(seen_us.max()))
            signs.setdefault(server, []).extend(recording.plan.started_at + end / US_PER_S for end in ends_us)
    return {server: (min(times), max(times)) for server, times in signs.items()}


Activity = Literal["active", "idle"]


def _activity(samples: list[Sample], limits: GpuLimits) -> tuple[Spans, Spans]:
    """When the inference counters moved, and when they are known at all.

    Counters move when an answer is complete, so an interval next to an idle one was active for a part only: it is
    left out. A longer step may hide idle time, and stays. A counter that went back was another process's.
    """
    steps: list[tuple[float, float, Activity]] = []
    for before, after in pairwise(samples):
        start, end = float(before["at"]), float(after["at"])
        gained = _inferences(after) - _inferences(before)
        if gained >= 0 and 0 < end - start <= 2 * limits.sample_interval_s:
            steps.append((start, end, "active" if gained else "idle"))
    known = tuple((start, end) for start, end, _ in steps)
    active = []
    for place, (start, end, state) in enumerate(steps):
        beside = [*steps[max(place - 1, 0) : place], *steps[place + 1 : place + 2]]
        at_an_edge = any(other[2] == "idle" and (other[1] == start or other[0] == end) for other in beside)
        if state == "active" and not (at_an_edge and end - start <= _ONE_INTERVAL * limits.sample_interval_s):
            active.append((start, end))
    return tuple(active), known


def _inferences(sample: Sample) -> float:
    counts = sample.get("inference") or {}
    return float(sum(count for model, count in counts.items() if model not in NOT_ON_THE_GPU))
