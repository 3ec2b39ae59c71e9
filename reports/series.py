"""Recording -> arrays on one time axis, for the timeline [pure].

The axis is cut into bins of at least one second, at most `MOST_BINS` of them. A bin tells a rate (count over its
width), a nearest-rank percentile, or the greatest value seen in it: what is summarised never hides a peak. NaN is a
gap: nothing was observed there. A rate of 0 was observed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from loadtests.recording import FAILURES, IN_FLIGHT, NOT_SENT, OK, Plan, Recording

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

MOST_BINS: Final = 600
BIN_STEPS_S: Final = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
QUANTILES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
BAD: Final = (*FAILURES, IN_FLIGHT, NOT_SENT)
MOST_SERVERS: Final = 7
OTHER_SERVERS: Final = "other servers"
_US_PER_S: Final = 1e6
_US_PER_MS: Final = 1e3


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """A phase of the schedule, in seconds after the run's start."""

    name: str
    start_s: float
    end_s: float
    warm_up: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that happened to the run itself, ``at_s`` seconds after its start."""

    at_s: float
    event: str
    detail: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run on one time axis. ``edges_s`` has one value more than every other array: the borders of the bins.

    Rates are per second. ``response_ms`` holds percentiles by intended time over all that was scheduled; a request
    without a good answer counts as infinitely late, so a value is infinite where too few were answered well.
    ``failed_per_s`` has a class only if it occurred. ``gpu_busy_ratio`` is keyed by server and device.
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

    @property
    def bin_s(self) -> float:
        """Width of the bins; only the last may differ."""
        return float(self.edges_s[1])

    @property
    def end_s(self) -> float:
        return float(self.edges_s[-1])


@dataclass(frozen=True, slots=True)
class RequestColumns:
    """Request rows as arrays in the units of the figures; NaN where the row has null."""

    intended_s: FloatArray
    sent_s: FloatArray
    done_s: FloatArray
    status: npt.NDArray[np.object_]
    status_code: IntArray
    server: npt.NDArray[np.object_]
    server_code: IntArray

    @property
    def settled_s(self) -> FloatArray:
        """When the outcome came about; what never had an outcome is put where it was due."""
        return np.where(np.isnan(self.done_s), self.intended_s, self.done_s)

    @property
    def lag_ms(self) -> FloatArray:
        """How late the generator itself was; NaN if the request was never sent."""
        return (self.sent_s - self.intended_s) * 1e3

    @property
    def response_ms(self) -> FloatArray:
        """What a caller waits; infinite without a good answer that is known to have come."""
        good = self.having(OK) & ~np.isnan(self.done_s)
        return np.where(good, (self.done_s - self.intended_s) * 1e3, np.inf)

    def having(self, status: str) -> npt.NDArray[np.bool_]:
        places = np.flatnonzero(self.status == status)
        return np.asarray(self.status_code == (places[0] if places.size else -2))


def request_columns(rows: pd.DataFrame) -> RequestColumns:
    status_code, status = pd.factorize(rows["status"])
    server_code, server = pd.factorize(rows["served_by"])
    return RequestColumns(
        intended_s=_seconds(rows["intended_us"]),
        sent_s=_seconds(rows["sent_us"]),
        done_s=_seconds(rows["done_us"]),
        status=np.asarray(status, dtype=object),
        status_code=np.asarray(status_code, dtype=np.int64),
        server=np.asarray(server, dtype=object),
        server_code=np.asarray(server_code, dtype=np.int64),
    )


def timeline(recording: Recording) -> Timeline | None:
    """The run on one time axis, or None when the recording has no request rows."""
    if recording.requests.empty:
        return None
    rows = request_columns(recording.requests)
    started_at = recording.plan.started_at
    edges_s = bin_edges_s(_end_s(recording, rows))
    lag = _quantiles(edges_s, rows.intended_s, rows.lag_ms, {"p99": 0.99, "worst": 1.0})
    return Timeline(
        edges_s=edges_s,
        offered_per_s=rate_per_s(edges_s, rows.intended_s),
        served_per_s=rate_per_s(edges_s, rows.done_s[rows.having(OK)]),
        failed_per_s={
            status: rate_per_s(edges_s, rows.settled_s[rows.having(status)]) for status in BAD if status in rows.status
        },
        response_ms=_quantiles(edges_s, rows.intended_s, rows.response_ms, QUANTILES),
        lag_p99_ms=lag["p99"],
        lag_worst_ms=lag["worst"],
        in_flight=most_in_flight(edges_s, rows.sent_s, rows.done_s),
        answers_per_s=_answers_per_s(edges_s, rows),
        client_cpu_ratio=_greatest(edges_s, recording.client, started_at, "cpu_ratio"),
        queued=_queued(edges_s, recording.triton, started_at),
        gpu_busy_ratio=_gpu_busy(edges_s, recording.gpu, started_at),
        gpu_emulated=any(sample.get("emulated") for sample in recording.gpu),
        phases=phase_spans(recording.plan),
        marks=tuple(marks(recording)),
    )


def bin_edges_s(end_s: float) -> FloatArray:
    """Borders of the bins over 0..``end_s``; a last bin of less than half the width joins the one before it."""
    width_s = next((step for step in BIN_STEPS_S if end_s / step <= MOST_BINS), math.ceil(end_s / MOST_BINS))
    whole = max(1, round(end_s / width_s))
    edges_s = np.arange(whole + 1, dtype=np.float64) * width_s
    edges_s[-1] = max(end_s, edges_s[-2] + width_s / 2)
    return edges_s


def rate_per_s(edges_s: FloatArray, at_s: FloatArray) -> FloatArray:
    """Occurrences per second in each bin; what has no stamp (NaN) is not counted."""
    places = _bins(edges_s, at_s)
    counts = np.bincount(places[places >= 0], minlength=edges_s.size - 1)
    return np.asarray(counts / np.diff(edges_s), dtype=np.float64)


def quantiles_by_bin(
    places: IntArray, values: FloatArray, bins: int, quantiles: Mapping[str, float]
) -> dict[str, FloatArray]:
    """Nearest-rank quantiles (the ceil(q n)-th smallest of n) in each bin; NaN where the bin has no value."""
    known = ~np.isnan(values) & (places >= 0)
    places, values = places[known], values[known]
    ordered = values[np.lexsort((values, places))]
    sizes = np.bincount(places, minlength=bins)
    starts = np.cumsum(sizes) - sizes
    filled = sizes > 0
    result = {}
    for name, quantile in quantiles.items():
        curve = np.full(bins, np.nan)
        curve[filled] = ordered[starts[filled] + rank(quantile, sizes[filled])]
        result[name] = curve
    return result


def rank(quantile: float, sizes: IntArray) -> IntArray:
    """Place of the nearest-rank quantile among n sorted values, counted from 0."""
    # 0.95 * 20 is 19.000000000000004 in some products: the small step keeps whole numbers whole.
    return np.asarray(np.maximum(np.ceil(quantile * sizes - 1e-9) - 1, 0), dtype=np.int64)


def most_in_flight(edges_s: FloatArray, sent_s: FloatArray, done_s: FloatArray) -> FloatArray:
    """The most requests under way at once in each bin. A request without an outcome stays under way."""
    bins = edges_s.size - 1
    sent = sent_s[~np.isnan(sent_s)]
    # What was refused before it could be sent has an outcome but was never under way.
    done = done_s[~np.isnan(done_s) & ~np.isnan(sent_s)]
    # An answer frees its place before another request of the same instant takes it.
    at_s = np.concatenate([done, sent])
    step = np.concatenate([np.full(done.size, -1), np.ones(sent.size, dtype=np.int64)])
    order = np.argsort(at_s, kind="stable")
    level = np.cumsum(step[order])
    before = np.searchsorted(at_s[order], edges_s[:-1], side="left")
    most = np.concatenate([[0], level])[before].astype(np.float64)
    places = _bins(edges_s, at_s[order])
    known = places >= 0
    np.maximum.at(most, places[known], level[known])
    return most[:bins]


def phase_spans(plan: Plan) -> tuple[PhaseSpan, ...]:
    """The scenario's phases one after the other, in seconds after the start."""
    spans: list[PhaseSpan] = []
    start_s = 0.0
    for phase in plan.scenario.phases:
        end_s = start_s + phase.duration_s
        spans.append(PhaseSpan(phase.name, start_s, end_s, warm_up=phase.warmup))
        start_s = end_s
    return tuple(spans)


def marks(recording: Recording) -> list[Mark]:
    """What happened to the run, in order of time; the watcher's own troubles are in its rows, not here."""
    started_at = recording.plan.started_at
    found = [
        Mark(float(row["at"]) - started_at, str(row["event"]), str(row.get("detail") or ""))
        for row in recording.events
        if row.get("at") is not None and row.get("event") is not None
    ]
    return sorted(found, key=lambda mark: mark.at_s)


def _end_s(recording: Recording, rows: RequestColumns) -> float:
    """The last moment of which anything is known."""
    known = [float(rows.intended_s.max())]
    known += [float(column[~np.isnan(column)].max(initial=0.0)) for column in (rows.sent_s, rows.done_s)]
    if recording.manifest is not None:
        known.append(recording.manifest.ended_at - recording.plan.started_at)
    return max(known)


def _quantiles(
    edges_s: FloatArray, at_s: FloatArray, values: FloatArray, quantiles: Mapping[str, float]
) -> dict[str, FloatArray]:
    return quantiles_by_bin(_bins(edges_s, at_s), values, edges_s.size - 1, quantiles)


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


def _greatest(edges_s: FloatArray, samples: Iterable[Mapping[str, Any]], started_at: float, field: str) -> FloatArray:
    """The greatest sample in each bin, over all load processes."""
    known = [(sample["at"] - started_at, sample[field]) for sample in samples if sample.get(field) is not None]
    return _summary(edges_s, known, np.fmax)


def _queued(edges_s: FloatArray, samples: Iterable[Mapping[str, Any]], started_at: float) -> FloatArray:
    """Requests waiting in a server's queues, all its models together; the fullest server counts."""
    known = [
        (sample["at"] - started_at, float(sum(sample["pending"].values())))
        for sample in samples
        if sample.get("pending")
    ]
    return _summary(edges_s, known, np.fmax)


def _gpu_busy(edges_s: FloatArray, samples: Sequence[Mapping[str, Any]], started_at: float) -> dict[str, FloatArray]:
    """Mean busy ratio of each device and bin, from the engine's activity where it is known."""
    known: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for sample in samples:
        busy = sample.get("engine_active_ratio")
        busy = sample.get("util_ratio") if busy is None else busy
        if busy is not None:
            device = (str(sample["server"]), str(sample["gpu"]))
            known.setdefault(device, []).append((sample["at"] - started_at, busy))
    # A server with one device needs no name for it.
    devices = Counter(server for server, _ in known)
    named = {device: device[0] if devices[device[0]] == 1 else " ".join(device) for device in sorted(known)}
    return {name: _mean(edges_s, known[device]) for device, name in named.items()}


def _summary(edges_s: FloatArray, known: Sequence[tuple[float, float]], pick: np.ufunc) -> FloatArray:
    curve = np.full(edges_s.size - 1, np.nan)
    if known:
        at_s, values = np.array(known, dtype=np.float64).T
        places = _bins(edges_s, at_s)
        pick.at(curve, places[places >= 0], values[places >= 0])
    return curve


def _mean(edges_s: FloatArray, known: Sequence[tuple[float, float]]) -> FloatArray:
    at_s, values = np.array(known, dtype=np.float64).T
    places = _bins(edges_s, at_s)
    inside = places >= 0
    sums = np.bincount(places[inside], weights=values[inside], minlength=edges_s.size - 1)
    counts = np.bincount(places[inside], minlength=edges_s.size - 1)
    means: FloatArray = np.divide(sums, counts, out=np.full(sums.size, np.nan), where=counts > 0)
    return means


def _bins(edges_s: FloatArray, at_s: FloatArray) -> IntArray:
    """The bin of each stamp; the last one has both its borders. -1 for what lies outside or has no stamp."""
    places = np.searchsorted(edges_s, at_s, side="right") - 1
    places[at_s == edges_s[-1]] = edges_s.size - 2
    outside = np.isnan(at_s) | (at_s < edges_s[0]) | (at_s > edges_s[-1])
    return np.where(outside, -1, places).astype(np.int64)


def _seconds(column: pd.Series[Any]) -> FloatArray:
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan) / _US_PER_S)
