"""What the tests of sweepers share: scripts that are killed, and threads that end with the test.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import dis
import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

import pytest

from execo.engine import ParamSweeper, sweep
from execo.engine import holder as holder_module

ROOT = Path(__file__).resolve().parent.parent
SWEEP = sweep({"a": [1, 2], "b": ["x", "y"]})
PATIENCE = 60

HEAD = """
import os, signal, sys, threading, time
from execo.engine import ParamSweeper, sweep
SWEEP = sweep({"a": [1, 2], "b": ["x", "y"]})
folder = sys.argv[1]
"""


@pytest.fixture
def sweepers_end() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name in ("execo-journal", "execo-sweeper"):
            thread.join(PATIENCE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


@pytest.fixture
def sweeper(folder: Path) -> Iterator[ParamSweeper]:
    made = ParamSweeper(folder, SWEEP, lease=0.4)
    yield made
    made.close()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def run(
    source: str, *arguments: object, kill_at: str | None = None, pass_fds: Sequence[int] = ()
) -> str:
    """A script's stdout; killed by SIGKILL as soon as it prints ``kill_at``."""
    script = subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(source), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        pass_fds=pass_fds,
    )
    assert script.stdout is not None
    with script:
        if kill_at is not None:
            assert script.stdout.readline().strip() == kill_at
            script.kill()
        output = script.communicate(timeout=PATIENCE)[0]
    assert script.returncode == (0 if kill_at is None else -signal.SIGKILL)
    return output


def fork(work: Callable[[], object]) -> int:
    """The wait status of a forked child that does this and ends without further ado: 0, of a
    signal that, and 256 after an error."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


class Elsewhere:
    """Another machine, as far as this process can tell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def __enter__(self) -> None:
        self._patch.setattr(holder_module, "_boot", lambda: "another one")

    def __exit__(self, *exc_info: object) -> None:
        self._patch.undo()


class Interrupted(BaseException):
    """What a signal handler has raised."""


class At:
    """Calls something at the Nth instruction within ``execo.engine`` in the block.

    :param where_signals: count only the places where Python lets signal handlers run: after a
      call, at the start of a function, and where a loop begins again
    """

    def __init__(self, number: int, what: Callable[[], object], where_signals: bool) -> None:
        self.left = number
        self._what = what
        self._where_signals = where_signals
        self._last: dict[FrameType, int] = {}

    def __enter__(self) -> Self:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(None)
        self._last.clear()

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if f"{os.sep}engine{os.sep}" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last = self._last.get(frame, -1)
            self._last[frame] = frame.f_lasti
            if not self._where_signals or _signals_between(frame.f_code, last, frame.f_lasti):
                self.left -= 1
                if self.left == 0:
                    sys.settrace(None)
                    self._what()
        return self._trace


@functools.cache
def _signals_between(code: CodeType, last: int, now: int) -> bool:
    """Whether Python runs signal handlers between these instructions. What they raise comes from
    the first one, and here from the second: that must be the same to those who catch it."""
    if last < 0 or not dis.opname[code.co_code[last]].startswith(
        ("CALL", "RESUME", "JUMP_BACKWARD")
    ):
        return False
    ranges = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    return all((one.start <= last < one.end) == (one.start <= now < one.end) for one in ranges)
