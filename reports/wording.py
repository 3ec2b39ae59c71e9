"""Numbers -> text for people, the same in page, summary and terminal [pure]. None reads as a dash, never as 0."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from slo_checks.objectives import Objective
from slo_checks.verdict import Outcome, Verdict, quantity

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
}
OUTCOME_WORDS: Final = {Outcome.PASS: "PASS", Outcome.FAIL: "FAIL", Outcome.INCONCLUSIVE: "INCONCLUSIVE"}
OUTCOME_SIGNS: Final = {Outcome.PASS: "✓", Outcome.FAIL: "✕", Outcome.INCONCLUSIVE: "?"}
ROLE_WORDS: Final = {
    "must_pass": "must be proven",
    "must_not_fail": "must not be missed",
    "not_asked": "shown only",
}
_KILO: Final = 1000.0
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600


def count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def percent(ratio: float | None, digits: int = 2) -> str:
    """``ratio`` 0..1 as per cent. What is short of 100 % never reads as 100 %, what is above 0 never as 0."""
    if ratio is None or math.isnan(ratio):
        return UNKNOWN
    while digits < 6 and ratio not in {0.0, 1.0} and f"{ratio * 100:.{digits}f}" in _round_ends(digits):  # noqa: PLR2004
        digits += 1
    text = f"{ratio * 100:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def milliseconds(value: float | None) -> str:
    """A time given in ms, in ms or s, to three digits. Infinite is a request that was never answered well."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return NEVER
    if abs(value) >= _KILO:
        return seconds(value / _KILO)
    return f"{_three_digits(value)} ms"


def seconds(value: float | None) -> str:
    """A time given in s: ``420 ms``, ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return NEVER
    if 0 < abs(value) < 1:
        return f"{_three_digits(value * _KILO)} ms"
    if abs(value) < 2 * _MINUTE_S:
        return f"{_three_digits(value)} s"
    whole = round(value)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s".replace(" 0 s", "")
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min".replace(" 0 min", "")


def mebibytes(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value / 2**20:,.0f} MiB"


def promise(objective: Objective) -> str:
    """The bound as people write it: ``≥ 99.9 %``."""
    sign = "≥" if objective.comparison == "at_least" else "≤"
    spoken = percent(objective.bound, 3) if objective.unit == "ratio" else seconds(objective.bound)
    return f"{sign} {spoken}"


def measured(verdict: Verdict) -> str:
    """The value in the words of the verdict's own reason, so that the two never differ."""
    value = verdict.estimate.value
    return UNKNOWN if value is None else quantity(value, verdict.objective.unit)


def interval(verdict: Verdict) -> str | None:
    """The bounds that the data support, or None without any; rounded outwards, never to more than is proven."""
    unit, low, high = verdict.objective.unit, verdict.estimate.low, verdict.estimate.high
    if low is not None and math.isinf(low):
        return None  # the value itself says that there was no good answer
    scale = 1e5 if unit == "ratio" else 1e3
    from_text = None if low is None else quantity(math.floor(low * scale) / scale, unit)
    to_text = None if high is None else quantity(math.ceil(high * scale) / scale if math.isfinite(high) else high, unit)
    if from_text is None:
        return None if to_text is None else f"at most {to_text}"
    return f"at least {from_text}" if to_text is None else f"{from_text} to {to_text}"


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


def _round_ends(digits: int) -> tuple[str, str]:
    return f"{100:.{digits}f}", f"{0:.{digits}f}"


def _three_digits(value: float) -> str:
    if abs(value) >= 100:  # noqa: PLR2004 - three digits before the point already
        return f"{value:,.0f}"
    return f"{value:.3g}"
