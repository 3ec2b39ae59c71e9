"""Numbers in words: rounded for reading, never to more than is true."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slo_checks.estimate import Estimate
from slo_checks.objectives import load_objectives
from slo_checks.quantities import interval, percent, promised, quantity, seconds
from slo_checks.verdict import judge

_SIZES = {"%": Fraction(1, 100), "ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600)}
RATIOS = st.integers(0, 10**7).map(lambda count: count / 10**7)
TIMES_S = st.integers(1, 10**10).map(lambda time_us: time_us / 10**6)


def read(text: str) -> Fraction:
    """What a reader takes a text for, as a ratio or in seconds."""
    parts = re.findall(r"([\d,.]+) (%|ms|s|min|h)", text)
    assert " ".join(f"{number} {unit}" for number, unit in parts) == text
    return sum((Fraction(number.replace(",", "")) * _SIZES[unit] for number, unit in parts), Fraction(0))


def side(value: Fraction, landmark: Fraction) -> int:
    return (value > landmark) - (value < landmark)


@pytest.mark.parametrize(("value", "unit", "text"), [
    (0.9993, "ratio", "99.93 %"), (1.0, "ratio", "100 %"), (0.0, "ratio", "0 %"),
    (1 - 1 / 400_000, "ratio", "99.9998 %"), (1 / 400_000, "ratio", "0.0002 %"), (1 - 1e-9, "ratio", "99.9999999 %"),
    (0.0664, "s", "66.4 ms"), (1.2044, "s", "1.2 s"), (75.25, "s", "75.2 s"), (0.99996, "s", "1 s"),
    (300.04, "s", "5 min"), (0.1 + 0.2, "s", "300 ms"), (0.7 + 0.1 + 0.2 - 1e-16, "ratio", "100 %"),
    (None, "s", "not known"), (float("nan"), "ratio", "not known"), (float("inf"), "s", "no good answer"),
])  # fmt: skip
def test_a_value_has_its_unit_and_no_more_digits_than_tell_something(value: float | None, unit: Any, text: str) -> None:
    assert quantity(value, unit) == text


@pytest.mark.parametrize(("value", "unit", "promise", "text"), [
    (0.998999, "ratio", 0.999, "99.8999 %"), (0.001001, "ratio", 0.001, "0.1001 %"), (5.0004, "s", 5, "5.0004 s"),
    (4.9996, "s", 5, "4.9996 s"), (300.04, "s", 300, "5 min 0.04 s"), (5.0, "s", 5, "5 s"),
])  # fmt: skip
def test_a_value_beside_its_promise_does_not_read_as_the_promise(
    value: float, unit: Any, promise: float, text: str
) -> None:
    assert quantity(value, unit, promise) == text


@pytest.mark.parametrize(("bound", "unit", "text"), [
    (0.999, "ratio", "99.9 %"), (0.9999995, "ratio", "99.99995 %"), (5.0, "s", "5 s"), (0.5, "s", "500 ms"),
    (330.5, "s", "5 min 30.5 s"), (120.0, "s", "2 min"),
])  # fmt: skip
def test_a_promise_is_not_rounded(bound: float, unit: Any, text: str) -> None:
    assert promised(bound, unit) == text


@pytest.mark.parametrize(("low", "high", "unit", "text"), [
    (10.06, 10.14, "s", "10 s to 10.2 s"), (300.04, 300.04, "s", "5 min to 5 min 1 s"),
    (0.96761, 1.0, "ratio", "96.761 % to 100 %"), (0.9999949, 0.9999999, "ratio", "99.999 % to 100 %"),
    (0.1, None, "s", "at least 100 ms"), (None, 0.1, "s", "at most 100 ms"), (None, None, "s", None),
    (0.1, float("inf"), "s", "at least 100 ms"), (float("inf"), float("inf"), "s", None),
    (None, float("inf"), "s", None), (float("nan"), float("nan"), "ratio", None),
])  # fmt: skip
def test_bounds_are_rounded_away_from_each_other(
    low: float | None, high: float | None, unit: Any, text: str | None
) -> None:
    assert interval(low, high, unit) == text


@given(st.one_of(st.tuples(RATIOS, RATIOS, st.just("ratio")), st.tuples(TIMES_S, TIMES_S, st.just("s"))))
def test_no_number_reads_as_more_than_is_true(case: tuple[float, float, Any]) -> None:
    value, promise, unit = case
    exact, bound = Fraction(str(value)), Fraction(str(promise))
    assert read(promised(promise, unit)) == bound
    assert side(read(quantity(value, unit, promise)), bound) == side(exact, bound)
    low, high = (read(text) for text in str(interval(value, value, unit, promise)).split(" to "))
    assert low <= exact <= high
    assert side(low, bound) == side(exact, bound) == side(high, bound)


@given(RATIOS)
def test_only_nothing_reads_as_nothing_and_only_everything_as_everything(ratio: float) -> None:
    for text in (percent(ratio), percent(ratio, 0), quantity(ratio, "ratio")):
        assert (text == "0 %", text == "100 %") == (ratio == 0, ratio == 1)


@pytest.mark.parametrize(("value_s", "text"), [
    (0.0, "0 s"), (0.0123, "12.3 ms"), (4.2, "4.2 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 5 min"), (120.0, "2 min"),
    (119.7, "2 min"), (7199.6, "2 h"), (-0.9989, "-999 ms"), (-200.0, "-3 min 20 s"), (0.00001, "0.01 ms"),
])  # fmt: skip
def test_times_in_words(value_s: float, text: str) -> None:
    assert seconds(value_s) == text


def test_a_reason_never_contradicts_its_outcome() -> None:
    """1,001 misses of a million are more than 0.1 %, and are not called 0.1 %."""
    found = Estimate(0.998999, 0.99894, 0.9989999, 10**6, 1_001)
    reason = judge(load_objectives().objectives["availability"], found)[1]
    assert reason == "misses at least 99.9 %: 99.8999 % (99.894 % to 99.89999 %), 1,001 misses of 1,000,000"
