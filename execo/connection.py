"""From a host and its connection parameters to a transport and the target of a connection."""

from __future__ import annotations

import functools
import getpass
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .host import Host
from .log import logger
from .transports.base import ConnectionOptions, Login, Target

__all__ = ["connection_to"]

_POLICIES = {
    "no": "off",
    "off": "off",
    "accept-new": "accept-new",
    "yes": "strict",
    "ask": "strict",  # nobody is asked
}
_NOT_FOR_TAKTUK = (
    *("-m", "--machine", "-f", "--machines-file", "-G", "--gateway"),
    *("-E", "--escape-character"),
)
_announced: set[tuple[str, ...]] = set()


def connection_to(host: Host, params: Mapping[str, Any]) -> tuple[str, Target]:
    """The name of the transport that reaches ``host``, and where it has to connect.

    The host's own user, keyfile and port come first, then those of ``params``, then what
    ``ssh_options`` say. For the transport ``taktuk`` its connector takes the place of ssh.

    :param host: the host
    :param params: complete connection parameters, see
      :func:`~execo.config.make_connection_params`
    """
    transport = params["transport"]
    command, options = params["ssh"], tuple(params["ssh_options"])
    if transport == "taktuk":
        command, options = params["taktuk_connector"], tuple(params["taktuk_connector_options"])
    translated = _translate(options) if options and transport != "taktuk" else {}
    if transport == "auto":
        transport = "paramiko"
        if params["ssh"] is not None or translated is None:
            transport = "openssh"
            _announce(params["ssh"], options)
    elif transport == "paramiko" and translated is None:
        raise ValueError(
            f"the transport 'paramiko' cannot do what ssh_options asks for: {options!r}; "
            "set transport to 'openssh' or 'auto'"
        )
    rewrite = params["host_rewrite_func"]
    address = host.address if rewrite is None else Host(rewrite(host.address)).address
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    said = translated or {}
    keyfile = host.keyfile or params["keyfile"] or said.get("keyfile")
    timeout = said.get("connect_timeout", params["connect_timeout"])
    target = Target(
        address=address,
        user=host.user or params["user"] or said.get("user") or _local_user(transport),
        port=host.port or params["port"] or said.get("port"),
        keyfile=None if keyfile is None else os.path.expanduser(os.fspath(keyfile)),
        options=ConnectionOptions(
            host_key_policy=params["host_key_policy"] or said.get("host_key_policy", "off"),
            policy_chosen=bool(params["host_key_policy"] or said.get("host_key_policy")),
            known_hosts=said.get("known_hosts", ()),
            login=_login(params, transport),
            connect_timeout=None if timeout is None else float(timeout),
            guard=params["guard"],
            ssh=tuple(shlex.split(command or "ssh")),
            ssh_options=options if transport in ("openssh", "taktuk") else (),
            taktuk=_taktuk_words(params) if transport == "taktuk" else (),
        ),
        name=host.address,
    )
    return transport, target


def _login(params: Mapping[str, Any], transport: str) -> Login:
    """What to log in with, as far as ``params`` say it.

    :raises ValueError: for secrets that the transport cannot hand on
    """
    for key in ("password", "answers"):
        if params[key] is not None and transport in ("openssh", "taktuk"):
            raise ValueError(
                f"the transport {transport!r} cannot use {key!r}: ssh would ask on a terminal. "
                "Use a key or the agent there, or set transport to 'paramiko'"
            )
    return Login(
        password=params["password"], passphrase=params["passphrase"], answers=params["answers"]
    )


def _taktuk_words(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The taktuk command with the user's options.

    :raises ValueError: if it is empty, or an option is one that changes which hosts there are or
      how our words are read: what one host prints would be taken for another one's
    """
    words, options = shlex.split(params["taktuk"]), tuple(params["taktuk_options"])
    if not words:
        raise ValueError("taktuk is empty: name the taktuk command")
    for word in options:
        if word.startswith(_NOT_FOR_TAKTUK):
            raise ValueError(
                f"taktuk_options cannot have {word!r}: the hosts, and the escape character, are "
                "those that execo gives"
            )
    return (*words, *options)


def _local_user(transport: str) -> str | None:
    """Whom the in-process transport logs in as; the ssh command finds out by itself."""
    if transport != "paramiko":
        return None
    try:
        return _user_of_this_process()
    except (KeyError, OSError) as exc:  # a number without a name, in a container for one
        raise ValueError(f"this process has no user name ({exc}); set user") from exc


@functools.cache
def _user_of_this_process() -> str:
    # Here, in the user's thread: the system may ask a server for it.
    return getpass.getuser()


def _announce(ssh: str | None, options: tuple[str, ...]) -> None:
    """Say once why hosts are reached with the ssh command."""
    key = (ssh or "", *options)
    if key not in _announced:
        _announced.add(key)
        why = f"ssh is set to {ssh!r}" if ssh is not None else f"ssh_options has {options!r}"
        logger.info("hosts are reached with the ssh command, one for each process: %s", why)


# -- ssh_options that mean something to every transport ------------------------------------------


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"not a port: {text!r}")
    return int(text)


def _timeout(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"not a number of seconds: {text!r}")
    return int(text) or None  # none at all, to ssh


def _text(text: str) -> str:
    if not text:
        raise ValueError("empty")
    return text


# Option -> the key it sets and how its value is read. None: without effect here, since nothing is
# ever asked, and nothing printed that was not asked for.
_OPTIONS: dict[str, tuple[str, Callable[[str], Any]] | None] = {
    "user": ("user", _text),
    "port": ("port", _port),
    "identityfile": ("keyfile", _text),
    "connecttimeout": ("connect_timeout", _timeout),
    "stricthostkeychecking": ("host_key_policy", lambda text: _POLICIES[text.lower()]),
    "userknownhostsfile": ("known_hosts", os.path.expanduser),
    "batchmode": None,
    "loglevel": None,
    "requesttty": None,
}
_OFF_IS_NOTHING = ("passwordauthentication", "forwardagent", "forwardx11", "compression")
_SHORT = {"-l": "user", "-p": "port", "-i": "identityfile"}
_FLAGS = ("-q", "-x", "-a", "-T", "-t", "-tt")


def _translate(options: Sequence[str]) -> dict[str, Any] | None:
    """What ``ssh_options`` ask for; None if only the ssh command can do it, or refuse it."""
    said: dict[str, Any] = {}
    words = list(options)
    while words:
        word = words.pop(0)
        if word in _FLAGS:
            continue
        short, attached = word[:2], word[2:]
        if short not in ("-o", *_SHORT) or not (attached or words):
            return None
        value = attached or words.pop(0)
        try:
            if short == "-o":
                _translate_one(value, said)
            else:
                _take(_SHORT[short], [value], said)
        except (KeyError, ValueError):
            return None
    return said


def _translate_one(option: str, said: dict[str, Any]) -> None:
    match = re.fullmatch(r"\s*(\w+)(?:\s*=\s*|\s+)(.*)", option)
    if match is None:
        raise ValueError(f"not an option: {option!r}")
    key, values = match[1].lower(), shlex.split(match[2])
    if key not in _OFF_IS_NOTHING or [value.lower() for value in values] != ["no"]:
        _take(key, values, said)


def _take(key: str, values: Sequence[str], said: dict[str, Any]) -> None:
    """Note what one option says, unless an earlier one has: ssh, too, takes the first.

    :raises KeyError: for an option that is not translated
    :raises ValueError: for a value that is not
    """
    rule = _OPTIONS[key]
    if rule is None:
        return
    name, read = rule
    # ssh tries all keys that it is given, and expands these.
    if (name == "keyfile" and name in said) or any(map(_expands, values)):
        raise ValueError(f"{key} {values!r}")
    read_values = tuple(map(read, values))
    if name == "known_hosts" and read_values:
        said.setdefault(name, read_values)
    else:
        (one,) = read_values
        said.setdefault(name, one)


def _expands(value: str) -> bool:
    return "%" in value or "$" in value or value == "none"
