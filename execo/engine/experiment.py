"""Experiment: what is measured, on how many hosts, by which parameters; an engine does the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from execo.host import Hosts
from execo.time_utils import Duration, get_seconds

from .combination import HashableDict, checked
from .experiment_engine import ExperimentEngine
from .sweep import sweep
from .trial import Trial

__all__ = ["Experiment", "experiment"]


class Experiment:
    """An experiment as a small class: what it lacks, the engine does.

    ::

        class Compress(Experiment):
            factors = {"tool": ["gzip", "xz"], "level": [1, 9]}
            repeat = 3
            put = "words"

            def run(self, trial):
                return f"{trial['tool']} -{trial['level']} words && wc -c words.*"

            def parse(self, trial):
                return {"bytes": int(trial.stdout.split()[0]), "seconds": trial.seconds}

        if __name__ == "__main__":
            Compress().main()

    Each combination gets hosts of its own and, on them, a folder of its own (``workdir``). There
    the files of ``put`` go, the commands of ``run`` run on all its hosts, one after the other, what
    ``get`` names is fetched, and ``parse`` makes a result of it. Where one of them fails, the
    attempt has failed, and comes again as often as ``retries`` says. :func:`experiment` makes one
    out of a function.

    ``put``, ``run`` and ``get`` are what they say, or methods that are given the
    :class:`~execo.engine.Trial` and return it. They are asked for ``--dry-run`` too, so they must
    do nothing themselves. Who wants to do something between the commands defines :meth:`measure`.
    """

    factors: Any = None
    """The parameters of :func:`~execo.engine.sweep`: factor -> levels. A list of combinations is
    taken as it is."""

    where: Any = None
    """A method that is given a combination; those for which it is false are left out, see
    :func:`~execo.engine.sweep`."""

    sample: int | None = None
    """So many of all combinations, see there."""

    repeat: int | None = None
    """Each combination so often, see there."""

    seed: int = 0
    """Chooses the sample, and the seeds of repetitions, see there."""

    hosts: Any = 1
    """How many hosts a combination gets: a number, the name of a factor whose levels are numbers,
    or a method that is given the combination. 0: its commands run on this machine, in the trial's
    ``folder``."""

    put: Any = None
    """Names of files and folders on this machine, or one."""

    run: Any = None
    """A command for the shell of the hosts, an action that has not been started, or several of
    these. ``{{`` has no meaning in a command; commands that differ from host to host are an action,
    ``Remote("... {{ports}}", trial.hosts)``."""

    get: Any = None
    """Names of files and folders in ``workdir``, or one. See :meth:`Trial.fetched()
    <execo.engine.Trial.fetched>`."""

    timeout: Duration | None = None
    """Seconds for each command and each copy; then it is killed, and the attempt has failed."""

    duration: Any = None
    """Seconds that a combination takes at the most, all in all: a number, a text ``H:MM:SS``, or a
    method that is given the combination. In a reservation, one that would not end in time is not
    begun. None: the longest so far counts."""

    retries: int = 1
    """How often a combination that has failed comes again."""

    lease: float | None = 60.0
    """For other scripts that work with a :class:`~execo.engine.ParamSweeper` on the folder
    ``sweep`` in the result folder: see there."""

    version: str | None = None
    """A folder with results of another version is refused: change it when what is measured
    changes."""

    name: str | None = None
    """What it is called; None: as its class."""

    workdir: bool = True
    """Whether there is a folder on the hosts for each attempt; else all is in the home folder."""

    connection_params: Mapping[str, Any] | None = None
    """How to reach the hosts, see :class:`~execo.remote.Remote`."""

    record: Mapping[str, Any] | None = None
    """What else its :class:`~execo.engine.Record` is told, as ``{"secrets": [...]}``: arguments of
    it by their names."""

    def parse(self, trial: Trial) -> Any:
        """The result, anything that JSON has; what it raises makes the attempt a failed one. Runs
        on a thread of its own, as ``measure`` does."""
        return None

    def measure(self, trial: Trial) -> Any:
        """One attempt; returns the result. By default: puts, runs, gets, parses. A method of one's
        own starts actions by :meth:`trial.run() <execo.engine.Attempt.run>`, and ``--dry-run``
        cannot show them."""
        trial.run_all(trial.putting(self.asked("put", trial)), self.timeout)
        trial.measured = trial.running(self.asked("run", trial))
        trial.run_all(trial.measured, self.timeout)
        trial.run_all(trial.getting(self.asked("get", trial)), self.timeout)
        return self.parse(trial)

    def main(
        self,
        arguments: Sequence[str] | None = None,
        *,
        hosts: Hosts = None,
        folder: str | os.PathLike[str] | None = None,
        remaining: Callable[[], float | None] | None = None,
    ) -> dict[HashableDict, Any]:
        """Run it, or go on with it, as the command line says: ``--help`` shows it. Blocks.

        :param arguments: None: those of the command line
        :param hosts: those to use; by default those of ``--hosts``, which come first. An
          :class:`~execo.schedulers.Allocation` that is not open is opened if there is something to
          do, and released at the end; none for ``--dry-run``
        :param folder: for results; by default that of ``-c``, which comes first, or a new one in
          the working directory
        :param remaining: the seconds that are left of a reservation, see
          :meth:`Engine.run_combinations() <execo.engine.Engine.run_combinations>`; an allocation
          knows them
        :returns: combination that is done -> its result, in the order of the sweep, the earlier
          runs in the same folder included; empty after ``--dry-run``
        :raises SystemExit: wrong arguments; after Ctrl-C, with 130
        :raises NotEnoughHosts: combinations need more hosts than there are, or than are left
        :raises ResultFolderError: the folder has results of something else
        """
        engine = ExperimentEngine(self, hosts=hosts, folder=folder, remaining=remaining)
        engine.start(arguments)
        return engine.results

    # -- for the engine ------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """What it is called."""
        return self.name or type(self).__name__

    def combinations(self) -> list[HashableDict]:
        """All of them, in order.

        :raises TypeError: no factors, or what cannot be any: names the factor
        :raises ValueError: there is none
        """
        if self.factors is None:
            raise TypeError(f"{self.title} has no factors: a dict, factor -> levels")
        if isinstance(self.factors, Mapping):
            options = {name: getattr(self, name) for name in ("where", "sample", "repeat", "seed")}
            found = sweep(self.factors, **options)
        else:
            found = [checked(one) for one in self.factors]
        if not found:
            # Not to a sweeper, which would take those that were saved before.
            raise ValueError(f"{self.title} has no combination: its factors, or where, leave none")
        return list(dict.fromkeys(found))

    def needs(self, combination: HashableDict) -> int:
        """How many hosts it gets.

        :raises ValueError: that is no number of hosts
        """
        asked = self.hosts(combination) if callable(self.hosts) else self.hosts
        count = combination.get(asked) if isinstance(asked, str) else asked
        if type(count) is not int or count < 0:
            raise ValueError(f"{self.title}: {combination!r:.200} needs {count!r} hosts")
        return count

    @property
    def own_measure(self) -> bool:
        """Whether :meth:`measure` is not the one of this class."""
        return getattr(self.measure, "__func__", None) is not Experiment.measure

    def takes(self, combination: HashableDict) -> float | None:
        """The seconds of ``duration``.

        :raises ValueError, TypeError: that is no duration
        """
        asked = self.duration(combination) if callable(self.duration) else self.duration
        seconds: float | None = get_seconds(asked)
        return seconds

    def asked(self, name: str, trial: Trial) -> Any:
        """What ``put``, ``run`` or ``get`` is for this trial."""
        said = getattr(self, name)
        return said(trial) if callable(said) else said


def experiment(
    *, factors: Any, parse: Callable[[Trial], Any] | None = None, **more: Any
) -> Callable[[Callable[[Trial], Any]], Experiment]:
    """Make an experiment of a function, which says what to run.

    ::

        @experiment(factors={"level": [1, 9]}, put="words", parse=lambda trial: len(trial.stdout))
        def compress(trial):
            return f"gzip -{trial['level']} < words"

        results = compress.main(hosts="node[1-4]")

    :param factors: see :attr:`Experiment.factors`
    :param parse: is given the trial, returns the result
    :param more: the other attributes of :class:`Experiment`, by their names
    :raises TypeError: there is no such attribute
    """
    unknown = [name for name in more if not hasattr(Experiment, name) or name in _METHODS]
    if unknown:
        raise TypeError(f"an experiment has no {unknown[0]!r}")

    def make(run: Callable[[Trial], Any]) -> Experiment:
        made = Experiment()
        attributes = {"name": run.__name__, "factors": factors, "run": run, **more}
        if parse is not None:
            attributes["parse"] = parse
        for name, value in attributes.items():
            setattr(made, name, value)
        made.__doc__ = run.__doc__
        return made

    return make


_METHODS = frozenset(
    {"run", "main", "title", "combinations", "needs", "takes", "own_measure", "asked"}
)
