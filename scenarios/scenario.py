"""A scenario: what load, for how long, and what has to hold under it.

A scenario is a YAML file, read by `load_scenario`; every name in it is a field of a model here. It is either open loop
(phases with a `rate`: requests leave when the schedule says so, whatever the server does) or closed loop (phases with
`users`, each of whom waits for an answer before asking again; latencies found that way are advisory).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from scenarios.mix import Kind, Mix, PayloadShare, one_per_image
from scenarios.rates import Rate
from scenarios.strict import A_LIST, ScenarioError, Strict, Text, problems, refuse_repeats, unknown_name

__all__ = [
    "Kind", "Mix", "Objectives", "PayloadShare", "Phase", "Scenario", "ScenarioError", "load_scenario",
    "shipped_scenarios",
]  # fmt: skip

MICROSECONDS: Final = 1_000_000


def _plain(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,59}", name):
        raise ValueError(f"should be made of lower-case letters, digits, '-' and '_', at most 60, but is '{name}'")
    return name


Name = Annotated[str, AfterValidator(_plain)]
"""Names become parts of file names and values of columns."""


class Phase(Strict):
    """A stretch of time under one load: open loop (`rate`, `gaps`) or closed loop (`users`, `think_time_s`).

    Requests of a `warmup` phase are sent and recorded like any other, and left out of the verdicts. `users_per_s` is
    how fast users come or go until there are `users`; without it they do so at once.
    """

    name: Name
    duration_s: Annotated[float, Field(ge=0.001, le=7 * 86_400)]
    warmup: bool = False
    rate: Rate | None = None
    gaps: Literal["poisson", "constant"] | None = Field(
        default_factory=lambda known: "poisson" if known.get("rate") else None
    )
    users: Annotated[int, Field(ge=0, le=100_000)] | None = None
    think_time_s: NonNegativeFloat | None = None
    users_per_s: PositiveFloat | None = None

    @model_validator(mode="after")
    def _one_load(self) -> Self:
        if (self.rate is None) == (self.users is None):
            raise ValueError("give exactly one load: `rate` (open loop) or `users` (closed loop)")
        strangers = ("gaps",) if self.rate is None else ("think_time_s", "users_per_s")
        for name in strangers:
            if getattr(self, name) is not None:
                raise ValueError(f"{name} has no meaning with `{'users' if self.rate is None else 'rate'}`")
        if self.users is not None and self.think_time_s is None:
            raise ValueError("`users` needs think_time_s, how long each pauses after an answer; 0 is allowed")
        return self

    @model_validator(mode="after")
    def _spike_fits(self) -> Self:
        spike = self.rate.spike if self.rate else None
        if spike and spike.end_s > self.duration_s:
            raise ValueError(f"the spike ends {spike.end_s:g} s into a phase of {self.duration_s:g} s")
        return self

    @property
    def duration_us(self) -> int:
        """Length in whole microseconds, the resolution of the schedule."""
        return round(self.duration_s * MICROSECONDS)


class Objectives(Strict):
    """Names of objectives (defined in `slo_checks/objectives.yaml`) that decide the run.

    `must_pass` has to be proven, else the run is inconclusive. `must_not_fail` is for what a run is too short to
    prove: a proven miss fails it, anything else does not matter.
    """

    must_pass: Annotated[tuple[Name, ...], A_LIST, Field(min_length=1)]
    must_not_fail: Annotated[tuple[Name, ...], A_LIST] = ()

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        refuse_repeats("objective", [*self.must_pass, *self.must_not_fail])
        return self


class Scenario(Strict):
    """One load with its purpose. See the fields for units and reasons."""

    name: Name
    purpose: Text
    expected_verdict: Text
    seed: Annotated[int, Field(ge=0)] = 1
    phases: Annotated[tuple[Phase, ...], A_LIST, Field(min_length=1, max_length=255)]
    mix: Mix = Mix(ensemble=1.0)
    payloads: Annotated[
        tuple[PayloadShare, ...], A_LIST, Field(min_length=1, max_length=1000), AfterValidator(one_per_image)
    ]
    with_text_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the encoder and ensemble requests that carry a text; the other kinds have no use for one."""
    deadline_s: Annotated[float, Field(ge=10, le=600)] = 30.0
    """Triton 2.51 crashes when a client's deadline expires inside an ensemble. So a deadline is a last resort, far
    above the worst latency and the server's own queue budget of 4 s, and under 10 s is refused."""
    in_flight_cap: PositiveInt = 256
    """Unanswered requests per load process. What comes due above it is recorded as `not_sent`."""
    drain_s: Annotated[float, Field(ge=0, le=600)] = Field(default_factory=lambda known: known.get("deadline_s", 30.0))
    """How long to wait for answers after the last phase; with less than the deadline some may be cut off."""
    objectives: Objectives

    @model_validator(mode="after")
    def _phases_agree(self) -> Self:
        refuse_repeats("phase", [phase.name for phase in self.phases])
        loops = {"open" if phase.rate else "closed" for phase in self.phases}
        if len(loops) > 1:
            raise ValueError("phases: some have `rate` and some `users`; a scenario is open loop or closed loop")
        if all(phase.warmup for phase in self.phases):
            raise ValueError("phases: all are warm-up, so nothing would be judged; leave warmup out of one")
        self._refuse_slow_ramps()
        return self

    def _refuse_slow_ramps(self) -> None:
        """A ramp longer than its phase never gets there, and Locust says nothing about it."""
        before = 0
        for index, phase in enumerate(self.phases):
            users = phase.users or 0
            needed_s = abs(users - before) / phase.users_per_s if phase.users_per_s else 0.0
            if needed_s > phase.duration_s:
                raise ValueError(
                    f"phases[{index}].users_per_s: from {before} to {users} users takes {needed_s:g} s, "
                    f"but the phase lasts {phase.duration_s:g} s"
                )
            before = users

    @property
    def loop(self) -> Literal["open", "closed"]:
        """Whether requests follow a schedule (open) or earlier answers (closed)."""
        return "closed" if self.phases[0].rate is None else "open"

    @property
    def duration_s(self) -> float:
        """Length of all phases together, without the time to drain."""
        return sum(phase.duration_us for phase in self.phases) / MICROSECONDS

    @property
    def needs_capacity(self) -> bool:
        """Whether a rate is a multiple of the target's capacity, so that `resolved` has to come first."""
        return any(phase.rate is not None and phase.rate.needs_capacity for phase in self.phases)

    def resolved(self, capacity_per_s: float) -> Scenario:
        """The same scenario with all rates absolute; `capacity_per_s` is for this mix and these payloads.

        Raises `ScenarioError` for a capacity that is not above 0.
        """
        if not self.needs_capacity:
            return self
        if not 0 < capacity_per_s < float("inf"):
            raise ScenarioError(f"{self.name}: a capacity of {capacity_per_s} requests/s; it has to be above 0")
        phases = tuple(
            phase.model_copy(update={"rate": phase.rate and phase.rate.resolved(capacity_per_s)})
            for phase in self.phases
        )
        return self.model_copy(update={"phases": phases})

    @property
    def peak_rate_per_s(self) -> float | None:
        """Highest scheduled rate in requests per second; None in a closed loop. Raises as `rate_at`."""
        if self.loop == "closed":
            return None
        segments = (segment for phase in self.phases if phase.rate for segment in phase.rate.segments(phase.duration_s))
        return max(max(segment.from_per_s, segment.to_per_s) for segment in segments)

    def phase_at(self, elapsed_s: float) -> Phase | None:
        """Phase `elapsed_s` after the start of the run; None before it and from its end on."""
        found = self._place(elapsed_s)
        return self.phases[found[0]] if found else None

    def rate_at(self, elapsed_s: float) -> float | None:
        """Scheduled requests per second; None outside the run and in a closed loop.

        Raises `ScenarioError` when a capacity is needed and not known yet (`needs_capacity`).
        """
        found = self._place(elapsed_s)
        phase = self.phases[found[0]] if found else None
        if found is None or phase is None or phase.rate is None:
            return None
        segments = phase.rate.segments(phase.duration_s)
        current = max((s for s in segments if s.start_s <= found[1]), key=lambda s: s.start_s)
        return current.rate_at(found[1])

    def users_at(self, elapsed_s: float) -> int | None:
        """Users at that moment, ramps counted in whole users; None outside the run and in an open loop."""
        found = self._place(elapsed_s)
        if found is None:
            return None
        index, in_phase_s = found
        phase = self.phases[index]
        if phase.users is None or phase.users_per_s is None:
            return phase.users
        before = (self.phases[index - 1].users or 0) if index else 0
        moved = min(int(in_phase_s * phase.users_per_s), abs(phase.users - before))
        return before + moved if phase.users >= before else before - moved

    def _place(self, elapsed_s: float) -> tuple[int, float] | None:
        """Index of the phase at that moment, and seconds since it began."""
        end_us = 0
        for index, phase in enumerate(self.phases):
            start_us, end_us = end_us, end_us + phase.duration_us
            if start_us / MICROSECONDS <= elapsed_s < end_us / MICROSECONDS:
                return index, elapsed_s - start_us / MICROSECONDS
        return None


def shipped_scenarios() -> list[Path]:
    """The scenario files that come with the harness, in the order of their names."""
    return sorted(Path(__file__).parent.glob("*.yaml"))


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Read a scenario from a YAML file, or a shipped one by its bare name (`smoke`).

    Raises `ScenarioError` with one line for each problem found.
    """
    path = _find(Path(name_or_path))
    content = _read_yaml(path)
    if not isinstance(content, Mapping):
        raise ScenarioError(f"{path}: holds no scenario; it should begin with `name:`, `purpose:`, `phases:`")
    try:
        return Scenario.model_validate(content)
    except ValidationError as error:
        raise ScenarioError("\n".join(f"{path}: {problem}" for problem in problems(error))) from None


def _find(given: Path) -> Path:
    """A bare name means a shipped scenario; anything with a folder or a suffix is a path."""
    if given.suffix or len(given.parts) != 1:
        return given
    shipped = {path.stem: path for path in shipped_scenarios()}
    if given.name not in shipped:
        raise ScenarioError(f"{unknown_name('scenario', given.name, shipped)}, or the path of a YAML file")
    return shipped[given.name]


def _read_yaml(path: Path) -> object:
    try:
        return YAML(typ="safe", pure=True).load(StringIO(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise ScenarioError(f"{path}: {line}not valid YAML: {error.problem}") from None
    except YAMLError as error:
        raise ScenarioError(f"{path}: not valid YAML: {str(error).partition(chr(10))[0]}") from None
