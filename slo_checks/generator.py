"""Whether the load generator did its part: on time, not overloaded, never out of places for waiting requests [pure]."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, Final

import numpy as np

from loadtests.recording import NOT_SENT, Recording
from slo_checks.asserted import (
    US_PER_S,
    FloatArray,
    IntArray,
    asserted_phases,
    asserted_rows,
    asserted_spans,
    by_key,
    column,
    is_in,
    longest_silence_s,
    stamps,
)
from slo_checks.estimate import nearest_rank, share_bounds
from slo_checks.objectives import Measurement, Objectives
from slo_checks.validity import Effect, ValidityCheck

LAG_QUANTILE: Final = 0.99
LAG_CONFIDENCE: Final = 0.95


def generator(recording: Recording, objectives: Objectives) -> list[ValidityCheck]:
    """Checks of the generator in asserted phases."""
    checks = {
        "generator_lag": _lag(recording, objectives.measurement),
        "generator_cpu": _cpu(recording, objectives.measurement),
        "in_flight_cap": _cap(recording, objectives),
    }
    return [ValidityCheck(name, ok, reason, Effect.GENERATOR) for name, (ok, reason) in checks.items()]


def _lag(recording: Recording, limits: Measurement) -> tuple[bool | None, str]:
    """Late when the data prove it: of few requests the p99 is the single worst one, and one hiccup is no verdict.

    With many requests this is the same as p99 over the limit. A single one that is very late is a frozen client.
    """
    rows = asserted_rows(recording)
    lag_s = np.sort((rows.sent_us - rows.intended_us)[np.isfinite(rows.sent_us)]) / US_PER_S
    if not len(lag_s):
        return None, "no request was sent in a judged phase, so the generator's lateness is not known"
    p99_s = float(lag_s[nearest_rank(len(lag_s), LAG_QUANTILE) - 1])
    late, worst_s = int((lag_s > limits.lag_p99_most_s).sum()), float(lag_s[-1])
    told = (
        f"p99 of sent - intended is {p99_s * 1e3:.2f} ms; {late:,} of {len(lag_s):,} requests left more than "
        f"{limits.lag_p99_most_s * 1e3:g} ms late"
    )
    if limits.lag_worst_s is not None and worst_s > limits.lag_worst_s:
        frozen = f"one left {worst_s:.2f} s late, at most {limits.lag_worst_s:g} s are allowed"
        return False, f"the generator stood still: {frozen}; {told}"
    late_share, _ = share_bounds(late, len(lag_s), LAG_CONFIDENCE)
    if late_share > 1 - LAG_QUANTILE:
        return False, f"the generator was late: {told}, more than {1 - LAG_QUANTILE:.0%}; use more load processes"
    return True, f"{told} (at most {1 - LAG_QUANTILE:.0%} may)"


def _cpu(recording: Recording, limits: Measurement) -> tuple[bool | None, str]:
    """Mean use of a core in each load process's busiest stretch of some seconds.

    A shorter peak shows in the lag, if it matters. A process too busy to take its samples could not be checked.
    """
    samples = by_key(tuple(filter(_tells_of_cpu, recording.client)), lambda sample: sample["worker"])
    found: list[tuple[float, int]] = []
    for worker, (start_s, end_s) in product(range(recording.plan.workers), asserted_spans(recording)):
        own = samples.get(worker, [])
        silence_s = longest_silence_s([float(sample["at"]) for sample in own], start_s, end_s)
        if silence_s > limits.silence_most_s:
            return None, f"load process {worker} left no sample of itself for {silence_s:.0f} s"
        # A sample tells of the second before it.
        inside = [sample for sample in own if start_s < float(sample["at"]) <= end_s + 1]
        if not inside:
            return None, f"load process {worker} left no sample of itself in a judged phase"
        found.append((_busiest(inside, limits.cpu_window_s), worker))
    if not found:
        return None, "the run ended before a judged phase began"
    ratio, worker = max(found)
    told = f"load process {worker} used {ratio:.0%} of a core in its busiest {limits.cpu_window_s:g} s"
    if ratio > limits.cpu_most_ratio:
        return False, f"the generator was overloaded: {told}, at most {limits.cpu_most_ratio:.0%} are allowed"
    return True, f"{told} (at most {limits.cpu_most_ratio:.0%})"


def _tells_of_cpu(sample: dict[str, Any]) -> bool:
    """A sample without a finite number is none: a comparison with NaN would let it pass."""
    ratio = sample.get("cpu_ratio")
    return ratio is not None and math.isfinite(ratio)


def _busiest(samples: list[dict[str, Any]], window_s: float) -> float:
    """Highest mean of the samples that lie within one window."""
    at_s, ratio = np.array([(float(sample["at"]), float(sample["cpu_ratio"])) for sample in samples]).T
    # A window of 10 s holds the samples of at - 10 s exclusively to at inclusively.
    first = np.searchsorted(at_s, at_s - window_s, side="right")
    sums = np.concatenate(([0.0], np.cumsum(ratio)))
    last = np.arange(1, len(at_s) + 1)
    means = (sums[last] - sums[first]) / (last - first)
    # The first windows are not full yet: one busy second at the start is no busy stretch.
    full = at_s - at_s[0] >= window_s - 1.5
    return float(means[full].max()) if full.any() else float(ratio.mean())


def _cap(recording: Recording, objectives: Objectives) -> tuple[bool, str]:
    """Whether requests were held back although the service had done nothing wrong yet.

    When most of the places in flight are taken by requests that are still within the latency objective, the cap is too
    small for this rate; when half of them have waited longer, it is the service that holds the callers up.
    """
    requests = recording.requests
    held_back = is_in(requests, "status", [NOT_SENT]) & is_in(requests, "phase", asserted_phases(recording))
    if not held_back.any():
        return True, "every due request was sent"
    limit = objectives.latency
    limit_s = limit.bound if limit else recording.plan.scenario.deadline_s
    cap = recording.plan.scenario.in_flight_cap
    workers = np.asarray(column(requests, "worker").to_numpy())
    intended_us, sent_us, done_us = (stamps(requests, name) for name in ("intended_us", "sent_us", "done_us"))
    too_old_us = sent_us + limit_s * US_PER_S
    slow = done_us > too_old_us
    own_fault = 0
    for worker in np.unique(workers[held_back]).tolist():
        mine = workers == worker
        old = _under_way(too_old_us[mine & slow], done_us[mine & slow], intended_us[mine & held_back])
        own_fault += int((2 * old < cap).sum())
    total = int(held_back.sum())
    if own_fault:
        return False, (
            f"{own_fault:,} of {total:,} unsent requests were held back while most of the {cap} in flight were younger "
            f"than {limit_s:g} s: the cap is too small for this rate; raise in_flight_cap or use more load processes"
        )
    return True, (
        f"{total:,} requests were not sent, each while half of the {cap} in flight had waited over {limit_s:g} s for "
        "the service"
    )


def _under_way(begin_us: FloatArray, end_us: FloatArray, moments_us: FloatArray) -> IntArray:
    """How many of the stretches between `begin_us` and `end_us` hold each moment."""
    begun = np.searchsorted(np.sort(begin_us), moments_us, side="left")
    return begun - np.searchsorted(np.sort(end_us), moments_us, side="right")
