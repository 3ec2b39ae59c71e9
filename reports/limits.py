"""What the figures draw as lines that a curve should stay under: the limits that the run was judged by [pure]."""

from __future__ import annotations

from dataclasses import dataclass

from slo_checks.verdict import RunVerdict


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in ms, and the percentile that it holds for: ``p95``, ``p99.9``."""

    percentile: str
    ms: float


@dataclass(frozen=True, slots=True)
class Limits:
    """One limit for each objective on latency, and that of the generator's own lag."""

    latency: tuple[Limit, ...]
    lag: Limit


def limits(verdict: RunVerdict) -> Limits:
    objectives = verdict.objectives.objectives.values()
    latency = tuple(
        Limit(f"p{objective.percentile * 100:g}", objective.bound * 1e3)
        for objective in objectives
        if objective.percentile is not None
    )
    return Limits(tuple(dict.fromkeys(latency)), Limit("p99", verdict.objectives.measurement.lag_p99_most_s * 1e3))
