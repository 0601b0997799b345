"""Serial ports, of this machine and of hosts.

One small script does both: it opens the port, sets its speed and takes from it all that would
change bytes, and then copies: what the port sends to its stdout, its stdin to the port.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .errors import Reason
from .host import Host
from .local_process import Process
from .log import escape_controls
from .process_base import ProcessBase
from .ssh_process import SshProcess
from .substitutions import raw

__all__ = ["Serial", "SerialSsh", "serial_command"]

# For dash, bash and busybox: one line, without single quotes, so that every login shell passes it
# on unchanged.
#
# The port is opened by a subshell. A shell that leads a session would get it as its controlling
# terminal, and its end would hang the port up for everybody else who has it open. It is opened once
# for both directions, before anything is written: no byte of an answer is lost, and its settings
# stay, which some drivers forget when nobody has the port open.
#
# Nobody but cat holds the stdin: when it cannot write any more, whoever writes to the
# stdin is told. It ends with the stdin, which ends with this shell at the latest. dd ends when the
# port hangs up; busybox's cat would use sendfile(), which keeps back what a terminal sends and does
# not hear signals meanwhile. In the background both ignore INT and QUIT, hence the traps.
_SCRIPT = raw(
    "d=$1 s=$2; export LC_ALL=C; exec 4<&0 </dev/null; "
    'case $s in *[!0-9]*|0*) echo "$d: no speed: $s" >&2; exit 2;; esac; '
    '( [ -c "$d" ] || { ls -dL -- "$d" >/dev/null && echo "$d: not a serial port" >&2; exit 2; }; '
    'command exec 3<>"$d" || exit 2; '
    "stty raw -echo -iexten cs8 -parenb -cstopb -crtscts cread clocal"
    ' "$s" <&3 || exit 2; '
    "cat <&4 >&3 3<&- 4<&- & exec dd bs=65536 <&3 3<&- 4<&- 2>/dev/null ) & "
    "r=$!; exec 4<&-; "
    "for g in HUP INT QUIT TERM; do "
    'trap "kill $r 2>/dev/null; trap - $g; kill -$g $$" $g; done; '
    "wait $r 2>/dev/null; c=$?; [ $c -gt 1 ] && exit $c; "
    'echo "$d: the port has hung up" >&2; exit 1'
)


def serial_command(device: str | os.PathLike[str], speed: int | str) -> tuple[str, ...]:
    """The words of the command that connects stdin and stdout to a serial port.

    :param device: the name of the port's device
    :param speed: bits per second
    :raises TypeError: if one is neither
    :raises ValueError: if one is empty
    """
    path = os.fspath(device) if isinstance(device, os.PathLike) else device
    if not isinstance(path, str):
        raise TypeError(f"a device is the name of a file, not {device!r}")
    if isinstance(speed, bool) or not isinstance(speed, (int, str)):
        raise TypeError(f"a speed is a number of bits per second, not {speed!r}")
    if not path or speed == "":
        raise ValueError(f"a serial port needs a device and a speed, not {path!r} and {speed!r}")
    return ("/bin/sh", "-c", _SCRIPT, "sh", path, speed if isinstance(speed, str) else str(speed))


class _Port(ProcessBase):
    """What Serial and SerialSsh have in common."""

    @property
    def device(self) -> str:
        """The name of the port's device."""
        return self.cmd[-2]

    @property
    def speed(self) -> int | str:
        """Bits per second."""
        text = self.cmd[-1]
        return int(text) if text.isdecimal() else text

    @property
    def message(self) -> str:
        """What went wrong, in a sentence that names the port and the cause."""
        text = super().message
        if not text or self.error:
            return text
        said: list[str] = []
        if self.reason is Reason.EXIT_CODE:
            lines = self.stderr.splitlines()
            said = [line for line in lines if line and not line.startswith("Try ")][-1:]
        return ": ".join(
            [f"{self._command_text()}{self._place()}", text, *map(escape_controls, said)]
        )

    def _command_text(self) -> str:
        return f"serial port {self.device} at {self.speed}"


class Serial(_Port, Process):
    """A serial port of this machine, as a process: its stdout is what the port sends, ``write()``
    sends to the port.

    Bytes pass as they are, in both directions: 8 bits, no parity, one stop bit, no flow control, no
    echo; ``stdout_bytes`` has those that are no text. These settings of the port stay when the
    process ends.

    It runs until ``kill()``, which leaves it ``ok``. ``close_stdin()`` ends the sending alone. A
    port that does not exist, that this user may not use, or that cannot do the speed is exit code
    2; one that hangs up (a cable that is pulled) is exit code 1. ``message`` says which port and
    why.

    Needs a POSIX shell and ``stty``, ``cat``, ``dd`` and ``ls``. Reference: execo 2.8.2, where it
    works with ``shell=True`` alone and a failure shows up when it writes.

    :param device: the name of the port's device, ``/dev/ttyUSB0`` for one
    :param speed: bits per second, a number or its digits
    :param options: see :class:`~execo.process.Process`. ``pty`` has no effect, since a terminal
      would change bytes, nor have ``shell`` and ``kill_subprocesses``: it ends as a whole
    :raises TypeError: for arguments of a wrong type
    :raises ValueError: for an empty device or speed
    """

    def __init__(self, device: str | os.PathLike[str], speed: int | str, **options: Any) -> None:
        super().__init__(serial_command(device, speed), **options)
        self.pty, self.kill_subprocesses, self.shell = False, None, False


class SerialSsh(_Port, SshProcess):
    """A serial port of a host, as a process: see :class:`Serial`.

    :param host: the host: a Host or an address
    :param device: the name of the port's device there
    :param speed: bits per second
    :param connection_params: what differs from :data:`~execo.config.default_connection_params`;
      ``pty`` has no effect
    :param options: see :class:`~execo.process.SshProcess`, and :class:`Serial` for what has no
      effect
    :raises TypeError: for arguments of a wrong type
    :raises ValueError: for a host that cannot be one, an empty device or speed
    """

    def __init__(
        self,
        host: str | Host,
        device: str | os.PathLike[str],
        speed: int | str,
        connection_params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            cmd=serial_command(device, speed),
            host=host,
            connection_params=connection_params,
            **options,
        )
        self.pty, self.kill_subprocesses, self.shell = False, None, False
