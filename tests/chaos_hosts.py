"""Commands for hosts that fail, and what is promised of each of them.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from execo import Action, Get, Host, Put, Remote, TaktukGet, TaktukPut, TaktukRemote, transports
from execo.errors import Reason
from execo.process import ProcessBase
from invariants import Watch, left_of
from sshd import MARK, RealSshd, _marked, descendants

__all__ = [
    "LOSSES",
    "TRANSPORTS",
    "Counted",
    "commands",
    "guards_of",
    "idle",
    "session_of",
    "sessions_below",
    "signal_all",
    "transfer",
]

TRANSPORTS = ("paramiko", "openssh", "taktuk")

LOSSES = (Reason.CONNECT, Reason.AUTH)
"""Why a command ends whose host, or the way to it, has failed. Never an exit code."""

_HUNG_UP = re.compile(r"Connection to \S+ closed by remote host\.\r?\n")

QUIET: dict[str, Any] = {"nolog_error": True, "nolog_exit_code": True, "nolog_write_error": True}


def idle() -> None:
    """Nothing is kept of the runs before."""
    transports.close_idle()


def commands(
    transport: str,
    text: str | Sequence[str],
    hosts: Sequence[Host],
    watch: Watch,
    params: dict[str, Any] | None = None,
) -> Action:
    """A command for each host, not started.

    :param params: of the connections
    """
    kind = TaktukRemote if transport == "taktuk" else Remote
    way = {} if transport == "taktuk" else {"transport": transport}
    process_args = {**QUIET, "lifecycle_handlers": [watch.ends]}
    return kind(text, list(hosts), {**way, **(params or {})}, process_args=process_args)


def transfer(
    transport: str,
    kind: str,
    hosts: Sequence[Host],
    source: str,
    place: str,
    watch: Watch,
    params: dict[str, Any] | None = None,
) -> Action:
    """``put`` or ``get`` of one file, not started."""
    kinds = {
        "put": TaktukPut if transport == "taktuk" else Put,
        "get": TaktukGet if transport == "taktuk" else Get,
    }
    way = {} if transport == "taktuk" else {"transport": transport}
    process_args = {**QUIET, "lifecycle_handlers": [watch.ends]}
    made: Action = kinds[kind](
        list(hosts), [source], place, {**way, **(params or {})}, process_args=process_args
    )
    return made


class Counted:
    """A command that prints much, and counts how often it has run: in a file on its host.

    :param server: whose user runs it
    :param blocks: how much it prints: 24 kB each, a hundredth of a second apart
    :param gate: in the middle of them it waits for :meth:`open_gate`, so that it cannot be over
      before something has befallen it
    """

    numbers = itertools.count()

    def __init__(
        self, server: RealSshd, watch: Watch, *, blocks: int = 8, gate: bool = False
    ) -> None:
        self.user = server.user()
        self.file = server.folder / "home" / self.user / f"ran-{os.getpid()}-{next(self.numbers)}"
        self.blocks = blocks
        self.gate = self.file.with_suffix(".go")
        wait = f"[ $i -ne {blocks // 2} ] || while [ ! -e {self.gate} ]; do sleep 0.05; done; "
        # As an argument that is passed over: what is left of it is found by the word.
        self.text = (
            f"echo {{{{{{host}}}}}} $$ >> {self.file}; echo error >&2; "
            f"for i in $(seq {blocks}); do {wait if gate else ''}"
            f"seq -s ' ' $i 5000; sleep 0.01; done; : {watch.word}"
        )

    def open_gate(self) -> None:
        self.gate.touch()

    @property
    def output(self) -> str:
        """What it prints."""
        return "".join(" ".join(map(str, range(i, 5001))) + "\n" for i in range(1, self.blocks + 1))

    def pids(self, host: Host) -> list[int]:
        """Its processes on a host, one for each time that it has run."""
        try:
            lines = self.file.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [int(pid) for name, pid in map(str.split, lines) if name == host.address]

    def times(self, host: Host) -> int:
        """How often it has run on a host."""
        return len(self.pids(host))

    def check(self, process: ProcessBase, reasons: Iterable[Reason | None] = LOSSES) -> None:
        """Complete, or lost and marked as such; and it has run once at the most."""
        what = process.dump()
        host: Host = process.host  # type: ignore[attr-defined]
        assert process.ended, what
        if process.ok:
            assert process.stdout == self.output, what
            assert process.stderr == "error\n", what
            assert (process.exit_code, process.drained, process.truncated) == (0, True, 0), what
            assert (process.stdout_ioerror, process.stderr_ioerror) == (False, False), what
            assert self.times(host) == 1, what
        else:
            assert process.error, what
            assert process.reason in reasons, what
            assert host.address in process.message, what
            assert self.output.startswith(process.stdout), what
            # ssh itself writes there that the host has hung up, and where.
            assert "error\n".startswith(_HUNG_UP.sub("", process.stderr)), what
            assert self.times(host) <= 1, what


# -- servers --------------------------------------------------------------------------------------


def session_of(pid: int) -> int:
    """The sshd at whose connection a process hangs."""
    while True:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        if "(sshd" in stat:
            return pid
        pid = int(stat.rpartition(")")[2].split()[1])
        assert pid > 1, "it does not hang at an sshd"


def sessions_below(server: RealSshd) -> list[int]:
    """All processes that serve connections of a server."""
    found = []
    for pid in descendants(server.pid):
        with contextlib.suppress(OSError):
            if "(sshd" in Path(f"/proc/{pid}/stat").read_text(errors="replace"):
                found.append(pid)
    return found


def guards_of(server: RealSshd) -> list[int]:
    """The guards that run on the hosts of a server."""
    theirs = set(_marked(f"{MARK}={server.folder}"))
    return [pid for pid in left_of("execo-guard 1") if pid in theirs]


def signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
