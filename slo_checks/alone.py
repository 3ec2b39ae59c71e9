"""The run as the service alone shaped it, with the load generator's own part taken out [pure]."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Final

import numpy as np

from loadtests.recording import Recording
from slo_checks.asserted import US_PER_S, BoolArray, FloatArray, by_key, column, only, stamps, waited_until_us
from slo_checks.objectives import Measurement, Objective

MATERIAL_RATIO: Final = 0.1
"""A standstill shorter than this share of a latency objective's bound cannot decide it."""


def service_alone(recording: Recording, objective: Objective, limits: Measurement, *, unsent: bool) -> Recording:
    """A run whose misses are the service's, however bad the generator was; `unsent` keeps what was not sent.

    What was sent counts as due when it was sent. But a load process that stands still also reads late what was answered
    meanwhile, or takes it for lost; then all that is overdue leaves at once, and queues at the service. So a request
    that was sent or ended while one stood still, or within as long again, is left out. One that was sent before and
    ended later was read when it ended.
    """
    requests = recording.requests
    intended_us, sent_us, done_us = (stamps(requests, name) for name in ("intended_us", "sent_us", "done_us"))
    was_sent = np.isfinite(sent_us)
    due_us = np.where(was_sent, sent_us, intended_us)
    ended_us = np.where(np.isfinite(done_us), done_us, waited_until_us(recording))
    delays_us = _delays_us(recording, intended_us, sent_us, _material_s(objective, limits))
    silences_us = _silences_us(recording, limits.silence_most_s)
    disturbed_us = _disturbed_us(np.concatenate((delays_us, silences_us)))
    kept = (was_sent | unsent) & ~_inside(disturbed_us, due_us) & ~_inside(disturbed_us, ended_us)
    return replace(recording, requests=only(requests.assign(intended_us=due_us), kept))


def _material_s(objective: Objective, limits: Measurement) -> float:
    """How late a request has to leave to show a standstill that matters to an objective."""
    stood_still_s = limits.silence_most_s if limits.lag_worst_s is None else limits.lag_worst_s
    if objective.indicator != "latency":
        return stood_still_s
    return max(limits.lag_p99_most_s, min(stood_still_s, MATERIAL_RATIO * objective.bound))


def _delays_us(recording: Recording, intended_us: FloatArray, sent_us: FloatArray, longest_s: float) -> FloatArray:
    """Start and end of each stretch in which a request was due, and its load process sent nothing that was in time.

    One request that is late among others in time shows no standstill.
    """
    workers = np.asarray(column(recording.requests, "worker").to_numpy())
    was_sent, longest_us = np.isfinite(sent_us), longest_s * US_PER_S
    late = was_sent & (np.where(was_sent, sent_us, 0.0) - intended_us > longest_us)
    found = [np.empty((0, 2))]
    for worker in np.unique(workers[late]).tolist():
        mine = workers == worker
        in_time_us = np.append(-np.inf, np.sort(sent_us[mine & was_sent & ~late]))
        end_us = sent_us[mine & late]
        alive_us = in_time_us[np.searchsorted(in_time_us, end_us, side="left") - 1]
        found.append(np.column_stack((np.maximum(intended_us[mine & late], alive_us), end_us)))
    delays_us = np.concatenate(found)
    return delays_us[delays_us[:, 1] - delays_us[:, 0] > longest_us]


def _silences_us(recording: Recording, longest_s: float) -> FloatArray:
    """Start and end of each stretch in which a load process left no sample of itself, after the start of the run."""
    found: list[tuple[float, float]] = []
    for samples in by_key(recording.client, lambda sample: sample["worker"]).values():
        at_s = [float(sample["at"]) - recording.plan.started_at for sample in samples]
        found += [(before, after) for before, after in pairwise(at_s) if after - before > longest_s]
    return np.array(found).reshape(-1, 2) * US_PER_S


def _disturbed_us(standstills_us: FloatArray) -> FloatArray:
    """Start and end of what standstills disturbed, by start: those that overlap are one, and it lasts twice as long."""
    if not len(standstills_us):
        return standstills_us
    start_us, end_us = standstills_us[np.argsort(standstills_us[:, 0], kind="stable")].T
    end_us = np.maximum.accumulate(end_us)
    last = np.append(start_us[1:] > end_us[:-1], True)
    first = np.append(True, last[:-1])
    return np.column_stack((start_us[first], np.maximum.accumulate(2 * end_us[last] - start_us[first])))


def _inside(disturbed_us: FloatArray, moments_us: FloatArray) -> BoolArray:
    """Whether each moment lies in one of the stretches, its ends included."""
    if not len(disturbed_us):
        return np.zeros(len(moments_us), dtype=np.bool_)
    start_us, end_us = disturbed_us.T
    return np.asarray(moments_us <= np.append(-np.inf, end_us)[np.searchsorted(start_us, moments_us, side="right")])
