"""Allocation: nodes of a cluster for the time of a block."""

from __future__ import annotations

import atexit
import operator
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Self

from execo.host import Host
from execo.log import get_logger
from execo.time_utils import Duration, format_duration, get_seconds

from .errors import AllocationError, SchedulerError, SubmissionRefused
from .following import Following
from .job import Request
from .lease import Lease, job_script
from .oar import Oar
from .scheduler import Scheduler
from .slurm import slurm_here
from .this_job import end_of_this_job, hosts_of_this_job, job_of_this_script
from .upkeep import Upkeep
from .waiting import Waiting

__all__ = ["Allocation"]

FRESH = 0.5
"""Seconds: a younger answer of the scheduler is as good as a new one, where one waits."""

AT_EXIT = 20.0
"""Seconds in which all jobs are cancelled at the end of a script that has not done it."""

logger = get_logger("execo.schedulers")


class Allocation(AbstractContextManager["Allocation"]):
    """Nodes that a scheduler gives for some time.

    ::

        with Allocation(4, "1:00:00", scheduler=Slurm("login1")) as nodes:
            Remote("uptime", nodes).run()
            compress.main(hosts=nodes)

    It is what an action or an experiment takes as hosts. The block begins when the nodes are there,
    and its end cancels the job; so do the end of the script and Ctrl-C. When the script is killed,
    the job ends at once if the scheduler's commands are on this machine, and within two minutes if
    they are on a login host; when that host is lost, too, within ``lease`` seconds. A job that has
    not started by then does start, and ends within two minutes.

    An :class:`~execo.engine.Experiment` opens one that is not open when it has something to do, and
    releases it after. It begins nothing that cannot end in time, see :meth:`remaining`.

    ``nodes``, ``walltime``, ``name`` (the whole one), ``options`` and ``scheduler`` are attributes.

    :param nodes: how many
    :param walltime: for how long: seconds, or a text ``H:MM:SS``; schedulers round it up
    :param scheduler: default: one :class:`~execo.schedulers.Slurm` for all, by commands on this
      machine
    :param options: more words for ``sbatch`` or ``oarsub``, such as ``["--partition=gpu"]``
    :param name: the job's name begins so
    :param exclusive: whole nodes, which no other job shares. False: as the cluster has it; Slurm
      then may give one processor of each. OAR's ``nodes`` are whole
    :param host: what the name of a node becomes: an address, or a Host
    :param wait_timeout: seconds to wait for the nodes; None = no limit
    :param margin: seconds before the end of the walltime at which the nodes count as lost: to end
      commands, fetch files, tidy up
    :param lease: see above; at least 5. It is also how long the cluster's controller may be away
      before the job is lost. None: it runs until its walltime when all else fails; OAR has none
    :raises ValueError: for numbers that cannot be
    """

    _lease: Lease | None

    def __init__(
        self,
        nodes: int = 1,
        walltime: Duration = 3600.0,
        *,
        scheduler: Scheduler | None = None,
        options: Sequence[str] = (),
        name: str = "execo",
        exclusive: bool = True,
        host: Callable[[str], str | Host] | None = None,
        wait_timeout: Duration | None = 3600.0,
        margin: Duration = 30.0,
        lease: Duration | None = 600.0,
    ) -> None:
        self.nodes = operator.index(nodes)
        self.walltime = get_seconds(walltime)
        if self.nodes < 1:
            raise ValueError(f"an allocation has at least one node, not {nodes}")
        if self.walltime <= get_seconds(margin):
            raise ValueError(f"a walltime of {walltime} leaves nothing before its margin, {margin}")
        if isinstance(options, str):
            raise TypeError(f"options are words, [{options!r}], not a text")
        seconds = get_seconds(lease)
        if seconds is not None and seconds < 5:
            raise ValueError(f"a lease is at least 5 s, not {seconds:g}")
        if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*", name):
            raise ValueError(f"the name of a job has letters, digits, '_', '-', '.', not {name!r}")
        self.options = list(options)
        self.exclusive = exclusive
        # Its own: it is found by it when an answer is lost, and an id may be used again.
        self.name = f"{name}-{secrets.token_hex(4)}"
        self._begin(scheduler or slurm_here(), host, wait_timeout, margin, mine=True)
        if seconds is not None and self.scheduler.leases:
            self._lease = Lease(seconds)

    def _begin(
        self,
        scheduler: Scheduler,
        host: Callable[[str], str | Host] | None,
        wait_timeout: Duration | None,
        margin: Duration,
        *,
        mine: bool,
    ) -> None:
        self.scheduler = scheduler
        self.margin = get_seconds(margin)
        self.wait_timeout = get_seconds(wait_timeout)
        self._seen = Following(scheduler, self.name if mine else None, host or Host)
        self._mine = mine
        self._cancels = mine
        self._lease = None
        self._upkeep: Upkeep | None = None
        self._opened = False
        self._released = False
        self._pid = os.getpid()

    @classmethod
    def adopt(
        cls,
        job_id: str | int,
        *,
        scheduler: Scheduler | None = None,
        cancel: bool = False,
        host: Callable[[str], str | Host] | None = None,
        wait_timeout: Duration | None = 3600.0,
        margin: Duration = 30.0,
    ) -> Self:
        """A job that is there already, of the same user: its nodes are used, and it is left alone.

        :param job_id: its number
        :param cancel: the end of the block cancels it all the same; a script that is killed does
          not
        """
        if not str(job_id).isdigit():
            raise ValueError(f"the id of a job is a number, not {job_id!r}")
        made = cls.__new__(cls)
        made.name = ""
        made.nodes = 0
        made.walltime = 0.0
        made.options = []
        made.exclusive = False
        made._begin(scheduler or slurm_here(), host, wait_timeout, margin, mine=False)
        made._seen.id = str(job_id)
        made._cancels = cancel
        return made

    @classmethod
    def of_this_job(
        cls,
        *,
        scheduler: Scheduler | None = None,
        host: Callable[[str], str | Host] | None = None,
        margin: Duration = 30.0,
    ) -> Self:
        """The job that this script runs in: see :func:`hosts_of_this_job`. It is left alone. Where
        the environment does not tell when it ends, and the scheduler does not answer from its nodes
        within half a minute, there is no limit.

        :raises AllocationError: it runs in no job
        """
        kind, number = job_of_this_script()
        scheduler = scheduler or (slurm_here() if kind == "slurm" else Oar())
        made = cls.adopt(number, scheduler=scheduler, host=host, margin=margin, wait_timeout=30.0)
        made._seen.hosts = [made._seen.named(one.address) for one in hosts_of_this_job()]
        end = end_of_this_job()
        if end is not None:
            made._seen.end = time.monotonic() + end - time.time()
        return made

    # -- the block -----------------------------------------------------------------------------

    def open(self) -> Self:
        """Submit the job, and wait for the nodes. Blocks.

        :raises SubmissionRefused: the scheduler will not have the job
        :raises SchedulerError: it does not answer
        :raises AllocationTimeout: the nodes have not come in ``wait_timeout``; the job is cancelled
        :raises AllocationError: the job has ended before it had nodes
        :raises ValueError: it has been opened before
        """
        if self._opened:
            raise ValueError(f"{self!r} has been opened before: make another one")
        self._opened = True
        _open.add(self)
        try:
            if self._mine:
                try:
                    self._seen.id = self.scheduler.submit(self._request())
                except SubmissionRefused:
                    self._cancels = False
                    raise
                logger.info("job %s is submitted: %s", self.job_id, self._wish())
            self._upkeep = Upkeep(
                self.scheduler,
                str(self.job_id),
                self.name,
                self._runs,
                mine=self._mine,
                lease=self._lease,
            )
            self._upkeep.watch_script()
            _release_at_exit()
            tend = self._upkeep.watch_script
            Waiting(self._seen, self.wait_timeout, self.scheduler.interval, tend).run()
            self._upkeep.start()
        except BaseException:
            self.release()
            raise
        logger.info("job %s has %d nodes", self.job_id, len(self._seen.hosts))
        return self

    def release(self) -> None:
        """Give the nodes back: cancel the job, unless it is another's. Blocks until the scheduler
        has understood, for two minutes at the most; if it has not by then, the log says so."""
        self._release(None)

    def _release(self, patience: float | None) -> None:
        if self._pid != os.getpid() or self._released or not self._opened:
            return  # a forked child has nothing to give back
        ended = True
        # The name of another's job is known when it has been seen.
        name = self.name if self._mine else getattr(self._seen.job, "name", "")
        if self._cancels and name and not self._seen.ended:
            more = {} if patience is None else {"patience": patience}
            try:
                self.scheduler.cancel(name, None if self._mine else self.job_id, **more)
                logger.info("job %s is cancelled", self.job_id)
            except (SchedulerError, RuntimeError) as exc:
                ended = False
                until = (
                    "runs on" if self._lease is None else f"ends within {self._lease.seconds:g} s"
                )
                logger.warning("job %s could not be cancelled, and %s: %s", self.job_id, until, exc)
        self._released = True
        _open.discard(self)
        if self._upkeep is not None:
            self._upkeep.stop(ended=ended)

    def __enter__(self) -> Self:
        return self if self._opened and not self._released else self.open()

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    # -- what it has ---------------------------------------------------------------------------

    @property
    def job_id(self) -> str | None:
        """The scheduler's number of the job, a text; None before it is submitted."""
        return self._seen.id

    @property
    def is_open(self) -> bool:
        """Whether it has been opened, and not been released."""
        return self._opened and not self._released

    @property
    def hosts(self) -> list[Host]:
        """The nodes.

        :raises AllocationError: it has none, yet
        """
        if not self.is_open or not self._seen.hosts:
            raise AllocationError(f"{self!r} has no nodes: use it in a with block, or open() it")
        return list(self._seen.hosts)

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts)

    def __len__(self) -> int:
        return len(self.hosts)

    def __bool__(self) -> bool:
        return True  # also where len() cannot be told

    def remaining(self) -> float | None:
        """Seconds for which the nodes can be used: until ``margin`` before the end of the walltime,
        as the scheduler has told lately; 0 when the job is over, however; None: no limit is known.
        Asks nobody, and does not block.
        """
        if self._seen.over is not None or self._released:
            return 0.0
        if self._upkeep is not None and self._seen.hosts and self._upkeep.lapsed:
            return 0.0
        if not self._seen.hosts:
            return max(0.0, self.walltime - self.margin) if self._mine else None
        if self._seen.end is None:
            return None
        return max(0.0, self._seen.end - self.margin - time.monotonic())

    def check(self) -> bool:
        """Ask the scheduler whether the nodes are still ours. Blocks, for the time limit of one of
        its commands. No answer is no news: True then.
        """
        if self.is_open and self._seen.over is None:
            try:
                self._seen.look(FRESH)
            except SchedulerError as exc:
                logger.info("job %s: %s", self.job_id, exc)
        return self.remaining() != 0.0

    def __repr__(self) -> str:
        if not self._opened:
            state = "not opened" if self._mine else f"job {self.job_id}, not opened"
        elif self._released:
            state = f"job {self.job_id}, released"
        elif self._seen.over is not None:
            state = f"job {self.job_id}, over: {self._seen.over}"
        else:
            said = "submitted" if self._seen.job is None else str(self._seen.job)
            left = self.remaining()
            until = (
                "" if left is None or not self._seen.hosts else f", {format_duration(left)} left"
            )
            state = f"job {self.job_id}, {said}{until}"
        return f"<{type(self).__name__} {self._wish()}: {state}>"

    # -- following the job ---------------------------------------------------------------------

    def _request(self) -> Request:
        script = job_script(self._lease, self.walltime)
        return Request(
            script, self.name, self.nodes, self.walltime, self.exclusive, tuple(self.options)
        )

    def _wish(self) -> str:
        if not self._mine:
            return f"of {self.scheduler!r}"
        return f"of {self.nodes} nodes for {format_duration(self.walltime)}"

    def _runs(self) -> bool:
        self._seen.look(self.scheduler.interval)
        return self._seen.over is None


_open: set[Allocation] = set()
_hooked = False


def _release_at_exit() -> None:
    # Not before the first command has run: what is registered later is called earlier, and this
    # needs the I/O thread, which ends by the same way.
    global _hooked
    if not _hooked:
        _hooked = True
        atexit.register(_at_exit)


def _at_exit() -> None:
    deadline = time.monotonic() + AT_EXIT
    for one in list(_open):
        one._release(max(0.0, deadline - time.monotonic()))
