"""How the values of ssh_config are read: one reader for each kind of value.

A reader is given the words of a line and the line's text after the keyword, and gives what it
means; a value None leaves the setting unset. What ssh would refuse is a ValueError.

Reference: ssh_config(5); sshd_config(5), TIME FORMATS. Lists of algorithms and of types of service
are not looked into.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from .ssh_tokens import expand

__all__ = [
    "FLAGS",
    "Hop",
    "Reader",
    "agent",
    "agent_flag",
    "any_words",
    "choice",
    "command",
    "environment",
    "files",
    "flag",
    "flag_or",
    "jumps",
    "number",
    "port",
    "port_number",
    "several",
    "string",
    "times",
    "variables",
]

Reader = Callable[[Sequence[str], str], Any]

FLAGS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}

_MOST_FILES = 32
_LARGEST = 2**31 - 1
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TIME = re.compile(r"\s*\+?([0-9]+)([smhdw]|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hop:
    """A host on the way to another one.

    :param host: its name, as ``ssh`` would be given it
    :param user: None = what ssh_config says of this host
    :param port: None = what ssh_config says of this host
    """

    host: str
    user: str | None = None
    port: int | None = None


def _only(words: Sequence[str]) -> str:
    if not words or not words[0]:
        raise ValueError("a value is missing")
    if len(words) > 1:
        raise ValueError("there are more words than it can use")
    return words[0]


def string(words: Sequence[str], text: str) -> str:
    """One word."""
    return _only(words)


def choice(values: Mapping[str, str]) -> Reader:
    """One of some words in any case."""

    def read(words: Sequence[str], text: str) -> str:
        word = _only(words)
        if word.lower() not in values:
            raise ValueError(f"{word!r} is none of {', '.join(values)}")
        return values[word.lower()]

    return read


flag = choice(FLAGS)


def flag_or(*more: str) -> Reader:
    """yes, no, or one of ``more``."""
    return choice({**FLAGS, **{word: word for word in more}})


def _to_number(word: str) -> int:
    if not re.fullmatch(r"\s*\+?[0-9]+", word) or int(word) > _LARGEST:
        raise ValueError(f"not a number: {word!r}")
    return int(word)


def number(words: Sequence[str], text: str) -> int:
    """A number from 0."""
    return _to_number(_only(words))


def port_number(word: str) -> int:
    """A port, or the name of a service.

    :raises ValueError: if it is neither
    """
    try:
        value = _to_number(word)
    except ValueError:
        try:
            value = socket.getservbyname(word, "tcp")
        except OSError:
            raise ValueError(f"not a port: {word!r}") from None
    if not 1 <= value <= 65535:
        raise ValueError(f"not a port: {word!r}")
    return value


def port(words: Sequence[str], text: str) -> int:
    """A port, or the name of a service."""
    return port_number(_only(words))


def _to_seconds(word: str) -> int | None:
    if word == "none":
        return None
    total, at = 0, 0
    while at < len(word):
        found = _TIME.match(word, at)
        if found is None:
            raise ValueError(f"not a time: {word!r}")
        total += int(found[1]) * _UNITS[found[2].lower()]
        at = found.end()
    if not word or total > _LARGEST:
        raise ValueError(f"not a time: {word!r}")
    return total


def times(words: Sequence[str], text: str) -> int | None:
    """Seconds, or a time as ``1h30m``; ``none`` leaves unset, so that a later line may set it."""
    return _to_seconds(_only(words))


def several(least: int, most: int) -> Reader:
    """From ``least`` to ``most`` words, none empty."""

    def read(words: Sequence[str], text: str) -> tuple[str, ...]:
        if not least <= len(words) <= most or not all(words[:least]):
            raise ValueError(f"{len(words)} words where {least} to {most} belong")
        return tuple(words)

    return read


def any_words(words: Sequence[str], text: str) -> tuple[str, ...]:
    """Any words."""
    return tuple(words)


def files(words: Sequence[str], text: str) -> tuple[str, ...] | None:
    """Names of files, or ``none`` alone."""
    if not all(words):
        raise ValueError("the name of a file is empty")
    if len(words) > 1 and any(word.lower() == "none" for word in words):
        raise ValueError("'none' must be alone")
    if len(words) > _MOST_FILES:
        raise ValueError(f"there are more than {_MOST_FILES} files")
    return tuple(words) or None


def command(words: Sequence[str], text: str) -> str:
    """All to the end of the line, quotes and ``#`` too."""
    return text.lstrip(" \t\r\n=")


def variables(words: Sequence[str], text: str) -> tuple[str, ...]:
    """Names of environment variables, with wildcards; ``-`` takes names away."""
    for word in words:
        if not word or "=" in word:
            raise ValueError(f"not the name of a variable: {word!r}")
    return tuple(words)


def environment(words: Sequence[str], text: str) -> tuple[tuple[str, str], ...] | None:
    """``NAME=value``; the first value of a name counts."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is not of the form NAME=value")
        found.setdefault(name, value)
    return tuple(found.items()) or None


def agent(words: Sequence[str], text: str) -> str:
    """A socket; ssh refuses variables that are not set as soon as it reads the line."""
    word = _only(words)
    _check_variables(word)
    return word


def agent_flag(words: Sequence[str], text: str) -> str:
    """yes, no, or a socket."""
    word = _only(words)
    if word.lower() not in FLAGS:
        _check_variables(word)
    return FLAGS.get(word.lower(), word)


def _check_variables(word: str) -> None:
    # Tokens are none of its business here: they may well mean something later.
    expand(word.replace("%", "%%"), lambda _: None, variables=True)
    if word.startswith("$") and not word.startswith("${") and not _is_name(word[1:]):
        raise ValueError(f"not the name of a variable: {word[1:]!r}")


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_]+", text) is not None


# -- ProxyJump ------------------------------------------------------------------------------------

_WRITTEN_ODDLY = re.compile(r"""["'\\#\s]""")


def jumps(words: Sequence[str], text: str) -> tuple[Hop, ...] | str:
    """The hops, the first to be visited first; none of them for ``none``.

    Where quotes, blanks or a comment are in it, what ssh makes of it depends on its version: then
    the text itself.
    """
    value = command(words, text)
    if _WRITTEN_ODDLY.search(value):
        return value
    if value.lower() == "none":
        return ()
    return tuple(_to_hop(part) for part in value.split(","))


def _to_hop(text: str) -> Hop:
    is_uri = text.startswith("ssh://")
    rest = text[6:] if is_uri else text
    user, at, place = rest.partition("@") if is_uri else rest.rpartition("@")
    if is_uri:
        user, place = (unquote(user.partition(";")[0]), place) if at else ("", rest)
    if at and not user:
        raise ValueError(f"a jump host without a user before its '@': {text!r}")
    host, mark, number_ = _split_port(place)
    if is_uri:
        number_, _, path = number_.partition("/") if mark == ":" else ("", "", number_)
        if path:
            raise ValueError(f"a jump host with a path: {text!r}")
    elif mark == "/":
        raise ValueError(f"a jump host with a path: {text!r}")
    if not host:
        raise ValueError(f"a jump host without a name: {text!r}")
    return Hop(host, user or None, port_number(number_) if number_ else None)


def _split_port(place: str) -> tuple[str, str, str]:
    """The host, what ends it, what follows that."""
    found = re.fullmatch(r"\[([^\]]*)\](?:([:/])(.*))?|([^:/\[][^:/]*)?(?:([:/])(.*))?", place)
    if found is None:
        raise ValueError(f"not a jump host: {place!r}")
    if found[1] is not None:
        return found[1], found[2] or "", found[3] or ""
    return found[4] or "", found[5] or "", found[6] or ""
