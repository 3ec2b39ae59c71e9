"""What the data say about one number, and the exact statistics behind it [pure].

Intervals are one-sided at each end: `low` and `high` each hold with the stated confidence. They assume requests that
miss independently of each other. Real misses cluster, so a verdict on a single short run says that this run kept or
missed its target; evidence lines show the clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import bdtr, bdtrik, betaincc, betaincinv  # scipy.stats takes a second longer to import


@dataclass(frozen=True, slots=True)
class Estimate:
    """One indicator's value with the interval that the data support, in the unit of its objective.

    ``value`` is None when nothing was measured, and infinity where the percentile falls on requests without a good
    answer. ``low`` and ``high`` are one-sided confidence bounds; None means that the data give no bound on that side,
    so it can neither pass nor fail by it. ``reason`` says why a value or a bound is missing or weak. ``samples`` counts
    what the value rests on, ``misses`` those that missed. ``emulated`` is True when any of it came from an emulated
    device.
    """

    value: float | None
    low: float | None
    high: float | None
    samples: int
    misses: int | None = None
    reason: str | None = None
    emulated: bool = False
    evidence: tuple[str, ...] = ()


def unmeasured(reason: str, *, samples: int = 0, evidence: tuple[str, ...] = (), emulated: bool = False) -> Estimate:
    """Nothing can be said, because of `reason`."""
    return Estimate(None, None, None, samples, reason=reason, evidence=evidence, emulated=emulated)


def may_be_either(unknown: int) -> str | None:
    """Why bounds are wider than the requests with a known outcome make them."""
    return f"{unknown:,} requests may have been answered or not: their rows do not tell" if unknown else None


def share_bounds(count: int, samples: int, confidence: float) -> tuple[float, float]:
    """Exact one-sided bounds of a share of which `count` of `samples` were seen; `samples` is above 0.

    Clopper & Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial, 1934.
    """
    low = float(betaincinv(count, samples - count + 1, 1 - confidence)) if count else 0.0
    high = float(betaincinv(count + 1, samples - count, confidence)) if count < samples else 1.0
    return low, high


def nearest_rank(samples: int, quantile: float) -> int:
    """Place (1 and up) of a quantile in sorted samples: the least that has `quantile` of all at or below it."""
    # 0.95 * 20 has to be 19, whatever the last bit of 0.95 is.
    return max(1, math.ceil(round(quantile * samples, 6)))


def quantile_ranks(samples: int, quantile: float, confidence: float) -> tuple[int | None, int | None]:
    """Places (1 and up) in the sorted samples that bound the true quantile from below and above.

    None where no sample can: with 58 samples nothing bounds a 95th percentile from above. The count of samples at or
    below the true quantile is binomial, so these are its quantiles (David & Nagaraja, Order Statistics, 7.1).
    """
    low = _binomial_quantile(1 - confidence, samples, quantile)
    high = _binomial_quantile(confidence, samples, quantile) + 1
    return (low if low >= 1 else None), (high if high <= samples else None)


def _binomial_quantile(chance: float, samples: int, ratio: float) -> int:
    """Least count that a binomial variable stays at or below with at least this chance."""
    # The inverse is not exact at whole numbers: the count below may do already.
    count = math.ceil(bdtrik(chance, samples, ratio))
    return count - 1 if count and bdtr(count - 1, samples, ratio) >= chance else count


def fewest_to_prove(misses: int, allowed_miss_ratio: float, confidence: float) -> int:
    """Least number of requests, `misses` of them missed, that prove at most `allowed_miss_ratio` of misses."""
    doubt = 1 - confidence

    def proves(samples: int) -> bool:
        # The binomial distribution function itself (bdtr) takes no number of samples beyond 2^31.
        return float(betaincc(misses + 1, samples - misses, allowed_miss_ratio)) <= doubt

    most = misses + 1
    while not proves(most):
        most *= 2
    least = misses
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if proves(middle) else (middle, most)
    return most
