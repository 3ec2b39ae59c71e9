"""Verdicts: what an objective's indicator says about one recording, and whether that is enough to judge [pure].

A whole interval on the good side of the bound passes, a whole interval on the bad side fails, and everything else is
inconclusive: too little data, none at all, or a measurement that cannot be trusted.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from loadtests.recording import Recording
from slo_checks.alone import service_alone
from slo_checks.asserted import each_once
from slo_checks.completeness import completeness, conservation
from slo_checks.estimate import Estimate, fewest_to_prove
from slo_checks.generator import generator
from slo_checks.indicators import FROM_REQUESTS, estimate
from slo_checks.objectives import Objective, Objectives, check_names, objectives_of
from slo_checks.quantities import interval, promised, quantity
from slo_checks.validity import Conservation, Effect, ValidityCheck
from slo_checks.witness import witnesses

__all__ = [
    "Conservation", "Effect", "Estimate", "Outcome", "Role", "RunVerdict", "ValidityCheck", "Verdict", "evaluate",
    "exit_code", "judge", "to_json", "undermines",
]  # fmt: skip

FORMAT_VERSION: Final = 1


class Outcome(StrEnum):
    """PASS and FAIL are claims that the data prove; everything else is INCONCLUSIVE."""

    PASS = "pass"  # noqa: S105 - an outcome, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


Role = Literal["must_pass", "must_not_fail", "not_asked"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One objective judged. ``reason`` is one sentence for people, with the numbers in it.

    ``role`` says what the scenario asked: ``must_pass`` is to be proven, ``must_not_fail`` may stay unproven,
    ``not_asked`` is shown and decides nothing.
    """

    objective: Objective
    role: Role
    outcome: Outcome
    reason: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """The whole run judged: any fail fails it; else any must_pass not proven leaves it inconclusive.

    ``objectives`` are those that it was judged by, with their limits of measuring.
    """

    outcome: Outcome
    reason: str
    verdicts: tuple[Verdict, ...]
    validity: tuple[ValidityCheck, ...]
    conservation: Conservation
    emulated: bool
    objectives: Objectives


def evaluate(recording: Recording, objectives: Objectives | None = None) -> RunVerdict:
    """Judge a run by the objectives that were in force when it was planned, or by others.

    Raises:
        ObjectiveError: the plan's objectives cannot be read, or the scenario names one that does not exist.
    """
    known = objectives_of(recording) if objectives is None else objectives
    check_names(recording.plan.scenario, known)
    judged = each_once(recording)
    checks = (*completeness(recording), *generator(judged, known), *witnesses(recording, known))
    verdicts = tuple(_verdict(judged, objective, known, checks) for objective in known.objectives.values())
    outcome, reason = _whole_run(verdicts)
    emulated = bool(recording.plan.target.get("emulated")) or any(sample.get("emulated") for sample in recording.gpu)
    return RunVerdict(outcome, reason, verdicts, checks, conservation(recording), emulated, known)


def exit_code(outcome: Outcome) -> int:
    """0 pass, 1 fail, 3 inconclusive; 2 is for errors of usage and of the tool itself."""
    return {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3}[outcome]


# --- one objective -------------------------------------------------------------------------------------------------


def judge(objective: Objective, found: Estimate) -> tuple[Outcome, str]:
    """What an estimate proves by itself, in a sentence. Comparisons with NaN are false, so NaN proves nothing."""
    if objective.comparison == "at_least":
        meets = found.low is not None and found.low >= objective.bound
        misses = found.high is not None and found.high < objective.bound
    else:
        meets = found.high is not None and found.high <= objective.bound
        misses = found.low is not None and found.low > objective.bound
    if misses:
        return Outcome.FAIL, f"misses {_target(objective)}: {_numbers(objective, found)}"
    if meets and found.samples >= objective.fewest_samples:
        return Outcome.PASS, f"meets {_target(objective)}: {_numbers(objective, found)}"
    return Outcome.INCONCLUSIVE, _unproven(objective, found)


def _unproven(objective: Objective, found: Estimate) -> str:
    """Why nothing is proven, and how much more data would do."""
    numbers = f": {_numbers(objective, found)}" if found.samples else ""
    if found.samples < objective.fewest_samples and (found.samples or found.reason is None):
        kind = "requests" if objective.allowed_miss_ratio else "samples"
        too_few = f"too few: {found.samples:,} of {objective.fewest_samples:,} {kind}"
        return f"{too_few}{f' ({found.reason})' if found.value is None and found.reason else ''}{numbers}"
    if found.reason is not None:
        return f"{found.reason}{numbers}"
    allowed, misses = objective.allowed_miss_ratio, found.misses
    if allowed is None or misses is None or misses > allowed * found.samples:
        return f"not proven either way{numbers}"
    needed = fewest_to_prove(misses, allowed, objective.confidence)
    return f"not proven: {needed:,} requests would be needed with {_misses(misses)}{numbers}"


def _verdict(
    recording: Recording, objective: Objective, objectives: Objectives, checks: tuple[ValidityCheck, ...]
) -> Verdict:
    found = estimate(recording, objective, objectives)
    outcome, reason = judge(objective, found)
    doubts = [check for check in checks if check.ok is not True and _concerns(check, objective)]
    if outcome is Outcome.PASS and doubts:
        outcome, reason = Outcome.INCONCLUSIVE, f"{doubts[0].reason}; it alone would say: {reason}"
    if outcome is Outcome.FAIL:
        late = next((check for check in doubts if check.effect is Effect.GENERATOR), None)
        outcome, reason = _despite_the_generator(recording, objective, objectives, late, reason)
    return Verdict(objective, _role(recording, objective.name), outcome, reason, found)


def _concerns(check: ValidityCheck, objective: Objective) -> bool:
    match check.effect:
        case Effect.NONE:
            return False
        case Effect.WATCHED:
            return objective.indicator not in FROM_REQUESTS
        case Effect.BLOCKS_PASS | Effect.GENERATOR:
            return True


def _despite_the_generator(
    recording: Recording, objective: Objective, objectives: Objectives, late: ValidityCheck | None, reason: str
) -> tuple[Outcome, str]:
    """A fail stands only if the service alone fails as well, even where the generator is in order.

    For its limits allow a lateness that may be more than a strict objective allows. What a generator in order did not
    send is the service's doing.
    """
    if objective.indicator in FROM_REQUESTS:
        alone = service_alone(recording, objective, objectives.measurement, unsent=late is None)
        outcome, alone_reason = judge(objective, estimate(alone, objective, objectives))
        if outcome is Outcome.FAIL:
            told = f"; without the generator's part too ({late.name}): {alone_reason}" if late else ""
            return outcome, f"{reason}{told}"
        if late is None:
            return Outcome.INCONCLUSIVE, f"the generator's lateness decides this: {reason}; without it: {alone_reason}"
    if late is None:
        return Outcome.FAIL, reason
    return Outcome.INCONCLUSIVE, f"{late.reason}; it alone would say: {reason}"


def _role(recording: Recording, name: str) -> Role:
    asked = recording.plan.scenario.objectives
    if name in asked.must_pass:
        return "must_pass"
    return "must_not_fail" if name in asked.must_not_fail else "not_asked"


# --- the whole run -------------------------------------------------------------------------------------------------


def _whole_run(verdicts: tuple[Verdict, ...]) -> tuple[Outcome, str]:
    asked = [verdict for verdict in verdicts if verdict.role != "not_asked"]
    failed = [verdict for verdict in asked if verdict.outcome is Outcome.FAIL]
    passed = [verdict for verdict in asked if verdict.outcome is Outcome.PASS]
    unproven = [verdict for verdict in asked if verdict.role == "must_pass" and verdict.outcome is not Outcome.PASS]
    if failed:
        return Outcome.FAIL, f"missed: {_titles(failed)}"
    if unproven:
        return Outcome.INCONCLUSIVE, f"not proven: {_titles(unproven)}"
    if not passed:
        return Outcome.INCONCLUSIVE, "nothing was judged"
    left = [verdict for verdict in asked if verdict.outcome is Outcome.INCONCLUSIVE]
    rest = f"; not missed, though not proven: {_titles(left)}" if left else ""
    return Outcome.PASS, f"proven: {_titles(passed)}{rest}"


def _titles(verdicts: list[Verdict]) -> str:
    return ", ".join(verdict.objective.title for verdict in verdicts)


def undermines(check: ValidityCheck, verdicts: tuple[Verdict, ...]) -> bool:
    """Whether a check keeps this run from passing: it is not ok, and a pass that was asked for rests on it."""
    required = [verdict.objective for verdict in verdicts if verdict.role == "must_pass"]
    return check.ok is not True and any(_concerns(check, objective) for objective in required)


# --- words and JSON ------------------------------------------------------------------------------------------------


def _target(objective: Objective) -> str:
    side = "at least" if objective.comparison == "at_least" else "at most"
    return f"{side} {promised(objective.bound, objective.unit)}"


def _numbers(objective: Objective, found: Estimate) -> str:
    """`99.95 % (99.91 % to 99.98 %), 5 misses of 10,000`."""
    unit, bound = objective.unit, objective.bound
    within = interval(found.low, found.high, unit, bound)
    count = f"{found.samples:,}" if found.misses is None else f"{_misses(found.misses)} of {found.samples:,}"
    emulated = ", emulated" if found.emulated else ""
    return f"{quantity(found.value, unit, bound)}{f' ({within})' if within else ''}, {count}{emulated}"


def _misses(count: int) -> str:
    return "1 miss" if count == 1 else f"{count:,} misses"


def to_json(run_verdict: RunVerdict, recording: Recording) -> dict[str, Any]:
    """The verdict as `verdict.json` holds it: JSON types only, null for what is not known.

    An infinite latency is null too, and its ``value_text`` says so.
    """
    plan, manifest = recording.plan, recording.manifest
    return {
        "format_version": FORMAT_VERSION,
        "run": plan.run,
        "scenario": plan.scenario.name,
        "target": plan.target.get("name"),
        "loop": plan.loop,
        "started_at": plan.started_at,
        "ended_at": manifest.ended_at if manifest else None,
        "outcome": run_verdict.outcome.value,
        "exit_code": exit_code(run_verdict.outcome),
        "reason": run_verdict.reason,
        "emulated": run_verdict.emulated,
        "objectives": [_verdict_json(verdict) for verdict in run_verdict.verdicts],
        "validity": [asdict(check) | {"effect": check.effect.value} for check in run_verdict.validity],
        "conservation": asdict(run_verdict.conservation),
    }


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    objective, found = verdict.objective, verdict.estimate
    return {
        **objective.model_dump(mode="json"),
        "role": verdict.role,
        "outcome": verdict.outcome.value,
        "reason": verdict.reason,
        "value": _finite(found.value),
        "low": _finite(found.low),
        "high": _finite(found.high),
        "value_text": quantity(found.value, objective.unit, objective.bound),
        "samples": found.samples,
        "misses": found.misses,
        "emulated": found.emulated,
        "evidence": list(found.evidence),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
