"""Ratios and times -> text for people, by one rule for verdicts, reports and console [pure].

Numbers are rounded, but never onto or over a landmark: what is short of 100 % does not read as 100 %, what is above 0
not as 0, and what misses its promise not as kept. Bounds are rounded away from the value, so that what is printed is
never more than what is proven.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import Final, Literal, TypeAlias

Unit: TypeAlias = Literal["ratio", "s"]

_PERCENT_DECIMALS: Final = 3
_TIME_DIGITS: Final = 3
_MINUTES_FROM_S: Final = 120
_ENDS: Final = (Decimal(0), Decimal(1))


def quantity(value: float | None, unit: Unit, promise: float | None = None) -> str:
    """A measured value: `99.93 %`, `1.2 s`; an infinite time is one that no answer ended."""
    if value is None or math.isnan(value):
        return "not known"
    if math.isinf(value):
        return "no good answer"
    return _text(value, unit, ROUND_HALF_EVEN, (*_landmarks(promise), *(_ENDS if unit == "ratio" else ())))


def promised(bound: float, unit: Unit) -> str:
    """A promise's bound, whole: it was written by people and is not rounded."""
    return _as_percent(Decimal(str(bound))) if unit == "ratio" else _as_time(Decimal(str(bound)))


def interval(low: float | None, high: float | None, unit: Unit, promise: float | None = None) -> str | None:
    """`99.91 % to 99.98 %`, or `at least 99.91 %` where only one end is a number; None where neither is."""
    from_text, to_text = (
        None if end is None or not math.isfinite(end) else _text(end, unit, direction, _landmarks(promise))
        for end, direction in ((low, ROUND_FLOOR), (high, ROUND_CEILING))
    )
    if from_text is None:
        return None if to_text is None else f"at most {to_text}"
    return f"at least {from_text}" if to_text is None else f"{from_text} to {to_text}"


def percent(ratio: float, decimals: int = _PERCENT_DECIMALS) -> str:
    """``ratio`` 0..1 as per cent, with at most so many decimals unless it would read as 0 or 100 % and is not."""
    return _as_percent(_rounded(_exact(ratio), decimals + 2, ROUND_HALF_EVEN, _ENDS))


def seconds(value_s: float) -> str:
    """A time to three digits, or to the second from 2 min on: `420 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    return _text(value_s, "s", ROUND_HALF_EVEN, ())


def _text(value: float, unit: Unit, direction: str, landmarks: Sequence[Decimal]) -> str:
    exact = _exact(value)
    if unit == "ratio":
        return _as_percent(_rounded(exact, _PERCENT_DECIMALS + 2, direction, landmarks))
    decimals = max(0, _TIME_DIGITS - 1 - exact.adjusted())
    return _as_time(_rounded(exact, decimals, direction, landmarks))


def _exact(value: float) -> Decimal:
    """A float as it was meant: its last digits are those of its arithmetic, and 0.1 + 0.2 is no more than 0.3."""
    return Decimal(f"{value:.12g}")


def _landmarks(promise: float | None) -> tuple[Decimal, ...]:
    return () if promise is None else (Decimal(str(promise)),)


def _rounded(exact: Decimal, decimals: int, direction: str, landmarks: Sequence[Decimal]) -> Decimal:
    """To ``decimals``, or to as many more as keep it on its own side of each landmark."""
    while True:
        shown = exact.quantize(Decimal(1).scaleb(-decimals), direction)
        if all(shown.compare(landmark) == exact.compare(landmark) for landmark in landmarks):
            return shown
        decimals += 1


def _as_percent(ratio: Decimal) -> str:
    return f"{_plain(ratio * 100)} %"


def _as_time(time_s: Decimal) -> str:
    size_s = abs(time_s)
    if 0 < size_s < 1:
        return f"{_plain(time_s * 1000)} ms"
    if size_s < _MINUTES_FROM_S:
        return f"{_plain(time_s)} s"
    minutes, rest_s = divmod(size_s, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{_plain(part)} {unit}" for part, unit in ((hours, "h"), (minutes, "min"), (rest_s, "s")) if part]
    return ("-" if time_s < 0 else "") + " ".join(parts)


def _plain(number: Decimal) -> str:
    text = f"{number:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
