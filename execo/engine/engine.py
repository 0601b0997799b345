"""Engine: a script that is run again and again, with arguments, a folder for its results, and what
it prints kept there."""

from __future__ import annotations

import argparse
import inspect
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from execo.host import Host, Hosts
from execo.log import get_logger

from .attempt import Attempt
from .combination import HashableDict
from .dispatch import Dispatcher, OnInterrupt
from .host_pool import HostPool
from .identity import earlier_manifest, identity
from .masks import MASK, Masks, is_secret_name, masked_arguments
from .record import Record
from .redirect import copy_outputs, redirect_outputs
from .sweeper import ParamSweeper
from .time_left import TimeLeft

__all__ = ["Engine", "logger"]

logger = get_logger("execo.engine")

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class Engine:
    """Subclass it, give it a :meth:`run`, and ``MyEngine().start()`` does the rest: reads the
    command line, makes a folder for the results, keeps there what is printed, calls
    :meth:`init` and :meth:`run`. (execo 2.8.2, where not said otherwise)

    ::

        class Ping(Engine):
            def __init__(self):
                super().__init__()
                self.args_parser.add_argument("--size", type=int, default=64)

            def run(self):
                (Path(self.result_dir) / "size").write_text(str(self.args.size))

        if __name__ == "__main__":
            Ping().start()

    :meth:`init` and :meth:`run` of *every* class in the hierarchy are called, those of the
    ancestors first: an engine adds to the one that it is made of, and does not call its method
    itself. Attributes:

    - ``engine_name``: what it is called: the name of the class, unless ``__init__`` sets another
      (new)
    - ``engine_dir``: the folder of the file that the class is in
    - ``args_parser``: an :class:`argparse.ArgumentParser`, to which ``__init__`` adds options and
      arguments; an option that the script defines replaces one of the engine's
    - ``args``: what it has found on the command line; from :meth:`init` on, as the rest
    - ``run_name``: see :meth:`setup_run_name`
    - ``result_dir``: the folder for the results; it is not the working directory
    - ``record``: of the run, while it runs: its results, and what every process and action did; see
      :class:`~execo.engine.Record` (new)
    """

    version: str | None = None
    """A folder with results of another version is refused: change it when what is measured changes
    (new)."""

    engine_name: str = ""

    def __init__(self) -> None:
        kind = type(self)
        self.engine_name = self.engine_name or kind.__name__
        self.engine_dir = _folder_of(kind)
        self.args: Any = None
        self.run_name: str | None = None
        self.result_dir: str | None = None
        self.record: Record | None = None
        self._argv = list(sys.argv)
        self.args_parser = argparse.ArgumentParser(
            usage="%(prog)s [options] <arguments>",
            description=f"engine: {self.engine_name}",
            # Options of engines that were written before ours were there stay theirs.
            conflict_handler="resolve",
        )
        self._add_options(self.args_parser.add_argument)

    def _add_options(self, add: Callable[..., Any]) -> None:
        add(
            *("-l", "--log-level"),
            metavar="LEVEL",
            type=_level,
            help="log level, name or number",
        )
        add(
            *("-L", "--copy-outputs"),
            dest="output_mode",
            action="store_const",
            const="copy",
            default=False,
            help="copy stdout and stderr to files in the result directory",
        )
        add(
            *("-R", "--redirect-outputs"),
            dest="output_mode",
            action="store_const",
            const="redirect",
            help="redirect stdout and stderr to files in the result directory",
        )
        add(
            *("-M", "--merge-outputs"),
            dest="merge_outputs",
            action="store_true",
            help="with -L or -R: one file for both, stdout+stderr",
        )
        add(
            *("-c", "--continue"),
            dest="use_dir",
            metavar="DIR",
            help="use this result directory: made if it is missing, else the run goes on there",
        )
        add(
            "--dry-run",
            # A name of its own: --dry-run of a script that has defined it means what it says there.
            dest="only_plan",
            action="store_true",
            help="print what would be done, and do nothing",
        )
        add(
            "--jobs",
            metavar="N",
            type=_positive,
            help="so many combinations at once, on different hosts; default: as many as fit",
        )
        add(
            "--on-interrupt",
            choices=("wait", "cancel"),
            default="wait",
            help="what Ctrl-C means for running combinations: wait for their end, or cancel them;"
            " a second one cancels at once",
        )

    # -- what subclasses say ---------------------------------------------------------------------

    def init(self) -> None:
        """Before :meth:`run`, of all classes."""

    def run(self) -> None:
        """The work."""

    def plan(self) -> Iterator[str]:
        """Lines that ``--dry-run`` prints; must change nothing (new)."""
        yield f"engine {self.engine_name}" + (f", version {self.version}" if self.version else "")
        given = {
            name: MASK if value and is_secret_name(name) else value
            for name, value in vars(self.args).items()
        }
        yield f"arguments: {given}"
        yield f"result directory: {self.result_dir}"
        for name in ("init", "run"):
            for method in _methods(type(self), name):
                yield f"calls {method.__qualname__}"

    def setup_run_name(self) -> None:
        """Sets ``run_name``; by default from the class and the time,
        ``Ping_20261121_183423_+0000``."""
        self.run_name = f"{self.engine_name}_{time.strftime('%Y%m%d_%H%M%S_%z')}"

    def setup_result_dir(self) -> None:
        """Sets ``result_dir``; by default ``run_name`` in the working directory, with a number
        where another run has taken that. Not called with ``-c``."""
        first = os.path.abspath(str(self.run_name))
        names = itertools.chain([first], (f"{first}-{n}" for n in itertools.count(2)))
        self.result_dir = next(name for name in names if not os.path.exists(name))

    # -- running it ------------------------------------------------------------------------------

    def start(self, engineargs: Sequence[str] | None = None) -> None:
        """Do all of it. Blocks.

        :param engineargs: the arguments; None: those of the command line
        :raises SystemExit: wrong arguments; after Ctrl-C, with 130; after SIGTERM, with 143, see
          :meth:`run_combinations`
        :raises ResultFolderError: the folder given by ``-c`` has results of another engine, or of
          another version (new)
        :raises RecordError: another run works in that folder now (new)
        :raises OSError: the folder cannot be made, or written
        """
        given = list(sys.argv[1:] if engineargs is None else engineargs)
        self._argv = [sys.argv[0], *given]
        self.args = self.args_parser.parse_args(given)
        self.setup_run_name()
        if use_dir := self._option("use_dir"):
            self.result_dir = os.path.abspath(use_dir)
        else:
            self.setup_result_dir()
        folder = Path(str(self.result_dir))
        if self._option("only_plan"):
            earlier_manifest(folder, identity(self.engine_name, self._version))
            for line in self.plan():
                sys.stdout.write(line + "\n")
            return
        self._set_log_level()
        try:
            # First of all: a folder that is refused stays as it is.
            with self.make_record(folder) as self.record:
                self._keep_outputs(folder)
                shown = masked_arguments(self._argv, Masks())  # these lines may be copied there
                logger.info("command line arguments: %s", shown)
                logger.info("command line: %s", " ".join(shown))
                logger.info("run in directory %s", self.result_dir)
                for name in ("init", "run"):
                    for method in _methods(type(self), name):
                        method(self)
        except KeyboardInterrupt:
            logger.warning("interrupted; to go on: -c %s", self.result_dir)
            raise SystemExit(INTERRUPTED) from None

    def make_record(self, folder: Path, **more: Any) -> Record:
        """Of this run, in the result folder; of one that goes on, behind what is there. Engines
        that record more, or less, add arguments (new)::

            def make_record(self, folder):
                return super().make_record(folder, secrets=[self.args.key], max_output=0)

        :param folder: the result folder
        :param more: of :class:`~execo.engine.Record`
        """
        about = {"name": self.engine_name, "version": self._version, "argv": self._argv}
        return Record(folder, **{**about, "resume": True, **more})

    @property
    def _version(self) -> str | int | None:
        # An engine of execo 2 may call something else so.
        known = self.version is None or isinstance(self.version, (str, int))
        return self.version if known else str(self.version)

    def run_combinations(
        self,
        sweeper: ParamSweeper,
        measure: Callable[[Any], Any],
        *,
        hosts: Hosts = None,
        needs: int | Callable[[HashableDict], int] = 1,
        make: Callable[[HashableDict, list[Host], int], Attempt] = Attempt,
        remaining: Callable[[], float | None] | None = None,
        takes: Callable[[HashableDict], float | None] | None = None,
    ) -> None:
        """Hand out what is to be done, ``--jobs`` at once, until all is done, failed, or with
        others (new). Blocks; for :meth:`run`. Ctrl-C is understood as ``--on-interrupt`` says.

        A host that cannot be reached is not used any more, and its combination goes to others; it
        has failed when three times hosts are lost while it runs on them. Any other error is a
        failed attempt, see :meth:`ParamSweeper.failed() <execo.engine.ParamSweeper.failed>`.

        :param sweeper: has the combinations
        :param measure: is given an :class:`~execo.engine.Attempt`, on a thread of its own; returns
          the result
        :param hosts: all hosts; an open :class:`~execo.schedulers.Allocation` knows what is left
        :param needs: how many of them a combination gets; 0: it runs here, one at a time unless
          ``--jobs`` says more
        :param make: makes attempts of a class of one's own
        :param remaining: the seconds that are left of a reservation, None for no limit; must not
          block. What would not end in time is not begun, and what has not is cancelled and stays to
          be done. Default: those of an allocation
        :param takes: the seconds that a combination takes at the most, None for not known. Default:
          those of the longest so far
        :raises NotEnoughHosts: some need more hosts than there are, or than are left; all others
          are done
        :raises KeyboardInterrupt: after Ctrl-C
        :raises SystemExit: after SIGTERM, with 143: what ran is cancelled then. In the main thread
          alone, and unless the script has a handler of its own
        """
        Dispatcher(
            sweeper,
            HostPool(hosts),
            make,
            measure,
            needs,
            jobs=self._option("jobs"),
            on_interrupt=self._on_interrupt(),
            record=self.record,
            time_left=TimeLeft(hosts, remaining, takes),
        ).run()

    def _option(self, name: str) -> Any:
        """One of ours; None where the script has put its own in its place."""
        return getattr(self.args, name, None)

    def _on_interrupt(self) -> OnInterrupt:
        return "cancel" if self._option("on_interrupt") == "cancel" else "wait"

    def _set_log_level(self) -> None:
        level = self._option("log_level")
        if level is None:
            # What the engine itself says is meant for who has started it.
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.INFO)
        else:
            logger.setLevel(logging.NOTSET)
            get_logger("execo").setLevel(level)

    def _keep_outputs(self, folder: Path) -> None:
        mode = self._option("output_mode")
        if not mode:
            return
        names = ("stdout+stderr",) * 2 if self._option("merge_outputs") else ("stdout", "stderr")
        paths = [folder / name for name in names]
        if mode == "copy":
            copy_outputs(paths[0], paths[1])
        else:
            redirect_outputs(paths[0], paths[1])


def _methods(kind: type[Engine], name: str) -> list[Callable[[Engine], None]]:
    """Those of that name in the classes of the hierarchy, ancestors first."""
    classes = (one for one in reversed(kind.__mro__) if one is not Engine)
    return [vars(one)[name] for one in classes if name in vars(one)]


def _folder_of(kind: type) -> str:
    try:
        return os.path.dirname(os.path.abspath(inspect.getfile(kind)))
    except (OSError, TypeError):  # typed into an interpreter
        return os.getcwd()


def _level(text: str) -> int | str:
    """:raises argparse.ArgumentTypeError: there is no such level"""
    if text.isdigit():
        return int(text)
    if text.upper() not in logging.getLevelNamesMapping():
        known = ", ".join(logging.getLevelNamesMapping())
        raise argparse.ArgumentTypeError(f"{text!r} is no log level: a number, or of {known}")
    return text.upper()


def _positive(text: str) -> int:
    """:raises argparse.ArgumentTypeError: not a number above 0"""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)
