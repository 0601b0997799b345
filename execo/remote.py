"""Actions that run commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self, Unpack

from .action_base import Action, ActionLifecycleHandler
from .config import given_params
from .host import MISSING, Host, Hosts, command_and_hosts, get_hosts_list
from .local_process import Process
from .policy import PolicyArgs
from .serial import SerialSsh, serial_command
from .ssh_process import SshProcess
from .substitutions import Template, raw
from .time_utils import Duration

__all__ = ["Local", "Remote", "RemoteSerial"]


class Local(Action):
    """A command on this machine: an action around one :class:`~execo.process.Process`.

    :param cmd: the command, see there
    :param process_args: keyword arguments for the process, ``{"shell": True}`` for one
    :param lifecycle_handlers: see :class:`~execo.action.Action`
    :param name: for messages and reports; default: the command, shortened
    :param default_expect_timeout: see :class:`~execo.action.Action`
    """

    def __init__(
        self,
        cmd: str | Sequence[str],
        process_args: Mapping[str, Any] | None = None,
        lifecycle_handlers: Iterable[ActionLifecycleHandler] | None = None,
        name: str | None = None,
        default_expect_timeout: Duration | None = None,
    ) -> None:
        self.process = Process(cmd, **(process_args or {}))
        self.process._action = self
        super().__init__(
            lifecycle_handlers,
            self.process.name if name is None else name,
            default_expect_timeout,
        )

    # A list of its own for each caller: nobody can put another kind into ours.
    @property
    def processes(self) -> list[Process]:  # type: ignore[override]
        return [self.process]

    def write(self, data: str | bytes) -> int:
        """Write to its stdin, see :meth:`~execo.process.ProcessBase.write`."""
        return self.process.write(data)

    def flush(self) -> None:
        """Does nothing: what is written goes out at once. For ``print(..., flush=True)``."""

    def close_stdin(self) -> Self:
        """End of file on its stdin, see :meth:`~execo.process.ProcessBase.close_stdin` (new)."""
        self.process.close_stdin()
        return self


class Remote(Action):
    """A command on many hosts at once: one :class:`~execo.process.SshProcess` for each.

    The command may differ from host to host, see :mod:`execo.substitutions`; its expressions are
    evaluated here, and again at ``reset()``. The names of files among the output handlers in
    ``process_args`` may, too.

    ``Remote(cmd, hosts)`` as in execo 2.8.2 and ``Remote(hosts, cmd)`` as in the reference document
    are both understood, see :func:`~execo.host.command_and_hosts`; ``cmd`` and ``hosts`` may also
    be given by keyword.

    :param first: the command or the hosts
    :param second: the other one
    :param cmd: the command, a text for the login shells or words, with substitutions
    :param hosts: see :func:`~execo.host.get_hosts_list`; a host given twice runs it twice, no host
      is an action that ends at once
    :param connection_params: what differs from :data:`~execo.config.default_connection_params`
    :param process_args: keyword arguments for the processes, ``{"timeout": 10}`` for one
    :param lifecycle_handlers: see :class:`~execo.action.Action`
    :param name: for messages and reports; default: the command, shortened
    :param default_expect_timeout: see :class:`~execo.action.Action`
    :param fanout: how many run at a time; None = all at once (new)
    :param substitute: False: the command is taken as it is (new)
    :param connexion_params: the reference document's name of ``connection_params``
    :param become: the user of the hosts to run as, see :class:`~execo.process.SshProcess` (new)
    :param secret_env: variables whose values nobody else gets to see, see there (new)
    :param policy: ``start_rate``, ``retry`` and ``max_failures``, see :class:`~execo.action.Action`
      (new)
    :raises TypeError: for arguments of a wrong type
    :raises ValueError: for hosts that cannot be any, a substitution that fails
      (:class:`~execo.errors.SubstitutionError`)
    """

    _process_class: ClassVar[type[SshProcess]] = SshProcess

    def __init__(
        self,
        first: Any = MISSING,
        second: Any = MISSING,
        connection_params: Mapping[str, Any] | None = None,
        process_args: Mapping[str, Any] | None = None,
        lifecycle_handlers: Iterable[ActionLifecycleHandler] | None = None,
        name: str | None = None,
        default_expect_timeout: Duration | None = None,
        *,
        cmd: str | Sequence[str] = MISSING,
        hosts: Hosts = MISSING,
        fanout: int | None = None,
        substitute: bool = True,
        connexion_params: Mapping[str, Any] | None = None,
        become: str | None = None,
        secret_env: Mapping[str, str] | None = None,
        **policy: Unpack[PolicyArgs],
    ) -> None:
        cmd, hosts = command_and_hosts(first, second, cmd, hosts)
        connection_params = given_params(connection_params, connexion_params)
        given = {"become": become, "secret_env": secret_env}
        process_args = {
            **(process_args or {}),
            **{name: value for name, value in given.items() if value is not None},
        }
        self._hosts = get_hosts_list(hosts)
        # One process is made with all checks, the others after its model.
        model = self._model(cmd, connection_params, process_args)
        super().__init__(
            lifecycle_handlers,
            model.name if name is None else name,
            default_expect_timeout,
            fanout=fanout,
            **policy,
        )
        self._cmd = model.cmd
        words = (self._cmd,) if isinstance(self._cmd, str) else self._cmd
        if not self._hosts:
            words = ()  # an empty sequence in {{...}} is no error where nobody needs a value
        self._words = [Template(word if substitute else raw(word)) for word in words]
        self._processes = [
            model._copy_for(self._command_of(index), host) for index, host in enumerate(self._hosts)
        ]
        # For each file among the handlers: the list, its template, its name for each host.
        self._files: list[tuple[str, Template, list[str]]] = []
        for handlers in ("stdout_handlers", "stderr_handlers"):
            self._name_files(handlers, getattr(model, handlers))
        for process in self._processes:
            process._action = self

    def _model(
        self, cmd: Any, params: Mapping[str, Any] | None, args: Mapping[str, Any]
    ) -> SshProcess:
        return self._process_class(cmd, Host("model"), params, **args)

    def _command_of(self, index: int) -> str | tuple[str, ...]:
        words = tuple(word.expand(self._hosts, index) for word in self._words)
        return words[0] if isinstance(self._cmd, str) else words

    def _name_files(self, handlers: str, given: list[Any]) -> None:
        """The names of files to write to may differ from host to host."""
        for place, handler in enumerate(given):
            if isinstance(handler, (str, os.PathLike)):
                template = Template(os.fspath(handler))
                names = [template.expand(self._hosts, index) for index in range(len(self._hosts))]
                for process, name in zip(self._processes, names, strict=True):
                    getattr(process, handlers)[place] = name
                self._files.append((handlers, template, names))

    def _rename_files(self) -> None:
        for handlers, template, names in self._files:
            template.reevaluate()
            for index, process in enumerate(self._processes):
                entries = getattr(process, handlers)
                old, names[index] = names[index], template.expand(self._hosts, index)
                # What the user has put there since is left alone.
                entries[:] = [names[index] if entry is old else entry for entry in entries]

    @property
    def hosts(self) -> list[Host]:
        """Its hosts, in the order given."""
        return list(self._hosts)

    @property
    def processes(self) -> list[SshProcess]:  # type: ignore[override]
        return list(self._processes)

    def write(self, data: str | bytes) -> int:
        """Write to the stdin of all, see :meth:`~execo.process.ProcessBase.write`; those that wait
        for their turn (``fanout``) get it when they start. ``print(..., file=remote)`` works.

        :raises ValueError: if it was not started
        """
        self._feed(lambda process: process.write(data), data)
        return len(data)

    def flush(self) -> None:
        """Does nothing: what is written goes out at once. For ``print(..., flush=True)``."""

    def close_stdin(self) -> Self:
        """End of file on the stdin of all, after all that was written (new)."""
        self._feed(lambda process: process.close_stdin(), None)
        return self

    def _feed(self, feed: Callable[[SshProcess], object], early: str | bytes | None) -> None:
        if not self.started:
            raise ValueError(f"{self!r} was not started: its input needs start() first")
        for process in self._processes:
            if not process._keep_input(early):
                feed(process)

    def reset(self) -> Self:
        """See :meth:`~execo.action.Action.reset`; evaluates the expressions of the command and of
        the names of files again."""
        super().reset()
        for word in self._words:
            word.reevaluate()
        for index, process in enumerate(self._processes):
            process.cmd = self._command_of(index)
        self._rename_files()
        return self


class RemoteSerial(Remote):
    """A serial port on each of many hosts: one :class:`~execo.process.SerialSsh` for each.

    :param hosts: see :class:`Remote`
    :param device: the name of the port's device there, with substitutions
    :param speed: bits per second; a text may have substitutions
    :param connection_params: see :class:`Remote`, as all that follow
    :param process_args: see there
    :param lifecycle_handlers: see there
    :param name: see there
    :param default_expect_timeout: see there
    :param fanout: see there
    :param substitute: see there
    :param connexion_params: see there
    :param policy: see there
    :raises TypeError: for arguments of a wrong type
    :raises ValueError: as :class:`Remote`; for an empty device or speed
    """

    def __init__(
        self,
        hosts: Hosts,
        device: str | os.PathLike[str],
        speed: int | str,
        connection_params: Mapping[str, Any] | None = None,
        process_args: Mapping[str, Any] | None = None,
        lifecycle_handlers: Iterable[ActionLifecycleHandler] | None = None,
        name: str | None = None,
        default_expect_timeout: Duration | None = None,
        *,
        fanout: int | None = None,
        substitute: bool = True,
        connexion_params: Mapping[str, Any] | None = None,
        **policy: Unpack[PolicyArgs],
    ) -> None:
        super().__init__(
            cmd=serial_command(device, speed),
            hosts=hosts,
            connection_params=connection_params,
            process_args=process_args,
            lifecycle_handlers=lifecycle_handlers,
            name=name,
            default_expect_timeout=default_expect_timeout,
            fanout=fanout,
            substitute=substitute,
            connexion_params=connexion_params,
            **policy,
        )

    def _model(
        self, cmd: Any, params: Mapping[str, Any] | None, args: Mapping[str, Any]
    ) -> SerialSsh:
        *_, device, speed = cmd
        return SerialSsh(Host("model"), device, speed, params, **args)
