"""The I/O thread's end of one command: what happens goes into the inbox of the task's thread."""

from __future__ import annotations

import os
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from execo._core.locks import new_lock
from execo._core.loop import Loop
from execo.errors import ProcessError
from execo.transports.base import Channel

if TYPE_CHECKING:
    from .client import ProcessClient

__all__ = ["Flow", "Inbox", "ProcessSink", "code_of"]

HIGH = 4 * 1024 * 1024
"""Bytes of output that wait for the task's thread, of all commands together, when those that
deliver more are held up."""

LOW = 1024 * 1024
"""Bytes that wait when they go on."""

Inbox = SimpleQueue[tuple[Any, ...]]
"""What the task's thread is to do: a function and its arguments."""

_early = new_lock()


class Pausable:
    """What delivers output. On the I/O thread."""

    def pause(self) -> None:
        """Deliver nothing until ``resume()``."""

    def resume(self) -> None:
        """Go on."""


class Flow:
    """How much output waits for the task's thread, so that a slow handler holds commands up
    instead of filling the memory.

    Each of the counters has one thread that writes it: no lock for each piece of output.
    """

    def __init__(self) -> None:
        self._arrived = 0  # I/O thread
        self._taken = 0  # the task's thread
        self._paused: dict[Pausable, None] = {}  # I/O thread
        self._loop: Loop | None = None

    def arrived(self, source: Pausable, loop: Loop, count: int) -> None:
        """``source`` has delivered. On the I/O thread."""
        self._arrived += count
        if self._arrived - self._taken > HIGH and source not in self._paused:
            self._loop = loop
            self._paused[source] = None
            source.pause()
            # The other thread may have taken all before it could see that somebody is held up.
            if self._arrived - self._taken <= LOW:
                self._resume()

    def taken(self, count: int) -> None:
        """In the task's thread."""
        self._taken += count
        if self._paused and self._arrived - self._taken <= LOW and self._loop is not None:
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._arrived - self._taken <= LOW:
            paused, self._paused = self._paused, {}
            for source in paused:
                source.resume()

    def leave(self, source: Pausable) -> None:
        """It delivers nothing any more. On the I/O thread."""
        self._paused.pop(source, None)


class ProcessSink(Pausable):
    """Is told what happens to a command. All belongs to the I/O thread, save what says otherwise.

    :param client: whose command it is
    :param inbox: where events go
    :param flow: counts output
    :param loop: the I/O thread
    """

    def __init__(self, client: ProcessClient, inbox: Inbox, flow: Flow, loop: Loop) -> None:
        self._client = client
        self._inbox = inbox
        self._flow = flow
        self._loop = loop
        self._channel: Channel | None = None
        self._started = False
        self._open = 2  # streams
        self._exit: tuple[int | None, ProcessError | None] | None = None
        self._lost: ProcessError | None = None
        self._dropped = False
        self._over = False
        self._waiting: list[bytes | None] = []  # written before the start; None = the end

    # -- asked by the task, in any thread -----------------------------------------------------

    def write(self, data: bytes | None) -> None:
        """Give it input; None = there is no more."""
        with _early:
            if not self._started:
                self._waiting.append(data)
                return
        self._loop.call_soon(self._write, data)

    def drop(self) -> None:
        """Kill it hard, with all that it has started; nobody is told of it any more."""
        self._dropped = True
        self._loop.call_soon(self._abort)

    # -- the sink -----------------------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        """In the thread that opens it."""
        self._channel = channel
        if self._dropped:
            self._loop.call_soon(self._abort)

    def on_start(self) -> None:
        if self._dropped:
            self._abort()
        with _early:
            self._started = True
            waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._write(data)

    def on_data(self, stream: int, data: bytes) -> None:
        if not self._dropped:
            self._inbox.put((self._client.take, stream, data))
            self._flow.arrived(self, self._loop, len(data))

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self._open -= 1
        if error is not None:
            cause = error.__cause__
            self._lost = (
                cause
                if isinstance(cause, ProcessError)
                else ProcessError(f"some of its output could not be read: {error.strerror}")
            )
        self._look_over()

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._exit = (status, error)
        if self._dropped:
            self._end(None, None)
        else:
            self._look_over()

    def on_error(self, error: ProcessError) -> None:
        self._end(None, error)

    def on_written(self, count: int) -> None:
        if not self._dropped:
            self._inbox.put((self._client.wrote, count))

    def on_write_error(self, error: OSError) -> None:
        """It reads no more: as with a pipe to a command, its exit tells the story."""

    def pause(self) -> None:
        if self._channel is not None:
            self._channel.pause()

    def resume(self) -> None:
        if self._channel is not None:
            self._channel.resume()

    # -- the rest -----------------------------------------------------------------------------

    def _write(self, data: bytes | None) -> None:
        if self._over or self._channel is None:
            return
        if data is None:
            self._channel.close_stdin()
        else:
            self._channel.write(data)

    def _abort(self) -> None:
        if not self._over and self._channel is not None:
            self._flow.leave(self)
            self._channel.resume()  # its end comes behind its output
            self._channel.abort()

    def _look_over(self) -> None:
        # As with ClusterShell: what a command leaves in the background, with its output open,
        # belongs to it.
        if self._exit is not None and self._open <= 0:
            self._end(*self._exit)

    def _end(self, status: int | None, error: ProcessError | None) -> None:
        if self._over:
            return
        self._over = True
        self._flow.leave(self)
        if self._channel is not None:
            self._channel.forget()
            self._channel = None
        if not self._dropped:
            self._inbox.put((self._client.ended, status, error or self._lost))


def code_of(status: int | None, error: ProcessError | None) -> int:
    """The return code, as ClusterShell has it: 128 + n for a death by signal n, 255 for what could
    not be run, or was lost."""
    if status is None:
        return 255
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
