"""What a report tells: one run, its verdict, and everything computed from them [pure]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from loadtests.recording import Recording
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
)
from slo_checks.verdict import RunVerdict, Verdict

_ROLES = ("must_pass", "must_not_fail", "not_asked")


@dataclass(frozen=True, slots=True)
class Contents:
    """``lasted_s`` is None when nobody recorded an end; ``timeline`` when there are no request rows."""

    recording: Recording
    verdict: RunVerdict
    timeline: Timeline | None
    latency: tuple[KindLatency, ...]
    errors: tuple[ErrorClass, ...]
    servers: tuple[ServerShare, ...]
    lag: GeneratorLag
    processes: tuple[LoadProcess, ...]
    marks: tuple[Mark, ...]
    limits: Limits

    @classmethod
    def of(cls, recording: Recording, verdict: RunVerdict) -> Self:
        return cls(
            recording=recording,
            verdict=verdict,
            timeline=timeline(recording),
            latency=latency_by_kind(recording),
            errors=errors_by_class(recording),
            servers=answers_by_server(recording),
            lag=generator_lag(recording),
            processes=load_processes(recording),
            marks=marks(recording),
            limits=limits(verdict),
        )

    @property
    def lasted_s(self) -> float | None:
        manifest = self.recording.manifest
        return None if manifest is None else manifest.ended_at - self.recording.plan.started_at

    @property
    def emulated(self) -> bool:
        """Whether a device that only emulates its work stands behind any number here."""
        said = self.recording.plan.target.get("emulated") is True
        return said or self.verdict.emulated or (self.timeline is not None and self.timeline.gpu_emulated)

    @property
    def by_role(self) -> tuple[Verdict, ...]:
        """The verdicts that decide the run first."""
        return tuple(sorted(self.verdict.verdicts, key=lambda verdict: _ROLES.index(verdict.role)))
