"""Put and Get with the scp command, for those who set ``connection_params["scp"]``."""

from __future__ import annotations

import copy
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

from execo.config import ssh_config_words
from execo.connection import connection_to
from execo.host import Host
from execo.local_process import Process
from execo.transports.base import Exec

from .progress import Measured
from .send import expanded

__all__ = ["ScpProcess"]

_CHECKING = {"off": "no", "accept-new": "accept-new", "strict": "yes"}


class ScpProcess(Measured, Process):
    """One scp command on this machine, for one host; its words are made when it starts. What passes
    is not seen.

    :param line: for messages
    :param params: complete connection parameters
    :param verb: ``put`` or ``get``
    :param args: see :class:`~execo.process.Process`
    """

    names: tuple[str, ...] = ()
    location = "."

    def __init__(self, line: str, params: Mapping[str, Any], verb: str, **args: Any) -> None:
        super().__init__(line, **args)
        self.connection_params = dict(params)
        self.host = Host("model")
        self._verb = verb

    def _copy_for(self, cmd: Any, host: Host) -> ScpProcess:
        """See :meth:`~execo.process.SshProcess._copy_for`."""
        twin = copy.copy(self)
        twin.cmd, twin.host = cmd, host
        twin.lifecycle_handlers = list(self.lifecycle_handlers)
        twin.stdout_handlers = list(self.stdout_handlers)
        twin.stderr_handlers = list(self.stderr_handlers)
        return twin

    def _place(self) -> str:
        return f" on {self.host.address}"

    def _request(self) -> Exec:
        params = self.connection_params
        # It is openssh that reads the files of configuration: it needs the host as they name it.
        _, target = connection_to(self.host, {**params, "transport": "openssh"})
        if target.user is not None and re.search("[:/@]", target.user):
            raise ValueError(
                f"scp would misread the user {target.user!r}, and take a part of it for the host: "
                "set scp to None"
            )
        address = f"[{target.address}]" if ":" in target.address else target.address
        prefix = f"{target.user}@{address}:" if target.user else f"{address}:"
        # What the user sets comes first: scp takes the first of several.
        words = [*shlex.split(params["scp"]), *params["scp_options"]]
        words += [*ssh_config_words(params), "-rp"]
        checking = _CHECKING[target.options.host_key_policy]
        settings = ["BatchMode=yes", "PasswordAuthentication=no"]
        settings.append(f"StrictHostKeyChecking={checking}")
        if checking == "no":
            settings.append("UserKnownHostsFile=/dev/null")
        if target.options.connect_timeout is not None:
            settings.append(f"ConnectTimeout={max(1, round(target.options.connect_timeout))}")
        if target.port is not None:
            settings.append(f"Port={target.port}")
        for setting in settings:
            words += ["-o", setting]
        if target.keyfile is not None:
            # Not -i, where ssh reads a % as a token.
            words += ["-o", f"IdentityFile={_quoted(target.keyfile)}"]
        if self._verb == "put":
            files = [_local(path) for path in expanded(self.names)]
            words += ["--", *files, prefix + self.location]
        else:
            location = _local(os.path.expanduser(self.location))
            words += ["--", *(prefix + name for name in self.names), location]
        request = super()._request()
        return Exec(
            tuple(words),
            cwd=request.cwd,
            env=request.env,
            pty=request.pty,
            group=request.group,
            kill_timeout=request.kill_timeout,
            detach=request.detach,
        )


def _quoted(path: str) -> str:
    """A file's name as a value of ssh_config(5)."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _local(path: str) -> str:
    """With a slash before the first colon, or scp would look for a host."""
    return path if path.startswith("/") else f"./{path}"
