"""What became of processes, for the shell that has called: an exit status, and words on stderr."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from execo import Action, ProcessBase, SshProcess
from execo.hostset import fold
from execo.log import escape_controls

from .printing import tell

__all__ = ["QUIET", "address_of", "exit_status", "json_line", "tell_failures"]

QUIET: dict[str, Any] = {
    # What has failed is told at the end, by tell_failures().
    "nolog_exit_code": True,
    "nolog_timeout": True,
    "nolog_error": True,
    "nolog_write_error": True,
    # Whoever reads half of its input and ends has done its work: `head -1`.
    "ignore_write_error": True,
}
"""Arguments for all processes."""

NOT_REACHED = 255
TIMED_OUT = 124


def address_of(process: ProcessBase) -> str:
    """The host of a process."""
    return process.host.address if isinstance(process, SshProcess) else "localhost"


def exit_status(processes: Iterable[ProcessBase]) -> int:
    """The worst of all: the exit code, 128 and the signal, 124 for a timeout, 255 for what was not
    reached, not started or lost."""
    return max(map(_status_of, processes), default=0)


def _status_of(process: ProcessBase) -> int:
    if process.error or not process.ended:
        return NOT_REACHED
    if process.timeouted:
        return TIMED_OUT
    code = process.exit_code
    if code is None:
        return NOT_REACHED
    return 128 - code if code < 0 else min(code, NOT_REACHED)


def tell_failures(action: Action) -> None:
    """A line on stderr for each way in which processes have failed, with their hosts."""
    alike: dict[str, list[ProcessBase]] = {}
    for process in action.processes:
        if (_status_of(process) and not process.killed) or process.timeouted:
            # What differs by the host's name alone is told once.
            words = process.message.replace(address_of(process), "{it}") or "has not ended"
            alike.setdefault(words, []).append(process)
        if process.truncated:
            words = "some output came later than drain_timeout after the exit, and is not here"
            alike.setdefault(words, []).append(process)
    for words, processes in alike.items():
        hosts = fold(map(address_of, processes))
        count = f" ({len(processes)})" if len(processes) > 1 else ""
        it = "it" if count else hosts
        tell(f"{hosts}{count}: {words.replace('{it}', it)}")


def json_line(process: ProcessBase) -> bytes:
    """What is known of a process, as a line of JSON."""
    row: dict[str, Any] = {
        "host": address_of(process),
        "ok": process.finished_ok and not process.killed,
        "exit_code": process.exit_code,
        "reason": None if process.reason is None else str(process.reason),
        "message": escape_controls(process.message),
        "start_date": process.start_date,
        "end_date": process.end_date,
        "attempts": process.attempts,
        "killed": process.killed,
        "drained": process.drained,
        "truncated": process.truncated,
    }
    for name, data in (("stdout", process.stdout_bytes), ("stderr", process.stderr_bytes)):
        try:
            row[name] = data.decode()
        except UnicodeDecodeError:
            # JSON has no bytes: readable here, and exact there.
            row[name] = data.decode(errors="replace")
            row[f"{name}_base64"] = base64.b64encode(data).decode()
    return json.dumps(row).encode() + b"\n"
