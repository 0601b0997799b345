"""What ssh puts in place of ``%h``, ``${NAME}`` and ``~`` in its settings.

Reference: ssh_config(5), TOKENS and ENVIRONMENT VARIABLES. ``~`` is the home that the system knows
of a user, not ``$HOME``: as in ssh.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pwd
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "ALL",
    "HOST",
    "PROXY",
    "LocalNames",
    "Tokens",
    "expand",
    "expand_home",
    "refuse_for_shells",
]

HOST = "h"
"""Tokens of HostName."""

PROXY = "hknpr"
"""Tokens of ProxyCommand and ProxyJump. The manual does not name %k, ssh knows it."""

ALL = "CLdhijklnpru"
"""Tokens of files and sockets."""


@dataclass(frozen=True, slots=True)
class LocalNames:
    """What tokens say of this machine and this user.

    :param user: the name of the user, empty if the system knows none
    :param home: the user's home
    :param host: the name of this machine
    """

    user: str
    home: str
    host: str

    @classmethod
    def of_this_process(cls) -> LocalNames:
        """Ask the system; may block where it asks a server for users."""
        try:
            entry = pwd.getpwuid(os.getuid())
        except KeyError:  # a number without a name, in a container for one
            return cls("", os.path.expanduser("~"), socket.gethostname())
        return cls(entry.pw_name, entry.pw_dir, socket.gethostname())


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the letters of one connection mean.

    :param local: this machine
    :param host: where to connect
    :param original_host: the host as it was asked for
    :param port: the port
    :param user: the user there
    :param key_alias: the name of the host's key
    :param jump_host: the last jump host, empty without one
    """

    local: LocalNames
    host: str
    original_host: str
    port: int
    user: str
    key_alias: str
    jump_host: str

    def expand(self, text: str, letters: str = ALL, *, variables: bool = False) -> str:
        """Put in place what tokens mean.

        :param text: the text
        :param letters: the tokens that its keyword may have
        :param variables: also ``${NAME}``
        :raises ValueError: for another token, or a variable that is not set
        """
        if "%" not in text and not (variables and "${" in text):
            return text
        return expand(text, lambda letter: self._meaning(letter, letters), variables=variables)

    def path(self, text: str) -> str:
        """The name of a file or a socket: ``~``, tokens and variables.

        :raises ValueError: as :meth:`expand`; for a user that there is not
        """
        return self.expand(expand_home(text, self.local.home), variables=True)

    def _meaning(self, letter: str, letters: str) -> str | None:
        return _LETTERS[letter](self) if letter and letter in letters else None


def _connection_hash(tokens: Tokens) -> str:
    parts = (tokens.local.host, tokens.host, str(tokens.port), tokens.user, tokens.jump_host)
    return hashlib.sha1("".join(parts).encode(errors="surrogateescape")).hexdigest()


_LETTERS: dict[str, Callable[[Tokens], str]] = {
    "C": _connection_hash,
    "L": lambda tokens: tokens.local.host.partition(".")[0],
    "d": lambda tokens: tokens.local.home,
    "h": lambda tokens: tokens.host,
    "i": lambda tokens: str(os.getuid()),
    "j": lambda tokens: tokens.jump_host,
    "k": lambda tokens: tokens.key_alias,
    "l": lambda tokens: tokens.local.host,
    "n": lambda tokens: tokens.original_host,
    "p": lambda tokens: str(tokens.port),
    "r": lambda tokens: tokens.user,
    "u": lambda tokens: tokens.local.user,
}

_FOR_SHELLS = frozenset("'`\"$\\;&<>|(){}")


def refuse_for_shells(host: str, user: str | None) -> None:
    """As ssh does since OpenSSH 9.6: a host named ``$(...)`` must not become a command of the local
    shell, by way of a token in a ProxyCommand, a LocalCommand or a ``Match exec``.

    :param host: the host as it was asked for
    :param user: the user as he was asked for, None if nobody was
    :raises ValueError: for a name with characters of the shell
    """
    for name, refused in ((host, _FOR_SHELLS), (user or "", _FOR_SHELLS - {"$", "\\"})):
        if name.startswith("-") or any(
            c in refused or c.isspace() or not c.isprintable() for c in name
        ):
            raise ValueError(f"{name!r} cannot be part of a command")


_TOKEN = re.compile(r"%(.?)", re.DOTALL)
_TOKEN_OR_VARIABLE = re.compile(r"%(.?)|\$\{([^}]*)(\}?)", re.DOTALL)


def expand(text: str, meaning: Callable[[str], str | None], *, variables: bool = False) -> str:
    """Put in place what tokens mean, once: what comes out of one is not looked at again.

    :param text: the text
    :param meaning: from a letter to its meaning, None if it has none
    :param variables: also ``${NAME}``
    :raises ValueError: for a token without a meaning, or a variable that is not set
    """

    def replace(found: re.Match[str]) -> str:
        letter = found[1]
        if letter is None:
            return _variable(found)
        value = "%" if letter == "%" else meaning(letter)
        if value is None:
            raise ValueError(f"%{letter} has no meaning here; a percent sign is written %%")
        return value

    return (_TOKEN_OR_VARIABLE if variables else _TOKEN).sub(replace, text)


def _variable(found: re.Match[str]) -> str:
    name = found[2]
    if not found[3]:
        raise ValueError(f"${{{name} has no closing brace")
    value = os.environ.get(name)
    if value is None:
        raise ValueError(f"the environment variable {name!r} is not set")
    return value


def expand_home(text: str, home: str) -> str:
    """Put the home of a user in place of ``~`` or ``~name``.

    :param text: the name of a file
    :param home: the home of the user of this process
    :raises ValueError: for a user that there is not
    """
    if not text.startswith("~"):
        return text
    user, _, path = text[1:].partition("/")
    return f"{_home_of(user) if user else home}".rstrip("/") + "/" + path.lstrip("/")


@functools.lru_cache(maxsize=64)
def _home_of(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        raise ValueError(f"there is no user {user!r}") from None
