"""From a host and its connection parameters to a transport and the target of a connection."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .host import Host
from .log import logger
from .transports.base import ConnectionOptions, Target

__all__ = ["connection_to"]

_POLICIES = {
    "no": "off",
    "off": "off",
    "accept-new": "accept-new",
    "yes": "strict",
    "ask": "strict",  # nobody is asked
}
_announced: set[tuple[str, ...]] = set()


def connection_to(host: Host, params: Mapping[str, Any]) -> tuple[str, Target]:
    """The name of the transport that reaches ``host``, and where it has to connect.

    The host's own user, keyfile and port come first, then those of ``params``, then what
    ``ssh_options`` say.

    :param host: the host
    :param params: complete connection parameters, see
      :func:`~execo.config.make_connection_params`
    """
    options = tuple(params["ssh_options"])
    translated = _translate(options) if options else {}
    transport = params["transport"]
    if transport == "auto":
        transport = "paramiko"
        if params["ssh"] is not None or translated is None:
            transport = "openssh"
            _announce(params["ssh"], options)
    rewrite = params["host_rewrite_func"]
    address = host.address if rewrite is None else str(rewrite(host.address))
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    said = translated or {}
    keyfile = host.keyfile or params["keyfile"] or said.get("keyfile")
    timeout = said.get("connect_timeout", params["connect_timeout"])
    target = Target(
        address=address,
        user=host.user or params["user"] or said.get("user"),
        port=host.port or params["port"] or said.get("port"),
        keyfile=None if keyfile is None else os.path.expanduser(os.fspath(keyfile)),
        options=ConnectionOptions(
            host_key_policy=params["host_key_policy"] or said.get("host_key_policy", "off"),
            known_hosts=said.get("known_hosts", ()),
            connect_timeout=None if timeout is None else float(timeout),
            guard=params["guard"],
            ssh=tuple(shlex.split(params["ssh"] or "ssh")),
            ssh_options=options if transport == "openssh" else (),
        ),
        name=host.address,
    )
    return transport, target


def _announce(ssh: str | None, options: tuple[str, ...]) -> None:
    """Say once why hosts are reached with the ssh command."""
    key = (ssh or "", *options)
    if key not in _announced:
        _announced.add(key)
        why = f"ssh is set to {ssh!r}" if ssh is not None else f"ssh_options has {options!r}"
        logger.info("hosts are reached with the ssh command, one for each process: %s", why)


# -- ssh_options that mean something to every transport ------------------------------------------


def _known_hosts(text: str) -> tuple[str, ...]:
    return tuple(os.path.expanduser(name) for name in shlex.split(text))


# Option -> the key it sets and how its value is read. None: without effect here, since nothing is
# ever asked, and nothing printed that was not asked for.
_OPTIONS: dict[str, tuple[str, Callable[[str], Any]] | None] = {
    "user": ("user", str),
    "port": ("port", int),
    "identityfile": ("keyfile", str),
    "connecttimeout": ("connect_timeout", float),
    "stricthostkeychecking": ("host_key_policy", lambda text: _POLICIES[text.lower()]),
    "userknownhostsfile": ("known_hosts", _known_hosts),
    "batchmode": None,
    "loglevel": None,
    "requesttty": None,
}
_OFF_IS_NOTHING = ("passwordauthentication", "forwardagent", "forwardx11", "compression")
_SHORT = {"-l": "user", "-p": "port", "-i": "identityfile"}
_FLAGS = ("-q", "-x", "-a", "-T", "-t", "-tt")


def _translate(options: Sequence[str]) -> dict[str, Any] | None:
    """What ``ssh_options`` ask for; None if only the ssh command can do it."""
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
        if short == "-o":
            key, _, value = value.replace("=", " ", 1).strip().partition(" ")
            key, value = key.lower(), value.strip()
        else:
            key = _SHORT[short]
        if key in _OFF_IS_NOTHING and value.lower() == "no":
            continue
        if key not in _OPTIONS:
            return None
        rule = _OPTIONS[key]
        if rule is not None:
            try:
                said.setdefault(rule[0], rule[1](value))  # ssh, too, takes the first
            except (KeyError, ValueError):
                return None
    return said
