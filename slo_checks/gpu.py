"""GPU utilisation while the server of that GPU inferred [pure].

The interval is no statistics: it is what the run's utilisation can be at most and at least, when all inferring time
without a valid reading was spent idle, or busy. Taking readings away can therefore never prove anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Final

import numpy as np

from loadtests.recording import Recording
from slo_checks.asserted import Spans, by_key, length_s, time_before
from slo_checks.estimate import Estimate, unmeasured
from slo_checks.inferring import Inferring, Sample, inferring
from slo_checks.objectives import GpuLimits, Objective, Objectives

BUSY_ALL_THE_TIME: Final = 0.99
"""A reading this high may stand still on a healthy GPU; its power does not."""
FAR_APART: Final = 0.15


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU's busy ratio while its server inferred. ``doubt`` says why it cannot be believed.

    ``samples`` counts measurements: a reading that repeats the one before is none.
    """

    gpu: str
    server: str
    samples: int
    value: float | None
    low: float
    high: float
    coverage_ratio: float
    p10: float | None
    emulated: bool
    doubt: str | None
    remark: str | None

    def told(self) -> str:
        value = "no valid reading" if self.value is None else f"{self.value:.1%} busy"
        p10 = "" if self.p10 is None else f", lowest tenth {self.p10:.1%}"
        remark = f"; {self.remark}" if self.remark else ""
        emulated = "emulated " if self.emulated else ""
        covered = f"{self.coverage_ratio:.1%} of its inferring time read"
        return f"{emulated}GPU {self.gpu} of {self.server}: {value}{p10}, {covered}{remark}"


def gpu_utilisation(recording: Recording, _: Objective, objectives: Objectives) -> Estimate:
    """Busy ratio of the GPU that was used worst, among those that inferred long enough to be judged."""
    if not recording.gpu:
        return unmeasured("nothing observed GPUs in this run (no GPU sample was recorded)")
    emulated = any(sample.get("emulated") for sample in recording.gpu)
    if not recording.triton:
        return unmeasured("nothing tells when the GPUs inferred (no server counter was recorded)", emulated=emulated)
    limits = objectives.gpu
    servers = inferring(recording, limits)
    judged = {server: when for server, when in servers.items() if when.at_most_s >= limits.active_least_s}
    devices = by_key(recording.gpu, lambda sample: (sample["gpu"], sample["server"]))
    unwatched = sorted(set(judged) - {server for _gpu, server in devices})
    if unwatched:
        return unmeasured(f"no GPU sample of {', '.join(unwatched)}, which inferred", emulated=emulated)
    uses = [
        _use(gpu, server, samples, judged[server], limits)
        for (gpu, server), samples in devices.items() if server in judged
    ]  # fmt: skip
    if not uses:
        longest = max((length_s(when.active) for when in servers.values()), default=0.0)
        inferred = f"GPUs inferred for {longest:.0f} s at most in the judged phases"
        return unmeasured(f"{inferred}; {limits.active_least_s:g} s are needed", emulated=emulated)
    return _worst(uses)


def _worst(uses: list[GpuUse]) -> Estimate:
    uses = sorted(uses, key=lambda use: -1.0 if use.value is None else use.value)
    values = [use.value for use in uses if use.value is not None]
    samples, emulated = min(use.samples for use in uses), any(use.emulated for use in uses)
    evidence = [use.told() for use in uses]
    if len(values) > 1:
        evidence.append(f"mean over {len(values)} GPUs: {sum(values) / len(values):.1%}")
    doubts = [f"GPU {use.gpu}: {use.doubt}" for use in uses if use.doubt]
    value = min(values, default=None)
    if doubts:
        return Estimate(value, None, None, samples, None, "; ".join(doubts), emulated, tuple(evidence))
    low, high = min(use.low for use in uses), min(use.high for use in uses)
    return Estimate(value, low, high, samples, None, None, emulated, tuple(evidence))


@dataclass(frozen=True, slots=True)
class Reading:
    """A valid reading and how much inferring time it stands for; ``is_new`` if it is no repetition."""

    value: float
    weight_s: float
    busy_s: float | None
    is_new: bool


def _use(gpu: str, server: str, samples: list[Sample], when: Inferring, limits: GpuLimits) -> GpuUse:
    has_engine = any(_ratio(sample, "engine_active_ratio") is not None for sample in samples)
    field = "engine_active_ratio" if has_engine else "util_ratio"
    emulated = any(bool(sample.get("emulated")) for sample in samples)
    readings = _readings(samples, field, when.active, limits)
    weight_s = sum(reading.weight_s for reading in readings)
    busy_s = sum(reading.value * reading.weight_s for reading in readings)
    possible_s = when.at_most_s
    value = busy_s / weight_s if weight_s else None
    coverage = weight_s / possible_s
    doubt = _doubt(value, readings, coverage, emulated=emulated, limits=limits)
    return GpuUse(
        gpu, server, _measurements(readings), value,
        low=busy_s / possible_s,
        high=(busy_s + max(0.0, possible_s - weight_s)) / possible_s,
        coverage_ratio=coverage,
        p10=float(np.quantile([r.value for r in readings], 0.1, method="inverted_cdf")) if readings else None,
        emulated=emulated, doubt=doubt, remark=_remark(samples),
    )  # fmt: skip


def _measurements(readings: list[Reading]) -> int:
    """How many of the readings were measured anew, the first of them included."""
    return int(bool(readings)) + sum(reading.is_new for reading in readings[1:])


def _doubt(
    value: float | None, readings: list[Reading], coverage: float, *, emulated: bool, limits: GpuLimits
) -> str | None:
    """Why the readings cannot be believed; None if they can."""
    if coverage < limits.coverage_least_ratio or value is None:
        return f"valid readings for {coverage:.1%} of its inferring time; {limits.coverage_least_ratio:.0%} are needed"
    witnessed = [reading for reading in readings if reading.busy_s is not None]
    if not emulated and not witnessed:
        return None
    witnessed_s = sum(reading.weight_s for reading in witnessed)
    if witnessed_s < limits.coverage_least_ratio * sum(reading.weight_s for reading in readings):
        return "an emulated device without its exact busy time"
    exact = sum(reading.busy_s or 0.0 for reading in witnessed) / witnessed_s
    read = sum(reading.value * reading.weight_s for reading in witnessed) / witnessed_s
    if abs(exact - read) > limits.witness_most_ratio:
        return f"readings say {read:.1%}, the exact busy time says {exact:.1%}"
    return None


def _readings(samples: list[Sample], field: str, active: Spans, limits: GpuLimits) -> list[Reading]:
    """Valid readings in inferring time. A reading stands for the time since the one before it."""
    stamps_s = np.array([float(sample["at"]) for sample in samples])
    steps_s, inside_s = np.diff(stamps_s).tolist(), np.diff(time_before(active, stamps_s)).tolist()
    alive, measured = _alive(samples, field, limits)[1:], _measured(samples, field)[1:]
    found = []
    steps = zip(pairwise(samples), alive, measured, steps_s, inside_s, strict=True)
    for (before, after), believed, is_new, step_s, weight_s in steps:
        value = _ratio(after, field)
        if value is not None and believed and weight_s > 0 and step_s <= 2 * limits.sample_interval_s:
            found.append(Reading(value, weight_s, _busy_s(before, after, weight_s / step_s), is_new))
    return found


def _busy_s(before: Sample, after: Sample, share: float) -> float | None:
    """Exact busy time of the part of an interval that counts; None without a counter, or when it went back."""
    first, last = _number(before, "busy_s"), _number(after, "busy_s")
    if first is None or last is None or last < first:
        return None
    return (last - first) * share


def _alive(samples: list[Sample], field: str, limits: GpuLimits) -> list[bool]:
    """Whether each reading may be believed to come from a sensor that still moves; at saturation its power has to."""
    ratios = _kept(_ratio(sample, field) for sample in samples)
    watts = _kept(_number(sample, "power_watts") for sample in samples)
    shown = [
        (ratio, power if ratio is not None and ratio >= BUSY_ALL_THE_TIME else None)
        for ratio, power in zip(ratios, watts, strict=True)
    ]
    believed: list[bool] = []
    for _, run in groupby(zip(shown, samples, strict=True), key=itemgetter(0)):
        same = [sample for _shown, sample in run]
        lasted_s = float(same[-1]["at"]) - float(same[0]["at"])
        witness = all(_number(sample, "busy_s") is not None for sample in same if _ratio(sample, field) is not None)
        believed += [lasted_s <= limits.unchanged_most_s or witness] * len(same)
    return believed


def _measured(samples: list[Sample], field: str) -> list[bool]:
    """Whether each sample is another measurement than the one before: an exporter may repeat its last for long."""
    seen = zip(
        _kept(_ratio(sample, field) for sample in samples),
        *(_kept(_number(sample, name) for sample in samples) for name in ("power_watts", "busy_s")),
        strict=True,
    )
    return [True, *(after != before for before, after in pairwise(seen))]


def _kept(values: Iterable[float | None]) -> list[float | None]:
    """Each value, or the last one before it where it is absent: an absence is no sign of life."""
    kept: list[float | None] = []
    for value in values:
        kept.append(kept[-1] if value is None and kept else value)
    return kept


def _number(sample: Sample, field: str) -> float | None:
    value = sample.get(field)
    return float(value) if value is not None and math.isfinite(value) else None


def _ratio(sample: Sample, field: str) -> float | None:
    """A reading in range; absent, NaN and the sensor's own words for "no value" (1e15 and up) are none."""
    value = _number(sample, field)
    return value if value is not None and 0 <= value <= 1 else None


def _remark(samples: Iterable[Sample]) -> str | None:
    """Whether the two readings of busyness disagree; the verdict never mixes them."""
    both = [(_ratio(sample, "engine_active_ratio"), _ratio(sample, "util_ratio")) for sample in samples]
    pairs = [(engine, util) for engine, util in both if engine is not None and util is not None]
    if not pairs:
        return None
    engine, util = np.mean(pairs, axis=0).tolist()
    if abs(engine - util) <= FAR_APART:
        return None
    return f"its two readings are far apart: engine active {engine:.1%}, utilisation {util:.1%}"
