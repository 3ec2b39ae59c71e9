"""Stamps and values -> one number for each bin of a time axis [pure].

The axis is cut into bins of at least one second, at most `MOST_BINS` of them. A bin tells a rate (count over its
width), a nearest-rank percentile, or the greatest value seen in it: what is summarised never hides a peak. NaN is a
gap: nothing was observed there. A rate of 0 was observed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
Sample: TypeAlias = tuple[float, float]
"""When, in seconds after the start, and what was seen."""

MOST_BINS: Final = 600
BIN_STEPS_S: Final = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


def bin_edges_s(end_s: float) -> FloatArray:
    """Borders of the bins over 0..``end_s``; a last bin of less than half the width joins the one before it."""
    width_s = next((step for step in BIN_STEPS_S if end_s / step <= MOST_BINS), math.ceil(end_s / MOST_BINS))
    whole = max(1, round(end_s / width_s))
    edges_s = np.arange(whole + 1, dtype=np.float64) * width_s
    edges_s[-1] = max(end_s, edges_s[-2] + width_s / 2)
    return edges_s


def rate_per_s(edges_s: FloatArray, at_s: FloatArray) -> FloatArray:
    """Occurrences per second in each bin; what has no stamp (NaN) is not counted."""
    places = _bins(edges_s, at_s)
    counts = np.bincount(places[places >= 0], minlength=edges_s.size - 1)
    return np.asarray(counts / np.diff(edges_s), dtype=np.float64)


def quantiles_by_bin(
    edges_s: FloatArray, at_s: FloatArray, values: FloatArray, quantiles: Mapping[str, float]
) -> dict[str, FloatArray]:
    """Nearest-rank quantiles (the ceil(q n)-th smallest of n) in each bin; NaN where the bin has no value."""
    places = _bins(edges_s, at_s)
    known = ~np.isnan(values) & (places >= 0)
    places, values = places[known], values[known]
    ordered = values[np.lexsort((values, places))]
    sizes = np.bincount(places, minlength=edges_s.size - 1)
    starts = np.cumsum(sizes) - sizes
    filled = sizes > 0
    result = {}
    for name, quantile in quantiles.items():
        curve = np.full(sizes.size, np.nan)
        # As `nearest_rank` has it, for many sizes at once.
        curve[filled] = ordered[starts[filled] + np.ceil(np.round(quantile * sizes[filled], 6)).astype(np.int64) - 1]
        result[name] = curve
    return result


def most_in_flight(edges_s: FloatArray, sent_s: FloatArray, done_s: FloatArray) -> FloatArray:
    """The most requests under way at once in each bin. A request without an outcome stays under way."""
    bins = edges_s.size - 1
    sent = sent_s[~np.isnan(sent_s)]
    # What was refused before it could be sent has an outcome but was never under way.
    done = done_s[~np.isnan(done_s) & ~np.isnan(sent_s)]
    # An answer frees its place before another request of the same instant takes it.
    at_s = np.concatenate([done, sent])
    step = np.concatenate([np.full(done.size, -1), np.ones(sent.size, dtype=np.int64)])
    order = np.argsort(at_s, kind="stable")
    level = np.cumsum(step[order])
    before = np.searchsorted(at_s[order], edges_s[:-1], side="left")
    most = np.concatenate([[0], level])[before].astype(np.float64)
    places = _bins(edges_s, at_s[order])
    known = places >= 0
    np.maximum.at(most, places[known], level[known])
    return most[:bins]


def greatest(edges_s: FloatArray, samples: Sequence[Sample]) -> FloatArray:
    """The greatest value of the samples in each bin."""
    curve = np.full(edges_s.size - 1, np.nan)
    if samples:
        at_s, values = np.array(samples, dtype=np.float64).T
        places = _bins(edges_s, at_s)
        np.fmax.at(curve, places[places >= 0], values[places >= 0])
    return curve


def mean(edges_s: FloatArray, samples: Sequence[Sample]) -> FloatArray:
    """The mean value of the samples in each bin."""
    at_s, values = np.array(samples, dtype=np.float64).T
    places = _bins(edges_s, at_s)
    inside = places >= 0
    sums = np.bincount(places[inside], weights=values[inside], minlength=edges_s.size - 1)
    counts = np.bincount(places[inside], minlength=edges_s.size - 1)
    means: FloatArray = np.divide(sums, counts, out=np.full(sums.size, np.nan), where=counts > 0)
    return means


def _bins(edges_s: FloatArray, at_s: FloatArray) -> IntArray:
    """The bin of each stamp; the last one has both its borders. -1 for what lies outside or has no stamp."""
    places = np.searchsorted(edges_s, at_s, side="right") - 1
    places[at_s == edges_s[-1]] = edges_s.size - 2
    outside = np.isnan(at_s) | (at_s < edges_s[0]) | (at_s > edges_s[-1])
    return np.where(outside, -1, places).astype(np.int64)
