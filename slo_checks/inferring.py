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
    FloatArray,
    Spans,
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
    """When one server inferred, in asserted time.

    ``active`` is when it certainly inferred all the time, ``unknown`` when its counters do not tell. ``perhaps`` is all
    time but that in which it certainly idled: its counters stood still, and no request of ours was with it.
    """

    active: Spans
    unknown: Spans
    perhaps: Spans

    @property
    def counted_s(self) -> float:
        """What its GPU's utilisation is a mean over."""
        return length_s(self.active) + length_s(self.unknown)

    @property
    def at_most_s(self) -> float:
        return length_s(self.perhaps)


def inferring(recording: Recording, limits: GpuLimits) -> dict[str, Inferring]:
    """When each server inferred, for every server that any source knows of."""
    asserted = asserted_spans(recording)
    counters = by_key(recording.triton, lambda sample: str(sample["server"]))
    answered = _answered(recording)
    found = {}
    for server, life in _lives(recording, answered).items():
        alive = overlap(asserted, (life,))
        steps = _steps(counters.get(server, []), limits)
        unknown = without(alive, tuple((step.start, step.end) for step in steps))
        moved = tuple((step.start, step.end) for step in steps if step.moved)
        asked_s = answered.get(server, np.empty((0, 2)))
        perhaps = _union(np.concatenate((asked_s, np.reshape((*unknown, *moved), (-1, 2)))))
        found[server] = Inferring(overlap(alive, _active(steps, limits)), unknown, overlap(alive, perhaps))
    return found


def _answered(recording: Recording) -> dict[str, FloatArray]:
    """When each server's answers were asked for and when they came, Unix seconds; one row for each answer."""
    requests = recording.requests
    sent_us, done_us = stamps(requests, "sent_us"), stamps(requests, "done_us")
    known = np.isfinite(sent_us) & np.isfinite(done_us)
    both_s = recording.plan.started_at + np.column_stack((sent_us, done_us)) / US_PER_S
    servers = pc.unique(pc.drop_null(column(requests, "served_by"))).to_pylist()
    found = {server: both_s[known & is_in(requests, "served_by", [server])] for server in servers}
    return {server: own_s for server, own_s in found.items() if len(own_s)}


def _lives(recording: Recording, answered: dict[str, FloatArray]) -> dict[str, tuple[float, float]]:
    """From the first to the last sign of each server: its counters, its GPU, its answers. Unix seconds."""
    signs = {server: [float(own_s[:, 1].min()), float(own_s[:, 1].max())] for server, own_s in answered.items()}
    for sample in (*recording.triton, *recording.gpu):
        signs.setdefault(str(sample["server"]), []).append(float(sample["at"]))
    return {server: (min(times), max(times)) for server, times in signs.items()}


def _union(stretches: FloatArray) -> Spans:
    """The time that is in any of some stretches, each a row of its start and its end."""
    if not len(stretches):
        return ()
    starts, ends = stretches[np.argsort(stretches[:, 0])].T
    ends = np.maximum.accumulate(ends)
    first = np.concatenate(([True], starts[1:] > ends[:-1]))
    return tuple(zip(starts[first].tolist(), ends[np.roll(first, -1)].tolist(), strict=True))


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
