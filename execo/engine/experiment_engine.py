"""The engine of experiments: sweeper, hosts, folders, and the plan of ``--dry-run``."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from execo.action_base import Action
from execo.errors import ProcessesFailed
from execo.host import Host, Hosts, get_hosts_list
from execo.hostset import fold
from execo.remote import Local, Remote
from execo.schedulers import Allocation
from execo.time_utils import Duration

from .combination import HashableDict
from .dispatch import unreachable
from .engine import Engine, logger
from .host_pool import HostPool, NotEnoughHosts
from .load import states_of
from .names import folder_name, slugify
from .record import Record
from .sweeper import ParamSweeper
from .trial import QUIET, Trial

__all__ = ["ExperimentEngine"]

SWEEP = "sweep"
TRIALS = "trials"


class Described(Protocol):
    """What the engine asks of an :class:`~execo.engine.Experiment`."""

    version: str | None
    retries: int
    lease: float | None
    workdir: bool
    hosts: Any
    seed: int
    record: Mapping[str, Any] | None
    duration: Any
    timeout: Duration | None
    connection_params: Any

    @property
    def title(self) -> str: ...
    @property
    def own_measure(self) -> bool: ...

    def combinations(self) -> list[HashableDict]: ...
    def needs(self, combination: HashableDict) -> int: ...
    def takes(self, combination: HashableDict) -> float | None: ...
    def asked(self, name: str, trial: Trial) -> Any: ...
    def measure(self, trial: Trial) -> Any: ...


class ExperimentEngine(Engine):
    """Runs one experiment.

    :param hosts: used unless ``--hosts`` says others
    :param folder: used unless ``-c`` says another one
    """

    def __init__(
        self,
        experiment: Described,
        *,
        hosts: Hosts = None,
        folder: str | os.PathLike[str] | None = None,
        remaining: Callable[[], float | None] | None = None,
    ) -> None:
        self.experiment = experiment
        self.engine_name = experiment.title
        self.version = experiment.version
        self.results: dict[HashableDict, Any] = {}
        """Of what is done, after the run."""
        self._allocation = hosts if isinstance(hosts, Allocation) else None
        self._hosts = get_hosts_list(hosts if self._allocation is None else None)
        self._folder = folder
        self._remaining = remaining
        super().__init__()
        add = self.args_parser.add_argument
        add("--hosts", metavar="'A B ...'", help="hosts to use, with ranges: 'node[1-4] other'")
        add("--retry-failed", action="store_true", help="what has failed for good is tried again")

    def setup_result_dir(self) -> None:
        super().setup_result_dir()
        if self._folder is not None:
            self.result_dir = os.path.abspath(self._folder)

    def make_record(self, folder: Path, **more: Any) -> Record:
        """With what the experiment wants of it."""
        asked = dict(self.experiment.record or {})
        seeds = {"seed": self.experiment.seed, **asked.pop("seeds", {})}
        return super().make_record(folder, seeds=seeds, **{**asked, **more})

    def _all_hosts(self) -> list[Host]:
        hosts: Hosts = self._hosts
        if self.args.hosts:
            hosts = get_hosts_list(self.args.hosts.split())
        elif self._allocation is not None and self._allocation.is_open:
            hosts = self._allocation.hosts
        return HostPool(hosts).hosts

    def run(self) -> None:
        """All combinations that are to be done."""
        combinations = self.experiment.combinations()
        for one in combinations:
            self.experiment.takes(one)  # what is wrong with it is told before anything runs
        with self._allocated(combinations):
            self._run(combinations)

    @contextmanager
    def _allocated(self, combinations: list[HashableDict]) -> Iterator[None]:
        """Opens the allocation, if nodes are needed and nobody else has."""
        one = self._allocation
        if one is None or one.is_open or self.args.hosts:
            yield
            return
        if not self._to_do(combinations, states_of(self._place(SWEEP))):
            yield
            return
        missing = one.nodes and _missing(self.experiment, combinations, _made_up(one.nodes))
        if missing:  # not after hours in a queue
            raise NotEnoughHosts(f"{missing}: ask for more nodes")
        with one:
            yield

    def _to_do(
        self, combinations: list[HashableDict], states: Mapping[HashableDict, str]
    ) -> list[HashableDict]:
        """What a run would still do. What is in progress may be of a script that is gone."""
        past = {"done"} if self.args.retry_failed else {"done", "failed", "skipped"}
        return [one for one in combinations if states.get(one) not in past]

    def _run(self, combinations: list[HashableDict]) -> None:
        hosts = self._all_hosts()
        if hosts or self._allocation is None:
            missing = _missing(self.experiment, combinations, hosts)
            if missing:
                raise NotEnoughHosts(f"{missing}: say more by --hosts")
        if hosts:
            self._get_to_know(hosts)
        sweeper = ParamSweeper(
            self._place(SWEEP),
            combinations,
            save_sweeps=True,
            name=self.engine_name,
            retries=self.experiment.retries,
            lease=self.experiment.lease,
        )
        try:
            # Nobody else runs in this folder, its record is locked. So what a run on another
            # machine had begun is free, without a wait for the end of its lease.
            sweeper.take_back()
            if self.args.retry_failed:
                sweeper.reset()
            constant = self.experiment.hosts
            limited = hosts and self._allocation is not None and not self.args.hosts
            self.run_combinations(
                sweeper,
                self._measure,
                hosts=self._allocation if limited else hosts,
                # A number spares the sweeper from showing all that remain, each time.
                needs=constant if type(constant) is int else self.experiment.needs,
                make=self._trial,
                remaining=self._remaining,
                takes=None if self.experiment.duration is None else self.experiment.takes,
            )
        finally:
            self.results = sweeper.results
            logger.info("%s", sweeper)
            sweeper.close()

    def _place(self, *names: str) -> Path:
        return Path(str(self.result_dir), *names)

    def _get_to_know(self, hosts: list[Host]) -> None:
        """Ask them what they are, and remove what a run before, that was killed, has left there."""
        params = self.experiment.connection_params
        left = None
        if self.experiment.workdir and self._place(SWEEP).exists():
            text = f"rm -rf -- {shlex.quote(self._workdirs)}*"
            left = Remote(text, hosts, params, QUIET, substitute=False).start()
        if self.record is not None:
            self.record.add_hosts(hosts, params)
        if left is not None:
            left.wait(CLEARING).kill()

    @property
    def _workdirs(self) -> str:
        """How the names of folders on hosts begin. Other runs may use the same hosts; one that goes
        on has the names of before."""
        here = f"{socket.gethostname()}:{self.result_dir}"
        run = hashlib.sha256(here.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return f"execo-{slugify(self.engine_name)}-{run}-"

    def _trial(self, combination: HashableDict, hosts: list[Host], number: int) -> Trial:
        name = folder_name(combination)
        return Trial(
            combination,
            hosts,
            number,
            folder=self._place(TRIALS, name),
            workdir=f"{self._workdirs}{name}" if self.experiment.workdir else None,
            connection_params=self.experiment.connection_params,
        )

    def _measure(self, trial: Trial) -> Any:
        """On the thread of the trial."""
        if trial.folder.exists():
            shutil.rmtree(trial.folder)  # of an attempt that has failed, or was cut short
        trial.folder.mkdir(parents=True)
        gone: Collection[Host] = ()
        try:
            trial.run_all(trial.preparing(), self.experiment.timeout)
            return self.experiment.measure(trial)
        except ProcessesFailed as exc:
            gone = unreachable(trial, exc)
            raise
        finally:
            if trial.actions:
                self._clear(trial, gone)

    def _clear(self, trial: Trial, gone: Collection[Host]) -> None:
        # Where nothing has run, there is nothing.
        left = [host for host in gone if _has_run(trial, host)]
        # Not by trial.run(): also after an error, and when the experiment is being stopped.
        for action in trial.clearing(without=gone):
            action.run(timeout=CLEARING)
            left += [one.host for one in action.processes if not one.finished_ok]
            action.kill()
        if left and trial.workdir is not None:
            logger.warning("%s may be left on %s", trial.workdir, _addresses(left))

    # -- the plan --------------------------------------------------------------------------------

    def plan(self) -> Iterator[str]:
        """The combinations that are to be done, with the commands of each."""
        experiment, hosts = self.experiment, self._all_hosts()
        combinations = experiment.combinations()
        version = "" if self.version is None else f", version {self.version}"
        yield f"experiment {self.engine_name}{version}: {len(combinations)} combinations"
        yield f"result directory: {self.result_dir}"
        yield f"hosts: {_addresses(hosts) or 'none yet'}"
        missing = _missing(experiment, combinations, hosts)
        if hosts and missing:
            yield f"TOO FEW HOSTS: {missing}"
        # Not by opening the sweeper, which writes.
        states = states_of(self._place(SWEEP))
        if states:
            of = [states.get(one) for one in combinations]
            yield f"so far: {of.count('done')} done, {of.count('failed')} failed"
        for at, combination in enumerate(self._to_do(combinations, states), 1):
            count = experiment.needs(combination)
            shown = hosts[:count] if len(hosts) >= count else _made_up(count)
            trial = self._trial(combination, shown, 1)
            yield f"{at}. {dict(combination)!r} on {_number(count)}"
            for action in self._actions(trial):
                yield from (f"   {line}" for line in _lines(action))

    def _actions(self, trial: Trial) -> Iterator[Action]:
        asked = self.experiment.asked
        yield from trial.preparing()
        if self.experiment.own_measure:
            yield Local("(what measure() does)")
        else:
            yield from trial.putting(asked("put", trial))
            yield from trial.running(asked("run", trial))
            yield from trial.getting(asked("get", trial))
        yield from trial.clearing()


CLEARING = 30.0
"""Seconds to remove a folder on the hosts."""


def _has_run(trial: Trial, host: Host) -> bool:
    return any(
        getattr(process, "host", None) == host and process.start_date is not None
        for action in trial.actions
        for process in action.processes
    )


def _missing(
    experiment: Described, combinations: Iterable[HashableDict], hosts: list[Host]
) -> str | None:
    """What the hosts are not enough for."""
    for one in combinations:
        count = experiment.needs(one)
        if count > len(hosts):
            return f"{dict(one)!r:.200} needs {_number(count)}, and there are {len(hosts)}"
    return None


def _made_up(count: int) -> list[Host]:
    return [Host(f"host{at}") for at in range(1, count + 1)]


def _number(count: int) -> str:
    return f"{count} host{'' if count == 1 else 's'}" if count else "this machine"


def _addresses(hosts: Iterable[Host]) -> str:
    return fold(dict.fromkeys(host.address for host in hosts))


def _lines(action: Action) -> Iterator[str]:
    """Its commands; one that is the same on all hosts, once."""
    where: dict[str, list[Host]] = {}
    for process in action.processes:
        # What a remote process runs there, not how ssh is called.
        command = getattr(process, "remote_cmd", process.cmd)
        text = command if isinstance(command, str) else " ".join(map(str, command))
        where.setdefault(text, []).extend(filter(None, [getattr(process, "host", None)]))
    for text, hosts in where.items():
        yield f"{_addresses(hosts)}: {text}" if hosts else text
