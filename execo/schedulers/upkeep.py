"""What is done for a job while its script runs: a look at it now and then, and signs of life."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from execo.log import get_logger
from execo.process import ProcessBase

from .errors import SchedulerError
from .lease import LEASE_ENDS, RENEWED, Lease
from .scheduler import Scheduler

__all__ = ["Upkeep"]

LOOK = 30.0
"""Seconds between two looks at a job."""

KEEPER_END = 5.0
"""Seconds in which a keeper, or a look, has ended."""

logger = get_logger("execo.schedulers")


class Upkeep:
    """Looks after one job from a thread of its own.

    A job of this script has a *keeper*, a small shell beside the scheduler's commands that waits
    for the end of its stdin: when the script dies, it ends the job at once. That is no guarantee, a
    login host may be lost with it. What guarantees it is the *lease*, where the scheduler has one:
    the job ends itself when it has not been told for a while that its script is there.

    A connection that ends may be the network's fault. So a keeper on another host does not end the
    job, where there is a lease: it cuts it short, and the next renewal makes it long again.

    :param look: looks at the job; true where it runs; raises SchedulerError
    :param mine: it has been submitted for this script
    """

    def __init__(
        self,
        scheduler: Scheduler,
        job: str,
        name: str,
        look: Callable[[], bool],
        *,
        mine: bool,
        lease: Lease | None,
    ) -> None:
        self._scheduler = scheduler
        self._job = job
        self._name = name
        self._look = look
        self._mine = mine
        self._lease = lease
        self._renewed = time.monotonic()
        self._keeper: ProcessBase | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False

    def watch_script(self) -> None:
        """Start the keeper, again where it has been lost."""
        if not self._mine or (self._keeper is not None and not self._keeper.ended):
            return
        if self._scheduler.login is None or self._lease is None:
            command = self._scheduler.cancel_command(self._name, self._job)
        else:
            command = self._scheduler.signal_command(self._job, LEASE_ENDS, self._name)
        try:
            self._keeper = self._scheduler.keeper(command).start()
        except (OSError, RuntimeError) as exc:
            logger.warning("job %s: its keeper cannot be started: %s", self._job, exc)

    def start(self) -> None:
        """The job runs."""
        self._renewed = time.monotonic()
        self.renew()
        self._thread = threading.Thread(target=self._run, name="execo-allocation", daemon=True)
        self._thread.start()

    @property
    def lapsed(self) -> bool:
        """Whether the job must have ended itself."""
        return self._lease is not None and (time.monotonic() > self._renewed + self._lease.seconds)

    def renew(self) -> None:
        """Tell the job that its script is there; a failure is logged."""
        if self._lease is None:
            return
        now = time.monotonic()
        try:
            if self._scheduler.signal(self._job, RENEWED):
                self._renewed = now
        except SchedulerError as exc:
            logger.info("job %s: its lease is not renewed: %s", self._job, exc)

    def _run(self) -> None:
        pause = LOOK if self._lease is None else self._lease.pause
        while not self._stopping.wait(pause):
            try:
                runs = self._look()
            except (SchedulerError, RuntimeError) as exc:  # the latter at the interpreter's end
                if not self._failing and not self._stopping.is_set():
                    logger.warning("job %s: nothing is heard of it: %s", self._job, exc)
                self._failing = True
                continue
            if self._failing:
                logger.info("job %s: it is heard of again", self._job)
            self._failing = False
            if runs and not self._stopping.is_set():
                self.watch_script()
                self.renew()

    def stop(self, *, ended: bool) -> None:
        """:param ended: the job has been cancelled; else its keeper has another try"""
        self._stopping.set()
        keeper, self._keeper = self._keeper, None
        if keeper is not None and not keeper.ended:
            if ended:
                keeper.kill(signal.SIGKILL)
            else:
                keeper.close_stdin()
            keeper.wait(KEEPER_END)
        if self._thread is not None:
            self._thread.join(KEEPER_END)
