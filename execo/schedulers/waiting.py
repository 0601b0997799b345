"""The wait for the nodes of a job."""

from __future__ import annotations

import time
from collections.abc import Callable

from execo.log import get_logger
from execo.time_utils import format_duration, sleep

from .calls import Backoff, CallFailed
from .errors import AllocationError, AllocationTimeout, SchedulerError
from .following import Following

__all__ = ["Waiting"]

LONG = 5.0
"""Seconds of waiting after which one wants to know why."""

FIRST = 0.5

logger = get_logger("execo.schedulers")


class Waiting:
    """One wait, in one thread.

    :param seen: the job; with hosts from the start, it is known to run
    :param limit: seconds, None for no limit
    :param interval: seconds between two looks, at the most
    :param tend: called between them
    """

    def __init__(
        self,
        seen: Following,
        limit: float | None,
        interval: float,
        tend: Callable[[], object],
    ) -> None:
        self._seen = seen
        self._limit = limit
        self._tend = tend
        self._backoff = Backoff(FIRST, interval)
        self._known = bool(seen.hosts)
        self._failure: SchedulerError | None = None
        self._told: set[str] = set()
        self._begin = time.monotonic()

    def run(self) -> None:
        """Returns when there are nodes.

        :raises AllocationTimeout: they have not come in time
        :raises AllocationError: the job has ended
        :raises SchedulerError: the scheduler cannot be asked at all
        """
        seen = self._seen
        if self._known and seen.end is not None:
            return
        pause = FIRST
        while True:
            # Of many that wait, one asks for all.
            self._look(pause)
            if seen.over is not None:
                raise AllocationError(f"job {seen.id} {seen.over}")
            if seen.hosts and seen.job is not None:
                return
            waited = time.monotonic() - self._begin
            self._tell_why(waited)
            if self._limit is not None and waited >= self._limit:
                self._give_up(self._limit)
                return
            self._tend()
            pause = self._backoff.pause()
            sleep(pause if self._limit is None else min(pause, self._limit - waited))

    def _look(self, max_age: float) -> None:
        try:
            self._seen.look(max_age)
        except SchedulerError as exc:
            if isinstance(exc, CallFailed) and exc.hopeless and not self._known:
                raise
            if self._failure is None:
                logger.warning("job %s: nothing is heard of it: %s", self._seen.id, exc)
            self._failure = exc
        else:
            self._failure = None

    def _tell_why(self, waited: float) -> None:
        state = str(self._seen.job or "")
        if state and waited > LONG and state not in self._told:
            self._told.add(state)
            logger.warning("job %s waits for its nodes: %s", self._seen.id, state)

    def _give_up(self, limit: float) -> None:
        if self._known:
            logger.warning("job %s: nobody tells when it ends", self._seen.id)
            return
        why = [str(one) for one in (self._seen.job, self._failure) if one is not None]
        raise AllocationTimeout(
            f"job {self._seen.id} has got no nodes within {format_duration(limit)}"
            f"{': ' if why else ''}{'; '.join(why)}"
        )
