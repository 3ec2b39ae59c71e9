"""How far another machine's clock is off, worked by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadtests.clocks import ClockReading, read_clock, surest


def test_an_answer_is_taken_for_one_from_the_middle_of_the_wait() -> None:
    # Asked at 100, heard at 104, so answered at 102 of ours, when the other clock showed 107.
    assert read_clock(100.0, 107.0, 104.0) == ClockReading(offset_s=5.0, uncertainty_s=2.0)


def test_the_quickest_answer_is_the_surest() -> None:
    slow, quick = read_clock(100.0, 107.0, 104.0), read_clock(110.0, 115.5, 111.0)
    assert surest([slow, quick]) == ClockReading(offset_s=5.0, uncertainty_s=0.5)


@given(offset_s=st.floats(-1e5, 1e5), there_s=st.floats(0, 10), back_s=st.floats(0, 10))
def test_the_truth_lies_within_the_uncertainty_however_unlike_the_two_ways_are(
    offset_s: float, there_s: float, back_s: float
) -> None:
    reading = read_clock(1e6, 1e6 + there_s + offset_s, 1e6 + there_s + back_s)
    assert abs(reading.offset_s - offset_s) <= reading.uncertainty_s + 1e-6
