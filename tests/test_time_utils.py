from __future__ import annotations

import datetime
import math
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from execo import time_utils
from execo.time_utils import (
    Timer,
    datetime_to_unixts,
    format_date,
    format_duration,
    format_seconds,
    format_unixts,
    get_seconds,
    get_unixts,
    sleep,
    timedelta_to_seconds,
    unixts_to_datetime,
)

UseZone = Callable[[str], None]

# Written out, since not every machine has a database of time zones.
PARIS = "CET-1CEST,M3.5.0,M10.5.0/3"
KATHMANDU = "<+0545>-5:45"
ST_JOHNS = "NST3:30NDT,M3.2.0,M11.1.0"
SOLAR = "LMT-0:09:21"  # what Paris had until 1911
ZONES = ["UTC0", PARIS, KATHMANDU, ST_JOHNS, SOLAR, "<+13>-13"]
# Hypothesis runs all examples of a test in one zone: nothing has to be set up again in between.
one_zone = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def zone() -> Iterator[UseZone]:
    """Sets the local time zone, for one test."""
    with pytest.MonkeyPatch.context() as patch:

        def use(name: str) -> None:
            patch.setenv("TZ", name)
            time.tzset()

        yield use
    time.tzset()


def utc(*parts: int) -> float:
    return datetime.datetime(*parts, tzinfo=datetime.UTC).timestamp()  # type: ignore[misc,arg-type]


# Durations


@pytest.mark.parametrize(
    ("given_as", "seconds"),
    [
        (0, 0),
        (12, 12),
        (1.5, 1.5),
        (-3, -3),
        (Decimal("1.5"), 1.5),
        (Fraction(1, 4), 0.25),
        ("12", 12),
        ("1.5", 1.5),
        ("007", 7),
        ("0:00:00", 0),
        ("0:01:30", 90),
        ("01:00:00", 3600),
        ("100:00:00", 360000),
        ("1:02:03.25", 3723.25),
        (datetime.timedelta(minutes=1, milliseconds=500), 60.5),
        (datetime.timedelta(seconds=-1), -1),
    ],
)
def test_durations_are_read(given_as: Any, seconds: float) -> None:
    assert get_seconds(given_as) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            " ",
            "1h",
            "59s",
            "1d1h1m1s",
            "may",
            "-1",
            "+1",
            "1.",
            ".5",
            "1e3",
            "1,5",
            " 1",
            "1\n",
        ],
        *["nan", "inf", "infinity", "0x10", "1_000", "٣", "9" * 400, "9" * 400 + ":00:00"],
        *["1:30", "0:1:30", "0:60:00", "0:00:60", "-1:00:00", "0:00:00.", "1:00:00:00", "None"],
    ],
)
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a duration: .*accepted: .*'H:MM:SS'") as refusal:
        get_seconds(text)
    assert repr(text)[:20] in str(refusal.value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, Decimal("NaN"), Decimal("sNaN")])
@pytest.mark.parametrize("read", [get_seconds, get_unixts, format_unixts, format_seconds])
def test_numbers_that_are_not_finite_are_refused(
    read: Callable[[Any], Any], number: float | Decimal
) -> None:
    with pytest.raises(ValueError, match=r"not a finite number.*; accepted: .*None"):
        read(number)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(10**400, id="int"),
        pytest.param(10**5000, id="int without a repr"),
        pytest.param(Fraction(10**400), id="Fraction"),
    ],
)
@pytest.mark.parametrize("read", [get_seconds, get_unixts, format_unixts, format_seconds])
def test_huge_numbers_are_refused_in_one_line(
    read: Callable[[Any], Any], number: int | Fraction
) -> None:
    with pytest.raises(ValueError, match="not a finite number") as refusal:
        read(number)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("value", [True, False, b"12", [1], 1j, object(), datetime.time(1)])
@pytest.mark.parametrize("read", [get_seconds, get_unixts])
def test_other_types_are_type_errors(read: Callable[[Any], Any], value: object) -> None:
    with pytest.raises(TypeError) as refusal:
        read(value)
    assert repr(value)[:20] in str(refusal.value)
    assert type(value).__name__ in str(refusal.value)
    assert "accepted:" in str(refusal.value)


def test_a_date_is_no_duration_and_a_duration_no_date() -> None:
    with pytest.raises(TypeError, match=r"not a duration: datetime\.datetime"):
        get_seconds(datetime.datetime(2026, 1, 1))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"not a date: datetime\.timedelta"):
        get_unixts(datetime.timedelta(1))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"not a date: datetime\.date\("):
        get_unixts(datetime.date(2026, 1, 1))  # type: ignore[call-overload]


def test_numbers_are_kept_as_they_are() -> None:
    assert type(get_seconds(12)) is int
    assert type(get_unixts(1700000000)) is int


# Dates


@pytest.mark.parametrize(
    ("text", "unixts"),
    [
        ("12", 12),
        ("1700000000.5", 1700000000.5),
        ("2026-01-31 12:34:56Z", utc(2026, 1, 31, 12, 34, 56)),
        ("2026-01-31T12:34:56Z", utc(2026, 1, 31, 12, 34, 56)),
        ("2026-01-31T12:34:56+00:00", utc(2026, 1, 31, 12, 34, 56)),
        ("2026-01-31 12:34:56.25+01:00", utc(2026, 1, 31, 11, 34, 56) + 0.25),
        ("2026-01-31 12:34:56-03:30", utc(2026, 1, 31, 16, 4, 56)),
        ("1969-12-31 23:59:58.5Z", -1.5),
        ("26-01-31 00:00:00Z", utc(2026, 1, 31)),
        ("68-01-31 00:00:00Z", utc(2068, 1, 31)),
        ("69-01-31 00:00:00Z", utc(1969, 1, 31)),
        ("0001-01-01 00:00:00+23:59", utc(1, 1, 1) - 23 * 3600 - 59 * 60),
        ("2024-02-29 00:00:00Z", utc(2024, 2, 29)),
    ],
)
def test_dates_are_read(text: str, unixts: float) -> None:
    assert get_unixts(text) == unixts


def test_without_an_offset_a_date_is_local(zone: UseZone) -> None:
    zone(PARIS)
    assert get_unixts("2026-01-31 12:00:00") == utc(2026, 1, 31, 11)
    assert get_unixts("2026-07-31 12:00:00") == utc(2026, 7, 31, 10)
    assert get_unixts(datetime.datetime(2026, 7, 31, 12)) == utc(2026, 7, 31, 10)
    assert get_unixts(datetime.datetime(2026, 7, 31, 12, tzinfo=datetime.UTC)) == utc(
        2026, 7, 31, 12
    )


@pytest.mark.parametrize("offset", ["", "Z", "+14:00", "-12:00"])
def test_missing_parts_are_those_of_today_in_that_zone(zone: UseZone, offset: str) -> None:
    zone(KATHMANDU)
    where = datetime.datetime.fromisoformat(f"2026-01-01 00:00:00{offset}").tzinfo

    def today_at_noon(length: int) -> tuple[float, float]:
        # Read before and after: midnight may pass in between.
        before = datetime.datetime.now(where).date()
        found = get_unixts(f"{before.isoformat()[10 - length :]} 12:00:00{offset}".strip())
        expected = datetime.datetime.combine(before, datetime.time(12), where).timestamp()
        if datetime.datetime.now(where).date() != before:
            return today_at_noon(length)
        return found, expected

    for length in (10, 8, 5, 2, 0):
        found, expected = today_at_noon(length)
        assert found == expected


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", "1h", "may", "today", "now", "-1", "1.", "nan", "9" * 400, "10 may 2026"],
        *["2026-01-31", "2026-01", "12:00", "1:02:03", "2026-01-31  12:00:00", "12:00:00 "],
        *[
            "2026-01-31 12:00:00z",
            "2026-01-31t12:00:00",
            "12:00:00+01",
            "12:00:00+0100",
            "١٢:00:00",
        ],
        *["2026/01/31 12:00:00", "126-01-31 12:00:00", "1-31 12:00:00", "2026-01-31 12:00:00 Z"],
    ],
)
def test_other_texts_are_no_dates(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a date: .*accepted: .*HH:MM:SS") as refusal:
        get_unixts(text)
    assert repr(text)[:20] in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-02-30 00:00:00", "day"),
        ("2025-02-29 00:00:00Z", "day"),
        ("2026-13-01 00:00:00", "month"),
        ("24:00:00", "hour"),
        ("12:60:00", "minute"),
        ("12:00:60", "second"),
        ("12:00:00+24:00", "strictly between"),
        ("12:00:00+01:60", "offset"),
        ("0000-01-01 00:00:00", "year"),
    ],
)
def test_what_no_calendar_has_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(
        ValueError, match=rf"not a date: {re.escape(repr(text))} \(.*{why}.*accepted"
    ):
        get_unixts(text)


def test_a_number_is_a_timestamp_and_not_a_day() -> None:
    assert get_unixts("10") == 10
    assert get_seconds("10") == 10


# Whatever comes in, a value or a refusal comes out.

clock_like = st.from_regex(r"[0-9TZ:. +-]{0,30}", fullmatch=True)
near_dates = st.from_regex(
    r"(([0-9]{1,5}-)?[0-9]{1,3}-)?([0-9]{1,3}[T ])?"
    r"[0-9]{1,3}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]{0,20})?(Z|[+-][0-9]{2}:[0-9]{2})?",
    fullmatch=True,
)
anything = st.text() | clock_like | near_dates | st.floats() | st.integers()


@given(anything)
@pytest.mark.parametrize("read", [get_seconds, get_unixts])
def test_any_text_or_number_gives_a_finite_number_or_a_refusal(
    read: Callable[[Any], Any], value: object
) -> None:
    try:
        found = read(value)
    except ValueError as refusal:
        assert "accepted:" in str(refusal)  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(found, int | float)
        assert math.isfinite(found)


# Round trips

ordinary_dates = st.floats(utc(2, 1, 1), utc(9999, 1, 1))


@pytest.mark.parametrize("name", ZONES)
@one_zone
@given(unixts=ordinary_dates)
def test_a_shown_date_is_read_back(zone: UseZone, name: str, unixts: float) -> None:
    zone(name)
    whole = math.floor(unixts)
    micros = whole * 1_000_000 + round((unixts - whole) * 1_000_000)
    assert get_unixts(format_date(unixts)) == micros // 1_000_000
    with_millis = get_unixts(format_date(unixts, showms=True))
    assert with_millis == pytest.approx(micros // 1000 / 1000, abs=0.0005)


@pytest.mark.parametrize("name", ZONES)
@one_zone
@given(unixts=ordinary_dates)
def test_a_datetime_is_turned_back(zone: UseZone, name: str, unixts: float) -> None:
    zone(name)
    date = unixts_to_datetime(unixts)
    assert date.tzinfo is not None
    assert datetime_to_unixts(date) == pytest.approx(unixts, abs=0.0001)


@given(st.timedeltas())
def test_a_timedelta_is_its_seconds(td: datetime.timedelta) -> None:
    assert get_seconds(td) == timedelta_to_seconds(td) == td / datetime.timedelta(seconds=1)


@given(st.integers(0, 10**9), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999999))
def test_a_clock_duration_is_its_seconds(h: int, m: int, s: int, micros: int) -> None:
    text = f"{h}:{m:02}:{s:02}.{micros:06}"
    assert get_seconds(text) == pytest.approx(h * 3600 + m * 60 + s + micros / 1e6)


@given(st.floats(0, 1e9))
def test_seconds_as_text_are_read_back(seconds: float) -> None:
    text = f"{seconds:.20f}"
    assert get_seconds(text) == float(text)


# Showing


def test_dates_are_shown_as_rfc3339_in_local_time(zone: UseZone) -> None:
    zone("UTC0")
    assert format_date(0) == "1970-01-01 00:00:00+00:00"
    assert format_date(0.5) == "1970-01-01 00:00:00+00:00"
    assert format_date(0.5, showms=True) == "1970-01-01 00:00:00.500+00:00"
    assert format_unixts(1700000000.29, showms=True) == "2023-11-14 22:13:20.290+00:00"
    assert format_unixts(-0.5) == "1969-12-31 23:59:59+00:00"
    zone(ST_JOHNS)
    assert format_date("2026-01-31T12:00:00Z") == "2026-01-31 08:30:00-03:30"
    assert format_date(None) is None


def test_an_offset_is_whole_minutes_even_in_solar_time(zone: UseZone) -> None:
    zone(SOLAR)
    assert format_date("1900-01-01T00:00:00Z") == "1900-01-01 00:09:00+00:09"


def test_the_repeated_hour_is_not_ambiguous(zone: UseZone) -> None:
    zone(PARIS)
    first = utc(2026, 10, 25, 0, 30)
    assert format_date(first) == "2026-10-25 02:30:00+02:00"
    assert format_date(first + 3600) == "2026-10-25 02:30:00+01:00"
    assert unixts_to_datetime(first + 3600) - unixts_to_datetime(first) == datetime.timedelta(
        hours=1
    )


@pytest.mark.parametrize("unixts", [1e20, -1e20, 1e300])
def test_dates_outside_of_the_calendar_are_refused(unixts: float) -> None:
    with pytest.raises(ValueError, match="not a date: "):
        format_date(unixts)
    with pytest.raises(ValueError, match="not a date: "):
        unixts_to_datetime(unixts)


@pytest.mark.parametrize("read", [get_unixts, datetime_to_unixts])
def test_a_naive_date_at_the_edge_of_the_calendar_is_read_or_refused(
    zone: UseZone, read: Callable[[datetime.datetime], float]
) -> None:
    for name in ZONES:
        zone(name)
        for date in (datetime.datetime.min, datetime.datetime.max):
            try:
                assert math.isfinite(read(date))
            except ValueError as refusal:
                assert "not a date" in str(refusal)  # noqa: PT017 - some zones can, some cannot


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (59, "59s"),
        (59.999, "59s"),
        (60, "1m0s"),
        (61, "1m1s"),
        (3600, "1h0m0s"),
        (86399, "23h59m59s"),
        (90061, "1d1h1m1s"),
        (86400 * 1000, "1000d0h0m0s"),
        (-61, "-1m1s"),
        (-0.4, "0s"),
        ("0:01:30", "1m30s"),
        (datetime.timedelta(hours=1), "1h0m0s"),
    ],
)
def test_durations_are_shown(seconds: Any, text: str) -> None:
    assert format_duration(seconds) == text


def test_durations_are_shown_with_milliseconds() -> None:
    assert format_seconds(0.29, showms=True) == "0.290s"
    assert format_seconds(59.5, showms=True) == "59.500s"
    assert format_seconds(59.99999999, showms=True) == "1m0.000s"
    assert format_duration("1:00:00.001", showms=True) == "1h0m0.001s"
    assert format_seconds(-0.5, showms=True) == "-0.500s"


def test_none_stays_none() -> None:
    assert get_seconds(None) is None
    assert get_unixts(None) is None
    assert format_date(None) is None
    assert format_duration(None) is None


@given(st.floats(-1e9, 1e9))
def test_a_shown_duration_adds_up(seconds: float) -> None:
    text = format_seconds(seconds, showms=True)
    parts = re.fullmatch(r"-?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(\d+\.\d{3})s", text)
    assert parts
    days, hours, minutes, secs = (float(part or 0) for part in parts.groups())
    assert hours < 24
    assert minutes < 60
    assert secs < 60
    total = days * 86400 + hours * 3600 + minutes * 60 + secs
    assert math.copysign(total, seconds) == pytest.approx(seconds, abs=0.0011)


# Sleeping and measuring


class FakeTime:
    """A monotonic clock that sleeping moves; each sleep ends early by ``early`` (as a ratio)."""

    def __init__(self, early: float = 0) -> None:
        self.now = 1000.0
        self.wall = 1_700_000_000.0
        self.early = early
        self.naps: list[float] = []

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds < 9e9  # the system's limit
        self.naps.append(seconds)
        self.now += seconds if seconds < 0.001 else seconds * (1 - self.early)

    def install(self, patch: pytest.MonkeyPatch) -> FakeTime:
        clocks = SimpleNamespace(
            sleep=self.sleep, monotonic=lambda: self.now, time=lambda: self.wall + self.now - 1000
        )
        patch.setattr(time_utils, "time", clocks)
        return self


def test_sleep_sleeps() -> None:
    start, used = time.monotonic(), time.thread_time()
    slept = sleep(0.2)
    assert slept is not None
    assert 0.19 < slept <= time.monotonic() - start
    assert time.thread_time() - used < 0.1


def test_sleep_until_a_date() -> None:
    date = time.time() + 0.2
    slept = sleep(until=date)
    assert slept is not None
    assert slept > 0
    assert time.time() >= date - 0.05


def test_sleep_takes_every_format(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime().install(monkeypatch)
    assert sleep("0:01:30") == 90
    assert sleep(datetime.timedelta(minutes=1)) == 60
    assert sleep(until=format_date(clock.wall + 1000)) == 850
    assert clock.naps == [90, 60, 850]


def test_sleep_with_nothing_to_wait_for_returns_none(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime().install(monkeypatch)
    assert sleep() is None
    assert sleep(0) is None
    assert sleep(-5) is None
    assert sleep(until=clock.wall) is None
    assert sleep("0:00:00", until=clock.wall - 1) is None
    assert clock.naps == []


def test_sleep_lasts_for_the_longer_of_delay_and_date(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime().install(monkeypatch)
    assert sleep(10, until=clock.wall + 3) == 10
    assert sleep(10, until=clock.wall + 10 + 30) == 30
    assert sleep(10, until=0) == 10


def test_sleep_goes_on_when_the_system_wakes_it_early(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime(early=0.1).install(monkeypatch)
    slept = sleep(10)
    assert slept == pytest.approx(10)
    assert 1 < len(clock.naps) < 10


def test_sleep_can_be_longer_than_what_the_system_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    class TooLong(Exception):
        pass

    def gone(seconds: float) -> None:
        assert seconds < 9e9
        raise TooLong

    clock = FakeTime().install(monkeypatch)
    monkeypatch.setattr(clock, "sleep", gone)
    clock.install(monkeypatch)
    with pytest.raises(TooLong):
        sleep(1e300)


def test_ctrl_c_ends_a_sleep() -> None:
    main = threading.main_thread().ident
    assert main is not None
    killer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))

    def sleep_long() -> None:
        killer.start()
        sleep(60)

    try:
        with pytest.raises(KeyboardInterrupt):
            sleep_long()
    finally:
        killer.join()


@pytest.mark.parametrize("wrong", ["1h", "", math.nan])
def test_sleep_refuses_what_is_no_time(wrong: Any) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        sleep(wrong)
    with pytest.raises(ValueError, match="not a date"):
        sleep(until=wrong)
    with pytest.raises(ValueError, match="not a duration"):
        Timer(wrong)
    with pytest.raises(ValueError, match="not a duration"):
        Timer().wait_elapsed(wrong)


def test_a_timer_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime().install(monkeypatch)
    timer = Timer("0:01:00")
    assert timer.start_date() == clock.wall
    assert timer.elapsed() == 0
    assert timer.remaining() == 60
    clock.now += 15
    assert timer.elapsed() == 15
    assert timer.remaining() == 45
    assert timer.wait_elapsed("20") is timer
    assert timer.elapsed() == 20
    assert timer.wait_elapsed(3).elapsed() == 20
    assert repr(timer) == "<Timer: 20.000 s of 60 s>"
    clock.now += 100
    assert timer.remaining() == 0
    assert timer.start_date() == clock.wall


def test_a_timer_without_timeout_has_no_remaining_time() -> None:
    timer = Timer()
    assert timer.remaining() is None
    assert timer.elapsed() >= 0
    assert abs(timer.start_date() - time.time()) < 60


def test_a_timer_does_not_care_about_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime().install(monkeypatch)
    timer = Timer(10)
    clock.wall += 86400
    assert timer.elapsed() == 0
    assert timer.remaining() == 10
