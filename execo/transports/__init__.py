"""The ways to run a command, by name. Each is loaded when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import cast

from execo._core.locks import fork_gate
from execo._core.runtime import Runtime, current_runtime

from .base import Transport
from .counters import ConnectionStatistics, Statistics

__all__ = [
    "ConnectionStatistics",
    "Statistics",
    "close_idle",
    "get",
    "names",
    "register",
    "statistics",
]

# name -> "module:factory"; the factory is called with the runtime
_factories = {
    "become": "execo.becoming.transport:BecomingTransport",
    "forward": "execo.forwarding.transport:ForwardingTransport",
    "local": "execo.transports.local:LocalTransport",
    "openssh": "execo.transports.openssh:OpenSshTransport",
    "paramiko": "execo.transports.inprocess:InProcessTransport",
    "taktuk": "execo.transports.taktuk:TaktukTransport",
    "tree": "execo.transports.tree:TreeTransport",
    "transfer": "execo.transfer.relay:TransferTransport",
}

# They stand between a process and another transport: nobody asks for them by name.
_INTERNAL = frozenset({"become", "forward", "transfer"})


def register(name: str, factory: str) -> None:
    """Add a transport.

    :param name: what processes ask for
    :param factory: ``"module:callable"``; the callable gets the runtime and gives a
      :class:`~execo.transports.base.Transport`
    """
    _factories[name] = factory


def names() -> list[str]:
    """What processes can ask for, sorted; beside ``auto``, which chooses one of them."""
    return sorted(_factories.keys() - _INTERNAL)


def get(runtime: Runtime, name: str) -> Transport:
    """The transport ``name`` of this runtime, made at the first call.

    :raises ValueError: if there is none of this name
    """
    transport = runtime.transports.get(name)
    if transport is None:
        with runtime.lock:
            transport = runtime.transports.get(name)
            if transport is None:
                if name not in _factories:
                    raise ValueError(
                        f"no transport named {name!r}; there are: {', '.join(names())}"
                    )
                module, _, attribute = _factories[name].partition(":")
                with fork_gate:
                    factory = getattr(importlib.import_module(module), attribute)
                transport = factory(runtime)
                runtime.transports[name] = transport
                runtime.at_exit.append(transport.close)
    return cast(Transport, transport)


def guard_path(runtime: Runtime, path: str) -> Callable[[], object]:
    """Have a temporary file or folder removed, if this script is lost before the function that is
    returned is called. From any thread but the I/O thread.

    :param path: absolute; its name begins with ``execo-`` or ``.execo-``
    """
    # The local transport has the watchdog; one that a test has put in its place need not.
    guard: Callable[[str], Callable[[], object]] | None
    guard = getattr(get(runtime, "local"), "guard_path", None)
    return _nothing if guard is None else guard(path)


def _nothing() -> None:
    pass


def close_idle() -> None:
    """Close the connections that no process uses; the next process makes new ones.

    Returns when they are closed on this side. Does nothing where none are kept.
    """
    runtime = current_runtime()
    if runtime is not None:
        for transport in list(runtime.transports.values()):
            transport.close_idle()


def statistics() -> Statistics:
    """What the transports of this process are doing, and what has happened to their connections.

    From any thread; costs some milliseconds for thousands of connections, and starts nothing: all
    is 0 where no transport was used. New in execo 3.
    """
    runtime = current_runtime()
    numbers: dict[str, Mapping[str, int]] = {}
    for name, transport in list(runtime.transports.items()) if runtime is not None else ():
        # Transports need not have it.
        report: Callable[[], Mapping[str, int]] | None = getattr(transport, "statistics", None)
        if report is not None:
            numbers[name] = dict(report())
    return Statistics(ConnectionStatistics(**numbers.pop("paramiko", {})), numbers)
