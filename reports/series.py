"""Recording -> arrays on one time axis, for the timeline [pure]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from loadtests.recording import FAILURES, IN_FLIGHT, NOT_SENT, OK, Plan, Recording
from reports.bins import FloatArray, Sample, bin_edges_s, greatest, mean, most_in_flight, quantiles_by_bin, rate_per_s
from reports.columns import UNSTAMPED, RequestColumns, request_columns
from reports.events import Mark, marks, remarkable

QUANTILES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
BAD: Final = (*FAILURES, IN_FLIGHT, NOT_SENT, UNSTAMPED)
UNKNOWN_STATUS: Final = "unknown"
MOST_SERVERS: Final = 7
MOST_MARKS: Final = 40
OTHER_SERVERS: Final = "other servers"


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """A phase of the schedule, in seconds after the run's start."""

    name: str
    start_s: float
    end_s: float
    warm_up: bool


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run on one time axis. ``edges_s`` has one value more than every other array: the borders of the bins.

    Rates are per second. ``response_ms`` holds percentiles by intended time over all that was scheduled; a request
    without a good answer counts as infinitely late, so a value is infinite where too few were answered well.
    ``failed_per_s`` has a class only if it occurred. ``gpu_busy_ratio`` is keyed by server and device. ``marks`` are
    the first of the events that deserve a line, ``marks_left_out`` counts the others.
    """

    edges_s: FloatArray
    offered_per_s: FloatArray
    served_per_s: FloatArray
    failed_per_s: dict[str, FloatArray]
    response_ms: dict[str, FloatArray]
    lag_p99_ms: FloatArray
    lag_worst_ms: FloatArray
    in_flight: FloatArray
    answers_per_s: dict[str, FloatArray]
    client_cpu_ratio: FloatArray
    queued: FloatArray
    gpu_busy_ratio: dict[str, FloatArray]
    gpu_emulated: bool
    phases: tuple[PhaseSpan, ...]
    marks: tuple[Mark, ...]
    marks_left_out: int

    @property
    def bin_s(self) -> float:
        """Width of the bins; only the last may differ."""
        return float(self.edges_s[1])

    @property
    def end_s(self) -> float:
        return float(self.edges_s[-1])


def timeline(recording: Recording) -> Timeline | None:
    """The run on one time axis, or None when the recording has no request rows."""
    if recording.requests.empty:
        return None
    rows = request_columns(recording.requests)
    started_at = recording.plan.started_at
    edges_s = bin_edges_s(_end_s(recording, rows))
    phases = phase_spans(recording.plan)
    lines = remarkable(marks(recording), phases[-1].end_s, float(edges_s[-1]))
    lag = quantiles_by_bin(edges_s, rows.intended_s, rows.lag_ms, {"p99": 0.99, "worst": 1.0})
    return Timeline(
        edges_s=edges_s,
        offered_per_s=rate_per_s(edges_s, rows.intended_s),
        served_per_s=rate_per_s(edges_s, rows.done_s[rows.having(OK)]),
        failed_per_s=_failed_per_s(edges_s, rows),
        response_ms=quantiles_by_bin(edges_s, rows.intended_s, rows.response_ms, QUANTILES),
        lag_p99_ms=lag["p99"],
        lag_worst_ms=lag["worst"],
        in_flight=most_in_flight(edges_s, rows.sent_s, rows.done_s),
        answers_per_s=_answers_per_s(edges_s, rows),
        client_cpu_ratio=_client_cpu(edges_s, recording.client, started_at),
        queued=_queued(edges_s, recording.triton, started_at),
        gpu_busy_ratio=_gpu_busy(edges_s, recording.gpu, started_at),
        gpu_emulated=any(sample.get("emulated") for sample in recording.gpu),
        phases=phases,
        marks=lines[:MOST_MARKS],
        marks_left_out=len(lines[MOST_MARKS:]),
    )


def phase_spans(plan: Plan) -> tuple[PhaseSpan, ...]:
    """The scenario's phases one after the other, in seconds after the start."""
    spans: list[PhaseSpan] = []
    start_s = 0.0
    for phase in plan.scenario.phases:
        end_s = start_s + phase.duration_s
        spans.append(PhaseSpan(phase.name, start_s, end_s, warm_up=phase.warmup))
        start_s = end_s
    return tuple(spans)


def _end_s(recording: Recording, rows: RequestColumns) -> float:
    """The last moment of which anything is known."""
    known = [float(rows.intended_s.max())]
    known += [float(column[~np.isnan(column)].max(initial=0.0)) for column in (rows.sent_s, rows.done_s)]
    if recording.manifest is not None:
        known.append(recording.manifest.ended_at - recording.plan.started_at)
    return max(known)


def _failed_per_s(edges_s: FloatArray, rows: RequestColumns) -> dict[str, FloatArray]:
    """All that is not ok, so that a request is either served or failed; statuses of another version are one class."""
    strange = ~np.isin(rows.status, (OK, *BAD))[rows.status_code]
    failed = {status: rows.having(status) for status in BAD} | {UNKNOWN_STATUS: strange}
    return {status: rate_per_s(edges_s, rows.settled_s[own]) for status, own in failed.items() if own.any()}


def _answers_per_s(edges_s: FloatArray, rows: RequestColumns) -> dict[str, FloatArray]:
    """Answers by server, those with most answers by name and the rest together."""
    counts = np.bincount(rows.server_code[rows.server_code >= 0], minlength=rows.server.size)
    busiest = np.argsort(-counts, kind="stable")
    named, rest = busiest[:MOST_SERVERS], busiest[MOST_SERVERS:]
    rates = {
        str(rows.server[code]): rate_per_s(edges_s, rows.done_s[rows.server_code == code])
        for code in sorted(named, key=lambda code: str(rows.server[code]))
    }
    if rest.size:
        rates[OTHER_SERVERS] = rate_per_s(edges_s, rows.done_s[np.isin(rows.server_code, rest)])
    return rates


def _client_cpu(edges_s: FloatArray, samples: Iterable[Mapping[str, Any]], started_at: float) -> FloatArray:
    """CPU of the busiest load process."""
    known = [
        (sample["at"] - started_at, sample["cpu_ratio"]) for sample in samples if sample.get("cpu_ratio") is not None
    ]
    return greatest(edges_s, known)


def _queued(edges_s: FloatArray, samples: Iterable[Mapping[str, Any]], started_at: float) -> FloatArray:
    """Requests waiting in a server's queues, all its models together; the fullest server counts."""
    known = [
        (sample["at"] - started_at, float(sum(sample["pending"].values())))
        for sample in samples
        if sample.get("pending")
    ]
    return greatest(edges_s, known)


def _gpu_busy(edges_s: FloatArray, samples: Sequence[Mapping[str, Any]], started_at: float) -> dict[str, FloatArray]:
    """Mean busy ratio of each device and bin, from the engine's activity where it is known."""
    known: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        busy = sample.get("engine_active_ratio")
        busy = sample.get("util_ratio") if busy is None else busy
        if busy is not None:
            device = (str(sample["server"]), str(sample["gpu"]))
            known.setdefault(device, []).append((sample["at"] - started_at, busy))
    # A server with one device needs no name for it.
    devices = Counter(server for server, _ in known)
    named = {device: device[0] if devices[device[0]] == 1 else " ".join(device) for device in sorted(known)}
    return {name: mean(edges_s, known[device]) for device, name in named.items()}
