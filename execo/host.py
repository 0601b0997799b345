"""Remote hosts, and lists of them."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from .hostset import check_address, expand

__all__ = [
    "MISSING",
    "Host",
    "Hosts",
    "command_and_hosts",
    "get_hosts_list",
    "get_hosts_set",
    "get_unique_hosts_list",
]


class Host:
    """A remote host, with how to connect to it where that differs from the connexion parameters.

    Hosts are equal when all four attributes are, and never equal to a str. ``str(host)`` is the
    address. The attributes may be changed; not while the host is in a set or a dict, since its
    hash changes too.

    Source: the reference document; ``False`` and the copy are execo 2.8.2's. Our decisions: a port
    outside 1..65535 is refused (2.8.2 takes 0 as "not given"), an empty user or keyfile is None,
    ``str()`` and ``f"{host:20}"`` give the address.

    :param address: host name, alias of ssh_config or IP address; or a Host, which is copied
    :param user: remote user, None for the one of the connexion parameters; False, the default, for
        the one of the copied host or else None
    :param keyfile: path of the private key; None and False as for ``user``
    :param port: TCP port of the ssh server, 1 to 65535; None and False as for ``user``
    :raises ValueError: an address, user, keyfile or port that ssh would misread (for addresses it
        is a :class:`~execo.errors.HostSetError`, see :func:`execo.hostset.check_address`)
    :raises TypeError: a value of the wrong type
    """

    __slots__ = ("_address", "_keyfile", "_port", "_user")

    _address: str
    _user: str | None
    _keyfile: str | None
    _port: int | None

    def __init__(
        self,
        address: str | Host,
        user: str | Literal[False] | None = False,
        keyfile: str | os.PathLike[str] | Literal[False] | None = False,
        port: int | str | Literal[False] | None = False,
    ) -> None:
        copied = address if isinstance(address, Host) else None
        self.address = copied.address if copied is not None else address
        # `is False`: with `==`, port 0 would mean "not given".
        self.user = getattr(copied, "user", None) if user is False else user
        self.keyfile = getattr(copied, "keyfile", None) if keyfile is False else keyfile
        self.port = getattr(copied, "port", None) if port is False else port

    @property
    def address(self) -> str:
        """Where to connect: host name, alias of ssh_config or IP address."""
        return self._address

    @address.setter
    def address(self, value: Any) -> None:
        if not isinstance(value, str):
            raise TypeError(
                f"a host is a Host or the str of an address, not {value!r} ({type(value).__name__})"
            )
        self._address = str(check_address(value))

    @property
    def user(self) -> str | None:
        """Remote user, None if the connexion parameters decide."""
        return self._user

    @user.setter
    def user(self, value: str | None) -> None:
        if value is not None and not isinstance(value, str):
            raise TypeError(f"a user is a str or None, not {value!r} ({type(value).__name__})")
        if value and value[0] == "-":
            raise ValueError(
                f"a user cannot start with '-', ssh would take it as an option: {value!r}"
            )
        self._user = _checked_text("user", value)

    @property
    def keyfile(self) -> str | None:
        """Path of the private key, None if the connexion parameters decide."""
        return self._keyfile

    @keyfile.setter
    def keyfile(self, value: str | os.PathLike[str] | None) -> None:
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        if path is not None and not isinstance(path, str):
            raise TypeError(f"a keyfile is a path or None, not {value!r} ({type(value).__name__})")
        self._keyfile = _checked_text("keyfile", path)

    @property
    def port(self) -> int | None:
        """TCP port of the ssh server, None if the connexion parameters decide."""
        return self._port

    @port.setter
    def port(self, value: int | str | None) -> None:
        self._port = None if value is None else _checked_port(value)

    def _key(self) -> tuple[str, str | None, str | None, int | None]:
        return self._address, self._user, self._keyfile, self._port

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Host):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        options = {"user": self._user, "keyfile": self._keyfile, "port": self._port}
        shown = [f", {name}={value!r}" for name, value in options.items() if value is not None]
        return f"{type(self).__name__}({self._address!r}{''.join(shown)})"

    def __str__(self) -> str:
        return self._address

    def __format__(self, spec: str) -> str:
        return format(self._address, spec)


MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING"})()
"""An argument that was not given, where None means something."""

Hosts: TypeAlias = str | Host | Iterable[str | Host] | None
"""What a parameter named ``hosts`` takes: see :func:`get_hosts_list`."""


def get_hosts_list(hosts: Hosts) -> list[Host]:
    """Return a list of new Host objects, in the order given, with duplicates.

    Source: the reference document; the text with a range is our decision.

    :param hosts: a Host, a str, or an iterable of those (list, generator, set, NodeSet, keys of a
        dict; not nested). A str with a range such as ``"node[1-99]"`` names many hosts, see
        :func:`execo.hostset.expand`. None is no host.
    :raises ValueError: a text that names no host (:class:`~execo.errors.HostSetError`)
    :raises TypeError: something else than a Host or a str, named with its place
    """
    given: Any = hosts
    if given is None:
        return []
    if isinstance(given, (str, Host)):
        return _from_item(given)
    if isinstance(given, (bytes, bytearray)) or not isinstance(given, Iterable):
        raise TypeError(
            "hosts is a Host, a str, or an iterable of those, "
            f"not {given!r} ({type(given).__name__})"
        )
    found: list[Host] = []
    for place, item in enumerate(given):
        if not isinstance(item, (str, Host)):
            raise TypeError(
                f"hosts[{place}] is {item!r} ({type(item).__name__}), not a Host or a str"
            )
        found.extend(_from_item(item))
    return found


def get_unique_hosts_list(hosts: Hosts) -> list[Host]:
    """Return the same as :func:`get_hosts_list` without duplicates: the first of each stays.

    :param hosts: see :func:`get_hosts_list`
    """
    return list(dict.fromkeys(get_hosts_list(hosts)))


def get_hosts_set(hosts: Hosts) -> set[Host]:
    """Return the hosts of :func:`get_hosts_list` as a set.

    :param hosts: see :func:`get_hosts_list`
    """
    return set(get_hosts_list(hosts))


def command_and_hosts(
    first: Any, second: Any, cmd: Any = MISSING, hosts: Any = MISSING, *, one: bool = False
) -> tuple[Any, Any]:
    """Tell a command from hosts, in whatever order they are given.

    ``(command, hosts)`` is execo 2.8.2's order, ``(hosts, command)`` the reference document's. A
    Host, a sequence of Hosts or a node set is hosts; beside a text, a sequence of texts is hosts;
    of two texts the first one is the command. What is given by keyword is what it says.

    :param one: a single host is wanted: a sequence of texts is then the words of the command
    :returns: command, hosts
    :raises TypeError: if one is missing, or if nothing tells which is which
    """
    given = [value for value in (first, second) if value is not MISSING]
    names = "host" if one else "hosts"
    if len(given) + (cmd is not MISSING) + (hosts is not MISSING) != 2:
        raise TypeError(f"a command and {names} are needed, neither twice: cmd=..., {names}=...")
    if cmd is not MISSING or hosts is not MISSING:
        rest = iter(given)
        command = next(rest) if cmd is MISSING else cmd
        return command, next(rest) if hosts is MISSING else hosts
    kinds = _kind(first), _kind(second)
    if kinds[0] == "hosts" or kinds == ("", "text"):  # a generator of hosts, for one
        return second, first
    if kinds[1] == "texts" and kinds[0] != "text" and isinstance(first, Iterable):
        raise TypeError(f"say which are the hosts, as in cmd=[...], {names}=[...]")
    if kinds == ("texts", "text") and not one:
        return second, first
    if kinds == ("text", "texts") and one:
        return second, first
    return first, second


def _kind(value: Any) -> str:
    """``hosts``, ``text``, ``texts`` (words or addresses), or nothing that tells."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, Host) or hasattr(value, "regroup"):  # ClusterShell's NodeSet
        return "hosts"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "hosts" if any(isinstance(item, Host) for item in value) else "texts"
    return ""


def _from_item(item: str | Host) -> list[Host]:
    if isinstance(item, Host):
        return [Host(item)]
    return [Host(address) for address in expand(item)]


def _checked_text(name: str, value: str | None) -> str | None:
    if not value:
        return None
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError(f"a {name} cannot have newlines or control characters: {value!r}")
    return str(value)


def _checked_port(value: int | str) -> int:
    wrong_type = TypeError(
        f"a port is an int from 1 to 65535 or None, not {value!r} ({type(value).__name__})"
    )
    if isinstance(value, bool):
        raise wrong_type
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 5):
            raise ValueError(f"a port is a number from 1 to 65535, not {value!r}")
        port = int(value)
    else:
        try:
            port = operator.index(value)
        except TypeError:
            raise wrong_type from None
    if not 1 <= port <= 65535:
        raise ValueError(f"a port is from 1 to 65535, not {port}; None leaves it to the parameters")
    return port
