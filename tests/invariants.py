"""What holds after every run, whatever befell it: the proof of "never hang, never lose, never leave
anything behind".

::

    with Watch() as watch:
        remote = Remote(f"sleep {watch.word}", hosts, lifecycle_handlers=[watch.ends])
        remote.start()
        ...  # the fault
        remote.wait(PATIENCE)
        watch.check(remote)

The leak guard of conftest.py looks at each test as a whole; a watch looks at each run.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Self

import pytest

from conftest import held
from execo import Action, Process, ProcessLifecycleHandler, transports
from execo.process import ProcessBase

__all__ = [
    "PATIENCE",
    "Ends",
    "Watch",
    "check_idle",
    "io_thread_cpu",
    "left_of",
    "pids",
    "temporary_files",
    "wait_until",
]

PATIENCE = 60.0
"""Seconds: a hang, not a speed."""

TEMPORARY = ("execo", ".execo", "ex-")
"""How the names of files begin that execo makes for a while."""

IDLE = 0.15
"""CPU seconds of the I/O thread in half a second of rest: one that spins takes it all."""


class Ends(ProcessLifecycleHandler):
    """Counts how often each process has started and ended."""

    def __init__(self) -> None:
        self.started: Counter[ProcessBase] = Counter()
        self.ended: Counter[ProcessBase] = Counter()
        self._lock = threading.Lock()

    def start(self, process: ProcessBase) -> None:
        with self._lock:
            self.started[process] += 1

    def end(self, process: ProcessBase) -> None:
        with self._lock:
            self.ended[process] += 1


class Watch:
    """One run: what is there before it, and whether all of it has gone after it.

    - ``word``: belongs into the words of each command, by which what it has left is found on hosts
      that are this machine. ``sleep`` takes it, and sleeps long enough.
    - ``ends``: a lifecycle handler for its processes
    """

    def __init__(self) -> None:
        self.word = f"1000.{secrets.randbits(60):020d}"
        self.ends = Ends()
        self._patch = pytest.MonkeyPatch()
        self._folder = ""
        self._before: dict[Hashable, str] = {}
        self._files: set[Path] = set()

    def __enter__(self) -> Self:
        Process("true").run(PATIENCE)  # the runtime itself is not left behind
        # A folder of its own: other tests that run now make files, too. Commands of other users
        # may look up names in it.
        self._folder = tempfile.mkdtemp(prefix="watch-")
        os.chmod(self._folder, 0o711)
        self._patch.setenv("TMPDIR", self._folder)
        self._patch.setattr(tempfile, "tempdir", self._folder)
        self._before = held()
        self._files = temporary_files()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._patch.undo()
        shutil.rmtree(self._folder, ignore_errors=True)
        for pid in left_of(self.word):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def check(self, *what: Action | ProcessBase) -> None:
        """All of it holds, or an AssertionError that says what does not. Waits for what takes a
        moment, ``PATIENCE`` at most; closes kept connections."""
        processes = [one for each in what for one in _processes_of(each)]
        for process in processes:
            assert process.ended, f"has not ended: {process.dump()}"
            assert process.ok or process.reason is not None, f"no reason: {process.dump()}"
            assert self.ends.ended[process] == 1, (
                f"ended {self.ends.ended[process]} times, as its handler was told: {process!r}"
            )
        for each in what:
            assert each.ended, f"has not ended: {each!r}"
        self.check_nothing_left()
        check_idle()

    def check_nothing_left(self) -> None:
        """Nothing that was not there before: threads, descriptors, children, files; and no process
        on a host that bears the word."""
        left: list[str] = []

        def gone() -> bool:
            transports.close_idle()
            left[:] = [text for key, text in held().items() if key not in self._before]
            left.extend(f"process {pid} of the run" for pid in left_of(self.word))
            left.extend(f"file {path}" for path in temporary_files() - self._files)
            if left:
                gc.collect()  # what only a cycle of garbage holds (of a caught exception) is free
            return not left

        assert wait_until(gone), "the run left behind:\n  " + "\n  ".join(left)


def _processes_of(what: Action | ProcessBase) -> list[ProcessBase]:
    if isinstance(what, Action):
        return list(what.processes)
    return [what]


def wait_until(condition: Callable[[], object], patience: float | None = None) -> bool:
    """Whether it comes true within that time, ``PATIENCE`` by default."""
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    nap = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        nap.wait(0.05)
    return True


def left_of(word: str) -> list[int]:
    """The processes of this machine, without this one, that have the word in their command line."""
    return [pid for pid in pids() if pid != os.getpid() and word in _words(pid)]


def pids() -> Iterator[int]:
    """All processes of this machine."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""  # gone since


def temporary_files() -> set[Path]:
    """What lies in the folder for temporary files and may be of execo: of this run, within a
    watch."""
    folder = Path(tempfile.gettempdir())
    return {path for path in folder.iterdir() if path.name.startswith(TEMPORARY)}


def io_thread_cpu() -> float:
    """CPU seconds of the I/O thread since its start."""
    ticks = os.sysconf("SC_CLK_TCK")
    for thread in threading.enumerate():
        if thread.name == "execo-io":
            stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
            user, system = stat.rpartition(")")[2].split()[11:13]
            return (int(user) + int(system)) / ticks
    raise AssertionError("there is no I/O thread")


def check_idle() -> None:
    """The I/O thread does what it is asked, and rests when it is not."""
    assert Process("true").run(PATIENCE).ok
    nap = threading.Event()

    def rests() -> bool:
        before = io_thread_cpu()
        nap.wait(0.5)
        return io_thread_cpu() - before < IDLE

    # Not at once: upkeep that was due may still be on its way.
    assert wait_until(rests, 10), f"the I/O thread spins: {_stack_of_io_thread()}"


def _stack_of_io_thread() -> str:
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread.name == "execo-io" and thread.ident in frames:
            return "".join(traceback.format_stack(frames[thread.ident]))
    return "gone"
