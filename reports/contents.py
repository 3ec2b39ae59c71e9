"""What a report tells: one run, its verdict, and everything computed from them [pure]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from loadtests.recording import Recording
from reports.cautions import Caution, cautions
from reports.events import Mark, marks
from reports.limits import Limits, limits
from reports.series import Timeline, timeline
from reports.tables import (
    ErrorClass,
    GeneratorLag,
    KindLatency,
    LoadProcess,
    ServerShare,
    answers_by_server,
    errors_by_class,
    generator_lag,
    latency_by_kind,
    load_processes,
    warm_up_count,
)
from reports.wording import by_role
from slo_checks.verdict import RunVerdict, ValidityCheck, Verdict

_DOUBT: Final = (False, None, True)


@dataclass(frozen=True, slots=True)
class Contents:
    """``lasted_s`` is None when nobody recorded an end; ``timeline`` when there are no request rows."""

    recording: Recording
    verdict: RunVerdict
    cautions: tuple[Caution, ...]
    timeline: Timeline | None
    latency: tuple[KindLatency, ...]
    errors: tuple[ErrorClass, ...]
    servers: tuple[ServerShare, ...]
    lag: GeneratorLag
    processes: tuple[LoadProcess, ...]
    in_warm_up: int
    marks: tuple[Mark, ...]
    limits: Limits

    @classmethod
    def of(cls, recording: Recording, verdict: RunVerdict) -> Self:
        return cls(
            recording=recording,
            verdict=verdict,
            cautions=cautions(recording, verdict),
            timeline=timeline(recording),
            latency=latency_by_kind(recording),
            errors=errors_by_class(recording),
            servers=answers_by_server(recording),
            lag=generator_lag(recording),
            processes=load_processes(recording),
            in_warm_up=warm_up_count(recording),
            marks=marks(recording),
            limits=limits(verdict),
        )

    @property
    def lasted_s(self) -> float | None:
        manifest = self.recording.manifest
        return None if manifest is None else manifest.ended_at - self.recording.plan.started_at

    @property
    def by_role(self) -> tuple[Verdict, ...]:
        """The verdicts that decide the run first."""
        return by_role(self.verdict.verdicts)

    @property
    def checks(self) -> tuple[ValidityCheck, ...]:
        """The checks of the measurement, those that failed first."""
        return tuple(sorted(self.verdict.validity, key=lambda check: _DOUBT.index(check.ok)))
