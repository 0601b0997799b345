"""Dates and durations: reading them in many formats, showing them, sleeping, measuring.

Inside execo a date is a unix timestamp (seconds since 1970-01-01 00:00:00 UTC) and a duration is
a number of seconds, both int or float. Whatever the user gives is converted at the border by
:func:`get_unixts` and :func:`get_seconds`, whose formats are those of execo 2.8.2.

Both refuse what they do not know rather than guess: a wrong value is a ValueError, a wrong type a
TypeError, and both show the value and the accepted formats. Booleans are a TypeError (execo 2.8.2
took them for 0 and 1), not-a-number and infinity a ValueError: None is how one says "no limit".
"""

from __future__ import annotations

import datetime
import math
import re
import time
from typing import SupportsFloat, TypeAlias, overload

__all__ = [
    "Date",
    "Duration",
    "Timer",
    "datetime_to_unixts",
    "format_date",
    "format_duration",
    "format_seconds",
    "format_unixts",
    "get_seconds",
    "get_unixts",
    "sleep",
    "timedelta_to_seconds",
    "unixts_to_datetime",
]

Duration: TypeAlias = SupportsFloat | str | datetime.timedelta
"""What :func:`get_seconds` reads."""

Date: TypeAlias = SupportsFloat | str | datetime.datetime
"""What :func:`get_unixts` reads."""

_DURATION_FORMATS = (
    "a number of seconds (12, 1.5, '12', '1.5'), 'H:MM:SS' with an optional fraction "
    "('0:01:30', '100:00:00.5'), a datetime.timedelta, or None"
)
_DATE_FORMATS = (
    "a unix timestamp (1700000000, 1.5, '1700000000', '1.5'), "
    "'[[[YY]YY-]MM-]DD[T ]]HH:MM:SS[.fraction][Z|+HH:MM|-HH:MM]' "
    "('2026-01-31 12:00:00', '12:00:00.5Z'; what is missing is taken from today), "
    "a datetime.datetime, or None"
)

# Texts, which re compiles (and keeps) at first use: compiling them takes longer than the import.
_NUMBER = r"[0-9]+(\.[0-9]+)?"
_CLOCK_DURATION = r"(?P<h>[0-9]+):(?P<m>[0-5][0-9]):(?P<s>[0-5][0-9](\.[0-9]+)?)"
_DATE_TEXT = (
    r"((((?P<year>([0-9]{2})?[0-9]{2})-)?(?P<month>[0-9]{2})-)?(?P<day>[0-9]{2})[T ])?"
    r"(?P<h>[0-9]{2}):(?P<m>[0-9]{2}):(?P<s>[0-9]{2})(?P<fraction>\.[0-9]+)?"
    r"(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})?"
)

# time.sleep() refuses more than about 292 years; nobody notices one more wake-up in ten days.
_LONGEST_NAP = 864000.0


def _shown(value: object) -> str:
    """A repr for messages, never long."""
    try:
        text = repr(value)
    except ValueError:  # an int of thousands of digits
        return f"a huge {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def _refused(kind: str, value: object, formats: str, why: str = "") -> ValueError:
    return ValueError(f"not a {kind}: {_shown(value)}{why}; accepted: {formats}")


def _wrong_type(kind: str, value: object, formats: str) -> TypeError:
    name = type(value).__name__
    return TypeError(f"not a {kind}: {_shown(value)} is a {name}; accepted: {formats}")


def _number(value: object, kind: str, formats: str) -> float:
    """The finite number that ``value`` is (int and float unchanged)."""
    if isinstance(value, bool):
        raise _wrong_type(kind, value, formats)
    try:
        if isinstance(value, int | float):
            number: float = value
        elif isinstance(value, SupportsFloat):
            number = float(value)
        else:
            raise _wrong_type(kind, value, formats)
        finite = math.isfinite(number)
    except (OverflowError, ValueError) as exc:
        raise _refused(kind, value, formats, " (not a finite number)") from exc
    if not finite:
        raise _refused(kind, value, formats, " (not a finite number)")
    return number


@overload
def get_seconds(duration: None) -> None: ...
@overload
def get_seconds(duration: Duration) -> float: ...
def get_seconds(duration: Duration | None) -> float | None:
    """Read a duration.

    :param duration: a number of seconds (kept as it is), a text ``'12'``, ``'1.5'`` or
      ``'H:MM:SS'`` with any number of hours and an optional fraction, a
      :class:`datetime.timedelta`, or None (gives None: no limit).
    :returns: seconds. Texts are never negative; negative numbers and timedeltas pass, as in
      execo 2.8.2, since scripts compute ``deadline - now``: whoever waits takes them for 0.
    :raises ValueError: a text that is none of these, not-a-number, infinity
    :raises TypeError: another type, or a boolean
    """
    if duration is None:
        return None
    if isinstance(duration, str):
        return _seconds_of_text(duration)
    if isinstance(duration, datetime.timedelta):
        return duration.total_seconds()
    return _number(duration, "duration", _DURATION_FORMATS)


def _seconds_of_text(text: str) -> float:
    if re.fullmatch(_NUMBER, text):
        seconds = float(text)
    elif clock := re.fullmatch(_CLOCK_DURATION, text):
        # float() and not int(): int() refuses thousands of digits with a message of its own.
        seconds = float(clock["h"]) * 3600 + int(clock["m"]) * 60 + float(clock["s"])
    else:
        raise _refused("duration", text, _DURATION_FORMATS)
    if not math.isfinite(seconds):
        raise _refused("duration", text, _DURATION_FORMATS, " (too large)")
    return seconds


@overload
def get_unixts(d: None) -> None: ...
@overload
def get_unixts(d: Date) -> float: ...
def get_unixts(d: Date | None) -> float | None:
    """Read a date.

    :param d: a unix timestamp (kept as it is), a text ``'12'`` or ``'1.5'`` (a timestamp too),
      a text ``[[[YY]YY-]MM-]DD[T ]]HH:MM:SS[.fraction][Z|+HH:MM|-HH:MM]``, a
      :class:`datetime.datetime` (a naive one is local time), or None (gives None).
      Without ``Z`` or offset, local time is meant; the parts of the date that are missing are
      those of today, in that same zone. Years of two digits are 1969 to 2068, as in POSIX.
    :returns: seconds since the epoch
    :raises ValueError: a text that is none of these or no date of the calendar, not-a-number,
      infinity
    :raises TypeError: another type, or a boolean
    """
    if d is None:
        return None
    if isinstance(d, str):
        return _unixts_of_text(d)
    if isinstance(d, datetime.datetime):
        return datetime_to_unixts(d)
    return _number(d, "date", _DATE_FORMATS)


def _unixts_of_text(text: str) -> float:
    # The pattern decides what is a date: dateutil's parser would take '10', '1h' and 'may', too.
    if re.fullmatch(_NUMBER, text):
        unixts = float(text)
        if not math.isfinite(unixts):
            raise _refused("date", text, _DATE_FORMATS, " (too large)")
        return unixts
    parts = re.fullmatch(_DATE_TEXT, text)
    if parts is None:
        raise _refused("date", text, _DATE_FORMATS)
    try:
        zone = _zone(parts["zone"])
        today = datetime.datetime.now(zone)
        date = datetime.datetime(
            today.year if parts["year"] is None else _year(parts["year"]),
            today.month if parts["month"] is None else int(parts["month"]),
            today.day if parts["day"] is None else int(parts["day"]),
            int(parts["h"]),
            int(parts["m"]),
            int(parts["s"]),
            tzinfo=zone,
        )
        return date.timestamp() + float(parts["fraction"] or 0)
    except (ValueError, OverflowError, OSError) as exc:
        raise _refused("date", text, _DATE_FORMATS, f" ({exc})") from exc


def _zone(text: str | None) -> datetime.timezone | None:
    if text is None:
        return None
    if text == "Z":
        return datetime.UTC
    hours, minutes = int(text[1:3]), int(text[4:6])
    if minutes > 59:
        raise ValueError("minute of the UTC offset must be in 0..59")
    offset = datetime.timedelta(hours=hours, minutes=minutes)
    return datetime.timezone(-offset if text[0] == "-" else offset)


def _year(text: str) -> int:
    if len(text) == 4:
        return int(text)
    return int(text) + (1900 if text >= "69" else 2000)


def timedelta_to_seconds(td: datetime.timedelta) -> float:
    """The duration of a :class:`datetime.timedelta`, in seconds."""
    return td.total_seconds()


def datetime_to_unixts(dt: datetime.datetime) -> float:
    """The unix timestamp of a :class:`datetime.datetime`; a naive one is local time.

    :raises ValueError: a naive date that the system's calendar cannot convert
    """
    try:
        return dt.timestamp()
    except (ValueError, OverflowError, OSError) as exc:
        raise _refused("date", dt, _DATE_FORMATS, f" ({exc})") from exc


def unixts_to_datetime(ts: SupportsFloat, tz: datetime.tzinfo | None = None) -> datetime.datetime:
    """The :class:`datetime.datetime` of a unix timestamp.

    :param ts: a unix timestamp, in seconds
    :param tz: the time zone of the result; None = local time
    :returns: an aware date (execo 2.8.2: a naive one without ``tz``), so that nothing is
      ambiguous where clocks go back;
      its UTC offset is whole minutes, as RFC 3339 wants it
    :raises ValueError: outside of the years 1 to 9999
    """
    seconds = _number(ts, "date", _DATE_FORMATS)
    try:
        date = datetime.datetime.fromtimestamp(seconds, datetime.UTC).astimezone(tz)
        offset = date.utcoffset() or datetime.timedelta()
        if offset.seconds % 60:
            # Before time zones (about 1900) local time was that of the sun, down to the second.
            minutes = datetime.timedelta(minutes=round(offset.total_seconds() / 60))
            date = date.astimezone(datetime.timezone(minutes))
    except (ValueError, OverflowError, OSError) as exc:
        raise _refused("date", ts, _DATE_FORMATS, f" ({exc})") from exc
    return date


def format_unixts(secs: SupportsFloat, showms: bool = False) -> str:
    """Show a unix timestamp in local time, as RFC 3339: ``1970-01-01 00:00:00+00:00``.

    :param secs: a unix timestamp, in seconds
    :param showms: also show milliseconds (``1970-01-01 00:00:00.500+00:00``)
    :returns: a text that :func:`get_unixts` reads. What is not shown is cut, not rounded: a clock
      never shows a time that has not come.
    :raises ValueError: outside of the years 1 to 9999
    """
    timespec = "milliseconds" if showms else "seconds"
    return unixts_to_datetime(secs).isoformat(" ", timespec)


def format_seconds(secs: SupportsFloat, showms: bool = False) -> str:
    """Show a number of seconds as days, hours, minutes and seconds: ``1d1h1m1s``, ``59s``.

    :param secs: the duration, in seconds
    :param showms: also show milliseconds (``59.500s``)
    :returns: a text from the largest unit that is not zero down to seconds (``1h0m0s``). What is
      not shown is cut, not rounded. Meant for people: :func:`get_seconds` does not read it.
    :raises ValueError: not-a-number, infinity
    """
    number = _number(secs, "duration", _DURATION_FORMATS)
    # By way of microseconds: 0.29 * 1000 is 289.99..., which would be cut to 289 ms.
    whole = int(abs(number))
    carry, micros = divmod(round((abs(number) - whole) * 1_000_000), 1_000_000)
    minutes, rest = divmod(whole + carry, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    millis = micros // 1000 if showms else 0
    text = f"{rest}.{millis:03d}s" if showms else f"{rest}s"
    if days or hours or minutes:
        text = f"{minutes}m{text}"
    if days or hours:
        text = f"{hours}h{text}"
    if days:
        text = f"{days}d{text}"
    return f"-{text}" if number < 0 and (whole or carry or millis) else text


@overload
def format_date(d: None, showms: bool = False) -> None: ...
@overload
def format_date(d: Date, showms: bool = False) -> str: ...
def format_date(d: Date | None, showms: bool = False) -> str | None:
    """Show a date in local time, as RFC 3339; None gives None.

    :param d: a date in any format of :func:`get_unixts`
    :param showms: also show milliseconds
    :raises ValueError: see :func:`get_unixts` and :func:`format_unixts`
    """
    return None if d is None else format_unixts(get_unixts(d), showms)


@overload
def format_duration(duration: None, showms: bool = False) -> None: ...
@overload
def format_duration(duration: Duration, showms: bool = False) -> str: ...
def format_duration(duration: Duration | None, showms: bool = False) -> str | None:
    """Show a duration as ``1d1h1m1s``; None gives None.

    :param duration: a duration in any format of :func:`get_seconds`
    :param showms: also show milliseconds
    :raises ValueError: see :func:`get_seconds`
    """
    return None if duration is None else format_seconds(get_seconds(duration), showms)


def sleep(delay: Duration | None = None, until: Date | None = None) -> float | None:
    """Block this thread for a while. Ctrl-C interrupts it when it runs in the main thread.

    :param delay: how long, in any format of :func:`get_seconds`
    :param until: the date until which to sleep, in any format of :func:`get_unixts`
      If both are given, it sleeps for the longer of the two.
    :returns: the seconds slept (monotonic clock), or None when there was nothing to wait for:
      nothing given, nothing positive, a date in the past
    :raises ValueError: see :func:`get_seconds` and :func:`get_unixts`

    ``until`` is turned into a delay at once: setting the system's clock meanwhile changes nothing.
    """
    start = time.monotonic()
    waits = []
    if delay is not None:
        waits.append(get_seconds(delay))
    if until is not None:
        waits.append(get_unixts(until) - time.time())
    if not any(seconds > 0 for seconds in waits):
        return None
    deadline = start + max(waits)
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, _LONGEST_NAP))
    return time.monotonic() - start


class Timer:
    """Measures the time since its creation, and how much of a timeout is left.

    :param timeout: a duration in any format of :func:`get_seconds`, None for no limit

    It measures with the monotonic clock: setting the system's clock changes nothing.
    """

    def __init__(self, timeout: Duration | None = None) -> None:
        self._timeout = get_seconds(timeout)
        self._start_date = time.time()
        self._start = time.monotonic()

    def wait_elapsed(self, elapsed: Duration) -> Timer:
        """Block this thread until so long has elapsed since the timer was created.

        :param elapsed: a duration in any format of :func:`get_seconds`
        :returns: the timer itself; at once if that much has elapsed already
        :raises ValueError: see :func:`get_seconds`
        """
        sleep(get_seconds(elapsed) - self.elapsed())
        return self

    def start_date(self) -> float:
        """The date of creation, a unix timestamp."""
        return self._start_date

    def elapsed(self) -> float:
        """The seconds elapsed since the creation."""
        return time.monotonic() - self._start

    def remaining(self) -> float | None:
        """The seconds left until the timeout, 0 when it is over, None if there is no timeout.

        Never negative, since ``lock.acquire(timeout=-1)`` and its like wait for ever.
        """
        return None if self._timeout is None else max(0.0, self._timeout - self.elapsed())

    def __repr__(self) -> str:
        timeout = "" if self._timeout is None else f" of {self._timeout:g} s"
        return f"<Timer: {self.elapsed():.3f} s{timeout}>"
