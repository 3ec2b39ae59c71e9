"""When each server inferred, as far as its counters tell [pure]."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeAlias

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
        steps = _steps(counters.get(server, []), limits)
        alive = overlap(asserted, (life,))
        known = tuple((step.start, step.end) for step in steps)
        found[server] = Inferring(overlap(alive, _active(steps, limits)), without(alive, known))
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


@dataclass(frozen=True, slots=True)
class Step:
    """From one reading of a server's counters to the next, Unix seconds; ``moved`` if it inferred anything."""

    start: float
    end: float
    moved: bool


def _steps(samples: list[Sample], limits: GpuLimits) -> list[Step]:
    """Where the counters tell: not over a hole, nor where one went back, for then it is another process's."""
    models = {
        model for sample in samples for counters in ("inference", "success") for model in sample.get(counters) or ()
    }.difference(NOT_ON_THE_GPU)  # fmt: skip
    counted = [(float(sample["at"]), _inferences(sample, models)) for sample in samples]
    known = [(at, count) for at, count in counted if count is not None]
    return [
        Step(start, end, last > first) for (start, first), (end, last) in pairwise(known)
        if last >= first and 0 < end - start <= 2 * limits.sample_interval_s
    ]  # fmt: skip


def _inferences(sample: Sample, models: set[str]) -> float | None:
    """Inferences on the GPU so far; None unless all models of the server are counted, for one absent is not 0."""
    counts = sample.get("inference") or {}
    return float(sum(counts[model] for model in models)) if models and models <= counts.keys() else None


def _active(steps: list[Step], limits: GpuLimits) -> Spans:
    """When a server inferred all the time.

    Counters move when an answer is complete, so an interval next to an idle one was active for a part only: it is
    left out. A longer step may hide idle time, and stays.
    """
    idle_edges = {edge for step in steps if not step.moved for edge in (step.start, step.end)}
    return tuple(
        (step.start, step.end) for step in steps
        if step.moved and not (
            step.end - step.start <= _ONE_INTERVAL * limits.sample_interval_s
            and idle_edges.intersection((step.start, step.end))
        )
    )  # fmt: skip
