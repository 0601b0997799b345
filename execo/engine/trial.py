"""One attempt of an experiment: its hosts, its folders, what has come out."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from execo.action_base import Action
from execo.action_groups import ParallelActions
from execo.host import Host
from execo.remote import Local, Remote
from execo.time_utils import Duration
from execo.transfer import Get, Put

from .attempt import Attempt
from .combination import HashableDict

__all__ = ["Trial"]

Files = str | Sequence[str]


class Trial(Attempt):
    """One attempt at one combination of an :class:`~execo.engine.Experiment`. See
    :class:`~execo.engine.Attempt` for what else it has.

    - ``folder``: on this machine, its own, for what is fetched and kept; it is there
    - ``workdir``: on the hosts, for this attempt alone: made before, removed afterwards; None: the
      home folder
    - ``measured``: the actions of ``run``
    """

    def __init__(
        self,
        combination: HashableDict,
        hosts: Sequence[Host] = (),
        number: int = 1,
        *,
        folder: Path,
        workdir: str | None = None,
        connection_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(combination, hosts, number)
        self.folder = folder
        self.workdir = workdir
        self.measured: list[Action] = []
        self._params = connection_params

    @property
    def stdout(self) -> str:
        """What ``run`` has printed, process after process."""
        return "".join(process.stdout for one in self.measured for process in one.processes)

    @property
    def stderr(self) -> str:
        """Likewise."""
        return "".join(process.stderr for one in self.measured for process in one.processes)

    @property
    def seconds(self) -> float:
        """From the first start to the last end of what ``run`` has run."""
        done = [process for one in self.measured for process in one.processes]
        starts = [process.start_date for process in done if process.start_date is not None]
        ends = [process.end_date for process in done if process.end_date is not None]
        return max(ends) - min(starts) if starts and ends else 0.0

    def fetched(self, name: str) -> list[Path]:
        """What ``get`` has fetched under this name: one path for each host, in their order; on this
        machine, the file that ``run`` has left."""
        places = [self._place(host) for host in self.hosts] or [self.folder]
        return [place / name for place in places]

    def _place(self, host: Host) -> Path:
        alone = [one.address for one in self.hosts].count(host.address) == 1
        name = host.address if alone else f"{host.address}-{host.port}"
        # An address may be any text: never another folder than one of these.
        return self.folder / (name.replace("/", "_").lstrip(".") or "_")

    # -- the steps, each an action that has not been started --------------------------------------

    def preparing(self) -> list[Action]:
        """Makes ``workdir``."""
        if self.workdir is None or not self.hosts:
            return []
        place = shlex.quote(self.workdir)
        return [self._remote(f"rm -rf -- {place} && mkdir -p -- {place}", self.hosts)]

    def putting(self, files: Files) -> list[Action]:
        """Copies files to the hosts."""
        names = _listed(files)
        if not names:
            return []
        if not self.hosts:
            raise ValueError("put: there is no host to put files on, hosts=0 runs here")
        place = self.workdir or "."
        return [Put(self.hosts, names, place, self._params, substitute=False)]

    def running(self, commands: Any) -> list[Action]:
        """One action for each command; an action stays what it is.

        :raises TypeError: neither text nor action
        """
        if commands is None:
            return []
        several = isinstance(commands, Iterable) and not isinstance(commands, str)
        return [self._command(one) for one in (commands if several else [commands])]

    def getting(self, files: Files) -> list[Action]:
        """Copies files from the hosts, to ``folder``/host."""
        names = _listed(files)
        if not names or not self.hosts:
            return []
        there = [name if name[:1] in "/~" else self._within(name) for name in names]
        gets = [
            Get([host], there, f"{self._place(host)}/", self._params, substitute=False)
            for host in self.hosts
        ]
        return [ParallelActions(gets, name=gets[0].name)]

    def clearing(self, without: Collection[Host] = ()) -> list[Remote]:
        """Removes ``workdir``.

        :param without: hosts that are not there any more
        """
        hosts = [host for host in self.hosts if host not in without]
        if self.workdir is None or not hosts:
            return []
        return [self._remote(f"rm -rf -- {shlex.quote(self.workdir)}", hosts)]

    def run_all(self, actions: Sequence[Action], timeout: Duration | None = None) -> None:
        """One after the other, see :meth:`~execo.engine.Attempt.run`."""
        for action in actions:
            self.run(action, timeout)

    def _command(self, one: Any) -> Action:
        if isinstance(one, Action):
            return one
        if not isinstance(one, str):
            raise TypeError(f"run gives commands and actions, not {one!r:.80}")
        if not self.hosts:
            return Local(one, {"shell": True, "cwd": str(self.folder), **QUIET}, name=one)
        place = "" if self.workdir is None else f"cd {shlex.quote(self.workdir)} && "
        return self._remote(place + one, self.hosts, name=one)

    def _remote(self, command: str, hosts: list[Host], name: str | None = None) -> Remote:
        return Remote(command, hosts, self._params, QUIET, name=name, substitute=False)

    def _within(self, name: str) -> str:
        return name if self.workdir is None else f"{self.workdir}/{name}"


# The engine says what has failed, once.
QUIET = {"nolog_exit_code": True, "nolog_error": True, "nolog_timeout": True}


def _listed(files: Any) -> list[str]:
    if files is None:
        return []
    return [str(files)] if isinstance(files, (str, Path)) else [str(one) for one in files]
