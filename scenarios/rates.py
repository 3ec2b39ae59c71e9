"""How fast requests arrive during one phase: a level, or a shape made of levels.

A level says its unit; one study is one request::

    rate: {requests_per_s: 6}
    rate: {studies_per_min: 10}
    rate: {capacity_ratio: 1.5}                          # times the measured capacity of the target
    rate: {ramp: {from: {studies_per_min: 10}, to: {studies_per_min: 50}}}
    rate: {steps: [{requests_per_s: 1}, {requests_per_s: 2}, {requests_per_s: 4}]}
    rate: {spike: {base: {studies_per_min: 50}, peak: {capacity_ratio: 1.5}, at_s: 20, width_s: 30}}

A ramp spans its phase, steps share it equally. Every shape comes down to `Segment`, a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from scenarios.strict import A_LIST, ScenarioError, Strict

SECONDS_PER_MINUTE: Final = 60.0

# 0 is a pause. The upper end only catches slips of the pen.
Amount = Annotated[float, Field(ge=0, le=1_000_000)]


@dataclass(frozen=True, slots=True)
class Segment:
    """A straight line in the rate; times in seconds after the start of the phase, rates in requests per second."""

    start_s: float
    end_s: float
    from_per_s: float
    to_per_s: float

    @property
    def expected_count(self) -> float:
        """Requests expected in the whole segment: the area under the line."""
        return (self.end_s - self.start_s) * (self.from_per_s + self.to_per_s) / 2

    def rate_at(self, elapsed_s: float) -> float:
        """Requests per second at `elapsed_s` after the start of the phase."""
        passed_ratio = (elapsed_s - self.start_s) / (self.end_s - self.start_s)
        return self.from_per_s + (self.to_per_s - self.from_per_s) * passed_ratio


class Level(Strict):
    """One rate, in exactly one unit."""

    requests_per_s: Amount | None = None
    studies_per_min: Amount | None = None
    capacity_ratio: Amount | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        fields = type(self).model_fields
        given = [name for name in fields if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"found {' and '.join(given)}" if given else "found none"
            raise ValueError(f"give exactly one of {', '.join(fields)}; {found}")
        return self

    @property
    def needs_capacity(self) -> bool:
        """Whether the rate in requests per second is unknown until the target has been measured."""
        return self.capacity_ratio is not None

    @property
    def per_s(self) -> float:
        """Requests per second.

        Raises `ScenarioError` for a multiple of a capacity that is not known yet.
        """
        if self.requests_per_s is not None:
            return self.requests_per_s
        if self.studies_per_min is not None:
            return self.studies_per_min / SECONDS_PER_MINUTE
        raise ScenarioError(
            "a rate is a multiple of the target's capacity (capacity_ratio): "
            "measure it, then use Scenario.resolved(capacity_per_s)"
        )

    def resolved(self, capacity_per_s: float) -> Self:
        """The same rate in requests per second, on a target that can do `capacity_per_s`."""
        if self.capacity_ratio is None:
            return self
        return self.model_copy(update={"requests_per_s": self.capacity_ratio * capacity_per_s, "capacity_ratio": None})


class Ramp(Strict):
    """A straight line from one rate to another, over the whole phase."""

    from_: Level = Field(alias="from")
    to: Level

    @property
    def levels(self) -> tuple[Level, ...]:
        """The rates it is made of."""
        return (self.from_, self.to)

    def segments(self, duration_s: float) -> tuple[Segment, ...]:
        """One line."""
        return (Segment(0.0, duration_s, self.from_.per_s, self.to.per_s),)

    def resolved(self, capacity_per_s: float) -> Self:
        """See `Level.resolved`."""
        ends = {"from_": self.from_.resolved(capacity_per_s), "to": self.to.resolved(capacity_per_s)}
        return self.model_copy(update=ends)


class Spike(Strict):
    """`base`, but `peak` from `at_s` after the start of the phase for `width_s`."""

    base: Level
    peak: Level
    at_s: NonNegativeFloat
    width_s: PositiveFloat

    @property
    def end_s(self) -> float:
        """When the rate falls back, in seconds after the start of the phase."""
        return self.at_s + self.width_s

    @property
    def levels(self) -> tuple[Level, ...]:
        """The rates it is made of."""
        return (self.base, self.peak)

    def segments(self, duration_s: float) -> tuple[Segment, ...]:
        """Before, during and after; a part of no length is left out."""
        base_per_s, peak_per_s = self.base.per_s, self.peak.per_s
        parts = (
            Segment(0.0, self.at_s, base_per_s, base_per_s),
            Segment(self.at_s, self.end_s, peak_per_s, peak_per_s),
            Segment(self.end_s, duration_s, base_per_s, base_per_s),
        )
        return tuple(part for part in parts if part.end_s > part.start_s)

    def resolved(self, capacity_per_s: float) -> Self:
        """See `Level.resolved`."""
        levels = {"base": self.base.resolved(capacity_per_s), "peak": self.peak.resolved(capacity_per_s)}
        return self.model_copy(update=levels)


class Rate(Level):
    """The rate of a phase: a level that holds throughout, or one of the shapes."""

    ramp: Ramp | None = None
    steps: Annotated[tuple[Level, ...], A_LIST, Field(min_length=2)] | None = None
    spike: Spike | None = None

    @property
    def needs_capacity(self) -> bool:
        """Whether any rate in it is a multiple of the target's capacity."""
        return any(level.capacity_ratio is not None for level in self._levels)

    @property
    def _levels(self) -> tuple[Level, ...]:
        if self.steps is not None:
            return self.steps
        shape = self.ramp or self.spike
        return (self,) if shape is None else shape.levels

    def segments(self, duration_s: float) -> tuple[Segment, ...]:
        """The rate over a phase of `duration_s`, without gaps or overlaps.

        Raises `ScenarioError` when a capacity is needed and not known yet.
        """
        shape = self.ramp or self.spike
        if shape is not None:
            return shape.segments(duration_s)
        rates = [level.per_s for level in self._levels]
        edges_s = [duration_s * index / len(rates) for index in range(len(rates) + 1)]
        return tuple(Segment(edges_s[i], edges_s[i + 1], rate, rate) for i, rate in enumerate(rates))

    def resolved(self, capacity_per_s: float) -> Self:
        """See `Level.resolved`."""
        shapes = {
            "ramp": self.ramp and self.ramp.resolved(capacity_per_s),
            "steps": self.steps and tuple(step.resolved(capacity_per_s) for step in self.steps),
            "spike": self.spike and self.spike.resolved(capacity_per_s),
        }
        return super().resolved(capacity_per_s).model_copy(update=shapes)
