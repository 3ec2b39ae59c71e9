"""GPU utilisation while the server of that GPU inferred [pure].

The interval is no statistics: it is what the run's utilisation can be at most and at least, when all inferring time
without a valid reading was spent idle, or busy. Taking readings away can therefore never prove anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, islice, pairwise
from operator import itemgetter
from typing import Final

import numpy as np

from loadtests.recording import Recording
from slo_checks.asserted import by_key, time_before
from slo_checks.estimate import Estimate, unmeasured
from slo_checks.inferring import Inferring, Sample, inferring
from slo_checks.objectives import GpuLimits, Objective, Objectives

BUSY_ALL_THE_TIME: Final = 0.99
"""A reading this high may stand still on a healthy GPU; its power does not."""
FAR_APART: Final = 0.15
UUIDS: Final = ("GPU-", "MIG-")
"""How the UUIDs of NVIDIA's devices begin."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU's busy ratio while any of its servers inferred. ``doubt`` says why it cannot be believed.

    ``samples`` counts measurements: a reading that repeats the one before is none.
    """

    gpu: str
    servers: tuple[str, ...]
    inferred_at_most_s: float
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
        return f"{emulated}GPU {self.gpu} of {', '.join(self.servers)}: {value}{p10}, {covered}{remark}"


def gpu_utilisation(recording: Recording, _: Objective, objectives: Objectives) -> Estimate:
    """Busy ratio of the GPU that was used worst, among those that inferred long enough to be judged.

    A GPU that cannot be believed may be worse than all others, so it bounds nothing from below; the others still bound
    the worst of all from above.
    """
    if not recording.gpu:
        return unmeasured("nothing observed GPUs in this run (no GPU sample was recorded)")
    emulated = any(sample.get("emulated") for sample in recording.gpu)
    if not recording.triton:
        return unmeasured("nothing tells when the GPUs inferred (no server counter was recorded)", emulated=emulated)
    limits, servers = objectives.gpu, inferring(recording, objectives.gpu)
    uses = [_use(gpu, series, servers, limits) for gpu, series in _series(recording).items()]
    uses.sort(key=lambda use: -1.0 if use.value is None else use.value)
    judged = [use for use in uses if use.inferred_at_most_s >= limits.active_least_s]
    blind = {server: when for server, when in servers.items() if not any(server in use.servers for use in uses)}
    doubts = _doubts(uses, judged, blind, limits)
    return Estimate(
        value=min((use.value for use in judged if use.value is not None), default=None),
        low=None if doubts else min(use.low for use in judged),
        high=min((use.high for use in judged if not use.doubt), default=None),
        samples=min((use.samples for use in judged), default=0),
        reason="; ".join(doubts) or None, emulated=emulated, evidence=_evidence(uses, judged, blind),
    )  # fmt: skip


def _doubts(uses: list[GpuUse], judged: list[GpuUse], blind: dict[str, Inferring], limits: GpuLimits) -> list[str]:
    """Why the worst of all GPUs may be worse than any that was read; servers without a GPU sample may share one."""
    doubts = [f"GPU {use.gpu}: {use.doubt}" for use in judged if use.doubt]
    if sum(when.at_most_s for when in blind.values()) >= limits.active_least_s:
        doubts.append(f"no GPU sample of {', '.join(sorted(blind))}, which inferred")
    if judged or doubts:
        return doubts
    longest_s = max(use.inferred_at_most_s for use in uses)
    return [f"GPUs inferred for {longest_s:.0f} s at most in the judged phases; {limits.active_least_s:g} s are needed"]


def _evidence(uses: list[GpuUse], judged: list[GpuUse], blind: dict[str, Inferring]) -> tuple[str, ...]:
    values = [use.value for use in judged if use.value is not None]
    mean = [f"mean over {len(values)} GPUs: {sum(values) / len(values):.1%}"] if len(values) > 1 else []
    others = [(use.inferred_at_most_s, use.told()) for use in uses if use not in judged]
    others += [(when.at_most_s, f"no GPU sample of {server}") for server, when in blind.items()]
    return (
        *(use.told() for use in judged), *mean,
        *(f"not judged, having inferred for {at_most_s:.0f} s at most: {told}" for at_most_s, told in others),
    )  # fmt: skip


def _series(recording: Recording) -> dict[str, dict[str, list[Sample]]]:
    """Samples of each GPU by the server that it worked for, in the order in which servers came to it."""
    gpus: dict[str, dict[str, list[Sample]]] = {}
    for (gpu, server), samples in by_key(recording.gpu, lambda row: (_device(row), str(row["server"]))).items():
        gpus.setdefault(gpu, {})[server] = samples
    return gpus


def _device(sample: Sample) -> str:
    """A UUID is one GPU wherever it is; anything else is a number that another server's GPU may have too."""
    name = str(sample["gpu"])
    return name if name.startswith(UUIDS) else f"{sample['server']}/{name}"


@dataclass(frozen=True, slots=True)
class Reading:
    """A valid reading and how much inferring time it stands for; ``is_new`` if it is no repetition."""

    value: float
    weight_s: float
    busy_s: float | None
    is_new: bool


def _use(gpu: str, series: dict[str, list[Sample]], servers: dict[str, Inferring], limits: GpuLimits) -> GpuUse:
    """Readings and inferring time of one GPU, added up over its servers."""
    samples = [sample for own in series.values() for sample in own]
    has_engine = any(_ratio(sample, "engine_active_ratio") is not None for sample in samples)
    field = "engine_active_ratio" if has_engine else "util_ratio"
    emulated = any(bool(sample.get("emulated")) for sample in samples)
    readings = _readings(series, field, servers, limits)
    weight_s = sum(reading.weight_s for reading in readings)
    busy_s = sum(reading.value * reading.weight_s for reading in readings)
    at_most_s = sum(servers[server].at_most_s for server in series)
    counted_s = sum(servers[server].counted_s for server in series)
    value = busy_s / weight_s if weight_s else None
    coverage = weight_s / counted_s if counted_s else 0.0
    low = busy_s / counted_s if counted_s else 0.0
    return GpuUse(
        gpu, tuple(series), at_most_s, _measurements(readings), value,
        low=low, high=low + max(0.0, 1 - coverage),
        coverage_ratio=coverage,
        p10=float(np.quantile([r.value for r in readings], 0.1, method="inverted_cdf")) if readings else None,
        emulated=emulated, doubt=_doubt(readings, counted_s, emulated=emulated, limits=limits),
        remark=_remark(samples),
    )  # fmt: skip


def _measurements(readings: list[Reading]) -> int:
    """How many of the readings were measured anew, the first of them included."""
    return int(bool(readings)) + sum(reading.is_new for reading in readings[1:])


def _doubt(readings: list[Reading], counted_s: float, *, emulated: bool, limits: GpuLimits) -> str | None:
    """Why the readings cannot be believed; None if they can."""
    if counted_s < limits.active_least_s:
        least = f"{limits.active_least_s:g} s are needed"
        return f"it inferred now and then, without a pause for {counted_s:.0f} s only; {least}"
    weight_s = sum(reading.weight_s for reading in readings)
    coverage = weight_s / counted_s
    if coverage < limits.coverage_least_ratio or not readings:
        return f"valid readings for {coverage:.1%} of its inferring time; {limits.coverage_least_ratio:.0%} are needed"
    witnessed = [reading for reading in readings if reading.busy_s is not None]
    if not emulated and not witnessed:
        return None
    witnessed_s = sum(reading.weight_s for reading in witnessed)
    if witnessed_s < limits.coverage_least_ratio * weight_s:
        return "an emulated device without its exact busy time"
    exact = sum(reading.busy_s or 0.0 for reading in witnessed) / witnessed_s
    read = sum(reading.value * reading.weight_s for reading in witnessed) / witnessed_s
    if abs(exact - read) > limits.witness_most_ratio:
        return f"readings say {read:.1%}, the exact busy time says {exact:.1%}"
    return None


def _readings(
    series: dict[str, list[Sample]], field: str, servers: dict[str, Inferring], limits: GpuLimits
) -> list[Reading]:
    """Valid readings in inferring time. A reading stands for the time since the one before it.

    Whether the sensor moved is asked of the whole series: under a server that came later it is the same sensor.
    """
    samples = [sample for own in series.values() for sample in own]
    sensor = zip(_alive(samples, field, limits), _measured(samples, field), strict=True)
    found = []
    for server, own in series.items():
        stamps_s = np.array([float(sample["at"]) for sample in own])
        steps_s, inside_s = np.diff(stamps_s).tolist(), np.diff(time_before(servers[server].active, stamps_s)).tolist()
        facts = list(islice(sensor, len(own)))[1:]
        for (before, after), (alive, is_new), step_s, weight_s in zip(
            pairwise(own), facts, steps_s, inside_s, strict=True
        ):
            value = _ratio(after, field)
            if value is not None and alive and weight_s > 0 and step_s <= 2 * limits.sample_interval_s:
                found.append(Reading(value, weight_s, _busy_s(before, after, weight_s / step_s), is_new))
    return found


def _busy_s(before: Sample, after: Sample, share: float) -> float | None:
    """Exact busy time of the part of an interval that counts; None without a counter, or when it went back."""
    first, last = _number(before, "busy_s"), _number(after, "busy_s")
    if first is None or last is None or last < first:
        return None
    return (last - first) * share


def _alive(samples: list[Sample], field: str, limits: GpuLimits) -> list[bool]:
    """Whether each reading may be believed to come from a sensor that still moves."""
    believed: list[bool] = []
    for _, run in groupby(zip(_shown(samples, field), samples, strict=True), key=itemgetter(0)):
        same = [sample for _, sample in run]
        stamps_s = [float(sample["at"]) for sample in same]
        lasted_s = max(stamps_s) - min(stamps_s)
        witness = all(_number(sample, "busy_s") is not None for sample in same if _ratio(sample, field) is not None)
        believed += [lasted_s <= limits.unchanged_most_s or witness] * len(same)
    return believed


def _measured(samples: list[Sample], field: str) -> list[bool]:
    """Whether each sample is another measurement than the one before: an exporter may repeat its last for long."""
    busy_s = _kept(_number(sample, "busy_s") for sample in samples)
    seen = zip(_shown(samples, field), busy_s, strict=True)
    return [True, *(after != before for before, after in pairwise(seen))]


def _shown(samples: list[Sample], field: str) -> list[tuple[float | None, float | None]]:
    """What the sensor shows at each sample, and at saturation its power: there it may rightly show one value."""
    ratios = _kept(_ratio(sample, field) for sample in samples)
    watts = _kept(_number(sample, "power_watts") for sample in samples)
    return [
        (ratio, power if ratio is not None and ratio >= BUSY_ALL_THE_TIME else None)
        for ratio, power in zip(ratios, watts, strict=True)
    ]


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
