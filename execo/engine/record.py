"""The record of a run: a folder in which all that happens is written down while it happens."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from execo import observing
from execo._core.runtime import current_runtime
from execo.config import default_connection_params
from execo.host import Host, Hosts, get_hosts_list
from execo.log import logger
from execo.time_utils import Duration, get_seconds

from .combination import HashableDict, checked, plain
from .events import EventWriter
from .host_facts import asking, facts_of
from .identity import RecordError, earlier_manifest, identity, who_works_there
from .line_file import BusyError, LineFile, encode_line
from .load import EVENTS, RESULTS, first_numbers
from .manifest import ENVIRONMENT, MANIFEST, checked_names, describe, write_manifest
from .masks import Masks
from .run import OUTPUTS

__all__ = ["Record"]

STATES = ("done", "failed", "skipped")


class Record:
    """Writes down a run. From the beginning of the block to its end, every process and action of
    this interpreter is in it, whoever starts it.

    ::

        with Record("results/2026-11-21", hosts=hosts) as record:
            for combination in sweep({"size": [1, 2, 4]}):
                with record.combination(combination):
                    remote = Remote(f"./bench {combination['size']}", hosts).run()
                record.result(combination, {"seconds": float(remote.processes[0].stdout)})

    :func:`~execo.engine.load` gives it back, on any machine that the folder was copied to, also if
    the script was killed. The folder has

    - ``manifest.json``: the command line, the sources (commit, ``source.diff``), versions, seeds,
      the machine and the hosts
    - ``events.jsonl``: a line for each start and each end of a process or action; short outputs
    - ``outputs/``: longer outputs, a file each, named by the number of the process
    - ``results.jsonl``: a line for each :meth:`result`

    What is on the way of a process is a few words put into a queue; a thread of the record writes
    them, within a tenth of a second. No value of ``secret_env`` and no password that a process was
    given is in it, in commands and outputs neither, if it has four characters or more. Processes of
    forked children are not in it. (new)

    :param folder: made when it is missing
    :param name: of the experiment; default: the script's
    :param version: of the experiment, of your choice; both tell it from others
    :param resume: go on in a folder that has a record of this experiment and version already;
      without, such a folder is refused
    :param hosts: asked for their facts at the beginning, see :meth:`add_hosts`
    :param connection_params: for that
    :param environment: names of variables of the environment whose values are recorded, in place
      of :data:`~execo.engine.manifest.ENVIRONMENT`
    :param seeds: what random numbers were made from: name -> number; more by :meth:`add_seeds`
    :param secrets: more texts that must not be in it
    :param max_output: bytes kept of each output, the first ones (what goes beyond is counted, and
      marked); None = all; 0 = none
    :param argv: the command line; default: that of the interpreter
    :raises TypeError: for names that are one text, seeds that JSON lacks, a version of another type
    :raises ValueError: for the name of a variable that holds a secret, a negative ``max_output``
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        version: str | int | None = None,
        resume: bool = False,
        hosts: Hosts = (),
        connection_params: Mapping[str, Any] | None = None,
        environment: Iterable[str] = ENVIRONMENT,
        seeds: Mapping[str, Any] | None = None,
        secrets: Iterable[str] = (),
        max_output: int | None = 10 << 20,
        argv: Iterable[str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.name = name or Path(sys.argv[0]).stem or "interactive"
        self.version = version
        self.resume = resume
        if version is not None and not isinstance(version, (str, int)):
            raise TypeError(f"version is a text, a number, or None: not {version!r:.80}")
        if max_output is not None and (not isinstance(max_output, int) or max_output < 0):
            raise ValueError(f"max_output is a number of bytes, or None: not {max_output!r}")
        if isinstance(secrets, str):
            raise TypeError("secrets is a list of texts, not one text")
        self._max_output = max_output
        self._hosts = get_hosts_list(hosts)
        self._connection_params = connection_params
        self._environment = checked_names(environment)
        self._seeds = _seeds(seeds or {})
        self._argv = None if argv is None else list(argv)
        self._masks = Masks(secrets)
        self._masks.add_params(default_connection_params)
        self._mutex = threading.Lock()
        self._manifest: dict[str, Any] = {}
        self._open: _Open | None = None

    # -- from the beginning to the end -----------------------------------------------------------

    def open(self) -> Self:
        """Begin; ``with record:`` does. Blocks until the manifest is written: some tens of
        milliseconds, and up to 30 s for the facts of hosts.

        :raises ResultFolderError: the folder has a record of something else
        :raises RecordError: it has a record, and ``resume`` is not set; somebody writes one there
          now; what is there cannot be read
        :raises OSError: it cannot be written
        """
        if self._open is not None:
            raise RecordError(f"{self.folder}: the record is open")
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            events = self._take(EVENTS)
            undo.callback(events.close)
            # Under its lock: two that begin at once shall not both find nothing.
            old = self._earlier()
            results = self._take(RESULTS)
            undo.callback(results.close)
            (self.folder / OUTPUTS).mkdir(exist_ok=True)
            self._manifest = self._new_manifest(old)
            write_manifest(self.folder, self._manifest)
            if self._hosts:
                self.add_hosts(self._hosts, self._connection_params)
            first = first_numbers(self.folder)
            events.append([encode_line({"do": "open", "at": _now(), "pid": os.getpid()})])
            writer = EventWriter(
                self.folder, events, first, self._masks, self._max_output, also_synced=results
            )
            self._open = _Open(events, results, writer)
            # At the end of the interpreter at the latest, after that of the processes.
            self._open.finalizer = weakref.finalize(self, self._open.close)
            observing.observe(writer)
            undo.pop_all()
        return self

    def close(self, error: BaseException | None = None) -> None:
        """End; the end of the block does. Blocks until all is on the disk. What still runs stays
        in the record as running. Does nothing if it is not open.

        :param error: what has ended the run before its time
        """
        opened, self._open = self._open, None
        if opened is None or opened.foreign:
            return
        text = None if error is None else self._masks.text(f"{type(error).__name__}: {error}")[:500]
        opened.close(text)
        if opened.finalizer is not None:
            opened.finalizer.detach()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(value)

    def _take(self, name: str) -> LineFile:
        try:
            return LineFile(self.folder / name)
        except BusyError as exc:
            raise RecordError(
                f"{self.folder}: {who_works_there(self.folder)} writes the record of its run there"
                " now: wait for its end, or use another folder"
            ) from exc

    def _earlier(self) -> dict[str, Any] | None:
        """The manifest of the record that is there, if there is one."""
        there = earlier_manifest(self.folder, self._identity)
        if there is None and (self.folder / EVENTS).stat().st_size:
            raise RecordError(
                f"{self.folder} has events of a run, and no {MANIFEST} that says of which: use"
                " another folder"
            )
        if there is not None and not self.resume:
            raise RecordError(
                f"{self.folder} has a record already: use another folder, or resume=True to go on"
            )
        return there

    @property
    def _identity(self) -> dict[str, Any]:
        return identity(self.name, self.version)

    def _new_manifest(self, old: Mapping[str, Any] | None) -> dict[str, Any]:
        earlier: list[Any] = []
        hosts: dict[str, Any] = {}
        if old is not None:
            once = {name: value for name, value in old.items() if name not in _OF_THE_WHOLE}
            earlier, hosts = [*old.get("earlier", ()), once], dict(old.get("hosts", {}))
        session = len(earlier) + 1
        about = describe(self.folder, session, self._environment, self._masks, self._argv)
        seeds = {"seeds": self._seeds}
        return self._identity | about | seeds | {"hosts": hosts, "earlier": earlier}

    def _write_manifest(self) -> None:
        try:
            write_manifest(self.folder, self._manifest)
        except OSError as exc:
            logger.error("cannot write %s: %s", self.folder / MANIFEST, exc)

    # -- what the user says ------------------------------------------------------------------------

    @contextlib.contextmanager
    def combination(self, combination: Mapping[Any, Any]) -> Iterator[None]:
        """What this thread (or coroutine) starts within the block is for this combination.

        :raises TypeError: for a value other than None, bool, int, float, str, and tuples and dicts
          of these
        """
        token = observing.label.set(HashableDict(checked(combination)))
        try:
            yield
        finally:
            observing.label.reset(token)

    def result(
        self,
        combination: Mapping[Any, Any],
        result: Any = None,
        *,
        state: str = "done",
        start: float | None = None,
        end: float | None = None,
        reason: str | None = None,
        attempt: int = 1,
        hosts: Hosts = (),
    ) -> None:
        """Write down what one attempt at a combination gave. When this returns it is in the file,
        whatever becomes of the script. Any thread.

        :param combination: what was tried
        :param result: what came out: anything that JSON has
        :param state: ``done``, ``failed`` or ``skipped``
        :param start: when it began, a unix time
        :param end: when it ended; default: now
        :param reason: why it failed
        :param attempt: its number, from 1 on
        :param hosts: where it ran
        :raises TypeError: for a result that JSON lacks, a combination that is none
        :raises ValueError: for another state
        :raises RecordError: the record is not open, or is the parent's of this forked process
        :raises OSError: it cannot be written
        """
        if state not in STATES:
            raise ValueError(f"the state of a result is one of {', '.join(STATES)}: not {state!r}")
        line: dict[str, Any] = {"do": "result", "at": _now(), "for": plain(checked(combination))}
        line |= {"state": state, "end": _now() if end is None else end}
        more: dict[str, Any] = {"start": start}
        more["reason"] = None if reason is None else self._masks.text(str(reason))
        more["attempt"] = None if attempt == 1 else attempt
        more["hosts"] = [host.address for host in get_hosts_list(hosts)] or None
        line |= {name: value for name, value in more.items() if value is not None}
        try:
            if result is not None:
                line["result"] = _masked(result, self._masks)
            text = encode_line(line)
        except (TypeError, ValueError, RecursionError) as exc:
            raise TypeError(
                f"a result is what JSON has, dicts, lists, text, numbers: {exc}"
            ) from exc
        opened = self._opened()
        opened.results.append([text])
        opened.writer.sync_soon()

    def add_hosts(
        self,
        hosts: Hosts,
        connection_params: Mapping[str, Any] | None = None,
        timeout: Duration = 30,
    ) -> dict[str, dict[str, Any]]:
        """Ask hosts what they are, for the manifest: cpu, memory, kernel, NUMA, how much their
        clock is ahead of ours. One small command each, all at once; it is in no list of processes.
        Blocks until all have answered, at most some seconds longer than ``timeout``; why one has
        not is noted as its ``error``, and is no error here.

        :param hosts: see :func:`~execo.host.get_hosts_list`; each once
        :param connection_params: what differs from
          :data:`~execo.config.default_connection_params`
        :param timeout: seconds
        :returns: address -> its facts; ``address:port`` where several have one address
        """
        seconds = get_seconds(timeout)
        assert seconds is not None
        wanted = list(dict.fromkeys(get_hosts_list(hosts)))
        action = asking(wanted, connection_params, seconds)
        if self._open is not None:
            self._open.writer.ignored.add(id(action))
            self._open.kept.append(action)  # so that no other one gets its id()
        action.start().wait(seconds)
        if not action.ended:
            action.kill(auto_force_kill_timeout=1).wait(5)
        self._masks.add_params(connection_params or {})
        facts = {
            _place(p.host, wanted): _masked(facts_of(p), self._masks) for p in action.processes
        }
        with self._mutex:
            self._manifest["hosts"] = self._manifest.get("hosts", {}) | facts
            self._write_manifest()
        return facts

    def add_seeds(self, seeds: Mapping[str, Any]) -> None:
        """What random numbers were made from, for the manifest. Blocks until it is there.

        :param seeds: name -> number; a name that is there already gets another
        :raises TypeError: for what JSON lacks
        """
        more = _seeds(seeds)
        with self._mutex:
            self._seeds |= more
            if self._open is not None:
                self._manifest["seeds"] = self._seeds
                self._write_manifest()

    def without_secrets(self, value: Any) -> Any:
        """The same with ``***`` in place of the secrets in its texts, those in dicts and lists
        included. Pure."""
        return _masked(value, self._masks)

    def _opened(self) -> _Open:
        if self._open is None:
            raise RecordError(f"{self.folder}: the record is not open")
        if self._open.foreign:
            raise RecordError(f"{self.folder}: the record is that of the parent of this process")
        return self._open


_OF_THE_WHOLE = ("format", "name", "version", "hosts", "earlier")
"""What a manifest says of all its parts."""


class _Open:
    """What a record has while it is open."""

    finalizer: weakref.finalize[Any, Any] | None = None

    def __init__(self, events: LineFile, results: LineFile, writer: EventWriter) -> None:
        self.events = events
        self.results = results
        self.writer = writer
        self.kept: list[object] = []
        self._owner = os.getpid()

    @property
    def foreign(self) -> bool:
        """In a forked child."""
        return self._owner != os.getpid()

    def close(self, error: str | None = None) -> None:
        if self.foreign:
            return
        runtime = current_runtime()
        if runtime is not None and not runtime.gone:
            # What has just been started is there for its user before the I/O thread tells of it.
            runtime.loop.run_sync(lambda: None)
        observing.unobserve(self.writer)
        line: dict[str, Any] = {"do": "close", "at": _now()}
        self.writer.close(line if error is None else line | {"error": error})
        if self.writer.lost:
            logger.error(
                "%s: %d lines or outputs could not be written", self.events.path, self.writer.lost
            )
        for file in (self.events, self.results):
            with contextlib.suppress(OSError):  # said before, or it was in vain alone
                file.sync()
            file.close()


def _masked(value: Any, masks: Masks) -> Any:
    """The same without secrets in its texts."""
    if isinstance(value, str):
        return masks.text(value)
    if isinstance(value, dict):
        names = (masks.text(name) if isinstance(name, str) else name for name in value)
        return dict(zip(names, (_masked(one, masks) for one in value.values()), strict=True))
    if isinstance(value, (list, tuple)):
        return [_masked(one, masks) for one in value]
    return value


def _seeds(seeds: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dict(seeds)))
    return found


def _place(host: Host, hosts: Iterable[Host]) -> str:
    alone = [one.address for one in hosts].count(host.address) == 1
    return host.address if alone else f"{host.address}:{host.port}"


def _now() -> float:
    return round(time.time(), 6)
