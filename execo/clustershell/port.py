"""Ports: messages from one task, or thread, to another task."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from execo._core.latch import Latch

from .errors import EngineIllegalOperationError
from .event import method_of

if TYPE_CHECKING:
    from .event import EventHandler
    from .task import Task

__all__ = ["EnginePort"]


class EnginePort:
    """Takes messages for its task; made by :meth:`~execo.clustershell.Task.port`.

    - ``eh``: the handler
    - ``task``: the task

    :param task: the task that the messages are for
    :param handler: its ``ev_msg(port, msg)`` is called in the task's thread; None = messages wait
      for :meth:`msg_recv`
    :param autoclose: a run does not wait for it
    :param limit: messages that may wait
    """

    def __init__(
        self, task: Task, handler: EventHandler | None, autoclose: bool, limit: int
    ) -> None:
        self.task = task
        self.eh = handler
        self.autoclose = autoclose
        self.registered = False
        self.started = False
        self._closed = False
        self._room = threading.Semaphore(max(1, limit))
        self._received: deque[Any] = deque()
        self._changed = threading.Condition()
        self._waiting: set[Latch] = set()

    # -- from any thread ----------------------------------------------------------------------

    def msg(self, send_msg: Any, send_once: bool = False) -> bool:
        """Send a message, and wait until the task has taken it.

        :param send_once: do not wait, as :meth:`msg_send`
        :returns: False if the port is closed
        :raises EngineIllegalOperationError: in the port's own task, which would wait for itself;
          use :meth:`msg_send` there
        """
        if send_once or self._closed:
            return self._send(send_msg, None)
        if self._mine:
            raise EngineIllegalOperationError(
                "msg() in the task of the port would wait for itself for ever: use msg_send()"
            )
        taken = Latch()
        if not self._send(send_msg, taken):
            return False
        taken.wait()
        with self._changed:
            lost = taken in self._waiting
            self._waiting.discard(taken)
        return not lost

    def msg_send(self, send_msg: Any) -> bool:
        """Send a message; waits only while there are as many as the task's ``port_qlimit``.

        :returns: False if the port is closed
        :raises EngineIllegalOperationError: in the port's own task, if it has to wait
        """
        return self._send(send_msg, None)

    def msg_recv(self, timeout: float | None = None) -> Any:
        """The next message of a port without a handler. Blocks. (The reference document;
        ClusterShell lacks it)

        :param timeout: seconds to wait; None = for ever
        :raises TimeoutError: (Python's own) if none has come
        :raises EngineIllegalOperationError: if the port has a handler, or is closed
        """
        if self.eh is not None:
            raise EngineIllegalOperationError("the messages of this port go to its handler")
        with self._changed:
            self._changed.wait_for(lambda: self._received or self._closed, timeout)
            if self._received:
                message, taken = self._received.popleft()
            elif self._closed:
                raise EngineIllegalOperationError("the port is closed")
            else:
                raise TimeoutError(f"no message in {timeout} seconds")
        self._took(taken)
        return message

    @property
    def _mine(self) -> bool:
        return threading.current_thread() is self.task.thread

    def _send(self, message: Any, taken: Latch | None) -> bool:
        if self._closed:
            return False
        if not self._room.acquire(blocking=not self._mine):
            raise EngineIllegalOperationError(
                "too many messages wait in this port, and this is the task that has to take them"
            )
        with self._changed:
            if self._closed:
                self._room.release()
                return False
            if taken is not None:
                self._waiting.add(taken)
            if self.eh is None:
                self._received.append((message, taken))
                self._changed.notify()
                return True
        self.task._post(self._deliver, message, taken)
        return True

    # -- in the task's thread -----------------------------------------------------------------

    def _deliver(self, message: Any, taken: Latch | None) -> None:
        if self._closed:
            return
        self._took(taken)
        method = method_of(self.eh, "ev_msg")
        if method is not None:
            method(self, message)

    def _took(self, taken: Latch | None) -> None:
        self._room.release()
        if taken is not None:
            with self._changed:
                self._waiting.discard(taken)
            taken.fire()

    def _start(self) -> None:
        if not self.started:
            self.started = True
            method = method_of(self.eh, "ev_port_start")
            if method is not None:
                method(self)

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            waiting = list(self._waiting)
            self._changed.notify_all()
        for taken in waiting:
            taken.fire()  # and stays among those that wait: nobody has taken it
        self._room.release()
