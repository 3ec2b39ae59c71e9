"""Verdict -> lines for the console [pure]; readable in 80 columns, and without colour."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from loadtests.recording import Recording
from reports import wording
from reports.cautions import cautions
from reports.tables import warm_up_count
from slo_checks.verdict import Outcome, RunVerdict, ValidityCheck, undermines

STYLES: Final = {Outcome.PASS: "bold green", Outcome.FAIL: "bold red", Outcome.INCONCLUSIVE: "bold yellow"}
_SHORT_ROLES: Final = {"must_pass": "prove", "must_not_fail": "not miss", "not_asked": wording.UNKNOWN}
_CAUTION: Final = Text("!", style="bold yellow")


def verdict_lines(recording: Recording, verdict: RunVerdict) -> list[RenderableType]:
    """The table, the reasons behind what did not pass, and what the run as a whole comes to."""
    asked = [each for each in wording.by_role(verdict.verdicts) if each.role != "not_asked"]
    unproven = [each for each in asked if each.outcome is not Outcome.PASS]
    told = " ".join(each.reason for each in unproven)
    doubts = [check for check in verdict.validity if undermines(check, verdict.verdicts) and check.reason not in told]
    paragraphs: list[RenderableType] = [
        verdict_table(verdict),
        _listed((_sign(each.outcome), f"{each.objective.title}: {each.reason}") for each in unproven),
        _listed(
            [(_CAUTION, f"{caution.label}: {caution.text}") for caution in cautions(recording, verdict)]
            + [(_CAUTION, _doubt(check)) for check in doubts]
        ),
        Text(wording.balance(verdict.conservation, warm_up_count(recording))),
        Text.assemble(_outcome(verdict.outcome), ": ", verdict.reason),
    ]
    filled = [each for each in paragraphs if not isinstance(each, Table) or each.row_count]
    return [part for each in filled for part in (each, Text())][:-1]


def verdict_table(verdict: RunVerdict) -> Table:
    """One line for each objective. A number from an emulated device has a star, which the caption explains."""
    starred = any(map(wording.emulated, verdict.verdicts))
    table = Table(
        box=None, pad_edge=False, padding=(0, 1), header_style="bold",
        caption="* from an emulated device" if starred else None, caption_justify="left",
    )  # fmt: skip
    table.add_column("Outcome", no_wrap=True)
    table.add_column("Promise", max_width=24)
    table.add_column("Promised", justify="right", no_wrap=True)
    table.add_column("Measured", justify="right", no_wrap=True)
    table.add_column("Samples", justify="right", no_wrap=True)
    table.add_column("Must", no_wrap=True)
    for each in wording.by_role(verdict.verdicts):
        table.add_row(
            _outcome(each.outcome),
            Text(each.objective.title),
            wording.promise(each.objective),
            wording.measured(each) + ("*" if wording.emulated(each) else ""),
            wording.count(each.estimate.samples),
            _SHORT_ROLES[each.role],
            style="dim" if each.role == "not_asked" else None,
        )
    return table


def _listed(entries: Iterable[tuple[Text, str]]) -> Table:
    """One entry below the other, each behind its sign."""
    grid = Table.grid(padding=(0, 1))
    for sign, text in entries:
        grid.add_row(sign, Text(text))
    return grid


def _doubt(check: ValidityCheck) -> str:
    found = "violated" if check.ok is False else "not checked"
    return f"{wording.sentence(check.name.replace('_', ' '))} ({found}): {check.reason}"


def _sign(outcome: Outcome) -> Text:
    return Text(wording.OUTCOME_SIGNS[outcome], style=STYLES[outcome])


def _outcome(outcome: Outcome) -> Text:
    return Text(f"{wording.OUTCOME_SIGNS[outcome]} {wording.OUTCOME_WORDS[outcome]}", style=STYLES[outcome])
