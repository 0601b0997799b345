"""What became of processes, for the shell that has called: an exit status, and words on stderr."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Any

from execo import Action, ProcessBase, SshProcess
from execo.hostset import fold
from execo.log import escape_controls

from .printing import tell

__all__ = ["QUIET", "address_of", "exit_status", "json_line", "tell_failures", "without_host"]

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

_LATE = "some output came later than drain_timeout after the exit, and is not here"


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
    # Of a file that could not be written the log has told.
    lost = process.stdout_ioerror or process.stderr_ioerror
    return 128 - code if code < 0 else min(max(code, lost), NOT_REACHED)


def tell_failures(action: Action, *, interrupted: bool = False) -> None:
    """A line on stderr for each way in which processes have failed, with their hosts.

    :param interrupted: what was given up before its start has been told, and is no failure
    """
    # What differs by the host's name alone is told once: words -> hosts and the words of the first.
    alike: dict[str, tuple[list[str], str]] = {}
    for process in action.processes:
        if interrupted and process.cancelled:
            continue
        address = address_of(process)
        texts = [_LATE] if process.truncated else []
        if (_status_of(process) and not process.killed) or process.timeouted:
            texts.append(process.message or "has not ended")
        for text in texts:
            alike.setdefault(without_host(text, address), ([], text))[0].append(address)
    for words, (addresses, text) in alike.items():
        if len(addresses) == 1:
            tell(f"{addresses[0]}: {text}")
        else:
            tell(f"{fold(addresses)} ({len(addresses)}): {words}")


def without_host(message: str, address: str) -> str:
    """A message with "it" for the name of its host, so that those of many hosts are the same."""
    return re.sub(rf"(?<![\w.-]){re.escape(address)}(?![\w-]|\.\w)", "it", message)


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
