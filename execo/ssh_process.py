"""Commands on hosts, one each."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from .config import configuration, given_params, make_connection_params
from .connection import connection_to
from .host import MISSING, Host, command_and_hosts
from .lifecycle import kill_timeout
from .local_process import (
    checked_command,
    checked_cwd,
    checked_detach,
    checked_env,
    checked_secret_env,
)
from .process_base import ProcessBase
from .process_state import ProcessArgs
from .transports.base import Become, Exec, Target

__all__ = ["SshProcess"]


class SshProcess(ProcessBase):
    """A command on a host, run by the login shell of the user there.

    ``start()`` returns at once: the connection is made, or shared with other processes that have
    the same connection parameters, on the I/O thread. What it cannot reach is a process with an
    ``error`` whose ``reason`` is ``connect``, ``auth`` or ``host key``. ``pid`` stays None.
    ``kill()`` and its timeout end the command and all that it started (on Linux hosts), what put
    itself into a session of its own too.

    ``SshProcess(cmd, host)`` as in execo 2.8.2 and ``SshProcess(host, cmd)`` as in the reference
    document are both understood, see :func:`~execo.host.command_and_hosts`; ``cmd`` and ``host``
    may also be given by keyword.

    :param first: the command or the host
    :param second: the other one
    :param cmd: the command: a text for the login shell, or words, which reach the program as they
      are
    :param host: the host: a Host or an address
    :param connection_params: what differs from :data:`~execo.config.default_connection_params`
    :param pty: give it a terminal, as ``connection_params["pty"]`` does
    :param kill_subprocesses: False: signals go to the command alone, where the host allows it
    :param connexion_params: the reference document's name of ``connection_params``
    :param shell: without effect, for scripts that give it: a shell always reads the command
    :param cwd: the folder to run in on the host; ``~`` is the home folder there (new)
    :param env: variables to set there; None as a value unsets (new)
    :param detach: True: it is left alone when the script ends or dies, and when its connection is
      lost (the process then ends with the reason ``connect``, and the command runs on); see
      :class:`~execo.process.Process` (new)
    :param secret_env: more of them, whose values nobody else gets to see: they are in no words of a
      command, log message, repr or error (new)
    :param become: the user of the host to run as, as ``connection_params["become"]``; its shell
      reads the command then, or ``/bin/sh`` where it has none that would (new)
    :param become_method: ``sudo``, ``su`` or ``doas``, as ``connection_params["become_method"]``
      (new)
    :param options: see :class:`~execo.process_state.ProcessState`
    :raises TypeError: for a command or host of a wrong type, an unknown argument, ...
    :raises ValueError: for a host that cannot be one, for ``detach`` with ``pty``
    """

    def __init__(
        self,
        first: Any = MISSING,
        second: Any = MISSING,
        connection_params: Mapping[str, Any] | None = None,
        pty: bool = False,
        kill_subprocesses: bool | None = None,
        *,
        cmd: str | Sequence[str] = MISSING,
        host: str | Host = MISSING,
        connexion_params: Mapping[str, Any] | None = None,
        shell: bool = False,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        detach: bool | None = None,
        secret_env: Mapping[str, str] | None = None,
        become: str | None = None,
        become_method: str | None = None,
        **options: Unpack[ProcessArgs],
    ) -> None:
        cmd, host = command_and_hosts(first, second, cmd, host, one=True)
        self.host = Host(host)
        super().__init__(checked_command(cmd), **options)
        self._params = make_connection_params(given_params(connection_params, connexion_params))
        self.pty = pty or self._params["pty"]
        self.kill_subprocesses = kill_subprocesses
        self.shell = shell
        self.cwd = checked_cwd(cwd)
        self.env = checked_env(env)
        self.detach = checked_detach(detach, self.pty)
        self.secret_env = checked_secret_env(secret_env)
        self.become = become
        self.become_method = become_method
        self._become()  # a wrong value is an error here

    transport = "auto"
    _params_shared = False

    @property
    def connection_params(self) -> dict[str, Any]:
        """Its complete connection parameters, which may be changed until it starts."""
        if self._params_shared:
            # The thousands of an action share theirs until somebody looks.
            self._params = dict(self._params)
            self._params_shared = False
        return self._params

    @connection_params.setter
    def connection_params(self, value: Mapping[str, Any] | None) -> None:
        self._params = make_connection_params(value)
        self._params_shared = False

    def _copy_for(self, cmd: str | tuple[str, ...], host: Host) -> SshProcess:
        """One that was not started, with the same parameters for another host: an action makes
        thousands of them, and checks these once."""
        twin = copy.copy(self)
        twin.cmd = cmd
        twin.host = host
        twin._params_shared = True
        twin.lifecycle_handlers = list(self.lifecycle_handlers)
        twin.stdout_handlers = list(self.stdout_handlers)
        twin.stderr_handlers = list(self.stderr_handlers)
        return twin

    @property
    def remote_cmd(self) -> str | Sequence[str]:
        """The command (execo 2.8.2, where ``cmd`` is a line for ssh: here it is the same)."""
        return self.cmd

    def _place(self) -> str:
        return f" on {self.host.address}"

    def _connection(self) -> tuple[str, Target]:
        """How its host is reached; other kinds of processes may know better."""
        return connection_to(self.host, self._params)

    def _become(self) -> Become | None:
        user = self._params["become"] if self.become is None else self.become
        if user is None:
            return None
        method = self.become_method or self._params["become_method"]
        if method not in ("sudo", "su", "doas"):
            raise ValueError(f"become_method is 'sudo', 'su' or 'doas', not {method!r}")
        if not (isinstance(user, str) and user.isprintable() and re.fullmatch(r"[^\s-]\S*", user)):
            raise ValueError(f"become is the name of a user, not {user!r}")
        return Become(user, method, self._params["become_password"])

    def _request(self) -> Exec:
        command = self.cmd if isinstance(self.cmd, str) else tuple(self.cmd)
        if not command:
            raise ValueError("the command is empty")
        # Now, not earlier: the parameters may be changed until the start.
        self.transport, target = self._connection()
        detach = checked_detach(self.detach, self.pty)
        become, through = self._become(), ""
        if become is not None or self.secret_env:
            self.transport, through = "become", self.transport
        return Exec(
            command,
            cwd=self.cwd,
            env=self.env,
            pty=self.pty,
            group=self.kill_subprocesses is not False,
            kill_timeout=kill_timeout(),
            detach=not configuration["kill_childs_at_end"] if detach is None else detach,
            target=target,
            relay=detach is True,
            become=become,
            secret_env=checked_secret_env(self.secret_env),
            through=through,
        )
