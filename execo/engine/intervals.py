"""How sure a figure is: confidence intervals of means and medians, by Python alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Estimate", "estimate", "mean_interval", "median_interval", "student_quantile"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What some results say of the quantity behind them.

    - ``count``: how many results
    - ``value``: their mean, or median
    - ``low``, ``high``: the ends of its confidence interval; None: they are too few for one
    """

    count: int
    value: float
    low: float | None
    high: float | None


def estimate(
    values: Sequence[float], statistic: str = "mean", confidence: float = 0.95
) -> Estimate:
    """The ``mean`` or the ``median`` of some results. Pure.

    :raises ValueError: for no results, another statistic, a confidence that is not between 0 and 1
    """
    if statistic == "mean":
        return mean_interval(values, confidence)
    if statistic == "median":
        return median_interval(values, confidence)
    raise ValueError(f"statistic is 'mean' or 'median', not {statistic!r}")


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean, and its interval by Student's t with n - 1 degrees of freedom. Pure.

    It holds for results that are independent and not far from normal. One result has no interval.
    (Student 1908; any textbook)

    :raises ValueError: for no values, a confidence that is not between 0 and 1
    """
    _check(values, confidence)
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Estimate(len(values), mean, None, None)
    # Not around the rounded mean: equal values have no spread at all.
    spread = statistics.stdev(values) if len(set(values)) > 1 else 0.0
    half = student_quantile((1 + confidence) / 2, len(values) - 1) * spread / math.sqrt(len(values))
    return Estimate(len(values), mean, mean - half, mean + half)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The median, and its interval between two of the values, whatever they are distributed like.
    Pure.

    The ends are the values number k from below and from above, with the greatest k for which the
    interval has at least that confidence, by the binomial distribution. It takes 6 values for 95 %,
    8 for 99 %; of fewer there is none. (David and Nagaraja, Order Statistics, 7.1)

    :raises ValueError: for no values, a confidence that is not between 0 and 1
    """
    _check(values, confidence)
    ordered = sorted(values)
    place = _median_place(len(ordered), confidence)
    low, high = (ordered[place - 1], ordered[-place]) if place else (None, None)
    return Estimate(len(ordered), statistics.median(ordered), low, high)


def _check(values: Sequence[float], confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: it is between 0 and 1, as 0.95")
    if not len(values):
        raise ValueError("no values: nothing can be said of them")


@lru_cache(maxsize=1000)
def _median_place(count: int, confidence: float) -> int:
    """The k of above; 0 if there is none."""
    if count > 1000:
        # The normal distribution in its place, with the usual half for what is whole numbers: the
        # exact one would take long, and differs by a place at the most.
        width = statistics.NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(count) / 2
        return max(0, math.floor((count + 1) / 2 - width))
    below, place = 1, 0  # in 2 ** count ways
    while below / 2**count <= (1 - confidence) / 2:
        place += 1
        below += math.comb(count, place)
    return place


@lru_cache(maxsize=1000)
def student_quantile(probability: float, freedom: int) -> float:
    """Where Student's t distribution has that probability below it: 2.776 for 0.975 and 4. Pure.

    :param probability: between 0 and 1
    :param freedom: degrees of freedom, from 1 on
    :raises ValueError: for others
    """
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(f"no quantile {probability} with {freedom} degrees of freedom")
    if probability < 0.5:
        return -student_quantile(1 - probability, freedom)
    if freedom > 200:
        return _quantile_of_many(probability, freedom)
    # By halves of the angle that stands for t, which is bounded, t is not.
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if (1 + _between(middle, freedom)) / 2 < probability:
            low = middle
        else:
            high = middle
    return math.tan((low + high) / 2) * math.sqrt(freedom)


def _between(angle: float, freedom: int) -> float:
    """How probable it is that ``|t|`` is below ``tan(angle) * sqrt(freedom)``: the finite sums of
    Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for n in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * n / (n + 1)
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


def _quantile_of_many(probability: float, freedom: int) -> float:
    """By the normal distribution and what t differs from it: Abramowitz and Stegun, 26.7.5."""
    x = statistics.NormalDist().inv_cdf(probability)
    return (
        x
        + (x**3 + x) / (4 * freedom)
        + (5 * x**5 + 16 * x**3 + 3 * x) / (96 * freedom**2)
        + (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / (384 * freedom**3)
    )
