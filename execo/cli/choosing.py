"""From the words of the command line to hosts, connection parameters and policies."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from execo import Retry, configuration, logger, transports
from execo.config import make_connection_params
from execo.errors import HostSetError
from execo.hostset import hostset

from .parser import Misuse

__all__ = ["apply_settings", "chosen_hosts", "connection_params", "nodes_of", "policies"]


def apply_settings(options: argparse.Namespace) -> None:
    """What the options say of this whole program."""
    if options.color != "auto":
        configuration["color_mode"] = options.color == "always"
    if options.quiet:
        logger.setLevel("ERROR")


def nodes_of(text: str) -> list[str]:
    """The hosts of a node set.

    :raises Misuse: it is none; points at the place, if that is known
    """
    try:
        return hostset(text)
    except HostSetError as exc:
        mark = "" if exc.position is None else f"\n  {text}\n  {' ' * exc.position}^"
        raise Misuse(f"{exc}{mark}") from exc


def chosen_hosts(options: argparse.Namespace) -> list[str]:
    """The addresses that the options name, each once, in order.

    :raises Misuse: there are none, or a text that names none
    """
    sets = [*(options.hosts or ()), *(["@*"] if options.all else ())]
    sets += [f"@{group}" for group in options.group or ()]
    chosen = [address for text in sets for address in nodes_of(text)]
    for path in options.hostfile or ():
        chosen += [address for text in _lines_of(path) for address in nodes_of(text)]
    if not chosen:
        raise Misuse("no host: give some, with -w node[1-4] for one")
    without = [*(options.exclude or ()), *(f"@{group}" for group in options.exclude_group or ())]
    excluded = {address for text in without for address in nodes_of(text)}
    left = [address for address in dict.fromkeys(chosen) if address not in excluded]
    if not left:
        raise Misuse("no host is left: all of them are excluded")
    return left


def _lines_of(path: str) -> list[str]:
    """The node sets in a file: those on a line with blanks in between, comments behind #."""
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except (OSError, UnicodeDecodeError) as exc:
        raise Misuse(f"--hostfile {path}: {getattr(exc, 'strerror', None) or exc}") from exc
    return [word for line in text.splitlines() for word in line.partition("#")[0].split()]


_PARAMETERS = (
    ("user", "user"),
    ("port", "port"),
    ("keyfile", "keyfile"),
    ("connect_timeout", "connect_timeout"),
    ("transport", "transport"),
    ("host_key_policy", "host_key_policy"),
    ("ssh_config", "ssh_config"),
    ("become", "become"),
    ("become_method", "become_method"),
)


def connection_params(options: argparse.Namespace) -> dict[str, Any]:
    """The connection parameters that the options give.

    :raises Misuse: for one that cannot be right
    """
    params = {key: getattr(options, name) for key, name in _PARAMETERS}
    params = {key: value for key, value in params.items() if value is not None}
    if options.topology is not None:
        params |= {"transport": "tree", "topology": options.topology}
    if options.ssh_option:
        params["ssh_options"] = [word for one in options.ssh_option for word in ("-o", one)]
    if options.ask_password:
        params["password"] = _asker("password of")
    if options.ask_become_password:
        params["become_password"] = _asker("password to become")
    for text in options.param or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise Misuse(f"-O {text}: KEY=VALUE is missing its =")
        params[key] = _value_of(value)
    known = ["auto", *transports.names()]
    if params.get("transport", "auto") not in known:
        raise Misuse(f"no transport named {params['transport']!r}; there are: {', '.join(known)}")
    try:
        make_connection_params(params)
    except (TypeError, ValueError) as exc:
        raise Misuse(str(exc)) from exc
    return params


def _asker(what: str) -> Any:
    """A function that asks the user once, for all hosts of a user."""
    known: dict[str, str] = {}

    def ask(host: str, user: str) -> str:
        if user not in known:
            import getpass

            # From the terminal itself: stdin may be what goes to the hosts.
            known[user] = getpass.getpass(f"{what} {user} (on {host} and all others): ")
        return known[user]

    return ask


def _value_of(text: str) -> Any:
    """A number, True, None, ..., or the text itself."""
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def policies(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of actions that the options give.

    :raises Misuse: for a number that cannot be right
    """
    try:
        retry = None if options.retry is None else Retry(times=options.retry)
    except ValueError as exc:
        raise Misuse(f"--retry: {exc}") from exc
    return {
        "fanout": options.fanout,
        "start_rate": options.start_rate,
        "retry": retry,
        "max_failures": options.max_failures,
    }
