"""The schedule of an open-loop scenario: when each request is due and what it is, fixed by the seed beforehand.

Time is cut into chunks, each inside one phase and at most 60 s or about 100,000 requests long, so that any length of
run needs little memory. A chunk depends on (seed, its index) alone.

- **Poisson gaps**: the number of arrivals in a chunk is Poisson around the area under its rate; given the number, they
  are uniform in that area. Mapping them back through the cumulative rate is exact for a rate that varies.
- **Constant gaps**: one arrival for each whole unit of area, half a gap after the start. Area is carried from phase
  to phase, so that nothing is lost or doubled at a border.

The values depend on arithmetic that IEEE 754 fixes and on numpy's `random` and `poisson` streams; `uv.lock` pins numpy.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from scenarios.scenario import MICROSECONDS, Kind, Phase, Scenario
from scenarios.strict import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CHUNK_S: Final = 60.0
CHUNK_REQUESTS: Final = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """Requests in the order in which they are due; arrays of equal length."""

    seq: NDArray[np.int64]
    """Place in the whole schedule, from 0."""
    intended_us: NDArray[np.int64]
    """When to send, in microseconds after the start of the run; never decreases."""
    kind: NDArray[np.uint8]
    """Index in `tuple(Kind)`."""
    payload: NDArray[np.uint16]
    """Index in `scenario.payloads`."""
    with_text: NDArray[np.bool_]
    """Whether a text goes along; only to kinds that read one."""
    phase: NDArray[np.uint8]
    """Index in `scenario.phases`."""

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.seq)

    def where(self, chosen: NDArray[np.bool_]) -> Arrivals:
        """The requests for which `chosen` is true."""
        return Arrivals(*(getattr(self, field.name)[chosen] for field in fields(self)))


def arrivals(scenario: Scenario) -> Iterator[Arrivals]:
    """The schedule in chunks, in order; a chunk may be empty.

    Raises `ScenarioError` for a closed loop, and for rates that still need a measured capacity.
    """
    if scenario.loop == "closed":
        raise ScenarioError(f"{scenario.name}: a closed loop has no schedule; its users decide when they ask")
    if scenario.needs_capacity:
        raise ScenarioError(
            f"{scenario.name}: some rates are multiples of the target's capacity (capacity_ratio): "
            "measure it, then use scenario.resolved(capacity_per_s)"
        )
    return _chunks(scenario)


def share(chunk: Arrivals, worker: int, workers: int) -> Arrivals:
    """The requests that fall to `worker` of `workers` (counted from 0): every `workers`-th of the schedule."""
    if not 0 <= worker < workers:
        raise ValueError(f"worker {worker} of {workers}: count from 0")
    return chunk.where(chunk.seq % workers == worker)


def arrival_count(scenario: Scenario) -> int:
    """Requests in the whole schedule. Raises as `arrivals`."""
    return sum(len(chunk) for chunk in arrivals(scenario))


def schedule_digest(scenario: Scenario) -> str:
    """`digest_of` the whole schedule. Raises as `arrivals`."""
    return digest_of(arrivals(scenario))


def digest_of(chunks: Iterable[Arrivals]) -> str:
    """SHA-256 (hex) of all requests in the order given, however cut; `seq` is left out.

    Two equal digests mean the same requests at the same times.
    """
    row = np.dtype([("intended_us", "<i8"), ("kind", "u1"), ("payload", "<u2"), ("with_text", "u1"), ("phase", "u1")])
    digest = hashlib.sha256()
    for chunk in chunks:
        rows = np.empty(len(chunk), dtype=row)
        for name in row.names or ():
            rows[name] = getattr(chunk, name)
        digest.update(rows.tobytes())
    return digest.hexdigest()


class _Chunk(NamedTuple):
    """A stretch of one phase; times in seconds after the start of that phase."""

    number: int
    phase: int
    start_s: float
    end_s: float


def _chunks(scenario: Scenario) -> Iterator[Arrivals]:
    sent = 0
    phase_start_us = 0
    even_area = 0.0  # under the rate of the earlier phases with constant gaps
    plan = _plan(scenario)
    for phase_index, phase in enumerate(scenario.phases):
        area = _Area.under(phase)
        for chunk in (each for each in plan if each.phase == phase_index):
            generator = np.random.default_rng([scenario.seed, chunk.number])
            reached = (
                _constant(area, chunk, even_area) if phase.gaps == "constant" else _poisson(area, chunk, generator)
            )
            at_us = np.rint(area.inverse(reached) * MICROSECONDS).astype(np.int64)
            at_us = np.clip(at_us, 0, phase.duration_us - 1)  # rounding must not carry a request over a border
            yield _requests(scenario, phase_index, sent, phase_start_us + at_us, generator)
            sent += len(at_us)
        phase_start_us += phase.duration_us
        even_area += area.total if phase.gaps == "constant" else 0.0


def _plan(scenario: Scenario) -> list[_Chunk]:
    length_s = min(CHUNK_S, CHUNK_REQUESTS / max(scenario.peak_rate_per_s or 0.0, 1.0))
    chunks: list[_Chunk] = []
    for phase_index, phase in enumerate(scenario.phases):
        pieces = math.ceil(phase.duration_s / length_s)
        edges_s = [phase.duration_s * piece / pieces for piece in range(pieces + 1)]
        for start_s, end_s in pairwise(edges_s):
            chunks.append(_Chunk(len(chunks), phase_index, start_s, end_s))
    return chunks


@dataclass(frozen=True, slots=True)
class _Area:
    """Requests expected since the start of a phase, as a function of time, and its inverse."""

    start_s: Floats
    end_s: Floats
    from_per_s: Floats
    slope: Floats
    before: Floats
    """Area before each segment; one longer than the others."""

    @classmethod
    def under(cls, phase: Phase) -> _Area:
        segments = phase.rate.segments(phase.duration_s) if phase.rate else ()
        start_s = np.array([segment.start_s for segment in segments])
        end_s = np.array([segment.end_s for segment in segments])
        from_per_s = np.array([segment.from_per_s for segment in segments])
        to_per_s = np.array([segment.to_per_s for segment in segments])
        areas = np.array([segment.expected_count for segment in segments])
        before = np.concatenate(([0.0], np.cumsum(areas)))
        return cls(start_s, end_s, from_per_s, (to_per_s - from_per_s) / (end_s - start_s), before)

    @property
    def total(self) -> float:
        return float(self.before[-1])

    def at(self, elapsed_s: float) -> float:
        """Area up to `elapsed_s`; at the end of a segment exactly the sum, whatever the rounding."""
        index = int(np.searchsorted(self.end_s, elapsed_s))
        if elapsed_s >= self.end_s[min(index, len(self.end_s) - 1)]:
            return float(self.before[min(index + 1, len(self.end_s))])
        passed_s = elapsed_s - self.start_s[index]
        return float(self.before[index] + passed_s * (self.from_per_s[index] + self.slope[index] * passed_s / 2))

    def inverse(self, area: Floats) -> Floats:
        """When each `area` is reached, in seconds; stretches without requests are jumped over."""
        index = np.searchsorted(self.before, area, side="right") - 1
        index = np.clip(index, 0, len(self.start_s) - 1)
        beyond = area - self.before[index]
        rate, slope = self.from_per_s[index], self.slope[index]
        # The root of slope/2 x^2 + rate x = beyond, in the form that loses no digits when the slope is near 0.
        divisor = rate + np.sqrt(np.maximum(rate * rate + 2 * slope * beyond, 0.0))
        passed_s = np.divide(2 * beyond, divisor, out=np.zeros_like(area), where=divisor > 0)
        return np.minimum(self.start_s[index] + passed_s, self.end_s[index])


def _poisson(area: _Area, chunk: _Chunk, generator: np.random.Generator) -> Floats:
    low, high = area.at(chunk.start_s), area.at(chunk.end_s)
    count = int(generator.poisson(high - low))
    return low + (high - low) * np.sort(generator.random(count))


def _constant(area: _Area, chunk: _Chunk, earlier: float) -> Floats:
    """Arrival k is due when the area since the start of the run reaches k + 1/2."""
    first = math.ceil(earlier + area.at(chunk.start_s) - 0.5)
    behind_last = math.ceil(earlier + area.at(chunk.end_s) - 0.5)
    return np.arange(first, behind_last, dtype=np.float64) + 0.5 - earlier


def _requests(
    scenario: Scenario, phase: int, first_seq: int, intended_us: NDArray[np.int64], generator: np.random.Generator
) -> Arrivals:
    count = len(intended_us)
    kind = _choose(list(scenario.mix.shares.values()), count, generator).astype(np.uint8)
    payload = _choose([payload.share for payload in scenario.payloads], count, generator).astype(np.uint16)
    reads_text = np.array([each.reads_text for each in Kind])
    return Arrivals(
        seq=np.arange(first_seq, first_seq + count, dtype=np.int64),
        intended_us=intended_us,
        kind=kind,
        payload=payload,
        with_text=reads_text[kind] & (generator.random(count) < scenario.with_text_ratio),
        phase=np.full(count, phase, dtype=np.uint8),
    )


def _choose(weights: list[float], count: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """`count` indices, drawn in proportion to the weights; an index of weight 0 never comes up."""
    edges = np.cumsum(weights)
    drawn: NDArray[np.intp] = np.searchsorted(edges, generator.random(count) * edges[-1], side="right")
    last = int(np.flatnonzero(weights)[-1])
    return np.where(drawn > last, last, drawn)
