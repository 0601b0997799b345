"""Works through the combinations of a sweeper, several at once, each on hosts of its own.

The thread that calls :meth:`Dispatcher.run` owns everything here: it alone talks to the sweeper,
the pool and the record. Each attempt has a thread of its own, which runs the user's code and puts
what came of it into a queue.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from execo import observing
from execo.errors import ExecoError, ProcessesFailed, Reason
from execo.host import Host
from execo.log import get_logger
from execo.progress import show
from execo.time_utils import format_duration

from .attempt import Attempt, AttemptCancelled
from .combination import HashableDict
from .host_pool import HostPool, NotEnoughHosts
from .record import Record
from .sweeper import ParamSweeper
from .time_left import TimeLeft

__all__ = ["Dispatcher", "OnInterrupt"]

OnInterrupt = Literal["wait", "cancel"]

UNREACHABLE = frozenset({Reason.CONNECT, Reason.AUTH, Reason.HOST_KEY})

LOSSES = 3
"""So many hosts that are lost under one combination are its fault: it would take all of them."""

LOOK = 0.5
"""Seconds between two looks at whether a signal has come, and at what is left of a reservation: its
end may come early."""

TERMINATED = 143
"""Exit code after SIGTERM, as shells have it."""

logger = get_logger("execo.engine")


@dataclass(slots=True)
class _Ended:
    """What came of an attempt: a result, or an error."""

    attempt: Attempt
    began: float
    result: Any = None
    error: BaseException | None = None


class Dispatcher:
    """One run over the combinations of a sweeper.

    :param make: an attempt for a combination, its hosts and its number
    :param measure: does it, on a thread of its own; what it returns is the result, what it raises
      makes the attempt a failed one
    :param needs: how many hosts a combination needs
    :param jobs: how many at once at the most; None: as many as there are hosts for, and at the most
      one for each host
    :param on_interrupt: what Ctrl-C means for those that run: ``wait`` for their end, or
      ``cancel`` them. A second one cancels them and does not wait. SIGTERM, which comes at the end
      of a reservation, always cancels
    :param time_left: what would not end in time is not begun, and what has not ended in time is
      cancelled
    """

    def __init__(
        self,
        sweeper: ParamSweeper,
        pool: HostPool,
        make: Callable[[HashableDict, list[Host], int], Attempt],
        measure: Callable[[Any], Any],
        needs: int | Callable[[HashableDict], int],
        *,
        jobs: int | None = None,
        on_interrupt: OnInterrupt = "wait",
        record: Record | None = None,
        time_left: TimeLeft | None = None,
    ) -> None:
        self._sweeper = sweeper
        self._pool = pool
        self._make = make
        self._measure = measure
        self._needs = needs
        self._jobs = jobs
        self._on_interrupt = on_interrupt
        self._record = record
        self._time = time_left or TimeLeft()
        self._too_long = False
        self._losses: Counter[HashableDict] = Counter()
        self._running: list[Attempt] = []
        # Its put() may interrupt itself, which is what a signal handler does.
        self._messages: queue.SimpleQueue[_Ended | None] = queue.SimpleQueue()
        self._interrupts = 0
        self._terminated = False
        self._stopping = False

    def run(self) -> None:
        """Until nothing is left that could be handed out. Blocks.

        :raises NotEnoughHosts: some need more hosts than there are, or than are left; all others
          are done
        :raises KeyboardInterrupt: after Ctrl-C, when those that ran have ended, or at once after a
          second one
        :raises SystemExit: likewise, after SIGTERM
        """
        with show(self._sweeper), self._told_of_interrupts():
            try:
                while True:
                    self._hand_out()
                    if not self._running:
                        break
                    message = self._next_message()
                    if message is None:
                        self._interrupted()
                    else:
                        self._settle(message)
            except BaseException:
                self._abandon()
                raise
        if self._interrupts:
            raise self._stop
        if not self._stopping:
            self._check_hosts(self._sweeper.get_remaining())

    def _next_message(self) -> _Ended | None:
        while True:
            left = self._time.left()
            if left is not None and left <= 0:
                self._time_is_over()
            # A signal in the moment before a thread goes to sleep does not wake it, and the message
            # of its handler would wait for another one.
            with contextlib.suppress(queue.Empty):
                return self._messages.get(timeout=LOOK)

    # -- handing out ---------------------------------------------------------------------------

    def _hand_out(self) -> None:
        while not self._stopping and len(self._running) < (self._jobs or max(1, self._pool.size)):
            if self._no_time_left():
                self._stopping = True
                return
            # Only one that can begin now is taken: other scripts may work on the same sweep.
            if isinstance(self._needs, int) and not self._fits(self._needs):
                return
            # A filter is given all that remain: not where nobody has to choose.
            chosen = self._time.differs or not isinstance(self._needs, int)
            self._too_long = False
            taken = self._sweeper.get_next(self._fitting if chosen else None)
            if taken is None:
                # While others run, their hosts may be what is lacking.
                if self._too_long and not self._running:
                    self._stopping = True
                    self._tell_no_time("all that remain take longer")
                return
            hosts = self._pool.take(self._need(taken))
            assert hosts is not None
            self._begin(taken, hosts)

    def _need(self, combination: HashableDict) -> int:
        return self._needs if isinstance(self._needs, int) else self._needs(combination)

    def _fits(self, count: int) -> bool:
        """Whether one that needs so many hosts can begin now."""
        # This machine is one, and two would disturb each other.
        if count == 0 and self._jobs is None:
            return all(attempt.hosts for attempt in self._running)
        return count <= self._pool.free

    def _fitting(self, todo: Iterable[HashableDict]) -> Iterator[HashableDict]:
        """The first one that the hosts are enough for. If only the free ones are not, then none:
        small ones that overtake would keep it waiting for ever."""
        for one in todo:
            if not self._time.fits(one):
                self._too_long = True
                continue
            count = self._need(one)
            if self._fits(count):
                yield one
                return
            if count <= self._pool.size:
                return

    def _no_time_left(self) -> bool:
        if self._time.enough():
            return False
        self._tell_no_time(f"the longest took {format_duration(self._time.longest)}")
        return True

    def _tell_no_time(self, why: str) -> None:
        left = format_duration(max(0.0, self._time.left() or 0.0))
        logger.warning("%s are left, %s: nothing more is begun", left, why)

    def _time_is_over(self) -> None:
        running = [attempt for attempt in self._running if not attempt.cancelled]
        if running:
            logger.warning("the time is over: %d that run are cancelled", len(running))
        self._stopping = True
        for attempt in running:
            attempt.cancel()

    def _begin(self, combination: HashableDict, hosts: list[Host]) -> None:
        number = self._sweeper.entry(combination).attempts
        attempt = self._make(combination, hosts, number)
        self._running.append(attempt)
        logger.info("begin %s", _named(attempt))
        # A daemon: after a second Ctrl-C nobody waits for it.
        threading.Thread(
            target=self._work, args=(attempt,), name="execo-attempt", daemon=True
        ).start()

    def _work(self, attempt: Attempt) -> None:
        """On a thread of its own."""
        observing.label.set(attempt.combination)
        ended = _Ended(attempt, time.time())
        try:
            ended.result = self._kept(self._measure(attempt))
        except BaseException as exc:  # noqa: BLE001 - told to the thread that decides
            ended.error = exc
            observing.label.set(None)  # what is asked now is not of the combination
            self._time.look()
        self._messages.put(ended)

    def _kept(self, result: Any) -> Any:
        """A result as it comes back from the folder, in a later run."""
        try:
            if self._record is not None:
                result = self._record.without_secrets(result)
            return json.loads(json.dumps(result))
        except (TypeError, ValueError, RecursionError) as exc:
            raise TypeError(
                f"a result is what JSON has, dicts, lists, text, numbers: {exc}"
            ) from exc

    # -- what became of it ---------------------------------------------------------------------

    def _settle(self, ended: _Ended) -> None:
        attempt, error = ended.attempt, ended.error
        combination = attempt.combination
        self._running.remove(attempt)
        # Of hosts that are not ours any more, no failure says anything.
        over = error is not None and self._time.over
        lost = {} if over else unreachable(attempt, error)
        dead = [host for host, why in lost.items() if self._put_aside(host, why)]
        self._pool.give_back(attempt.hosts)
        if error is None:
            self._sweeper.done(combination, result=ended.result)
            self._time.took(time.time() - ended.began)
            logger.info("done %s", _named(attempt))
            self._note(ended, "done")
        elif attempt.cancelled or isinstance(error, AttemptCancelled) or over:
            self._sweeper.cancel(combination)
        elif dead:
            self._lose(combination, error)
            self._note(ended, "failed", self._told(error))
        elif isinstance(error, Exception):
            why = self._told(error)
            logger.warning("failed %s: %s", _named(attempt), why)
            self._sweeper.failed(combination, why)
            self._note(ended, "failed", why)
        else:  # SystemExit, say: all of it is to end
            self._sweeper.cancel(combination)
            raise error

    def _lose(self, combination: HashableDict, error: BaseException | None) -> None:
        """Hosts of it cannot be reached any more. Not its fault, and others can have it."""
        assert isinstance(error, ProcessesFailed)
        self._losses[combination] += any(
            process.reason in UNREACHABLE and process.start_date is not None
            for process in error.processes
        )
        if self._losses[combination] < LOSSES:
            self._sweeper.cancel(combination)
            return
        why = f"{LOSSES} times its hosts were lost while it ran on them: {self._told(error)}"
        logger.warning("failed %r: %s", dict(combination), why)
        self._sweeper.failed(combination, why, retry=False)

    def _put_aside(self, host: Host, why: str) -> bool:
        if not self._pool.put_aside(host, why):
            return False
        logger.warning("%s is not used any more: %s", host.address, why)
        return True

    def _note(self, ended: _Ended, state: str, reason: str | None = None) -> None:
        if self._record is not None:
            attempt = ended.attempt
            self._record.result(
                attempt.combination,
                state=state,
                result=ended.result if state == "done" else None,
                start=ended.began,
                end=time.time(),
                reason=reason,
                attempt=attempt.number,
                hosts=[host.address for host in attempt.hosts],
            )

    def _told(self, error: BaseException | None) -> str:
        text = "" if error is None else _told(error)
        return text if self._record is None else str(self._record.without_secrets(text))

    def _check_hosts(self, remaining: Iterable[HashableDict]) -> None:
        most = max(map(self._need, remaining), default=0)
        if most > self._pool.size:
            aside = ", ".join(
                f"{host.address} ({why})" for host, why in self._pool.set_aside.items()
            )
            raise NotEnoughHosts(
                f"combinations remain that need {most} hosts, and there are {self._pool.size}"
                + (f"; not used any more: {aside}" if aside else "")
            )

    # -- Ctrl-C --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _told_of_interrupts(self) -> Iterator[None]:
        """Ctrl-C becomes a message, so that it does not strike in the middle of something. So does
        SIGTERM."""
        before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():  # it alone can ask for signals
            interrupt = signal.getsignal(signal.SIGINT)
            # Ignored (nohup) stays ignored. None: installed by what embeds Python.
            if interrupt not in (None, signal.SIG_IGN):
                before[signal.SIGINT] = interrupt
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                before[signal.SIGTERM] = signal.SIG_DFL

        def told(number: int, _: object) -> None:
            self._terminated |= number == signal.SIGTERM
            self._interrupts += 1
            if self._interrupts > 2:
                raise self._stop  # the folder of the sweep does not answer, it seems
            self._messages.put(None)

        try:
            for number in before:
                signal.signal(number, told)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def _stop(self) -> BaseException:
        return SystemExit(TERMINATED) if self._terminated else KeyboardInterrupt()

    def _interrupted(self) -> None:
        if self._stopping and self._interrupts > 1:
            raise self._stop
        self._stopping = True
        cancel = self._terminated or self._on_interrupt == "cancel"
        logger.warning(
            "%s: %s %d that run; once more to stop at once",
            "terminated" if self._terminated else "interrupted",
            "cancelling" if cancel else "waiting for",
            len(self._running),
        )
        if cancel:
            for attempt in self._running:
                attempt.cancel()

    def _abandon(self) -> None:
        """Without waiting: what ran is to be done again."""
        running, self._running = self._running, []
        for attempt in running:
            attempt.cancel()
        try:
            self._sweeper.cancel_batch(attempt.combination for attempt in running)
        except OSError as exc:  # they are free as soon as this process is gone
            logger.warning("%s", exc)


def _named(attempt: Attempt) -> str:
    hosts = ", ".join(host.address for host in attempt.hosts)
    again = f" (attempt {attempt.number})" if attempt.number > 1 else ""
    return f"{dict(attempt.combination)!r:.200}{f' on {hosts}' if hosts else ''}{again}"


def unreachable(attempt: Attempt, error: BaseException | None) -> dict[Host, str]:
    """Those of its hosts that cannot be reached, and why."""
    if not isinstance(error, ProcessesFailed):
        return {}
    # Whoever it was to be logged in there.
    places = {(host.address, host.port): host for host in attempt.hosts}
    found = {}
    for process in error.processes:
        host = getattr(process, "host", None)
        ours = None if host is None else places.get((host.address, host.port))
        if ours is not None and process.reason in UNREACHABLE:
            found[ours] = process.message
    return found


def _told(error: BaseException) -> str:
    """One text for the journal; of an error of the user's code, the place too."""
    if isinstance(error, ProcessesFailed):
        shown = [f"{one!r}: {one.message or 'failed'}" for one in error.processes[:3]]
        more = len(error.processes) - len(shown)
        return "; ".join(shown) + (f"; and {more} more" if more else "")
    if isinstance(error, ExecoError):
        return str(error)
    text = "".join(traceback.format_exception_only(error)).strip()
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return text + place
