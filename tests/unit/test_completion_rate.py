"""The capacity of a saturated service, from completions whose true rate is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.completion_rate import completion_rate_per_s

Times = npt.NDArray[np.float64]


def in_batches(rate_per_s: float, batch: int, phase: float, lasts_s: float = 6.0) -> Times:
    """Batches of one size, one after the other, seen from some moment between two of them (phase 0..1)."""
    every_s = batch / rate_per_s
    ends_s = np.arange(phase * every_s, lasts_s, every_s)
    return np.sort(np.repeat(ends_s, batch) + np.tile(np.linspace(0, 0.003, batch), len(ends_s)))


def with_a_stall(completed_s: Times, at_s: float, lasts_s: float) -> Times:
    """What a client sees that stood still: all that completed meanwhile arrives at its end."""
    return np.sort(np.where((completed_s > at_s) & (completed_s < at_s + lasts_s), at_s + lasts_s, completed_s))


@given(rate_per_s=st.floats(10, 200), batch=st.integers(1, 8), phase=st.floats(0, 1), cut=st.integers(0, 7))
def test_the_rate_is_found_wherever_the_batches_are_cut(rate_per_s: float, batch: int, phase: float, cut: int) -> None:
    assert completion_rate_per_s(in_batches(rate_per_s, batch, phase)[cut:]) == pytest.approx(rate_per_s, rel=0.02)


@given(at_s=st.floats(0, 5), lasts_s=st.floats(0.1, 1.5), phase=st.floats(0, 1))
def test_a_client_that_stood_still_changes_the_rate_by_less_than_the_steps_do(
    at_s: float, lasts_s: float, phase: float
) -> None:
    stalled = with_a_stall(in_batches(12.5, 8, phase), at_s, lasts_s)
    assert completion_rate_per_s(stalled) == pytest.approx(12.5, rel=0.02)


def test_two_bursts_tell_no_rate() -> None:
    assert completion_rate_per_s(in_batches(12.5, 8, 0.5, lasts_s=1.5)) is None
