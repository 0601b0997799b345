"""What machines are: the facts that figures depend on, asked with one small POSIX command."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from execo.handlers import ProcessOutputHandler
from execo.host import Host
from execo.local_process import Process
from execo.process_base import ProcessBase
from execo.remote import Remote

__all__ = ["asking", "facts_of", "local_asking"]

# Words of a command, which any login shell passes on as they are. Each line is a fact; what a
# system lacks, it says nothing of. In the end it waits for us, and says the time at once.
_SCRIPT = r"""LC_ALL=C; export LC_ALL
echo "name $(uname -n)"
echo "system $(uname -s)"
echo "kernel $(uname -r)"
echo "build $(uname -v)"
echo "machine $(uname -m)"
echo "cpus $(getconf _NPROCESSORS_ONLN)"
sed -n "s/^PRETTY_NAME=//p" /etc/os-release | sed "s/^/distribution /"
sed -n "s/^model name[^:]*: */cpu /p" /proc/cpuinfo | sed 1q
sed -n "s/^MemTotal: *\([0-9]*\) kB.*/memory_kb \1/p" /proc/meminfo
sed "s/^/governor /" /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor
sed "s/^/boot /" /proc/sys/kernel/random/boot_id
for node in /sys/devices/system/node/node[0-9]*; do
  test -r "$node/cpulist" && echo "numa ${node##*/} $(cat "$node/cpulist")"
done
echo ready
read -r go
date "+clock %s.%N"
"""
_COMMAND = ["sh", "-c", f"exec 2>/dev/null\n{_SCRIPT}"]
_QUIET: dict[str, Any] = {
    "max_output": 1 << 16,
    "nolog_exit_code": True,
    "nolog_timeout": True,
    "nolog_error": True,
    "nolog_write_error": True,
}


def local_asking() -> Process:
    """A process that asks this machine."""
    return Process(_COMMAND, stdout_handlers=[_Clock()], name="facts of this machine", **_QUIET)


def asking(hosts: Sequence[Host], params: Mapping[str, Any] | None, timeout: float) -> Remote:
    """An action that asks hosts; at most ``timeout`` seconds each from its start on."""
    args = {"timeout": timeout, "stdout_handlers": [_Clock()], **_QUIET}
    return Remote(
        _COMMAND,
        hosts,
        params,
        args,
        name="facts of the hosts",
        substitute=False,
    )


def facts_of(process: ProcessBase) -> dict[str, Any]:
    """What it has found; ``error`` says why that is not all, or nothing.

    - ``name``, ``system``, ``kernel``, ``build``, ``machine``, ``distribution``: as the system says
    - ``cpu``: the model; ``cpus``: how many are online; ``governor``: of the first one's frequency
    - ``memory``: bytes
    - ``numa``: node -> its CPUs, as ``"0-3,8"``
    - ``boot``: an id that changes when it is booted
    - ``clock_offset``: seconds by which its clock is ahead of ours; ``clock_error``: by how much
      that may be wrong, since an answer takes its time
    """
    facts: dict[str, Any] = {}
    for line in process.stdout.splitlines():
        name, _, value = line.partition(" ")
        value = value.strip().strip('"')
        if name == "numa":
            node, _, cpus = value.partition(" ")
            facts.setdefault("numa", {})[node.removeprefix("node")] = cpus
        elif name == "cpus" and value.isdigit():
            facts[name] = int(value)
        elif name == "memory_kb" and value.isdigit():
            facts["memory"] = 1024 * int(value)
        elif name in _TEXTS and value:
            facts[name] = value
    for handler in process.stdout_handlers:
        if isinstance(handler, _Clock):
            facts |= handler.offset(process)
    if not process.ended:
        facts["error"] = "it has not answered in time"
    elif process.reason is not None:
        facts["error"] = process.message
    elif not facts:
        facts["error"] = "it has no POSIX shell that answers"
    return facts


_TEXTS = ("name", "system", "kernel", "build", "machine", "distribution", "cpu", "governor", "boot")
_DATE = re.compile(r"(\d+)(\.\d+)?")


class _Clock(ProcessOutputHandler):
    """Asks for the time when a host is ready to say it, and notes when it does."""

    def __init__(self) -> None:
        self._asked: dict[ProcessBase, float] = {}
        self._answers: dict[ProcessBase, tuple[float, str]] = {}

    def read_line(self, process: ProcessBase, stream: int, string: str) -> None:
        if string == "ready" and process not in self._asked:
            self._asked[process] = time.time()
            process.write("go\n")
        elif string.startswith("clock ") and process in self._asked:
            self._answers[process] = time.time(), string.removeprefix("clock ")

    def offset(self, process: ProcessBase) -> dict[str, float]:
        """What the facts say of it."""
        if process not in self._answers:
            return {}
        (heard, text), asked = self._answers[process], self._asked[process]
        date = _DATE.match(text)
        if date is None or heard < asked:
            return {}
        # One that knows whole seconds alone is half a second ahead of what it says, on average.
        coarse = 0.0 if date[2] else 0.5
        there = float(date[0]) + coarse
        return {
            "clock_offset": round(there - (asked + heard) / 2, 6),
            "clock_error": round((heard - asked) / 2 + coarse, 6),
        }
