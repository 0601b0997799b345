"""The command lines of ssh, scp and taktuk's connector, for scripts that run these themselves.

Names of execo 2.8.2. execo itself needs no such command for its connections; these lines say the
same: who logs in, how host keys are treated, how long to wait, and that nothing is asked.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any

from .config import make_connection_params, ssh_config_words

__all__ = [
    "get_rewritten_host_address",
    "get_scp_command",
    "get_ssh_command",
    "get_ssh_scp_auth_options",
    "get_taktuk_connector_command",
]

_CHECKING = {"off": "no", "accept-new": "accept-new", "strict": "yes"}


def get_ssh_scp_auth_options(
    user: str | None = None,
    keyfile: str | os.PathLike[str] | None = None,
    port: int | None = None,
    connection_params: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """The options of ssh and scp that say who logs in, with which key, at which port.

    :param user: whom to log in as; None = as ``connection_params`` say
    :param keyfile: the file of the private key; None = likewise
    :param port: the port of the ssh server; None = likewise
    :param connection_params: what differs from
      :data:`~execo.config.default_connection_params`
    :raises TypeError: for an unknown connection parameter
    :raises ValueError: for a value that cannot be right
    """
    params = make_connection_params(connection_params)
    user, keyfile, port = (
        user or params["user"],
        keyfile or params["keyfile"],
        port or params["port"],
    )
    words: list[str] = []
    if user:
        words += ["-o", f"User={user}"]
    if keyfile:
        words += ["-i", os.path.expanduser(os.fspath(keyfile))]
    if port:
        words += ["-o", f"Port={port}"]
    return tuple(words)


def get_ssh_command(
    user: str | None = None,
    keyfile: str | os.PathLike[str] | None = None,
    port: int | None = None,
    connection_params: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """The words of an ssh command, to be followed by a host and a command::

        subprocess.run([*get_ssh_command(), "web1", "uptime"])

    :param user: see :func:`get_ssh_scp_auth_options`, as all that follow
    :param keyfile: see there
    :param port: see there
    :param connection_params: see there
    """
    return _command("ssh", "ssh_options", user, keyfile, port, connection_params)


def get_scp_command(
    user: str | None = None,
    keyfile: str | os.PathLike[str] | None = None,
    port: int | None = None,
    connection_params: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """The words of an scp command (``-rp``: folders too, and keep dates), to be followed by files.

    :param user: see :func:`get_ssh_scp_auth_options`, as all that follow
    :param keyfile: see there
    :param port: see there
    :param connection_params: see there
    """
    return (*_command("scp", "scp_options", user, keyfile, port, connection_params), "-rp")


def get_taktuk_connector_command(
    user: str | None = None,
    keyfile: str | os.PathLike[str] | None = None,
    port: int | None = None,
    connection_params: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """The words of the command with which taktuk connects to a host.

    :param user: see :func:`get_ssh_scp_auth_options`, as all that follow
    :param keyfile: see there
    :param port: see there
    :param connection_params: see there
    """
    key = "taktuk_connector"
    return _command(key, "taktuk_connector_options", user, keyfile, port, connection_params)


def get_rewritten_host_address(
    host_addr: str, connection_params: Mapping[str, Any] | None = None
) -> str:
    """The address to connect to for a host: what ``host_rewrite_func`` makes of it.

    :param host_addr: the address of the host
    :param connection_params: what differs from
      :data:`~execo.config.default_connection_params`
    """
    rewrite = make_connection_params(connection_params)["host_rewrite_func"]
    return host_addr if rewrite is None else str(rewrite(host_addr))


def _command(
    program: str,
    options: str,
    user: str | None,
    keyfile: str | os.PathLike[str] | None,
    port: int | None,
    connection_params: Mapping[str, Any] | None,
) -> tuple[str, ...]:
    params = make_connection_params(connection_params)
    return (
        *shlex.split(params[program] or program),
        # ssh takes the first value that it sees: who is meant, then the user's words, then ours.
        *get_ssh_scp_auth_options(user, keyfile, port, connection_params),
        *params[options],
        *ssh_config_words(params),
        *_settings(params),
    )


def _settings(params: Mapping[str, Any]) -> list[str]:
    checking = _CHECKING[params["host_key_policy"] or "off"]
    settings = ["BatchMode=yes", "PasswordAuthentication=no", f"StrictHostKeyChecking={checking}"]
    if checking == "no":
        settings.append("UserKnownHostsFile=/dev/null")
        settings.append("LogLevel=ERROR")  # or each connection tells of the key that it has added
    if params["connect_timeout"] is not None:
        settings.append(f"ConnectTimeout={max(1, round(params['connect_timeout']))}")
    return [word for setting in settings for word in ("-o", setting)]
