"""One command that becomes another user, or has secret variables: between its sink and the channel
of the transport that carries it.

::

    OPENING ──> BEGINNING ──> BEGUN ──> RUNNING ──> EXITED
       │            │           │          │
       └────────────┴───────────┴──────────┴──> OVER      (refused, given up, or lost)
"""

from __future__ import annotations

import enum
import secrets
import signal
import time
from typing import TYPE_CHECKING, cast

from execo.errors import CancelledError, ProcessError
from execo.transports.base import Channel, Exec, Sink, Target
from execo.transports.remote_shell import Mark, join

from .beginning import LAST_WORDS, Beginning
from .signals import PATIENCE, Signals
from .texts import Marks, opening, order

if TYPE_CHECKING:
    from .guard import BecomeGuard
    from .transport import BecomingTransport

__all__ = ["BecomeChannel"]

_SSH_FAILED = 255 << 8
"""The status of an ssh whose command died of a signal; not all that fails so has."""

_DRAIN = 0.5


class _State(enum.Enum):
    """See the module."""

    OPENING = enum.auto()
    BEGINNING = enum.auto()
    BEGUN = enum.auto()
    RUNNING = enum.auto()
    EXITED = enum.auto()
    OVER = enum.auto()


class BecomeChannel:
    """A channel for its process, and the sink of another channel.

    All on the I/O thread, save ``open`` and ``on_open``.

    - ``signals``: what signals its processes; None: the transport that carries it does

    :param guard: who is told of signals, if that transport is not
    """

    pid: int | None = None
    start_date: float | None = None
    failed = False

    _state = _State.OPENING
    _inner: Channel | None = None
    _inner_over = False
    _unwanted = False
    _order = b""
    _ours = 0  # bytes written that are not the user's
    _forgotten = False
    _guard_lost: ProcessError | None = None

    def __init__(
        self,
        transport: BecomingTransport,
        request: Exec,
        target: Target,
        sink: Sink,
        guard: BecomeGuard | None,
    ) -> None:
        self.request = request
        self.target = target
        self.signals: Signals | None = None
        self._transport = transport
        self._loop = transport.runtime.loop
        self._sink = sink
        self._guard = guard
        self._mark: Mark | None = None
        if guard is not None:
            number = guard.next_number()
            self._mark = Mark(guard.nonce, number, request.detach)
            self.signals = Signals(self, guard, number, request, self._loop)
        self._marks = Marks(secrets.token_hex(8))
        self._beginning = Beginning(self, transport, request, self._marks)
        self._eofs: dict[int, OSError | None] = {}

    # -- what is known of it --------------------------------------------------------------------

    @property
    def waited(self) -> float:
        return 0.0 if self._inner is None else self._inner.waited

    @property
    def process(self) -> object:
        """That of the transport that carries it."""
        return None if self._inner is None else self._inner.process

    @property
    def descriptors(self) -> tuple[int | None, int | None, int | None]:
        return (None, None, None) if self._inner is None else self._inner.descriptors

    @property
    def runs(self) -> bool:
        """The command has begun, and has not ended."""
        return self._state is _State.RUNNING

    @property
    def over(self) -> bool:
        """It has ended, or was not started."""
        return self._state in (_State.EXITED, _State.OVER)

    @property
    def guarded(self) -> bool:
        """It is signalled by a guard of its own user."""
        return self.signals is not None

    @property
    def ending(self) -> bool:
        """It was told to end."""
        return self.signals is not None and self.signals.ending

    @property
    def exited_there(self) -> bool:
        """The command has exited, and what carries it has not said so yet."""
        return bool(getattr(self._inner, "command_exited", False))

    # -- starting -------------------------------------------------------------------------------

    def open(self) -> None:
        """Show itself to the sink."""
        self._sink.on_open(cast(Channel, self))

    def carried(self) -> Exec:
        """What the other transport is to run.

        :raises ValueError: if there can be no such command
        """
        request = self.request
        # Now, where an error is one of the start, and long secrets hold up one thread alone.
        self._order = order(request, echo=False)
        return Exec(
            # Without exec, some login shells would wait for it, and tell how it ended.
            f"exec {join(opening(request, self._marks, self._mark))}",
            pty=request.pty,
            group=request.group,
            kill_timeout=request.kill_timeout,
            detach=request.detach,
            relayed=request.relay,
            target=self.target,
        )

    def refuse(self, error: ProcessError) -> None:
        """It will not be started. From any thread."""
        self.failed = True
        self._inner_over = True
        self._loop.call_soon(self.fail, error)

    # -- asked by its beginning -----------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write what is not the user's."""
        if self._inner is not None:
            self._ours += len(data)
            self._inner.write(data)

    def end_input(self) -> None:
        """Nothing more is said."""
        if self._inner is not None:
            self._inner.close_stdin()

    def begin(self) -> None:
        """It is the other user, and waits."""
        self._state = _State.BEGUN
        if self._guard is None:
            self._go()
        else:
            # First the guard: what runs as another user would outlive this script without it.
            self._guard.join(self)

    def guard_settled(self) -> None:
        """The guard is there, or will not come."""
        if self._state is _State.BEGUN and not self._inner_over:
            self._go()

    def _go(self) -> None:
        dialogue = self._beginning.dialogue
        self.send(order(self.request, echo=True) if dialogue.echo else self._order)
        self._order = b""
        self._state = _State.RUNNING
        self.start_date = time.time()
        self._sink.on_start()
        for stream in (1, 2):
            for data in (dialogue.early[stream], dialogue.rest[stream]):
                if data:
                    self._sink.on_data(stream, data)
        for stream, error in list(self._eofs.items()):
            self._sink.on_eof(stream, error)
        if self._transport.closed and not self.request.detach:
            self.send_signal(signal.SIGKILL)

    def fail(self, error: ProcessError) -> None:
        """It was not started, or is lost."""
        if self._state is _State.OVER:
            return
        self.failed = self._state not in (_State.RUNNING, _State.EXITED)
        self._state = _State.OVER
        self._beginning.stop()
        command = self.request.command
        text = command if isinstance(command, str) else " ".join(command)
        own = type(error)(str(error), reason=error.reason, host=self.target.address, command=text)
        own.__cause__ = error.__cause__
        self._transport.remove(self)
        if self.signals is not None:
            self.signals.leave_guard()
        self._sink.on_error(own)
        if self._inner is not None and not self._inner_over:
            self._inner.close_stdin()
            self._loop.call_later(LAST_WORDS, self._abort_inner)

    def _abort_inner(self) -> None:
        if self._inner is not None and not self._inner_over:
            self._inner.abort()

    # -- asked by the process -------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.write(data)

    def close_stdin(self) -> None:
        if self._inner is not None:
            self._inner.close_stdin()

    def pause(self) -> None:
        if self._inner is not None:
            self._inner.pause()

    def resume(self) -> None:
        if self._inner is not None:
            self._inner.resume()

    def send_signal(self, number: int) -> bool:
        if self._inner is None or self._state not in (_State.RUNNING, _State.EXITED):
            return False
        if self.signals is None:
            return self._inner.send_signal(number)
        self.signals.send(number)
        return self._state is _State.RUNNING

    def signal_inner(self, number: int) -> None:
        """There is no guard: the host may signal it all the same."""
        if self._inner is not None and not self._inner_over:
            self._inner.send_signal(number)

    def abort(self) -> None:
        if self._state is _State.OPENING:
            self._unwanted = True
            if self._inner is not None:
                self._inner.abort()
        elif self._state is _State.RUNNING:
            self.send_signal(signal.SIGKILL)
        elif self._state is not _State.EXITED:
            self.fail(CancelledError("given up while it waited for its start"))

    def forget(self) -> None:
        if self._forgotten:
            return
        self._forgotten = True
        if self.signals is not None:
            self.signals.forget()
        # What was given up is still to be ended.
        if self._inner is not None and (self._inner_over or self._state is not _State.OVER):
            self._inner.forget()

    def end_hard(self) -> None:
        """Kill it with all that it has started, even if it has exited itself."""
        if self.signals is not None and self._state in (_State.RUNNING, _State.EXITED):
            self.signals.end_hard()

    def kill_survivors(self) -> None:
        """Kill what is left of it, if it was told to end."""
        if self.signals is not None:
            self.signals.kill_survivors()

    def guard_lost(self, error: ProcessError) -> None:
        """Its guard has lost the script, and ends it: that is why it fails from now on."""
        if self._state is _State.RUNNING and not self.request.detach:
            self._guard_lost = error
            self._loop.call_later(PATIENCE, self._forget_guard_lost)

    def _forget_guard_lost(self) -> None:
        self._guard_lost = None

    # -- the sink of the channel that carries it ------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._inner = channel

    def on_start(self) -> None:
        if self._state is not _State.OPENING:
            return
        self._state = _State.BEGINNING
        if self._unwanted:
            self.abort()
        else:
            self._beginning.start()

    def on_data(self, stream: int, data: bytes) -> None:
        if self._state in (_State.RUNNING, _State.EXITED):
            self._sink.on_data(stream, data)
        elif self._state is not _State.OVER:
            self._beginning.take(stream, data)

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self._eofs[stream] = error
        if self._state in (_State.RUNNING, _State.EXITED):
            self._sink.on_eof(stream, error)
        elif self._state is not _State.OVER:
            if len(self._eofs) < 2:
                self._beginning.close(stream)
            if self._inner_over:
                self._beginning.fail()

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._inner_over = True
        if self._state is _State.RUNNING:
            self._exit(status, error)
        elif self._state is not _State.OVER:
            # Of a program that has not become the other user. Its last words may still come.
            if len(self._eofs) == 2:
                self._beginning.fail()
            else:
                self._loop.call_later(_DRAIN, self._beginning.fail)
        elif self._forgotten and self._inner is not None:
            self._inner.forget()

    def _exit(self, status: int | None, error: ProcessError | None) -> None:
        self._state = _State.EXITED
        self._transport.remove(self)
        signals = self.signals
        if signals is not None:
            signals.exited()
        if self._guard_lost is not None and status and not self.ending:
            self._state = _State.OVER
            if signals is not None:
                signals.leave_guard()
            self._sink.on_error(self._guard_lost)
            return
        if self.request.through == "openssh" and status == _SSH_FAILED and signals is not None:
            status = signals.signalled or status  # ssh does not say of which, but it was sent
        self._sink.on_exit(status, error)

    def on_error(self, error: ProcessError) -> None:
        self._inner_over = True
        self.fail(error)

    def on_written(self, count: int) -> None:
        ours = min(count, self._ours)
        self._ours -= ours
        if count > ours and self._state is _State.RUNNING:
            self._sink.on_written(count - ours)

    def on_write_error(self, error: OSError) -> None:
        if self._state in (_State.RUNNING, _State.EXITED):
            self._sink.on_write_error(error)
