"""Numbers -> text for people, the same in page, summary and terminal [pure]. None reads as a dash, never as 0."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from loadtests.recording import Plan
from slo_checks import quantities
from slo_checks.objectives import Objective
from slo_checks.verdict import Conservation, Outcome, Verdict

UNKNOWN: Final = "–"  # noqa: RUF001 - a dash, for people
NEVER: Final = "never"
LONGEST_TEXT: Final = 160
STATUS_WORDS: Final = {
    "ok": "answered well",
    "shed": "shed by the server",
    "draining": "server was stopping",
    "transport": "connection failed",
    "deadline": "deadline passed",
    "bad_input": "image refused",
    "server_fault": "server fault",
    "wrong_answer": "wrong answer",
    "other": "other error",
    "in_flight": "no outcome at the end",
    "not_sent": "not sent",
    "unstamped": "ok, at no known time",
    "unknown": "unknown status",
}
OUTCOME_WORDS: Final = {Outcome.PASS: "PASS", Outcome.FAIL: "FAIL", Outcome.INCONCLUSIVE: "INCONCLUSIVE"}
OUTCOME_SIGNS: Final = {Outcome.PASS: "✓", Outcome.FAIL: "✕", Outcome.INCONCLUSIVE: "?"}
ROLE_WORDS: Final = {
    "must_pass": "must be proven",
    "must_not_fail": "must not be missed",
    "not_asked": "shown only",
}


def by_role(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts that decide the run first."""
    return tuple(sorted(verdicts, key=lambda verdict: list(ROLE_WORDS).index(verdict.role)))


def balance(conservation: Conservation, in_warm_up: int) -> str:
    """The conservation equation with its numbers."""
    scheduled, lost = conservation.scheduled, conservation.lost
    terms = [
        f"{conservation.ok:,} ok",
        *([f"{number:,} {status}" for status, number in conservation.failed.items() if number] or ["0 failed"]),
        f"{conservation.in_flight:,} in flight",
        f"{conservation.not_sent:,} not sent",
        "an unknown number lost" if lost is None else f"{lost:,} lost",
    ]
    left = "An unknown number scheduled" if scheduled is None else f"{scheduled:,} scheduled"
    warm_up = f"; {in_warm_up:,} of them were warm-up, which is not judged" if in_warm_up else ""
    return f"{left} = {' + '.join(terms)}{warm_up}"


def count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def percent(ratio: float | None, decimals: int = 3) -> str:
    """``ratio`` 0..1 as per cent."""
    return UNKNOWN if ratio is None or math.isnan(ratio) else quantities.percent(ratio, decimals)


def milliseconds(value: float | None) -> str:
    """A time given in ms. Infinite is a request that was never answered well."""
    return seconds(None if value is None else value / 1e3)


def seconds(value: float | None) -> str:
    """A time given in s: ``420 ms``, ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return NEVER if math.isinf(value) else quantities.seconds(value)


def mebibytes(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value / 2**20:,.0f} MiB"


def promise(objective: Objective) -> str:
    """The bound as people write it: ``≥ 99.9 %``."""
    sign = "≥" if objective.comparison == "at_least" else "≤"
    return f"{sign} {quantities.promised(objective.bound, objective.unit)}"


def measured(verdict: Verdict) -> str:
    """The value in the words of the verdict's own reason."""
    objective, value = verdict.objective, verdict.estimate.value
    return UNKNOWN if value is None else quantities.quantity(value, objective.unit, objective.bound)


def emulated(verdict: Verdict) -> bool:
    """Whether there is a number, and an emulated device stands behind it."""
    return verdict.estimate.emulated and verdict.estimate.value is not None


def interval(verdict: Verdict) -> str | None:
    """The bounds that the data support, in the words of the verdict's own reason; None without any."""
    objective, found = verdict.objective, verdict.estimate
    return quantities.interval(found.low, found.high, objective.unit, objective.bound)


def moment(after_start_s: float) -> str:
    """When something happened, in seconds after the run's start."""
    return f"{seconds(-after_start_s)} before" if after_start_s < 0 else seconds(after_start_s)


def target(plan: Plan) -> str:
    """What was tested, as one line."""
    known = [plan.target.get("name"), plan.target.get("grpc")]
    words = [", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value) for value in known if value]
    return " at ".join(dict.fromkeys(words)) or UNKNOWN


def utc(at: float | None) -> str:
    """Unix seconds as date and time."""
    return UNKNOWN if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """One line of at most ``longest`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def sentence(text: str) -> str:
    """``text`` with a capital at its beginning, the rest as it is."""
    return text[:1].upper() + text[1:]


def name(text: str, longest: int = 24) -> str:
    """A server's or device's name; what tells such names apart is at their end, so that the middle is left out."""
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    tail = longest // 2
    return f"{line[: longest - tail - 1]}…{line[-tail:]}"
