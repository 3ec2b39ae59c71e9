"""The part of a run that is judged: its phases but warm-up, as arrays and as stretches of wall time [pure]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from loadtests.recording import FAILURES, IN_FLIGHT, NOT_SENT, OK, STATUSES, Recording

BoolArray: TypeAlias = npt.NDArray[np.bool_]
FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
Spans: TypeAlias = tuple[tuple[float, float], ...]
"""Disjoint stretches of time in ascending order, each from its start up to its end."""

US_PER_S: Final = 1_000_000
UNDECIDED: Final = -1
_FIRST_FAILURE: Final = STATUSES.index(FAILURES[0])
_LAST_FAILURE: Final = STATUSES.index(FAILURES[-1])


@dataclass(frozen=True, slots=True)
class Rows:
    """Request rows as arrays of one length, in the order of ``intended_us``.

    Stamps are microseconds after the start of the run; ``sent_us`` is infinite for what was never sent, ``done_us`` for
    what has no known outcome. ``status`` is the place in `STATUSES`, `UNDECIDED` where nothing tells whether a good
    answer came: the status is none that the format knows, or ok without the stamp of an answer, or in flight when we
    stopped waiting before its deadline.
    """

    intended_us: FloatArray
    sent_us: FloatArray
    done_us: FloatArray
    status: IntArray

    def __len__(self) -> int:
        return len(self.status)

    @property
    def good(self) -> BoolArray:
        """A right answer that is known to have come."""
        return self._are(OK)

    @property
    def undecided(self) -> BoolArray:
        """May have been good or not: a miss where a pass is to be proven, and good where a fail is."""
        return np.asarray(self.status == UNDECIDED)

    @property
    def failed(self) -> BoolArray:
        return np.asarray((self.status >= _FIRST_FAILURE) & (self.status <= _LAST_FAILURE))

    @property
    def in_flight(self) -> BoolArray:
        return self._are(IN_FLIGHT)

    @property
    def not_sent(self) -> BoolArray:
        return self._are(NOT_SENT)

    @property
    def response_s(self) -> FloatArray:
        """What a caller waited, counted from the intended time; infinite without a good answer."""
        return np.where(self.good, self.done_us - self.intended_us, np.inf) / US_PER_S

    def _are(self, status: str) -> BoolArray:
        return np.asarray(self.status == STATUSES.index(status))

    def where(self, chosen: BoolArray | npt.NDArray[np.intp]) -> Rows:
        return Rows(self.intended_us[chosen], self.sent_us[chosen], self.done_us[chosen], self.status[chosen])


def column(requests: pd.DataFrame, name: str) -> pa.ChunkedArray:
    """One column of request rows as Arrow, nulls kept."""
    return pa.chunked_array(pa.array(requests[name], from_pandas=True))


def stamps(requests: pd.DataFrame, name: str) -> FloatArray:
    """One column of stamps in microseconds; infinite where null. Exact up to 2^53 us, 285 years."""
    filled = pc.fill_null(pc.cast(column(requests, name), pa.float64()), float("inf"))
    return np.asarray(filled.to_numpy(), dtype=np.float64)


def is_in(requests: pd.DataFrame, name: str, values: list[str]) -> BoolArray:
    """Whether each value of a text column is one of `values`; null is not."""
    return np.asarray(pc.is_in(column(requests, name), pa.array(values, pa.string())).to_numpy(), dtype=np.bool_)


def only(requests: pd.DataFrame, chosen: BoolArray) -> pd.DataFrame:
    """Chosen request rows; all of them without a copy, which would cost more than most of what is asked of them."""
    return requests if chosen.all() else requests[chosen]


def rows_of(recording: Recording, requests: pd.DataFrame) -> Rows:
    """Request rows of a recording, or some of them, as arrays by intended time."""
    place = pc.fill_null(pc.index_in(column(requests, "status"), pa.array(STATUSES)), UNDECIDED)
    sent_us, done_us = stamps(requests, "sent_us"), stamps(requests, "done_us")
    rows = Rows(stamps(requests, "intended_us"), sent_us, done_us, np.array(place.to_numpy(), dtype=np.int64))
    rows.status[rows.good & np.isinf(done_us)] = UNDECIDED
    too_young = waited_until_us(recording) - sent_us < recording.plan.scenario.deadline_s * US_PER_S
    rows.status[rows.in_flight & too_young] = UNDECIDED
    # A schedule's rows come in their order; sorting them again would cost more than all else here.
    ordered = bool((np.diff(rows.intended_us) >= 0).all())
    return rows if ordered else rows.where(np.argsort(rows.intended_us, kind="stable"))


def each_once(recording: Recording) -> Recording:
    """The run with the first row of each request; one that was written again is no second request."""
    seq = np.asarray(column(recording.requests, "seq").to_numpy())
    first = np.diff(seq, prepend=seq[:1] - 1) != 0
    return replace(recording, requests=only(recording.requests, first))


def asserted_phases(recording: Recording) -> list[str]:
    return [phase.name for phase in recording.plan.scenario.phases if not phase.warmup]


def asserted_requests(recording: Recording) -> pd.DataFrame:
    """Request rows of asserted phases; a row's phase is that of its intended time."""
    return only(recording.requests, is_in(recording.requests, "phase", asserted_phases(recording)))


def asserted_rows(recording: Recording) -> Rows:
    """Rows of asserted phases."""
    return rows_of(recording, asserted_requests(recording))


def waited_until_us(recording: Recording) -> float:
    """How long after the start answers were surely waited for; an interrupted run did not wait at all.

    The run ends when the last load process is done. Another one may have stopped waiting as early as planned.
    """
    plan, manifest = recording.plan, recording.manifest
    if manifest is None or manifest.ended != "completed":
        return -np.inf
    until = min(plan.planned_end_at + plan.scenario.drain_s, manifest.ended_at)
    return (until - plan.started_at) * US_PER_S


def completed(recording: Recording) -> bool:
    return recording.manifest is not None and recording.manifest.ended == "completed"


def asserted_spans(recording: Recording) -> Spans:
    """Asserted phases in Unix seconds, up to the end of the run; phases that follow each other are one stretch."""
    spans: list[tuple[float, float]] = []
    end_s = recording.plan.started_at
    for phase in recording.plan.scenario.phases:
        start_s, end_s = end_s, end_s + phase.duration_s
        if not phase.warmup:
            joined = bool(spans) and spans[-1][1] == start_s
            spans[-1:] = [(spans[-1][0], end_s)] if joined else [*spans[-1:], (start_s, end_s)]
    ended_at = recording.manifest.ended_at if recording.manifest else np.inf
    return overlap(tuple(spans), ((-np.inf, ended_at),))


def overlap(spans: Spans, others: Spans) -> Spans:
    """The time that is in both."""
    pieces = (
        (max(start, other_start), min(end, other_end)) for start, end in spans for other_start, other_end in others
    )
    return tuple((start, end) for start, end in pieces if start < end)


def without(spans: Spans, others: Spans) -> Spans:
    """The time that is in `spans` and not in `others`."""
    edges = [-np.inf, *(edge for span in others for edge in span), np.inf]
    return overlap(spans, tuple(zip(edges[::2], edges[1::2], strict=True)))


def length_s(spans: Spans) -> float:
    return float(sum(end - start for start, end in spans))


def time_before(spans: Spans, moments_s: FloatArray) -> FloatArray:
    """How much of the spans lies before each moment, in seconds."""
    if not spans:
        return np.zeros(len(moments_s))
    starts, ends = np.array(spans).T
    earlier = np.concatenate(([0.0], np.cumsum(ends - starts)))
    place = np.searchsorted(starts, moments_s, side="right") - 1
    current = np.clip(moments_s - starts[place], 0.0, (ends - starts)[place])
    return np.asarray(np.where(place < 0, 0.0, earlier[place] + current), dtype=np.float64)


def longest_silence_s(stamps_s: list[float], start_s: float, end_s: float) -> float:
    """Longest time between two neighbours of `start_s`, the stamps inside, and `end_s`."""
    inside = sorted(stamp for stamp in stamps_s if start_s < stamp < end_s)
    return max(after - before for before, after in pairwise([start_s, *inside, end_s]))


def by_key(
    samples: tuple[dict[str, Any], ...], key: Callable[[dict[str, Any]], Any]
) -> dict[Any, list[dict[str, Any]]]:
    """Samples grouped by a key, each group in the order of its receipt."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for sample in sorted(samples, key=lambda sample: float(sample["at"])):
        groups.setdefault(key(sample), []).append(sample)
    return groups
