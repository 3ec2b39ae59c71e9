"""Typed loader of `objectives.yaml`; the file itself defines every objective in words."""

from __future__ import annotations

import math
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from loadtests.recording import Recording
from scenarios.scenario import Scenario
from scenarios.strict import Strict, problems, unknown_name
from slo_checks.estimate import fewest_to_prove

SHIPPED: Final = Path(__file__).with_name("objectives.yaml")

IndicatorName = Literal[
    "availability", "error_rate", "latency", "pod_start", "scale_out", "gpu_utilisation", "recovery"
]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
Text = Annotated[str, Field(min_length=1)]
Ratio = Annotated[float, Field(ge=0, le=1)]
LEAST_MISS_RATIO: Final = 1e-12
"""Less would need more than three million million requests."""


class ObjectiveError(Exception):
    """Objectives cannot be used as they stand; the message says where, what is wrong and what is allowed."""


class Objective(Strict):
    """One promise. ``bound`` is in ``unit``; a ratio is 0..1, a percentile too."""

    name: Name
    title: Text
    indicator: IndicatorName
    comparison: Literal["at_least", "at_most"]
    bound: PositiveFloat
    unit: Literal["ratio", "s"]
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    fewest_samples: PositiveInt
    source: Text
    note: Text | None = None
    percentile: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.percentile is not None) != (self.indicator == "latency"):
            raise ValueError("percentile: belongs to the indicator latency, which needs one, and to no other")
        if self.unit != _UNITS[self.indicator]:
            raise ValueError(f"unit: {self.indicator} is measured in '{_UNITS[self.indicator]}', not '{self.unit}'")
        if self.comparison != _COMPARISONS[self.indicator]:
            raise ValueError(f"comparison: {self.indicator} is good when {_COMPARISONS[self.indicator]} its bound")
        if self.unit == "ratio" and self.bound >= 1:
            raise ValueError(f"bound: no number of requests can prove a ratio of {self.bound:g}; give one below 1")
        return self

    @model_validator(mode="after")
    def _provable(self) -> Self:
        allowed = self.allowed_miss_ratio
        if allowed is not None and allowed < LEAST_MISS_RATIO:
            raise ValueError(f"a share of misses of at most {allowed:.2g} is more than any run can prove; allow more")
        least = 1 if allowed is None else fewest_to_prove(0, allowed, self.confidence)
        if self.fewest_samples < least:
            raise ValueError(f"fewest_samples: {self.fewest_samples} prove nothing here; {least} is the least")
        return self

    @property
    def allowed_miss_ratio(self) -> float | None:
        """Share of requests that may miss; None where the indicator does not count requests."""
        match self.indicator:
            case "availability":
                return 1 - self.bound
            case "error_rate":
                return self.bound
            case "latency":
                return 1 - (self.percentile or math.nan)
            case _:
                return None


_UNITS: Final[dict[str, str]] = {
    "availability": "ratio", "error_rate": "ratio", "latency": "s", "pod_start": "s", "scale_out": "s",
    "gpu_utilisation": "ratio", "recovery": "s",
}  # fmt: skip
_COMPARISONS: Final[dict[str, str]] = {
    indicator: "at_least" if indicator in {"availability", "gpu_utilisation"} else "at_most" for indicator in _UNITS
}


class Measurement(Strict):
    """When the measurement itself can be trusted."""

    lag_p99_most_s: PositiveFloat
    lag_worst_s: PositiveFloat | None = None
    """None in the plans of runs that were recorded before there was such a limit."""
    cpu_most_ratio: PositiveFloat
    cpu_window_s: PositiveFloat
    silence_most_s: PositiveFloat
    reconcile_most_ratio: Ratio


class GpuLimits(Strict):
    """When a GPU number can be trusted."""

    sample_interval_s: PositiveFloat
    active_least_s: PositiveFloat
    coverage_least_ratio: Ratio
    unchanged_most_s: PositiveFloat
    witness_most_ratio: Ratio


class RecoveryLimits(Strict):
    """What is an outage, and when it is over."""

    window_s: PositiveFloat
    steady_windows: PositiveInt
    fewest_failures: PositiveInt


class Objectives(Strict):
    """All objectives by name, and the limits of measuring them."""

    format_version: Literal[1]
    objectives: Annotated[dict[str, Objective], Field(min_length=1)]
    measurement: Measurement
    gpu: GpuLimits
    recovery: RecoveryLimits

    @model_validator(mode="before")
    @classmethod
    def _name_them(cls, given: Any) -> Any:  # noqa: ANN401  anything may come out of a YAML file
        """In the file an objective's name is its key."""
        if not isinstance(given, dict) or not isinstance(given.get("objectives"), dict):
            return given
        named = {
            key: {**body, "name": key} if isinstance(body, dict) else body
            for key, body in given["objectives"].items()
        }  # fmt: skip
        return {**given, "objectives": named}

    @property
    def latencies(self) -> list[Objective]:
        """The objectives that say which answers are too slow, and how many of them."""
        return [objective for objective in self.objectives.values() if objective.indicator == "latency"]

    @property
    def latency(self) -> Objective | None:
        """The one with the lowest bound."""
        return min(self.latencies, key=lambda objective: objective.bound, default=None)


def objectives_document(path: Path | None = None) -> dict[str, Any]:
    """The parsed YAML document, as a run's plan stores it; the shipped file unless `path` names another.

    Raises:
        ObjectiveError: the file cannot be read, or it is no valid set of objectives.
    """
    file = SHIPPED if path is None else path
    document = _read_yaml(file)
    _parse(document, str(file))
    return dict(document)


def load_objectives(path: Path | None = None) -> Objectives:
    """Read objectives from a YAML file, the shipped one unless `path` names another.

    Raises:
        ObjectiveError: with one line for each problem found.
    """
    file = SHIPPED if path is None else path
    return _parse(_read_yaml(file), str(file))


def objectives_of(recording: Recording) -> Objectives:
    """The objectives that were in force when the run was planned.

    Raises:
        ObjectiveError: the plan holds none, or none that this version can read.
    """
    return _parse(recording.plan.objectives, f"{recording.directory / 'plan.json'}: objectives")


def check_names(scenario: Scenario, objectives: Objectives) -> None:
    """Refuse a scenario that asks for objectives which do not exist.

    Raises:
        ObjectiveError: names the first of them, and the nearest that does exist.
    """
    for role in ("must_pass", "must_not_fail"):
        for name in getattr(scenario.objectives, role):
            if name not in objectives.objectives:
                problem = unknown_name("objective", name, objectives.objectives)
                raise ObjectiveError(f"scenario {scenario.name}: objectives.{role}: {problem}")


def _parse(document: object, where: str) -> Objectives:
    try:
        return Objectives.model_validate(document)
    except ValidationError as error:
        raise ObjectiveError("\n".join(f"{where}: {problem}" for problem in problems(error))) from None


def _read_yaml(path: Path) -> Any:  # noqa: ANN401  a YAML file may hold anything
    try:
        return YAML(typ="safe", pure=True).load(StringIO(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ObjectiveError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ObjectiveError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise ObjectiveError(f"{path}: {line}not valid YAML: {error.problem}") from None
    except YAMLError as error:
        raise ObjectiveError(f"{path}: not valid YAML: {error}") from None
