"""Recording -> the numbers in the report's tables [pure]. None is "not known", never 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from loadtests.recording import OK, Recording, WorkerRecord
from reports.bins import FloatArray
from reports.columns import request_columns
from reports.series import QUANTILES
from slo_checks.asserted import asserted_rows, by_key, each_once, is_in
from slo_checks.estimate import nearest_rank
from slo_checks.latency import waited_by_kind
from slo_checks.verdict import Conservation

MOST_CURVE_POINTS: Final = 400
MOST_EXAMPLES: Final = 4


@dataclass(frozen=True, slots=True)
class KindLatency:
    """Response times of one kind of request outside warm-up, counted from when each was due.

    ``scheduled`` counts those that the verdict counts; one without a good answer is infinitely late. ``quantiles_ms``
    holds None where there are too few to tell it (p95 needs 20 requests, p99 100) and infinity where too many failed.
    ``curve_ms`` and ``curve_ratio`` are the points of its distribution: the share of all that was answered by then.
    """

    kind: str
    scheduled: int
    ok: int
    quantiles_ms: dict[str, float | None]
    worst_ms: float | None
    curve_ms: FloatArray
    curve_ratio: FloatArray


@dataclass(frozen=True, slots=True)
class ErrorText:
    """One failure's text and how often it came."""

    text: str
    count: int


@dataclass(frozen=True, slots=True)
class ErrorClass:
    """All failures of one class, warm-up included. Times in seconds after the start."""

    status: str
    count: int
    in_warm_up: int
    examples: tuple[ErrorText, ...]
    texts: int
    first_s: float
    last_s: float
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerShare:
    """What one server answered, by the name it gives itself. Times in seconds after the start, None if not known."""

    server: str
    answers: int
    share_ratio: float
    ok: int
    first_s: float | None
    last_s: float | None
    p50_ms: float | None


@dataclass(frozen=True, slots=True)
class LoadProcess:
    """One load process as its own samples and last word show it."""

    worker: int
    host: str | None
    delivered: bool | None
    rows: int
    cpu_mean_ratio: float | None
    cpu_worst_ratio: float | None
    rss_first_bytes: int | None
    rss_last_bytes: int | None
    peak_in_flight: int | None
    clock_offset_ms: float | None


@dataclass(frozen=True, slots=True)
class GeneratorLag:
    """How late requests left that were due outside warm-up, in ms. None when nothing was sent."""

    sent: int
    p50_ms: float | None
    p99_ms: float | None
    worst_ms: float | None


def latency_by_kind(recording: Recording) -> tuple[KindLatency, ...]:
    """A row for each kind that was asked for outside warm-up, and one for all kinds together if there are several."""
    waited_ms = {
        kind: 1e3 * waited_s for kind, waited_s in waited_by_kind(each_once(recording)).items() if len(waited_s)
    }
    found = [_kind_latency(kind, ordered) for kind, ordered in waited_ms.items()]
    if len(found) > 1:
        found.append(_kind_latency("all kinds", np.sort(np.concatenate(list(waited_ms.values())))))
    return tuple(found)


def errors_by_class(recording: Recording) -> tuple[ErrorClass, ...]:
    """What did not end well, by class, most frequent first."""
    rows, columns = recording.requests, request_columns(recording.requests)
    warm_up = _in_warm_up(recording)
    found = []
    # By what is there, not by what is known: a status that another version wrote must show as well.
    for status in columns.status:
        own = columns.having(status)
        if status != OK and own.any():
            found.append(_error_class(status, rows[own], columns.settled_s[own], int((own & warm_up).sum())))
    return tuple(sorted(found, key=lambda each: (-each.count, each.status)))


def answers_by_server(recording: Recording) -> tuple[ServerShare, ...]:
    """Who answered, busiest first. What was never answered belongs to nobody."""
    rows = recording.requests
    columns = request_columns(rows)
    answered = columns.server_code >= 0
    total = int(answered.sum())
    ok = columns.having(OK)
    found = []
    for code, server in enumerate(columns.server):
        own = columns.server_code == code
        done_s = columns.done_s[own & ~np.isnan(columns.done_s)]
        found.append(
            ServerShare(
                server=str(server),
                answers=int(own.sum()),
                share_ratio=float(own.sum() / total),
                ok=int((own & ok).sum()),
                first_s=float(done_s.min()) if done_s.size else None,
                last_s=float(done_s.max()) if done_s.size else None,
                p50_ms=_quantile(np.sort(columns.response_ms[own & ok]), 0.5),
            )
        )
    return tuple(sorted(found, key=lambda share: (-share.answers, share.server)))


def generator_lag(recording: Recording) -> GeneratorLag:
    rows = asserted_rows(recording)
    lag_ms = (rows.sent_us - rows.intended_us) / 1e3
    ordered = np.sort(lag_ms[np.isfinite(lag_ms)])
    worst_ms = float(ordered[-1]) if ordered.size else None
    return GeneratorLag(int(ordered.size), _quantile(ordered, 0.50), _quantile(ordered, 0.99), worst_ms)


def load_processes(recording: Recording) -> tuple[LoadProcess, ...]:
    """Each load process that left a sample, a row or a last word."""
    counts = Counter[int](recording.requests["worker"].tolist())
    said = {record.worker: record for record in (recording.manifest.workers if recording.manifest else ())}
    sampled = by_key(recording.client, lambda sample: int(sample["worker"]))
    return tuple(
        _load_process(worker, counts[worker], said.get(worker), sampled.get(worker, ()))
        for worker in sorted(counts.keys() | said.keys() | sampled.keys())
    )


def _load_process(
    worker: int, rows: int, record: WorkerRecord | None, samples: Sequence[dict[str, Any]]
) -> LoadProcess:
    cpu = [float(sample["cpu_ratio"]) for sample in samples if sample.get("cpu_ratio") is not None]
    rss = [int(sample["rss_bytes"]) for sample in samples if sample.get("rss_bytes") is not None]
    under_way = [int(sample["in_flight"]) for sample in samples if sample.get("in_flight") is not None]
    return LoadProcess(
        worker=worker,
        host=record.host if record else None,
        delivered=record.delivered if record else None,
        rows=rows,
        cpu_mean_ratio=sum(cpu) / len(cpu) if cpu else None,
        cpu_worst_ratio=max(cpu, default=None),
        rss_first_bytes=rss[0] if rss else None,
        rss_last_bytes=rss[-1] if rss else None,
        peak_in_flight=record.peak_in_flight if record else max(under_way, default=None),
        clock_offset_ms=record.clock_offset_ms if record else None,
    )


def warm_up_count(recording: Recording) -> int:
    """How many recorded requests were due in warm-up."""
    return int(_in_warm_up(recording).sum())


def needed_for(quantile: float) -> int:
    """Fewest requests of which one lies beyond the quantile; with fewer it is only another name for the slowest."""
    return round(1 / (1 - quantile))


def _in_warm_up(recording: Recording) -> npt.NDArray[np.bool_]:
    return is_in(recording.requests, "phase", [phase.name for phase in recording.plan.scenario.phases if phase.warmup])


def _kind_latency(kind: str, ordered: FloatArray) -> KindLatency:
    ok = int(np.isfinite(ordered).sum())
    places = _curve_places(ok)
    return KindLatency(
        kind=kind,
        scheduled=ordered.size,
        ok=ok,
        quantiles_ms={name: _quantile(ordered, quantile) for name, quantile in QUANTILES.items()},
        worst_ms=float(ordered[ok - 1]) if ok else None,
        curve_ms=ordered[places],
        curve_ratio=(places + 1) / ordered.size,
    )


def _curve_places(size: int) -> npt.NDArray[np.int64]:
    """Which of ``size`` sorted values to draw: all if few, else evenly spread, the slowest all kept."""
    if size <= MOST_CURVE_POINTS:
        return np.arange(size)
    half = MOST_CURVE_POINTS // 2
    spread = np.linspace(0, size - half - 1, half).astype(np.int64)
    return np.concatenate([spread, np.arange(size - half, size)])


def _quantile(ordered: FloatArray, quantile: float) -> float | None:
    """Nearest-rank quantile of sorted values; None where they are too few to tell it."""
    if ordered.size < needed_for(quantile):
        return None
    return float(ordered[nearest_rank(ordered.size, quantile) - 1])


def _error_class(status: str, rows: pd.DataFrame, settled_s: FloatArray, in_warm_up: int) -> ErrorClass:
    texts = rows["error"].value_counts()
    return ErrorClass(
        status=status,
        count=len(rows),
        in_warm_up=in_warm_up,
        examples=tuple(ErrorText(str(text), int(count)) for text, count in texts.head(MOST_EXAMPLES).items()),
        texts=len(texts),
        first_s=float(settled_s.min()),
        last_s=float(settled_s.max()),
        servers=_distinct(rows["served_by"]) or _distinct(rows["peer"]),
    )


def _distinct(column: pd.Series[Any]) -> tuple[str, ...]:
    values: Sequence[Any] = column.dropna().unique().tolist()
    return tuple(sorted(str(value) for value in values))


def unaccounted(conservation: Conservation) -> int | None:
    """Requests scheduled of which no term of the balance tells; 0 in a sound recording, None if nothing was planned."""
    if conservation.scheduled is None:
        return None
    told = conservation.ok + sum(conservation.failed.values()) + conservation.in_flight + conservation.not_sent
    return conservation.scheduled - told - (conservation.lost or 0)
