"""What is known of one job, by one look at it after another."""

from __future__ import annotations

import threading
from collections.abc import Callable

from execo.host import Host
from execo.log import get_logger

from .job import Job, JobState
from .scheduler import Scheduler

__all__ = ["Following"]

MISSING = 2.0
"""Seconds for which a job must be missing in what the scheduler says before it has ended."""

logger = get_logger("execo.schedulers")


class Following:
    """One job. From any thread.

    - ``job``: at the last look, None before the first one that has found it
    - ``hosts``: its nodes, from when it runs on, also when it is over
    - ``end``: when its time is over, by the monotonic clock; None: no limit, or not known
    - ``over``: why the nodes are not ours any more, None while they are

    :param name: that of the job; None: it is another's, and has the name that it has
    :param host: what the name of a node becomes
    """

    def __init__(
        self, scheduler: Scheduler, name: str | None, host: Callable[[str], str | Host]
    ) -> None:
        self._scheduler = scheduler
        self._name = name
        self._host = host
        self._lock = threading.Lock()
        self._missing_since: float | None = None
        self.id: str | None = None
        self.job: Job | None = None
        self.hosts: list[Host] = []
        self.end: float | None = None
        self.over: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the scheduler has said so: then there is nothing to cancel."""
        return self.job is not None and self.job.state is JobState.ENDED

    def named(self, name: str) -> Host:
        """The host of this name."""
        return Host(self._host(name))

    def look(self, max_age: float) -> None:
        """:param max_age: seconds for which an answer of the scheduler is good
        :raises SchedulerError: no answer, which is no news of the job
        """
        job = self._scheduler.jobs(max_age).get(str(self.id))
        with self._lock:
            if self.over is None:
                self.over = self._judge(job)
                if self.over is not None and self.hosts:
                    logger.warning("job %s %s", self.id, self.over)

    def _judge(self, job: Job | None) -> str | None:
        """Why it is over, None if it is not."""
        before = self.job
        if job is None:
            # Once may be a controller that has just changed places with another.
            if self._missing_since is None:
                self._missing_since = self._scheduler.asked
            if self._scheduler.asked < self._missing_since + MISSING:
                return None
            return "is not known to the scheduler any more" if before else "is not known"
        self._missing_since = None
        if job.name != (self._name or job.name):
            return "has ended, and its id is another job's"
        if before is not None and job.born != before.born:
            return f"was requeued, or its id is another job's: {job}"
        self.job = job
        if job.state is JobState.ENDED:
            return f"has ended: {job}"
        if job.state is JobState.WAITING and before is not None and self.hosts:
            return f"has lost its nodes: {job}"
        if job.state is JobState.RUNNING and job.hosts:
            self.end = None if job.left is None else job.at + job.left
            if not self.hosts:
                self.hosts = [self.named(name) for name in job.hosts]
        return None
