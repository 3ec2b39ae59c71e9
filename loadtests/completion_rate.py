"""The rate at which a saturated service completes requests, from the times of its completions [pure]."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

MOST_POINTS: Final = 300
"""All pairs of points are compared; more points would not make the rate more certain."""


def completion_rate_per_s(completed_s: npt.NDArray[np.float64]) -> float | None:
    """Completions per second; None with fewer than three bursts of completions.

    ``completed_s`` are ascending times in seconds, two or more. A server that works in batches completes in bursts, so
    the count climbs in steps. The rate is the slope through the ends of the steps: through all points it would depend
    on where the first and the last step were cut. It is the median slope of all pairs (Theil 1950, Sen 1968), because
    a client or server that stood still for a second bends a least-squares line by some per cent.
    """
    from scipy.stats import theilslopes  # noqa: PLC0415 - a second to load, and few runs need it

    gaps_s = np.diff(completed_s)
    ends = np.flatnonzero(gaps_s > gaps_s.mean() / 2)
    if len(ends) < 3:  # noqa: PLR2004 - two points are a line whatever happened
        return None
    chosen = ends[np.unique(np.linspace(0, len(ends) - 1, min(len(ends), MOST_POINTS)).astype(int))]
    return float(theilslopes(chosen, completed_s[chosen]).slope)
