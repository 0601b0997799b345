"""A command's pseudo terminal, with the modes that the client asks for (RFC 4254, section 8)."""

from __future__ import annotations

import contextlib
import os
import struct
import termios
from io import FileIO

__all__ = ["Terminal"]

# Place in what tcgetattr() gives -> opcode -> name. A system that lacks a name ignores it.
_FLAGS = {
    0: dict(
        zip(
            range(30, 43),
            "IGNPAR PARMRK INPCK ISTRIP INLCR IGNCR ICRNL IUCLC IXON IXANY IXOFF IMAXBEL "
            "IUTF8".split(),
            strict=True,
        )
    ),
    1: dict(zip(range(70, 76), "OPOST OLCUC ONLCR OCRNL ONOCR ONLRET".split(), strict=True)),
    2: {92: "PARENB", 93: "PARODD"},
    3: dict(
        zip(
            range(50, 63),
            "ISIG ICANON XCASE ECHO ECHOE ECHOK ECHONL NOFLSH TOSTOP IEXTEN ECHOCTL ECHOKE "
            "PENDIN".split(),
            strict=True,
        )
    ),
}
_CHARACTERS = dict(
    zip(
        range(1, 19),
        "VINTR VQUIT VERASE VKILL VEOF VEOL VEOL2 VSTART VSTOP VSUSP VDSUSP VREPRINT VWERASE "
        "VLNEXT VFLUSH VSWTCH VSTATUS VDISCARD".split(),
        strict=True,
    )
)
_NO_CHARACTER = 255
_UNKNOWN_FROM = 160
"""Opcodes from here on have no known length: reading ends."""


class Terminal:
    """The two ends of a terminal.

    :param term: value of TERM, may be empty
    :param size: rows and columns; 0 where the client does not know
    :param modes: pairs of an opcode and a number, as the client sent them
    :raises OSError: if the system has no terminal left
    """

    def __init__(self, term: str, size: tuple[int, int], modes: bytes) -> None:
        self.term = term
        master, self.slave = os.openpty()
        self.name = os.ttyname(self.slave)
        # Each thread closes its own end.
        self.reader = FileIO(master, "r")
        self.writer = FileIO(os.dup(master), "w")
        _set_modes(self.slave, modes)
        self.resize(size)

    def resize(self, size: tuple[int, int]) -> None:
        """Set rows and columns; those who watch get SIGWINCH."""
        with contextlib.suppress(OSError, ValueError):  # it has ended
            termios.tcsetwinsize(self.reader.fileno(), size)

    def close_slave(self) -> None:
        """The command has its own copy: without this the reader never sees the end."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1

    def close(self) -> None:
        """Give all back. For a terminal that no command got."""
        self.close_slave()
        self.reader.close()
        self.writer.close()


def _set_modes(fd: int, modes: bytes) -> None:
    settings = termios.tcgetattr(fd)
    disabled = os.fpathconf(fd, "PC_VDISABLE")
    for place in range(0, len(modes) - 4, 5):
        opcode, value = struct.unpack_from(">BI", modes, place)
        if opcode == 0 or opcode >= _UNKNOWN_FROM:
            break
        for field, names in _FLAGS.items():
            bit = getattr(termios, names.get(opcode, ""), 0)
            settings[field] = settings[field] | bit if value else settings[field] & ~bit
        index = getattr(termios, _CHARACTERS.get(opcode, ""), None)
        if index is not None:
            settings[6][index] = bytes([disabled if value == _NO_CHARACTER else value & 0xFF])
    termios.tcsetattr(fd, termios.TCSANOW, settings)
