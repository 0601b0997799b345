"""How fast things go, and how often they are asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from execo.time_utils import format_duration

__all__ = ["Pace", "Seldom", "number_of_bytes"]

T = TypeVar("T")

SHARE = 200
"""What takes long to answer is asked less often: for one part in so many of the time."""

LATE = 1.0
"""Seconds from the start of an action, after which it has been running for a while."""

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Pace:
    """How long the rest will take, by what was done since it began."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._done = 0

    def begin(self, done: int, start: float | None = None) -> None:
        """So much was done before.

        :param start: when it began, a unix time, if it has
        """
        age = 0.0 if start is None else time.time() - start
        # One that has been running counts from its start; what had ended before one that has only
        # just begun is no work of it.
        late = age > LATE
        self._began = time.monotonic() - (age if late else 0.0)
        self._done = 0 if late else done

    def left(self, done: int, total: int) -> float | None:
        """Seconds; None = nothing was done yet, or all is."""
        new = done - self._done
        if new <= 0 or done >= total:
            return None
        return (time.monotonic() - self._began) * (total - done) / new

    def elapsed(self) -> str:
        """Since it began."""
        return format_duration(time.monotonic() - self._began)


class Seldom(Generic[T]):
    """What is asked again only when that has become cheap.

    :param question: what gives the answer
    :param least: seconds between two questions at the least
    """

    def __init__(self, question: Callable[[], T], least: float = 0.0) -> None:
        self._question = question
        self._least = least
        self._next = 0.0
        self._answers: list[T] = []

    def ask(self, *, last: bool = False) -> T:
        """The answer, or that of the last time.

        :param last: ask again
        """
        before = time.monotonic()
        if last or not self._answers or before >= self._next:
            self._answers = [self._question()]
            after = time.monotonic()
            self._next = before + max(self._least, SHARE * (after - before))
        return self._answers[0]


def number_of_bytes(done: int, total: int | None = None) -> str:
    """``1.2 GB``, or ``0.3/1.2 GB``."""
    size = float(done if total is None else max(done, total))
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size /= 1000
        unit += 1
    texts = [_digits(number, unit) for number in (done, total) if number is not None]
    return f"{'/'.join(texts)} {UNITS[unit]}"


def _digits(number: int, unit: int) -> str:
    return f"{number / 1000**unit:.1f}" if unit else str(number)
