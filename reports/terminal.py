"""Verdict -> lines for the console [pure]; readable in 80 columns, and without colour."""

from __future__ import annotations

from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from loadtests.recording import Recording
from reports import wording
from reports.markdown import balance_line
from slo_checks.verdict import Outcome, RunVerdict, Verdict, undermines

STYLES: Final = {Outcome.PASS: "bold green", Outcome.FAIL: "bold red", Outcome.INCONCLUSIVE: "bold yellow"}
_SHORT_ROLES: Final = {"must_pass": "prove", "must_not_fail": "not miss", "not_asked": "shown"}


def verdict_lines(recording: Recording, verdict: RunVerdict) -> list[RenderableType]:
    """The table, the reasons behind what did not pass, and what the run as a whole comes to."""
    lines: list[RenderableType] = [verdict_table(verdict)]
    asked = [each for each in verdict.verdicts if each.role != "not_asked"]
    lines += [_because(each) for each in asked if each.outcome is not Outcome.PASS]
    lines += [_doubt(check.name, check.reason) for check in verdict.validity if undermines(check, verdict.verdicts)]
    if recording.manifest is None:
        lines.append(Text("Not sealed: the run did not finish, and rows may be missing.", style="yellow"))
    if recording.requests.empty:
        lines.append(Text("No data: the recording holds no request rows.", style="yellow"))
    lines.append(Text(balance_line(verdict.conservation)))
    return [*lines, Text.assemble(_outcome(verdict.outcome), ": ", verdict.reason)]


def verdict_table(verdict: RunVerdict) -> Table:
    """One line for each objective. A number from an emulated device has a star, which the caption explains."""
    starred = any(each.estimate.emulated for each in verdict.verdicts) or verdict.emulated
    table = Table(
        box=None, pad_edge=False, padding=(0, 1), header_style="bold",
        caption="* emulated device: not a measurement of hardware" if starred else None, caption_justify="left",
    )  # fmt: skip
    table.add_column("", no_wrap=True)
    table.add_column("Promise", max_width=24)
    table.add_column("Promised", justify="right", no_wrap=True)
    table.add_column("Measured", justify="right", no_wrap=True)
    table.add_column("Samples", justify="right", no_wrap=True)
    table.add_column("Must", no_wrap=True)
    for each in verdict.verdicts:
        table.add_row(
            _outcome(each.outcome),
            Text(each.objective.title),
            wording.promise(each.objective),
            wording.measured(each) + ("*" if each.estimate.emulated else ""),
            wording.count(each.estimate.samples),
            _SHORT_ROLES[each.role],
        )
    return table


def _outcome(outcome: Outcome) -> Text:
    return Text(f"{wording.OUTCOME_SIGNS[outcome]} {wording.OUTCOME_WORDS[outcome]}", style=STYLES[outcome])


def _because(verdict: Verdict) -> Text:
    return Text.assemble(_outcome(verdict.outcome), f" {verdict.objective.title}: {verdict.reason}")


def _doubt(name: str, reason: str) -> Text:
    return Text(f"! {name.replace('_', ' ')}: {reason}", style="yellow")
