"""Confidence intervals: known values, and what holds of all of them."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execo.engine.intervals import (
    Estimate,
    estimate,
    mean_interval,
    median_interval,
    student_quantile,
)


# Of printed tables.
@pytest.mark.parametrize(
    ("probability", "freedom", "known"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 3, 3.1824),
        (0.975, 4, 2.7764),
        (0.975, 5, 2.5706),
        (0.975, 10, 2.2281),
        (0.975, 29, 2.0452),
        (0.975, 30, 2.0423),
        (0.975, 120, 1.9799),
        (0.975, 1000, 1.9623),
        (0.95, 7, 1.8946),
        (0.9, 15, 1.3406),
        (0.995, 10, 3.1693),
        (0.9995, 1, 636.619),
        (0.9995, 5, 6.8688),
        (0.75, 1, 1.0),
        (0.5, 9, 0.0),
        (0.025, 4, -2.7764),
    ],
)
def test_student(probability: float, freedom: int, known: float) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(known, abs=5e-5, rel=2e-5)


def test_student_with_many_results_is_the_normal_distribution() -> None:
    exact, near = student_quantile(0.975, 200), student_quantile(0.975, 201)
    assert 0 < exact - near < 1e-4  # one way of computing goes over into the other
    normal = statistics.NormalDist().inv_cdf(0.995)
    assert student_quantile(0.995, 10**6) == pytest.approx(normal, rel=1e-5)


@pytest.mark.parametrize(("probability", "freedom"), [(0, 3), (1, 3), (0.9, 0), (0.9, -1)])
def test_student_has_no_such_quantile(probability: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        student_quantile(probability, freedom)


def test_a_mean() -> None:
    # 10 +- 2.2622 * 3.0277 / sqrt(10)
    found = mean_interval([5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5, 12.5, 13.5, 14.5])
    assert (found.count, found.value) == (10, 10)
    assert [found.low, found.high] == pytest.approx([7.8341, 12.1659], abs=1e-4)
    wider = mean_interval([5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5, 12.5, 13.5, 14.5], 0.99)
    assert wider.high == pytest.approx(10 + 3.2498 * 3.02765 / math.sqrt(10), abs=1e-3)


def test_one_result_has_no_interval() -> None:
    assert mean_interval([3]) == Estimate(1, 3, None, None)
    assert median_interval([3]) == Estimate(1, 3, None, None)


def test_equal_results_have_an_interval_of_one_point() -> None:
    found = mean_interval([0.1] * 7)
    assert [found.value, found.low, found.high] == pytest.approx([0.1, 0.1, 0.1])


# Ranks of the ends, for 95 %: of printed tables for the sign test.
@pytest.mark.parametrize(
    ("count", "low"), [(6, 1), (8, 1), (9, 2), (10, 2), (12, 3), (20, 6), (30, 10), (100, 40)]
)
def test_a_median(count: int, low: int) -> None:
    values = list(range(1, count + 1))
    random.Random(count).shuffle(values)
    found = median_interval(values)
    assert found == Estimate(count, (count + 1) / 2, low, count + 1 - low)


@pytest.mark.parametrize(("count", "confidence"), [(5, 0.95), (7, 0.99), (2, 0.6)])
def test_few_results_have_no_interval_of_their_median(count: int, confidence: float) -> None:
    assert median_interval(range(count), confidence).low is None
    assert median_interval(range(count + 1), confidence).low == 0


def test_a_median_of_many_is_as_that_of_fewer() -> None:
    exact, near = median_interval(range(1000)), median_interval(range(1001))
    assert abs((exact.low or 0) - (near.low or 0)) <= 1


@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize(("count", "confidence"), [(8, 0.95), (15, 0.9)])
def test_an_interval_holds_what_it_promises(statistic: str, count: int, confidence: float) -> None:
    chance = random.Random(1)
    rounds = 3000
    hits = 0
    for _ in range(rounds):
        found = estimate([chance.gauss(5, 2) for _ in range(count)], statistic, confidence)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 5 <= found.high
    # That of the median is at least as sure: it goes by whole places.
    assert hits / rounds > confidence - 0.015
    assert statistic == "median" or hits / rounds < confidence + 0.015


NUMBERS = st.floats(-1e6, 1e6).map(lambda number: round(number, 3))


@given(st.lists(NUMBERS, min_size=1, max_size=50), st.sampled_from(["mean", "median"]))
def test_an_interval_is_around_its_value(values: list[float], statistic: str) -> None:
    found = estimate(values, statistic)
    assert found.count == len(values)
    assert min(values) - 1e-6 <= found.value <= max(values) + 1e-6
    if found.low is not None and found.high is not None:
        assert found.low <= found.value + 1e-6
        assert found.high >= found.value - 1e-6
        moved = estimate([value + 100 for value in values], statistic)
        assert moved.low == pytest.approx(found.low + 100, rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5, float("nan")])
@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_a_confidence_is_between_0_and_1(statistic: str, confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimate([1, 2, 3], statistic, confidence)


def test_what_cannot_be_estimated() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([])
    with pytest.raises(ValueError, match="'mean' or 'median', not 'mode'"):
        estimate([1], "mode")
