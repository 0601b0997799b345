"""What handlers are told, and how: the signatures of today, and those from before 1.8."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .port import EnginePort
    from .timer import EngineTimer
    from .worker import Worker

__all__ = ["EventHandler", "method_of", "tell", "tell_line"]


class EventHandler:
    """Derive from it, and define what you want to be told of. All methods run in the thread that
    is in ``resume()``, one at a time. (ClusterShell 1.10)

    Of one worker: ``ev_start``, then for each node ``ev_pickup``, any number of ``ev_read`` and
    ``ev_written``, and ``ev_hup``; ``ev_close`` comes last. What a method raises ends the run, and
    leaves ``resume()``. A ``node`` is the worker's key where it has no nodes.
    """

    def ev_start(self, worker: Worker) -> None:
        """Its first command has been started."""

    def ev_pickup(self, worker: Worker, node: Any) -> None:
        """The command of this node has been started."""

    def ev_read(self, worker: Worker, node: Any, sname: str, msg: bytes) -> None:
        """A line, without its end; also what comes after the last one.

        :param sname: the stream: ``stdout``, ``stderr`` (if it is separate), ...
        """

    def ev_error(self, worker: Worker) -> None:
        """A line on stderr, before ``ev_read``: see ``worker.current_errmsg``. Before 1.8."""

    def ev_written(self, worker: Worker, node: Any, sname: str, size: int) -> None:
        """So many bytes of what was written have been taken."""

    def ev_hup(self, worker: Worker, node: Any, rc: int | None) -> None:
        """The command of this node has ended by itself: not by a timeout, nor by ``abort()``.

        :param rc: its exit code; 128 + n for a death by signal n; 255 where the node could not be
          reached, see :meth:`~execo.clustershell.DistantWorker.node_reason`
        """

    def ev_close(self, worker: Worker, timedout: bool) -> None:
        """All of it has ended; nothing more will come.

        :param timedout: a timeout has ended some of it
        """

    def ev_port_start(self, port: EnginePort) -> None:
        """The port's task takes messages from now on."""

    def ev_msg(self, port: EnginePort, msg: Any) -> None:
        """A message has come."""

    def ev_timer(self, timer: EngineTimer) -> None:
        """The time has come."""


def method_of(handler: object, name: str) -> Callable[..., Any] | None:
    """The method of a handler, None if there is nothing to call."""
    method = getattr(handler, name, None)
    if method is None or getattr(method, "__func__", None) is getattr(EventHandler, name, method):
        return None
    found: Callable[..., Any] = method
    return found


def _is_old(method: Callable[..., Any]) -> bool:
    """It takes the worker alone, as before 1.8."""
    code = getattr(getattr(method, "__func__", None), "__code__", None)
    # What is no method of a class is made by somebody who knows today's signatures.
    return code is not None and bool(code.co_argcount == 2)


def _warn(handler: object, name: str, instead: str = "") -> None:
    what = instead or f"the signature {name}() has since ClusterShell 1.8"
    warnings.warn(f"{handler!r} should use {what}", DeprecationWarning, stacklevel=2)


def tell(worker: Worker, name: str, *args: Any) -> None:
    """Call a handler's method, if there is one, with the worker and ``args``."""
    method = method_of(worker.eh, name)
    if method is None:
        return
    if name == "ev_timeout":
        if worker._warns_of_timeout:
            _warn(worker.eh, name, "ev_close() instead of ev_timeout()")
        method(worker)
    elif args and name != "ev_written" and _is_old(method):
        _warn(worker.eh, name)
        method(worker)
    else:
        method(worker, *args)


def tell_line(worker: Worker) -> Callable[[Any, str, bytes], None] | None:
    """Who is told of lines: a function of node, stream and line; None if nobody is.

    Found once for all lines that have come together.
    """
    handler = worker.eh
    read, error = method_of(handler, "ev_read"), method_of(handler, "ev_error")
    if read is None and error is None:
        return None
    old = read is not None and _is_old(read)

    def call(node: Any, sname: str, line: bytes) -> None:
        on_stderr = sname == worker.SNAME_STDERR
        if on_stderr and error is not None:
            error(worker)
        if read is None:
            return
        if old:
            _warn(handler, "ev_read")
            if not on_stderr:  # which was for ev_error alone
                read(worker)
        else:
            read(worker, node, sname, line)

    return call
