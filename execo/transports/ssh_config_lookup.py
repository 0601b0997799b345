"""One look-up in ssh_config: the lines that are for a host, first value first.

Lines may ask about what earlier ones have set (``Match user``), so they are gone through in order.
Reference: ssh_config(5).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from .ssh_config_keywords import Use
from .ssh_config_lines import Block, Setting, Unknown
from .ssh_config_match import PatternList
from .ssh_tokens import HOST, LocalNames, expand

__all__ = ["Lookup"]


class Lookup:
    """What has been found so far; it is what conditions ask about.

    :param local: this machine
    :param host: the host as it was asked for
    :param user: whom to log in as, None = what the lines say
    :param port: the port, None = what the lines say

    - ``found``: the first setting of each slot
    - ``added``: settings that add to one another
    - ``reasons``: why only ssh can tell, so far
    - ``host``: the host, as ``Host`` lines see it
    - ``final``: this is the second reading, in which ``Match final`` holds
    """

    __slots__ = (
        "_port", "_user", "added", "final", "found", "host", "local", "original_host", "reasons",
    )  # fmt: skip

    def __init__(self, local: LocalNames, host: str, user: str | None, port: int | None) -> None:
        self.local = local
        self.host = self.original_host = host
        self.final = False
        self.found: dict[str, Setting] = {}
        self.added: list[Setting] = []
        self.reasons: list[str] = []
        self._user = user
        self._port = port

    # -- reading ----------------------------------------------------------------------------------

    def read(self, files: Iterable[list[Block]]) -> None:
        """Go through files and take what is for this host."""
        for blocks in files:
            for block in blocks:
                condition = block.condition
                if condition is None:
                    self._take(block)
                    continue
                matches = condition.matches(self)
                if matches:
                    self._take(block)
                elif matches is None:
                    self._doubt(block)

    def _take(self, block: Block) -> None:
        for one in block.content:
            if isinstance(one, list):
                self.read((one,))
            elif one.keyword.use is Use.ADDED:
                self.added.append(one)
            else:
                first = self.found.setdefault(one.slot, one)
                if first.value == () and one.name == "proxycommand":
                    # "ProxyJump none" holds up later ones, but no ProxyCommand (OpenSSH 9.2).
                    self.found[one.slot] = one

    def _doubt(self, block: Block) -> None:
        reason = f"{block.line}: only ssh can tell whether this matches"
        if reason not in self.reasons:
            self.reasons.append(reason)

    def settle_host(self) -> None:
        """Take what HostName says into use, as ssh does after the first reading."""
        self.host = _plain_address(self.target_host(), self.value("addressfamily"))

    def check_unknown(self, unknown: Iterable[Unknown]) -> None:
        """Refuse keywords that there are not.

        :raises SshConfigError: for one that no IgnoreUnknown for this host has
        """
        for one in unknown:
            ignored = self.value("ignoreunknown") or ""
            if not PatternList(ignored.lower().split(",")).matches(one.name):
                raise one.line.error(
                    f"ssh knows no {one.name!r}, and no IgnoreUnknown passes it over for "
                    f"{self.original_host}"
                )

    # -- what has been found ----------------------------------------------------------------------

    def value(self, slot: str) -> Any:
        """The value of a setting, None if it is not set."""
        setting = self.found.get(slot)
        return None if setting is None else setting.value

    @property
    def user(self) -> str | None:
        """Whom to log in as, None if nobody has said."""
        return self._user or self.value("user")

    @property
    def asked_user(self) -> str | None:
        """Whom the look-up itself has named."""
        return self._user

    @property
    def port(self) -> int | None:
        """The port, None if nobody has said."""
        return self._port or self.value("port")

    @property
    def host_key_alias(self) -> str | None:
        """The name of the host's key in small letters, None if nobody has said."""
        alias: str | None = self.value("hostkeyalias")
        return None if alias is None else alias.lower()

    # -- what conditions ask about ----------------------------------------------------------------

    @property
    def local_user(self) -> str:
        return self.local.user

    def target_host(self) -> str:
        """The host with what HostName makes of it.

        :raises SshConfigError: if HostName has a token that there is not
        """
        setting = self.found.get("hostname")
        if setting is None or self.final:
            return self.host
        try:
            return expand(setting.value, {HOST: self.host}.get)
        except ValueError as exc:
            raise setting.line.error(str(exc)) from exc

    def target_user(self) -> str:
        return self.user or self.local.user

    def tag(self) -> str:
        tag: str = self.value("tag") or ""
        return tag


_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


def _plain_address(host: str, family: str | None) -> str:
    """A name in small letters; an address in the form that the system gives it, unless they differ
    in the case of letters alone."""
    name = host.lower()
    if ":" in host or "%" in host or not host.strip("0123456789."):
        name = host  # ssh does not take this for a name, whatever comes out
    elif not host[:1].isdigit():
        return name
    wanted = _FAMILIES.get(family or "", socket.AF_UNSPEC)
    try:
        found = socket.getaddrinfo(host, None, wanted, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return name
    plain = socket.getnameinfo(found[0][4], socket.NI_NUMERICHOST)[0]
    return name if plain.lower() == name.lower() else plain
