"""Contents -> Markdown for a CI job's summary [pure]: the verdict in one screen."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Final

from reports import wording
from reports.contents import Contents
from slo_checks.verdict import Outcome, ValidityCheck, Verdict, undermines

EMOJI: Final = {Outcome.PASS: "✅", Outcome.FAIL: "❌", Outcome.INCONCLUSIVE: "⚠️"}
_COLUMNS: Final = ("Outcome", "Promise", "Promised", "Measured", "Samples", "Role", "Why")
_LONGEST_CELL: Final = 240
_MARKS: Final = re.compile(r"([\\`*_\[\]|~#])")


def summary(contents: Contents, report: str | None = None) -> str:
    """``report`` is where the page is, as the reader of the summary finds it."""
    run, plan = contents.verdict, contents.recording.plan
    parts = [
        f"## {EMOJI[run.outcome]} {wording.OUTCOME_WORDS[run.outcome]}: {text(plan.scenario.name)}",
        f"{text(wording.sentence(run.reason))}.",
        *(f"> **{caution.label}**: {text(caution.text)}." for caution in contents.cautions),
        _verdicts(contents.by_role),
        _key_numbers(contents),
        f"**Every request accounted for?** {text(wording.balance(run.conservation, contents.in_warm_up))}",
    ]
    doubts = [check for check in run.validity if undermines(check, run.verdicts)]
    if doubts:
        parts.append("**Doubts about the measurement**\n\n" + "\n".join(_doubt(check) for check in doubts))
    if report is not None:
        parts.append(f"Full report: `{report.replace('`', '')}`")
    return "\n\n".join(part for part in parts if part) + "\n"


def text(given: str) -> str:
    """``given`` on one line, so that nothing in it is read as Markdown or HTML."""
    return _MARKS.sub(r"\\\1", html.escape(wording.shortened(given, _LONGEST_CELL), quote=False))


def _doubt(check: ValidityCheck) -> str:
    sign = "❌ violated" if check.ok is False else "⚠️ not checked"
    return f"- {sign}: **{text(check.name.replace('_', ' '))}**: {text(check.reason)}"


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "No objective was judged."
    rows: list[Sequence[str]] = [_COLUMNS, ["---"] * len(_COLUMNS), *map(_row, verdicts)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _row(verdict: Verdict) -> tuple[str, ...]:
    objective = verdict.objective
    bounds = wording.interval(verdict)
    measured = wording.measured(verdict) + (f" ({bounds})" if bounds else "")
    return (
        f"{EMOJI[verdict.outcome]} {wording.OUTCOME_WORDS[verdict.outcome]}",
        text(objective.title),
        wording.promise(objective),
        f"{measured} emulated" if wording.emulated(verdict) else measured,
        wording.count(verdict.estimate.samples),
        wording.ROLE_WORDS[verdict.role],
        text(wording.sentence(verdict.reason)),
    )


def _key_numbers(contents: Contents) -> str:
    plan = contents.recording.plan
    facts = [
        f"target {text(wording.target(plan))}",
        f"started {wording.utc(plan.started_at)}",
        f"lasted {wording.seconds(contents.lasted_s)}" if contents.lasted_s is not None else "no end was recorded",
        f"{wording.count(len(contents.recording.requests))} requests recorded",
        f"generator lag p99 {wording.milliseconds(contents.lag.p99_ms)}",
        f"servers that answered: {len(contents.servers)}",
    ]
    return " · ".join(facts)
