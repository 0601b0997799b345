"""The words for taktuk: its command line, its file of hosts, and what it is told while it runs.

Reference: taktuk(1), TakTuk 3.7.7. Words are separated by one control character and commands by
another, so that texts may hold anything else: line feeds, quotes, brackets, bytes that are no
UTF-8.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .base import ConnectionOptions, Target
from .openssh_words import Abilities, connection_options
from .remote_shell import Mark
from .taktuk_frames import template_words

__all__ = [
    "COMMAND",
    "GUARD",
    "HELPER",
    "HostWords",
    "check_address",
    "command_line",
    "connector",
    "for_all",
    "for_ranks",
    "host_file",
    "host_text",
    "input_data",
    "order",
    "says",
]

COMMAND, GUARD, HELPER = "1", "0", "2"
"""The numbers ("targets") of what runs on a host: the command, the guard, and what helps once."""

_ESCAPE, _COMMAND_END, _WORD_END = "\x1b", "\x1e", "\x1f"
_CONTROLS = re.compile(f"[{_ESCAPE}{_COMMAND_END}{_WORD_END}]")
_CONTROL_BYTES = re.compile(_CONTROLS.pattern.encode())
_ADDRESS = re.compile(r"[\w.:%@+=][\w.:%@+=-]*")


@dataclass(frozen=True, slots=True)
class HostWords:
    """What is to happen on a host.

    :param target: the host
    :param command: a text for its /bin/sh
    :param guard: the text of its guard; None = none
    """

    target: Target
    command: str
    guard: str | None


def check_address(address: str) -> None:
    """:raises ValueError: for one that taktuk would take for a list of hosts or for an option, or
    the shell that runs its connector for more than a word"""
    if not _ADDRESS.fullmatch(address):
        raise ValueError(f"taktuk cannot take {address!r} for one host: use Remote")


def says(words: Sequence[str], letter: str, name: str) -> bool:
    """Whether ``words`` set an option of taktuk.

    :param letter: its short form
    :param name: its long form
    """
    return any(word == f"--{name}" or word.startswith(f"-{letter}") for word in words)


def command_line(options: ConnectionOptions, file: str, *, flat: bool) -> tuple[str, ...]:
    """The words that start taktuk. The user's come first, since the last one counts.

    :param file: what :func:`host_file` gives
    :param flat: connect to all hosts from here, unless the user's words say how
    """
    words = [*options.taktuk, *template_words()]
    if flat and not says(options.taktuk, "d", "dynamic"):
        words += ["-d", "-1"]
    # Without numbers (-n), a host starts as soon as it is connected; else all wait for the last.
    words += ["-n", "-E", _ESCAPE, "-O", _WORD_END, "-C", _COMMAND_END, "-F", file]
    return tuple(words)


def connector(target: Target) -> str:
    """The command that connects to ``target``, as one text for sh(1): taktuk adds the host's name
    and the command."""
    options = target.options
    words = [*options.ssh, "-T", *connection_options(target, Abilities()), "--"]
    return shlex.join(words)


def host_file(hosts: Iterable[HostWords]) -> bytes:
    """What taktuk is to do, in the order in which it will count the hosts, from 1."""
    words: list[str] = []
    last = None
    for host in hosts:
        this = connector(host.target)
        if this != last:
            words += ["-c", this]
            last = this
        words += ["-m", host.target.address, "-[", *_exec(COMMAND, host.command)]
        if host.guard is not None:
            words += [_COMMAND_END, *_exec(GUARD, host.guard)]
        words += ["-]"]
    return os.fsencode("".join(f"{word}{_WORD_END}" for word in words))


# taktuk ignores SIGPIPE and leaves two descriptors of its own open, and its commands inherit both.
# A shell cannot undo the former. perl is there, since taktuk is.
_RESTORE = (
    '$SIG{PIPE}="DEFAULT";'
    'for(@ENV{qw(TAKTUK_CONTROL_READ TAKTUK_CONTROL_WRITE)}){open(F,"<&=$_")&&close F if/^\\d+$/}'
    'exec{$ARGV[0]}@ARGV;die"$ARGV[0]: $!\\n"'
)


def host_text(text: str, mark: Mark) -> str:
    """What /bin/sh, which taktuk uses, has to do for the login shell to read ``text``.

    :param text: from :func:`~execo.transports.remote_shell.command_text`, without a mark
    """
    # The mark comes first: the guard may look for it before anything else has begun.
    shell = f'"${{SHELL:-/bin/sh}}" -c {shlex.quote(text)}'
    return f"{mark.export} exec perl -e {shlex.quote(_RESTORE)} {shell}"


def _exec(target: str, text: str) -> list[str]:
    return ["exec", "target", target, "[", _plain(text), "]"]


def _plain(text: str) -> str:
    """``text`` for /bin/sh without the characters that separate words: taktuk unescapes the
    arguments of a host once more on each machine that they pass."""
    if not _CONTROLS.search(text):
        return text
    coded = text.replace("\\", "\\\\").replace("'", "\\0047")
    coded = _CONTROLS.sub(lambda found: f"\\{ord(found[0]):04o}", coded)
    return f"eval \"$(printf %b '{coded}')\""


# -- while it runs --------------------------------------------------------------------------------


def order(*words: str | bytes) -> bytes:
    """One command of taktuk."""
    as_bytes = (word if isinstance(word, bytes) else os.fsencode(word) for word in words)
    return _WORD_END.encode().join(as_bytes) + _COMMAND_END.encode()


def input_data(target: str, data: bytes) -> bytes:
    """The order that gives ``data`` to the stdin of ``target``."""
    escaped = _CONTROL_BYTES.sub(lambda found: b"\x1b" + found[0], data)
    return order("input", "target", target, "data", "[", escaped, "]")


def for_all(text: bytes) -> bytes:
    """The order ``text`` for all hosts. It may overtake one of :func:`for_ranks`."""
    return b"broadcast" + _WORD_END.encode() + text


def for_ranks(ranks: Iterable[int], text: bytes) -> bytes:
    """The order ``text`` for the hosts of these numbers."""
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    numbers = "/".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
    return os.fsencode(numbers + _WORD_END) + text
