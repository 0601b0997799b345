"""What all workers have in common; and those that have nodes."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ClusterShell.MsgTree import MsgTreeElem
from ClusterShell.NodeSet import NodeSet

from execo.errors import ProcessError, Reason

from .errors import WorkerError
from .event import EventHandler, tell, tell_line
from .results import checked_keys

if TYPE_CHECKING:
    from .client import Client
    from .task import Task

__all__ = ["DistantWorker", "Worker"]


class Worker:
    """A piece of work for a task: commands that run at the same time, and their events. Derived
    classes say what it does. (ClusterShell 1.10)

    Its methods are for the task's thread; ``abort()``, ``write()`` and ``set_write_eof()`` may be
    called from any thread.

    - ``eh``: its handler
    - ``task``: its task, None until it is scheduled
    - ``started``: whether one of its commands has been started
    - ``current_node``, ``current_msg``, ``current_errmsg``, ``current_rc``, ``current_sname``: in
      a handler, what the event is about

    :param handler: is told of what happens; None = nobody is
    """

    SNAME_STDIN: str = "stdin"
    SNAME_STDOUT: str = "stdout"
    SNAME_STDERR: str = "stderr"

    _fanout: int | None = None
    _warns_of_timeout = True

    def __init__(self, handler: EventHandler | None) -> None:
        self.eh = handler
        self.task: Task | None = None
        self.started = False
        self.current_node: Any = None
        self.current_msg: bytes | None = None
        self.current_errmsg: bytes | None = None
        self.current_rc: int | None = 0
        self.current_sname: str | None = None
        self._clients: list[Client] = []
        self._left = 0
        self._timedout = False
        self._ended = False

    # -- for users ----------------------------------------------------------------------------

    def abort(self) -> None:
        """End it now: what runs is killed, with all that it has started, and ``ev_close`` is called
        before this returns. Does nothing before it is scheduled, and after its end."""
        task = self.task
        if task is None or self._ended:
            return
        if threading.current_thread() is not task.thread and task._is_alive():
            task._post(self._abort)
        else:
            self._abort()

    def _abort(self) -> None:
        for client in list(self._clients):
            client.abort()

    def did_timeout(self) -> bool:
        """Whether a timeout has ended some of it.

        :raises WorkerError: if the worker is not scheduled
        """
        _ = self._bound
        return self._timedout

    def read(self, node: Any = None, sname: str = "stdout") -> bytes | None:
        """The output of a node, None if there is none.

        :param node: the node, or the key; None = the only one
        :param sname: the stream
        :raises WorkerError: if the worker is not scheduled
        :raises TaskMsgTreeError: if this stream is not gathered
        """
        return self._bound._results.text(self, node, sname)

    def flush_buffers(self) -> None:
        """Forget its output."""
        self._bound._results.flush(self.SNAME_STDOUT, self)

    def flush_errors(self) -> None:
        """Forget its output on stderr."""
        self._bound._results.flush(self.SNAME_STDERR, self)

    def last_read(self) -> Any:
        """What was read last; deprecated: use ``current_msg``."""
        _deprecated("last_read", "current_msg")
        return self.current_msg

    def last_error(self) -> Any:
        """What was read last from stderr; deprecated: use ``current_errmsg``."""
        _deprecated("last_error", "current_errmsg")
        return self.current_errmsg

    def __repr__(self) -> str:
        return f"<execo.clustershell.{type(self).__name__} at {id(self):#x}>"

    # -- for its task -------------------------------------------------------------------------

    @property
    def _bound(self) -> Task:
        if self.task is None:
            raise WorkerError("worker is not task bound: schedule it first")
        return self.task

    def _set_task(self, task: Task) -> None:
        if self.task is not None:
            raise WorkerError("worker has already been scheduled")
        self.task = task
        self._left = len(self._clients)

    def _engine_clients(self) -> Sequence[Client]:
        return self._clients

    def _first_node(self, client: Client) -> Any:
        """``current_node`` at the start."""
        return None

    def _set_node(self, node: Any) -> None:
        """``current_node`` for an event."""

    # -- events, from its clients -------------------------------------------------------------

    def _on_nothing(self) -> None:
        """It has nothing to run: who waits for its end is told of it all the same."""
        self.started = True
        tell(self, "ev_start")
        self._close()

    def _on_client_start(self, client: Client) -> None:
        if not self.started:
            self.started = True
            self.current_node = self._first_node(client)
            tell(self, "ev_start")
        for node in client.nodes:
            if client.closed:
                return
            self._set_node(node)
            tell(self, "ev_pickup", node)

    def _on_lines(
        self, client: Client, nodes: Sequence[Any], sname: str, lines: list[bytes]
    ) -> None:
        results = self._bound._results
        takers = [results.taker(self, node, sname) for node in nodes]
        call = tell_line(self)
        on_stderr = sname == self.SNAME_STDERR
        self.current_sname = sname
        if call is None:
            if lines:
                self._note_line(lines[-1], on_stderr)
            for node, take in zip(nodes, takers, strict=True):
                self._set_node(node)
                if take is not None:
                    source = (self, node)
                    for line in lines:
                        take(source, line)
            return
        handler = self.eh
        for line in lines:
            if self.eh is not handler:  # it may be changed by any event
                handler, call = self.eh, tell_line(self)
            for node, take in zip(nodes, takers, strict=True):
                self._set_node(node)
                self.current_sname = sname
                self._note_line(line, on_stderr)
                if take is not None:
                    take((self, node), line)
                if call is not None:
                    call(node, sname, line)
                if client.closed:
                    return  # by the handler: it has heard of the end

    def _note_line(self, line: bytes, on_stderr: bool) -> None:
        if on_stderr:
            self.current_errmsg = line
        else:
            self.current_msg = line

    def _on_written(self, node: Any, size: int, sname: str) -> None:
        self._set_node(node)
        self.current_sname = sname
        tell(self, "ev_written", node, sname, size)

    def _on_client_end(self, client: Client, rc: int | None) -> None:
        """A client has ended by itself."""
        self._left -= 1
        for node in client.nodes:
            self._set_node(node)
            self.current_rc = rc
            if rc is not None:
                self._bound._results.set_rc(self, node, rc)
            tell(self, "ev_hup", node, rc)
        self._look_closed()

    def _on_client_abort(self, client: Client, timedout: bool) -> None:
        """A client has been ended."""
        self._left -= 1
        self._timedout = self._timedout or timedout
        self._look_closed()

    def _look_closed(self) -> None:
        if self._left <= 0 and not self._ended:
            if self.started:
                self._close()
            else:
                self._ended = True

    def _close(self) -> None:
        self._ended = True
        if self._timedout:
            tell(self, "ev_timeout")
        tell(self, "ev_close", self._timedout)

    def _note_failure(self, client: Client, error: ProcessError) -> None:
        """Why a client has failed."""


class DistantWorker(Worker):
    """A worker that has nodes, each with output and a return code of its own."""

    _warns_of_timeout = False  # as there
    _failures: dict[Any, ProcessError]
    nodes: NodeSet

    def __init__(self, handler: EventHandler | None) -> None:
        super().__init__(handler)
        self._failures = {}

    def node_buffer(self, node: str) -> bytes | None:
        """The output of a node, None if there is none."""
        return self.read(node, self.SNAME_STDOUT)

    def node_error(self, node: str) -> bytes | None:
        """What a node has printed on stderr, None if nothing."""
        return self.read(node, self.SNAME_STDERR)

    node_error_buffer = node_error

    def node_retcode(self, node: str) -> int:
        """The return code of a node.

        :raises KeyError: if it has none: it has not ended, or not by itself, or is not ours
        """
        return self._bound._results.rc(self, node)

    node_rc = node_retcode

    def node_reason(self, node: str) -> Reason | None:
        """Why the command of a node could not be run, or was lost, in one word: ``connect``,
        ``auth``, ``host key``, ...; None if it ran. It tells a node that could not be reached from
        a command that has exited with 255. New in execo.
        """
        error = self._failures.get(node)
        return None if error is None else error.reason

    def node_failure(self, node: str) -> ProcessError | None:
        """The error that says so in a sentence; None if it ran. New in execo."""
        return self._failures.get(node)

    def iter_buffers(
        self, match_keys: Collection[str] | None = None
    ) -> Iterator[tuple[MsgTreeElem, NodeSet]]:
        """Each different output, and the nodes that it is of.

        :param match_keys: of these nodes alone; empty = of none
        """
        return self._iter_streams(self.SNAME_STDOUT, match_keys)

    def iter_errors(
        self, match_keys: Collection[str] | None = None
    ) -> Iterator[tuple[MsgTreeElem, NodeSet]]:
        """Likewise what was printed on stderr."""
        return self._iter_streams(self.SNAME_STDERR, match_keys)

    def _iter_streams(
        self, sname: str, match_keys: Collection[str] | None
    ) -> Iterator[tuple[MsgTreeElem, NodeSet]]:
        self._bound._results.tree(sname)
        return self._walk(sname, match_keys)

    def _walk(
        self, sname: str, match_keys: Collection[str] | None
    ) -> Iterator[tuple[MsgTreeElem, NodeSet]]:
        for message, nodes in self._bound._results.walk(sname, checked_keys(match_keys), self):
            yield message, NodeSet.fromlist(nodes)

    def iter_node_buffers(
        self, match_keys: Collection[str] | None = None
    ) -> Iterator[tuple[str, MsgTreeElem]]:
        """Each node and its output."""
        return self._iter_nodes(self.SNAME_STDOUT, match_keys)

    def iter_node_errors(
        self, match_keys: Collection[str] | None = None
    ) -> Iterator[tuple[str, MsgTreeElem]]:
        """Each node and what it has printed on stderr."""
        return self._iter_nodes(self.SNAME_STDERR, match_keys)

    def _iter_nodes(
        self, sname: str, match_keys: Collection[str] | None
    ) -> Iterator[tuple[str, MsgTreeElem]]:
        for message, nodes in self._bound._results.walk(sname, checked_keys(match_keys), self):
            for node in nodes:
                yield node, message

    def iter_retcodes(
        self, match_keys: Collection[str] | str | None = None
    ) -> Iterator[tuple[int, NodeSet]]:
        """Each return code, and the nodes that have it.

        :param match_keys: of these nodes alone: a collection, or a node set as text; empty = of
          all
        """
        wanted = set(_node_list(match_keys)) if match_keys else None
        for rc, nodes in self._bound._results.rcs(self).items():
            found = nodes if wanted is None else [node for node in nodes if node in wanted]
            if found:
                yield rc, NodeSet.fromlist(found)

    def iter_node_retcodes(self) -> Iterator[tuple[str, int]]:
        """Each node and its return code."""
        return iter(self._bound._results.rcs_of(self).items())

    def num_timeout(self) -> int:
        """How many nodes a timeout has ended."""
        return len(self._bound._results.timeouts(self))

    def iter_keys_timeout(self) -> Iterator[str]:
        """The nodes that a timeout has ended."""
        return iter(self._bound._results.timeouts(self))

    def last_read(self) -> tuple[Any, Any]:
        """The node and its last line; deprecated: use ``current_node``, ``current_msg``."""
        _deprecated("last_read", "current_node, current_msg")
        return self.current_node, self.current_msg

    def last_error(self) -> tuple[Any, Any]:
        """The node and its last line on stderr; deprecated: use ``current_node``,
        ``current_errmsg``."""
        _deprecated("last_error", "current_node, current_errmsg")
        return self.current_node, self.current_errmsg

    def last_node(self) -> Any:
        """The node; deprecated: use ``current_node``."""
        _deprecated("last_node", "current_node")
        return self.current_node

    def last_retcode(self) -> tuple[Any, int | None]:
        """The node and its return code; deprecated: use ``current_node``, ``current_rc``."""
        _deprecated("last_retcode", "current_node, current_rc")
        return self.current_node, self.current_rc

    def _first_node(self, client: Client) -> Any:
        return client.nodes[0]

    def _set_node(self, node: Any) -> None:
        self.current_node = node

    def _note_failure(self, client: Client, error: ProcessError) -> None:
        for node in client.nodes:
            self._failures[node] = error


def _node_list(keys: Collection[str] | str) -> Collection[str]:
    return NodeSet(keys) if isinstance(keys, str) else keys


def _deprecated(name: str, instead: str) -> None:
    warnings.warn(f"{name}() is deprecated: use {instead}", DeprecationWarning, stacklevel=3)
