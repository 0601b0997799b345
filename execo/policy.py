"""How an action deals with failures, and how quickly it starts: decisions, without threads.

:class:`Retry` says which starts are tried again, :class:`Pace` how many children may start now,
:func:`failure_limit` how many may fail.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypedDict

from .errors import Reason
from .time_utils import Duration, get_seconds

__all__ = ["Pace", "PolicyArgs", "Retry", "checked_retry", "failure_limit"]

BEFORE_THE_START = (Reason.CONNECT, Reason.AUTH, Reason.HOST_KEY, Reason.SPAWN)
"""Reasons for which a command may not have been started at all."""

LONGEST_PAUSE = 3600.0
"""Seconds that a growing backoff stops at."""

CATCH_UP = 0.02
"""Seconds by which a late timer may be caught up: more would be a burst."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Start again what could not be started.

    A process that fails with one of the reasons in ``on`` before its command can have run is
    started again, after ``backoff`` seconds, then after twice as many, and so on, at most an hour
    each. A command that may have run is never started again, whatever the reason: a connection
    that is lost later has the reason ``connect``, too. To run those again as well that have failed
    is the script's decision, see :meth:`Action.retry_failed() <execo.action.Action.retry_failed>`.
    (new)

    :param times: how often it is started again at the most; 0 = never
    :param backoff: seconds (or what :func:`~execo.time_utils.get_seconds` takes) before the first
      time
    :param jitter: the part of each pause that is left to chance, from 0 to 1: 0.5 makes it half as
      long again at the most, and half as long at least. So many that have failed together do not
      come back together
    :param on: the reasons, or a single one: ``connect``, ``auth``, ``host key``, ``spawn``
    :raises TypeError: for a parameter of a wrong type
    :raises ValueError: for a parameter out of its range; for a reason that says that the command
      has run
    """

    times: int = 2
    backoff: Duration = 1.0
    jitter: float = 0.5
    on: Iterable[str] = (Reason.CONNECT,)

    def __post_init__(self) -> None:
        if isinstance(self.times, bool) or not isinstance(self.times, int):
            raise TypeError(f"times is a number of retries, 3 for one, not {self.times!r}")
        if self.times < 0:
            raise ValueError(f"times is a number of retries, at least 0: not {self.times!r}")
        try:
            seconds = get_seconds(self.backoff)
        except (TypeError, ValueError) as exc:
            raise type(exc)(f"backoff: {exc}") from exc
        if seconds is None or seconds < 0:
            raise ValueError(f"backoff is a number of seconds, at least 0: not {self.backoff!r}")
        if not _is_number(self.jitter):
            raise TypeError(f"jitter is a number from 0 to 1, not {self.jitter!r}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is a number from 0 to 1: not {self.jitter!r}")
        object.__setattr__(self, "backoff", float(seconds))
        object.__setattr__(self, "on", _checked_reasons(self.on))

    def pause(
        self, reason: Reason, attempts: int, chance: Callable[[], float] = random.random
    ) -> float | None:
        """Seconds until the next attempt; None = there is none.

        :param reason: why the last one failed
        :param attempts: how many there were, at least 1
        :param chance: gives numbers from 0 to 1
        """
        if reason not in self.on or attempts > self.times:
            return None
        # The exponent is kept small: 2.0 ** 1024 is an error.
        pause = min(float(self.backoff) * 2.0 ** min(attempts - 1, 100), LONGEST_PAUSE)  # type: ignore[arg-type]
        return pause * (1 + self.jitter * (2 * chance() - 1))


class Pace:
    """So many starts a second at the most, evenly, from the first on.

    :param rate: starts a second; may be below 1
    :raises TypeError: for what is no number
    :raises ValueError: for a number that is not positive
    """

    def __init__(self, rate: float) -> None:
        if not _is_number(rate):
            raise TypeError(f"start_rate is a number of starts a second, not {rate!r}")
        if not 0 < rate < math.inf:
            raise ValueError(f"start_rate is a number of starts a second, above 0: not {rate!r}")
        self._gap = 1 / rate
        self._due: float | None = None  # when the next one may start

    def take(self, now: float, wanted: int) -> int:
        """How many of ``wanted`` may start now; they are taken as started.

        :param now: by any monotonic clock, seconds
        """
        # What others have held up (a fanout) is not made up for: it would be a burst.
        due = now if self._due is None else max(self._due, now - CATCH_UP)
        if due > now or wanted <= 0:
            return 0
        count = min(wanted, math.floor((now - due) / self._gap) + 1)
        self._due = due + count * self._gap
        return count

    def pause(self, now: float) -> float:
        """Seconds until the next one may start."""
        return 0.0 if self._due is None else max(0.0, self._due - now)


class PolicyArgs(TypedDict, total=False):
    """The keyword arguments that actions take beside ``fanout``, see
    :class:`~execo.action.Action`."""

    start_rate: float | None
    retry: Retry | None
    max_failures: int | str | None


def checked_retry(retry: Retry | None) -> Retry | None:
    """``retry`` as it is.

    :raises TypeError: if it is something else
    """
    if retry is not None and not isinstance(retry, Retry):
        raise TypeError(f"retry is a Retry, Retry(times=3) for one, or None: not {retry!r}")
    return retry


def failure_limit(given: int | str | None, total: int) -> int | None:
    """How many may fail; None = all.

    :param given: a number, a percentage of ``total`` (``"10%"``), or None
    :param total: how many there are
    :raises TypeError: for what is neither number nor text
    :raises ValueError: for a number below 0, a text that is no percentage from 0 to 100
    """
    hint = f"max_failures is a number, or a percentage such as '10%': not {given!r}"
    if given is None:
        return None
    if isinstance(given, str):
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*", given)
        if found is None or float(found[1]) > 100:
            raise ValueError(hint)
        return math.floor(total * float(found[1]) / 100)
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(hint)
    if given < 0:
        raise ValueError(hint)
    return given


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _checked_reasons(given: Any) -> tuple[Reason, ...]:
    words = [given] if isinstance(given, str) else given
    known = ", ".join(repr(str(reason)) for reason in BEFORE_THE_START)
    if not isinstance(words, Iterable):
        raise TypeError(f"on is made of reasons ({known}), not {given!r}")
    reasons = []
    for word in words:
        try:
            reason = Reason(word)
        except ValueError:
            raise ValueError(f"no reason to start again: {word!r}; there are {known}") from None
        if reason not in BEFORE_THE_START:
            raise ValueError(
                f"no reason to start again: {str(reason)!r}: such a command may have run; there "
                f"are {known}. Action.retry_failed() runs again all that has failed"
            )
        reasons.append(reason)
    return tuple(reasons)
