"""Actions and processes whose kind is chosen by the configuration or by what is given.

The classes are looked up when they are used: a factory names them all, and needs only those that
the script uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .config import CHAINPUT, SCP, SSH, TAKTUK, configuration
from .host import Host
from .local_process import Process
from .process_base import ProcessBase
from .ssh_process import SshProcess

if TYPE_CHECKING:
    from .action import Get, Put, Remote

__all__ = [
    "ActionFactory",
    "default_action_factory",
    "get_fileget",
    "get_fileput",
    "get_process",
    "get_remote",
]

_TOOL_NAMES = {SSH: "SSH", SCP: "SCP", TAKTUK: "TAKTUK", CHAINPUT: "CHAINPUT"}

# For each choice, its tools and their classes in execo.action.
_CLASSES = {
    "remote_tool": {SSH: "Remote", TAKTUK: "TaktukRemote"},
    "fileput_tool": {SCP: "Put", TAKTUK: "TaktukPut", CHAINPUT: "ChainPut"},
    "fileget_tool": {SCP: "Get", TAKTUK: "TaktukGet"},
}


class ActionFactory:
    """Makes actions with the tools that it was given, or those of the configuration. (execo 2.8.2)

    Tools are the constants of :mod:`execo.config`. One that is None is that of
    :data:`~execo.config.configuration` at the time of each call (execo 2.8.2: at the time when the
    factory is made, so that later changes had no effect).

    :param remote_tool: what runs commands: SSH or TAKTUK
    :param fileput_tool: what copies files to hosts: SCP, TAKTUK or CHAINPUT
    :param fileget_tool: what copies files from hosts: SCP or TAKTUK
    :raises ValueError: for a tool that cannot do it; the message says which can (execo 2.8.2:
      KeyError at the call)
    """

    def __init__(
        self,
        remote_tool: int | None = None,
        fileput_tool: int | None = None,
        fileget_tool: int | None = None,
    ) -> None:
        self.remote_tool = remote_tool
        self.fileput_tool = fileput_tool
        self.fileget_tool = fileget_tool
        for choice in _CLASSES:
            if getattr(self, choice) is not None:
                _class_name(choice, getattr(self, choice))

    def get_remote(self, *args: Any, **kwargs: Any) -> Remote:
        """Make an action that runs a command on hosts.

        :param args: see :class:`~execo.remote.Remote`
        :raises ValueError: for a tool in the configuration that cannot do it
        """
        made: Remote = self._make("remote_tool", args, kwargs)
        return made

    def get_fileput(self, *args: Any, **kwargs: Any) -> Put:
        """Make an action that copies files to hosts.

        :param args: see :class:`~execo.transfer.Put`
        :raises ValueError: for a tool in the configuration that cannot do it
        """
        made: Put = self._make("fileput_tool", args, kwargs)
        return made

    def get_fileget(self, *args: Any, **kwargs: Any) -> Get:
        """Make an action that copies files from hosts.

        :param args: see :class:`~execo.transfer.Get`
        :raises ValueError: for a tool in the configuration that cannot do it
        """
        made: Get = self._make("fileget_tool", args, kwargs)
        return made

    def _make(self, choice: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tool = getattr(self, choice)
        name = _class_name(choice, configuration[choice] if tool is None else tool)
        from . import action as kinds  # which has this factory, too

        return getattr(kinds, name)(*args, **kwargs)

    def __repr__(self) -> str:
        tools = [
            f"{choice}={_TOOL_NAMES.get(tool, tool)}"
            for choice in _CLASSES
            if (tool := getattr(self, choice)) is not None
        ]
        return f"{type(self).__name__}({', '.join(tools)})"


def _class_name(choice: str, tool: Any) -> str:
    classes = _CLASSES[choice]
    number = tool if isinstance(tool, int) and not isinstance(tool, bool) else -1
    if number not in classes:
        shown = _TOOL_NAMES.get(number, repr(tool))
        known = " or ".join(_TOOL_NAMES[one] for one in classes)
        raise ValueError(f"{choice} cannot be {shown}: choose {known} of execo.config")
    return classes[number]


#: The factory that follows the configuration.
default_action_factory = ActionFactory()

#: :meth:`ActionFactory.get_remote` of the default factory.
get_remote = default_action_factory.get_remote

#: :meth:`ActionFactory.get_fileput` of the default factory.
get_fileput = default_action_factory.get_fileput

#: :meth:`ActionFactory.get_fileget` of the default factory.
get_fileget = default_action_factory.get_fileget


def get_process(
    *args: Any,
    host: str | Host | None = None,
    connection_params: Mapping[str, Any] | None = None,
    connexion_params: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> ProcessBase:
    """Make a process: on a host if one is given, else on this machine. (execo 2.8.2)

    :param args: the command, and the other positional arguments of the kind of process; a host
      among the first two, in either order, is understood as :class:`~execo.process.SshProcess`
      does (execo 2.8.2: the keyword alone)
    :param host: the host; None = this machine
    :param connection_params: see :class:`~execo.process.SshProcess`; without effect on this machine
    :param connexion_params: the reference document's name of ``connection_params``
    :param kwargs: the other arguments of either
    :returns: a :class:`~execo.process.SshProcess` or a :class:`~execo.process.Process`, not started
    :raises TypeError: for arguments that the kind of process does not take
    """
    # The second argument of a Process is `shell`, a bool.
    given = any(isinstance(one, Host) for one in args[:2]) or any(
        isinstance(one, str) for one in args[1:2]
    )
    if host is None and not given:
        return Process(*args, **kwargs)
    if host is not None:
        kwargs["host"] = host
    if connection_params is not None:
        kwargs["connection_params"] = connection_params
    return SshProcess(*args, connexion_params=connexion_params, **kwargs)
