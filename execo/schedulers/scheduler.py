"""What all schedulers have in common: one answer about all jobs at a time, kept for a while."""

from __future__ import annotations

import logging
import shlex
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from execo.host import Host
from execo.log import get_logger
from execo.process import ProcessBase
from execo.time_utils import Duration, get_seconds, sleep

from .calls import Backoff, Caller, CallFailed
from .errors import SchedulerError, SubmissionRefused
from .job import Job, Request

__all__ = ["Scheduler"]

RELEASE_PATIENCE = 60.0
"""Seconds in which a job is to be cancelled; the end of a script must come to an end too."""

Got = TypeVar("Got")

logger = get_logger("execo.schedulers")


class Scheduler(ABC):
    """The queue of a cluster, by its commands: :class:`~execo.schedulers.Slurm`,
    :class:`~execo.schedulers.Oar`.

    One object serves any number of allocations and threads: it asks for all jobs at once, at most
    once in ``interval`` seconds, and after a failure waits for longer and longer, up to a minute.
    Every command has a time limit. Methods block that long, and are not for the I/O thread.

    :param login: a host of the cluster on which its commands are: a Host or an address. None: they
      are here
    :param connection_params: how to reach it, see :class:`~execo.process.SshProcess`
    :param folder: where the commands are, such as ``/opt/slurm/bin``: not every login host tells
      the shells of commands. None: they are on the PATH
    :param env: variables for the commands
    :param timeout: seconds for one command
    :param interval: seconds for which an answer about the jobs is good
    """

    def __init__(
        self,
        login: str | Host | None = None,
        connection_params: Mapping[str, Any] | None = None,
        *,
        folder: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: Duration = 30.0,
        interval: Duration = 15.0,
    ) -> None:
        self.login = None if login is None else Host(login)
        self.interval = get_seconds(interval)
        self._caller = Caller(
            self.login,
            connection_params,
            folder,
            {**self._unset(), "LC_ALL": "C", **(env or {})},
            get_seconds(timeout),
        )
        self._asking = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._asked = float("-inf")
        self._backoff = Backoff()
        self._failure: SchedulerError | None = None
        self._not_before = 0.0

    def __repr__(self) -> str:
        place = "" if self.login is None else f" on {self.login.address}"
        return f"<{type(self).__name__}{place}>"

    # -- what differs --------------------------------------------------------------------------

    leases: bool
    """Whether :meth:`signal_command` reaches a script."""

    @abstractmethod
    def _unset(self) -> Mapping[str, str | None]:
        """Variables of the user that would change how commands answer, with None."""

    @abstractmethod
    def _submit(self, request: Request) -> str:
        """Submit it, once; its id."""

    @abstractmethod
    def _ask(self) -> dict[str, Job]:
        """All jobs of the user that hold nodes or may get some. Such as have ended may be among
        them."""

    @abstractmethod
    def cancel_command(self, name: str, job: str | None) -> list[str]:
        """Ends all jobs of a name; or one, if that is its name. NotImplementedError where the
        scheduler has no command for it without the id."""

    @abstractmethod
    def signal_command(self, job: str, signal: str, name: str | None = None) -> list[str]:
        """Sends a signal to the script of a job that runs; with a name, if that is its name."""

    @abstractmethod
    def _gone(self, error: CallFailed) -> bool:
        """Whether a command has failed because there is no such job any more."""

    @abstractmethod
    def _refused(self, error: CallFailed) -> bool:
        """Whether a submission has failed for good: it was understood, and there is no job."""

    # -- jobs ----------------------------------------------------------------------------------

    @property
    def asked(self) -> float:
        """When the last answer about the jobs was asked for, by the monotonic clock."""
        return self._asked

    def jobs(self, max_age: float | None = None) -> dict[str, Job]:
        """All jobs of the user that hold nodes or may get some, by id. A job that is not among them
        has ended; some that have ended still are.

        :param max_age: seconds for which the last answer is good; default: ``interval``
        :raises SchedulerError: no answer. After a failure the next calls raise it again, without
          asking, for as long as it backs off
        """
        good = self.interval if max_age is None else max_age
        with self._asking:  # who waits here takes the answer that the one before has got
            now = time.monotonic()
            if now - self._asked <= good:
                return self._jobs
            if self._failure is not None and now < self._not_before:
                raise self._failure.with_traceback(None)
            try:
                jobs = self._ask()
            except SchedulerError as exc:
                self._failure = exc
                self._not_before = time.monotonic() + self._backoff.pause()
                raise
            self._failure = None
            self._backoff.reset()
            # Since its beginning: what has happened meanwhile may not be in it.
            self._asked = now
            self._jobs = {number: replace(job, at=now) for number, job in jobs.items()}
            return self._jobs

    def submit(self, request: Request, patience: Duration = 120.0) -> str:
        """Submit a job. Blocks.

        A command that was cut off may have submitted the job all the same: it is looked for by its
        name before anything is submitted again.

        :param patience: seconds in which it is tried again
        :returns: its id
        :raises SubmissionRefused: the scheduler will not have it
        :raises SchedulerError: it does not answer
        """
        unclear = False

        def submit() -> str:
            nonlocal unclear
            if unclear:
                for job in self.jobs(0.0).values():
                    if job.name == request.name:
                        return job.id
            try:
                return self._submit(request)
            except CallFailed as exc:
                if unclear or not (exc.hopeless or self._refused(exc)):
                    unclear = True
                    raise
                raise SubmissionRefused(
                    exc.message, command=exc.command, host=exc.host, stderr=exc.stderr
                ) from exc

        return self._patiently(submit, get_seconds(patience))

    def cancel(
        self, name: str, job: str | None = None, patience: Duration = RELEASE_PATIENCE
    ) -> None:
        """End all jobs of a name. Blocks. Jobs that have ended already are as good.

        :param job: the id of the only one to end, if that is its name: another one may have got
          the same id since
        :param patience: seconds in which it is tried again
        :raises SchedulerError: it could not be done
        """
        self._patiently(lambda: self._cancel(name, job), get_seconds(patience))

    def _cancel(self, name: str, job: str | None) -> None:
        self._tell(self.cancel_command(name, job))

    def signal(self, job: str, signal: str) -> bool:
        """Send a signal to the script of a job that runs, once. Who calls has seen just now that
        the id is still that of the job.

        :returns: False: there is no such job any more
        :raises SchedulerError: it could not be done
        """
        return self._tell(self.signal_command(job, signal))

    def keeper(self, command: Sequence[str]) -> ProcessBase:
        """A process that runs a command of this scheduler when its stdin is closed, however: it
        outlives a script that is killed for the moment that this takes."""
        return self._caller.process(
            ["/bin/sh", "-c", KEEPER, "execo-keeper", *self._caller.words(*command)],
            ignore_exit_code=True,
            ignore_error=True,
        )

    # -- ways to call --------------------------------------------------------------------------

    def _call(self, *words: str, stdin: str = "") -> str:
        return self._caller.call(*words, stdin=stdin)

    def _tell(self, command: Sequence[str]) -> bool:
        try:
            self._call(*command)
        except CallFailed as exc:
            if not self._gone(exc):
                raise
            return False
        return True

    def _unreadable(self, command: Sequence[str], answer: str) -> SchedulerError:
        return SchedulerError(
            f"an answer that makes no sense: {answer.strip()[:300]!r}",
            command=shlex.join(self._caller.words(*command)),
            host=self._caller.place,
        )

    def _patiently(self, call: Callable[[], Got], patience: float) -> Got:
        backoff = Backoff()
        deadline = time.monotonic() + patience
        told = False
        while True:
            try:
                return call()
            except SubmissionRefused:
                raise
            except SchedulerError as exc:
                pause = backoff.pause()
                given_up = isinstance(exc, CallFailed) and exc.hopeless
                if given_up or time.monotonic() + pause > deadline:
                    raise
                logger.log(logging.INFO if told else logging.WARNING, "%s; trying again", exc)
                told = True
                sleep(pause)


# In a session of its own, what it runs is not ended with all else that the script has started.
KEEPER = """trap "" HUP INT QUIT TERM PIPE
cat >/dev/null
exec >/dev/null 2>&1
command -v setsid && exec setsid "$@"
exec "$@"
"""
