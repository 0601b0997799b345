"""The decisions behind retry, start_rate and max_failures."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from execo import Reason, Retry
from execo.policy import Pace, PolicyArgs, checked_retry, failure_limit

# -- Retry ------------------------------------------------------------------------------------


def test_a_retry_is_for_connections_unless_told_otherwise() -> None:
    retry = Retry()
    assert retry.on == (Reason.CONNECT,)
    assert retry.pause(Reason.CONNECT, 1) is not None
    for reason in set(Reason) - {Reason.CONNECT}:
        assert retry.pause(reason, 1) is None


def test_pauses_double_up_to_an_hour() -> None:
    retry = Retry(times=2000, backoff=1.5, jitter=0)
    assert [retry.pause(Reason.CONNECT, n) for n in (1, 2, 3, 4)] == [1.5, 3, 6, 12]
    assert retry.pause(Reason.CONNECT, 13) == 3600
    assert retry.pause(Reason.CONNECT, 2000) == 3600
    assert retry.pause(Reason.CONNECT, 2001) is None


def test_no_more_than_so_many_times() -> None:
    assert Retry(times=1).pause(Reason.CONNECT, 2) is None
    assert Retry(times=0).pause(Reason.CONNECT, 1) is None


def test_jitter_is_the_part_that_is_left_to_chance() -> None:
    retry = Retry(backoff=10, jitter=0.25)
    drawn_numbers = iter([0.0, 0.5, 1.0])
    pauses = [retry.pause(Reason.CONNECT, 1, drawn_numbers.__next__) for _ in range(3)]
    assert pauses == [7.5, 10, 12.5]
    drawn = {retry.pause(Reason.CONNECT, 1) for _ in range(20)}
    assert len(drawn) > 1
    assert all(pause is not None and 7.5 <= pause <= 12.5 for pause in drawn)


def test_reasons_are_words_or_reasons_one_or_several() -> None:
    assert Retry(on="connect").on == (Reason.CONNECT,)
    assert Retry(on=("connect", Reason.HOST_KEY)).on == (Reason.CONNECT, Reason.HOST_KEY)
    assert Retry(on=["auth", "spawn"]).pause(Reason.SPAWN, 1) is not None
    assert Retry(on=()).pause(Reason.CONNECT, 1) is None


def test_a_retry_is_data() -> None:
    retry = Retry(times=3, backoff="0:00:02", on="auth")
    assert retry == Retry(times=3, backoff=2, on=["auth"])
    assert len({retry, Retry(times=3, backoff=2, on=["auth"])}) == 1
    assert pickle.loads(pickle.dumps(retry)) == retry
    assert dataclasses.replace(retry, times=4).times == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        retry.times = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"times": -1}, ValueError, "at least 0"),
        ({"times": True}, TypeError, "times is a number"),
        ({"times": 1.5}, TypeError, "times is a number"),
        ({"backoff": -1}, ValueError, "backoff is a number of seconds, at least 0: not -1"),
        ({"backoff": math.inf}, ValueError, "backoff"),
        ({"backoff": None}, ValueError, "backoff"),
        ({"jitter": 1.1}, ValueError, "from 0 to 1"),
        ({"jitter": math.nan}, ValueError, "from 0 to 1"),
        ({"jitter": "much"}, TypeError, "jitter"),
        ({"on": ("conect",)}, ValueError, "'conect'; there are 'connect', 'auth'"),
        ({"on": 3}, TypeError, "'connect', 'auth'"),
        ({"on": ("exit code",)}, ValueError, r"may have run.*retry_failed\(\)"),
        ({"on": "timeout"}, ValueError, r"may have run.*retry_failed\(\)"),
        ({"on": "cancelled"}, ValueError, "no reason to start again"),
    ],
)
def test_a_retry_that_cannot_be(arguments: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        Retry(**arguments)


def test_only_a_retry_is_one() -> None:
    assert checked_retry(None) is None
    assert checked_retry(Retry()) == Retry()
    with pytest.raises(TypeError, match=r"Retry\(times=3\) for one"):
        checked_retry(3)  # type: ignore[arg-type]


# -- start_rate -------------------------------------------------------------------------------


def test_the_first_starts_at_once_and_the_others_evenly() -> None:
    pace = Pace(4)
    assert pace.take(100.0, 10) == 1
    assert pace.take(100.0, 9) == 0
    assert pace.pause(100.0) == pytest.approx(0.25)
    assert pace.take(100.2, 9) == 0
    assert pace.take(100.25, 9) == 1
    assert pace.pause(100.25) == pytest.approx(0.25)


def test_what_was_held_up_is_no_burst() -> None:
    pace = Pace(2)
    assert pace.take(0.0, 1) == 1
    assert pace.take(1000.0, 500) == 1
    assert pace.take(1000.1, 500) == 0


def test_a_high_rate_takes_several_at_a_time() -> None:
    pace = Pace(10_000)
    now, begun, rounds = 0.0, 0, 0
    while begun < 10_000:
        begun += pace.take(now, 10_000 - begun)
        # What a timer does: never early, a bit late.
        now += pace.pause(now) + 0.002
        rounds += 1
    assert now == pytest.approx(1.0, abs=0.1)
    assert rounds < 1000


@given(
    rate=st.floats(0.5, 5000),
    naps=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    wanted=st.integers(1, 100_000),
)
def test_no_second_has_more_than_its_share(rate: float, naps: list[float], wanted: int) -> None:
    pace = Pace(rate)
    starts = [
        (now, pace.take(now, wanted)) for now in itertools.accumulate(naps, initial=1_000_000.0)
    ]
    for begin, _ in starts:
        within = sum(count for now, count in starts if begin <= now <= begin + 1)
        assert within <= rate * 1.021 + 1


@pytest.mark.parametrize("rate", [0, -1, math.inf, math.nan])
def test_a_rate_that_cannot_be(rate: float) -> None:
    with pytest.raises(ValueError, match="starts a second, above 0"):
        Pace(rate)


@pytest.mark.parametrize("rate", ["2", True, None])
def test_a_rate_of_a_wrong_type(rate: Any) -> None:
    with pytest.raises(TypeError, match="start_rate is a number of starts a second"):
        Pace(rate)


# -- max_failures -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "total", "limit"),
    [
        (None, 10, None),
        (0, 10, 0),
        (3, 10, 3),
        ("10%", 100, 10),
        ("10%", 19, 1),
        ("10%", 9, 0),
        (" 12.5 % ", 16, 2),
        ("0%", 100, 0),
        ("100%", 7, 7),
        ("50%", 0, 0),
    ],
)
def test_how_many_may_fail(given: int | str | None, total: int, limit: int | None) -> None:
    assert failure_limit(given, total) == limit


@pytest.mark.parametrize("given", [-1, "10", "ten%", "-1%", "101%", "%", ""])
def test_a_limit_that_cannot_be(given: Any) -> None:
    with pytest.raises(ValueError, match="max_failures is a number, or a percentage such as '10%'"):
        failure_limit(given, 10)


@pytest.mark.parametrize("given", [0.1, True, [1]])
def test_a_limit_of_a_wrong_type(given: Any) -> None:
    with pytest.raises(TypeError, match="max_failures is a number, or a percentage such as '10%'"):
        failure_limit(given, 10)


def test_the_keyword_arguments_are_listed_once() -> None:
    assert set(PolicyArgs.__annotations__) == {"start_rate", "retry", "max_failures"}
