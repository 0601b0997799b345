"""What the values of the configuration must be: a rule for each key.

A wrong value would otherwise show up hours later, in the middle of an experiment, as an error of
whoever reads it first.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Hashable
from typing import Any

__all__ = [
    "CONFIGURATION_RULES",
    "CONNECTION_RULES",
    "Rule",
    "Secret",
    "can_be_sent",
    "is_words",
    "kept",
    "shown",
]


class Secret(str):
    """A text whose ``repr`` does not show it: not in a dict of parameters, nor in a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def can_be_sent(text: str) -> bool:
    """Whether a text has bytes: half a character (a lone surrogate) has none. Where this is found
    later, the error has the text in it, and whoever waits for an answer waits in vain."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


_SECRETS = frozenset({"become_password", "passphrase", "password"})
"""Connection parameters that are shown to nobody."""


_LONGEST_SHOWN = 500


def shown(key: object, value: object) -> str:
    """A wrong value for messages."""
    kind = f"a {type(value).__name__}"
    if key in _SECRETS:
        return kind
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an int of thousands of digits, or what its class does
        return kind
    return text if len(text) <= _LONGEST_SHOWN else f"{kind}: {text[:_LONGEST_SHOWN]}..."


def kept(key: object, value: Any) -> Any:
    """What is kept of a value: no list that somebody changes, no secret that is shown."""
    if isinstance(value, list):
        return tuple(value)
    return Secret(value) if key in _SECRETS and isinstance(value, str) else value


Rule = tuple[Callable[[Any], bool], str]
"""What a value must be: a test, and the words for it."""


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # The comparison also refuses NaN, infinity and whole numbers beyond: no timer works with them.
    return (_is_integer(value) or isinstance(value, float)) and 0 <= value <= sys.float_info.max


def _is_level(value: Any) -> bool:
    if isinstance(value, str):
        ours = ("IODEBUG", "FDEBUG", "TRACE", "DETAIL")
        return value in ours or value in logging.getLevelNamesMapping()
    return _is_integer(value)


def _is_port_range(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(_is_integer(port) for port in value)
        and 0 < value[0] <= value[1] < 65536
    )


def _is_ssh_config(value: Any) -> bool:
    return (
        value is None or value is False or (isinstance(value, (str, os.PathLike)) and value != "")
    )


def _is_topology(value: Any) -> bool:
    # By what it has: the class itself is above this room.
    return (
        value is None
        or (isinstance(value, (str, os.PathLike)) and value != "")
        or (callable(getattr(value, "parents", None)) and isinstance(value, Hashable))
    )


def is_words(value: Any) -> bool:
    """A tuple or list of strings."""
    # A plain string would be taken apart into its characters.
    return isinstance(value, (tuple, list)) and all(isinstance(word, str) for word in value)


def _is_function(value: Any) -> bool:
    return callable(value) and isinstance(value, Hashable)


def _is_secret(value: Any) -> bool:
    return (isinstance(value, str) and can_be_sent(value)) or _is_function(value)


def _or_none(rule: Rule) -> Rule:
    test, expected = rule
    return lambda value: value is None or test(value), f"{expected}, or None"


_BOOL: Rule = (lambda value: isinstance(value, bool), "True or False")
_COUNT: Rule = (lambda value: _is_integer(value) and value >= 0, "an integer, 0 or more")
_SIZE: Rule = (lambda value: _is_integer(value) and value > 0, "an integer above 0")
_NUMBER: Rule = (_is_number, "a number, 0 or more")
_SECONDS: Rule = (_is_number, "a number of seconds, 0 or more")
_STR: Rule = (lambda value: isinstance(value, str), "a string")
_WORDS: Rule = (is_words, "a tuple of strings")
_PATH: Rule = (lambda value: isinstance(value, (str, os.PathLike)), "a path")
_PORT: Rule = (lambda value: _is_integer(value) and 0 < value < 65536, "a port from 1 to 65535")
_INTERVAL: Rule = (lambda value: _is_number(value) and value > 0, "a number of seconds above 0")

CONFIGURATION_RULES: dict[str, Rule] = {
    "log_level": (_is_level, "a log level: a number or a name such as 'DEBUG'"),
    "compact_output_threshold": _COUNT,
    "kill_timeout": _or_none(_SECONDS),
    "kill_childs_at_end": _BOOL,
    "term_timeout": _SECONDS,
    "drain_timeout": _SECONDS,
    "max_output": _or_none(_COUNT),
    "handler_queue_size": _SIZE,
    "max_failure_logs": _COUNT,
    "port_range": (_is_port_range, "the first and the last port, as in (25500, 26700)"),
    "switch_interval": _or_none(_INTERVAL),
    "intr_period": _NUMBER,
    "color_mode": _or_none(_BOOL),
    "progress": _or_none(_BOOL),
}

CONNECTION_RULES: dict[str, Rule] = {
    "user": _or_none(_STR),
    "keyfile": _or_none(_PATH),
    "password": _or_none((_is_secret, "a string, or a function from host and user to one")),
    "passphrase": _or_none((_is_secret, "a string, or a function from path to one")),
    "answers": _or_none((_is_function, "a function that gives a list of strings")),
    "port": _or_none(_PORT),
    "transport": _STR,
    "host_key_policy": (
        lambda value: value in (None, "off", "accept-new", "strict"),
        "'off', 'accept-new', 'strict', or None",
    ),
    "ssh_config": (_is_ssh_config, "the path of a file, False, 'none', or None"),
    "connect_timeout": _or_none(_INTERVAL),
    "keepalive": _or_none(_INTERVAL),
    "idle_limit": _or_none(_INTERVAL),
    "guard": _BOOL,
    "forwarding_timeout": _or_none(_SECONDS),
    "pty": _BOOL,
    "become": _or_none(_STR),
    "become_method": (lambda value: value in ("sudo", "su", "doas"), "'sudo', 'su' or 'doas'"),
    "become_password": _or_none((_is_secret, "a text, or a function from host and user to it")),
    "host_rewrite_func": _or_none((callable, "a function from address to address")),
    "ssh": _or_none(_STR),
    "ssh_options": _WORDS,
    "scp": _or_none(_STR),
    "scp_options": _WORDS,
    "taktuk": _STR,
    "taktuk_options": _WORDS,
    "taktuk_connector": _STR,
    "taktuk_connector_options": _WORDS,
    "topology": (_is_topology, "the path of a file, a Topology (load_topology), or None"),
    "tree_fanout": _SIZE,
    "nc": _STR,
    "chainput_nc_client_timeout": _SECONDS,
    "chainput_nc_server_timeout": _SECONDS,
    "chainput_host_retry": _NUMBER,
    "chainput_chain_retry": _NUMBER,
    "chainput_try_delay": _SECONDS,
}
