"""One command on one host that taktuk reaches: between its sink and the taktuk that it shares."""

from __future__ import annotations

import errno
import signal
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from execo.errors import CancelledError, ProcessError
from execo.log import logger

from .base import ENDING_SIGNALS, Channel, Exec, Sink, Target
from .remote_shell import kill_order, parse_hello
from .ssh_messages import place
from .taktuk_failures import connect_failure, lost, no_room, not_reached
from .taktuk_words import COMMAND, GUARD, HELPER, input_data, order

if TYPE_CHECKING:
    from .taktuk_run import TaktukRun

__all__ = ["TaktukChannel"]

PIECE = 65536
"""Bytes of input that go to a host at a time."""

WINDOW = 16 * PIECE
"""Bytes of input on their way to the taktuk of a host, which has not said that it has them."""

MOST_HELD = 1 << 20
"""Bytes of output that wait for a paused process before the taktuk that it shares is paused."""

UNDELIVERED_AFTER = 3.0
"""Seconds that an order to end a command waits for other hosts to be connected."""

_SURVIVOR_LOOK = 1.0
_LINES = 20
_LEFT = "execo-left"
# The leader has exited, and something else holds its output: it is a zombie, or nobody any more.
_ASK_LEFT = (
    "{ read -r s </proc/%d/stat; } 2>/dev/null || kill -0 %d 2>/dev/null || s=') Z';"
    f" case ${{s##*) }} in Z*) echo {_LEFT};; esac"
)


class TaktukChannel:
    """One command. ``pid`` is its process id on the host. Its exit is told when nothing there holds
    its output open any more; or a second after a SIGKILL, whatever still holds it.

    On the I/O thread, but :meth:`open` and :meth:`refuse`.
    """

    process: object = None
    """The Popen of the local taktuk, which it shares."""

    descriptors: tuple[int | None, int | None, int | None] = (None, None, None)

    def __init__(self, request: Exec, target: Target, sink: Sink, nonce: str) -> None:
        self.request = request
        self.target = target
        self.nonce = nonce
        self.run: TaktukRun | None = None
        self.position = ""  # among the hosts of its run, as taktuk counts them
        self.pid: int | None = None
        self.start_date: float | None = None
        self.waited = 0.0
        self.failed = False
        self.rank: int | None = None  # its number among the hosts, once they are numbered
        self.connected = False
        self.told = False  # its sink has heard of its end
        self.lines: deque[str] = deque(maxlen=_LINES)  # of its connector
        self._sink = sink
        self._tried = False  # to start it: it runs, or could not be started
        self._running = False
        self._left: int | None = None  # the last signal before it was seen to have exited
        self._undrained = False  # its end was told while something else holds its output
        self._forgotten = False
        self._ending: int | None = None  # the last signal that was meant to end it
        self._hung_up: int | None = None  # the same, where its connection was ended
        self._survivors_until: float | None = None  # when what survives it is killed
        self._guard_pid: int | None = None
        self._no_guard = not request.target or not request.target.options.guard
        self._input: deque[bytes | None] = deque()
        self._input_closed = False
        self._on_way = 0  # bytes of input that the host has not confirmed
        self._unconfirmed: deque[int] = deque()
        self._paused = False
        self._held: list[tuple[int, bytes | None]] = []
        self._held_bytes = 0

    # -- what is known of it --------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Nothing of it is left to do or to wait for."""
        started = self.connected and (not self._tried or self._running)
        return self.told and not started and self._survivors_until is None

    @property
    def ending(self) -> bool:
        """It was told to end."""
        return self._ending is not None

    @property
    def holds_too_much(self) -> bool:
        """It is paused, and what waits is all that it may hold."""
        return self._held_bytes > MOST_HELD

    # -- starting -------------------------------------------------------------------------------

    def open(self) -> None:
        """Show itself to the sink."""
        self._sink.on_open(cast(Channel, self))

    def refuse(self, error: ProcessError) -> None:
        """It will not be started."""
        self.failed = True
        self.fail(error)

    def fail(self, error: ProcessError) -> None:
        """It could not be started, or it is lost."""
        self._running = False
        if self.told:
            return
        self.told = True
        self._give_up_input()
        self._paused = False
        held, self._held, self._held_bytes = self._held, [], 0
        self._release(held)  # all that it printed comes first
        self._sink.on_error(error)

    # -- asked by the process -------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self._running or self._input_closed:
            why = "its stdin was closed" if self._running else "it has ended"
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, why))
            return
        self._input += [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
        self._send_input(soon=True)

    def close_stdin(self) -> None:
        if self._running and not self._input_closed:
            self._input_closed = True
            self._input.append(None)
            self._send_input(soon=True)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            held, self._held, self._held_bytes = self._held, [], 0
            self._release(held)
            if self.run is not None:
                self.run.look_paused()

    def forget(self) -> None:
        self._forgotten = True
        self._paused = False
        self._held, self._held_bytes = [], 0
        if self.run is not None:
            self.run.look_paused()

    def abort(self) -> None:
        if self._running:
            self.send_signal(signal.SIGKILL)
        elif not self.told:
            self.fail(CancelledError("given up before it had started"))
            if self.run is not None:
                self.run.look_over()

    def send_signal(self, number: int) -> bool:
        if self._running:
            self._signal(number)
            return True
        if self.pid is not None and not self._forgotten and self._can_guard:
            self._tell_guard(number)
        return False

    # -- signals --------------------------------------------------------------------------------

    @property
    def _can_guard(self) -> bool:
        return self.request.group and not self._no_guard

    def _signal(self, number: int) -> None:
        assert self.run is not None
        if self._can_guard:
            self._tell_guard(number)
        else:
            self._kill_plainly(number)
            if number == signal.SIGTERM:
                self._kill_plainly(signal.SIGCONT)  # a stopped process would not see it
        if number not in ENDING_SIGNALS:
            return
        self._ending = number
        if self.rank is None:
            self.run.loop.call_later(UNDELIVERED_AFTER, self._look_undelivered, number)
        patience = self.request.kill_timeout
        if number == signal.SIGTERM and patience is not None and self._can_guard:
            if self._survivors_until is None:
                self.run.loop.call_later(patience, self._look_survivors)
            self._survivors_until = self.run.loop.time() + patience
        elif number == signal.SIGKILL:
            self._survivors_until = self.run.loop.time()
            self.run.loop.call_later(_SURVIVOR_LOOK, self._look_survivors)

    def _tell_guard(self, number: int) -> None:
        """Signal all that bears the command's mark."""
        # Each command has marks of its own, so that the order is the same for all.
        self._tell(input_data(GUARD, kill_order(1, number, runs=self._running).encode()))

    def _kill_plainly(self, number: int) -> None:
        """Signal the command's process group, or itself alone."""
        if self.request.group:
            self._tell(order("kill", "target", COMMAND, str(int(number))))
        else:
            text = f"kill -{int(number)} {self.pid}"
            self._tell(order("exec", "target", HELPER, "[", text, "]"))

    def _tell(self, text: bytes, size: int = 0, *, soon: bool = True) -> None:
        assert self.run is not None
        self._unconfirmed.append(size)
        self.run.tell(self, text, soon=soon)

    def hang_up(self, number: int) -> bool:
        """End its connection, which its guard takes for a lost client, and ends it; False if it
        cannot be ended alone.

        :param number: the signal that could not be sent
        """
        if self._running and self.run is not None and self.run.hang_up(self):
            self._hung_up = number
            if self._no_guard:
                logger.warning(
                    "no guard on %s: its connection is ended, but what %r has started there may go "
                    "on",
                    place(self.target),
                    self.request.command,
                )
        return self._hung_up is not None

    def _look_undelivered(self, number: int, waits: int = 3) -> None:
        """End its connection, if the order to end it is held up by hosts that do not answer.

        :param waits: how often a guard that does not run yet is waited for: without one, nobody
          there ends what the connection has left behind
        """
        if not self._running or self.rank is not None or self.run is None:
            return
        unguarded = self._can_guard and self._guard_pid is None
        if (unguarded and waits > 0) or not self.hang_up(number):
            again = self._look_undelivered
            self.run.loop.call_later(UNDELIVERED_AFTER, again, number, waits - 1)

    def _look_survivors(self) -> None:
        """Kill what is left of it when its time is over and it has itself exited."""
        if self._survivors_until is None or self.run is None:
            return
        left = self._survivors_until - self.run.loop.time()
        if left > 0:
            self.run.loop.call_later(left, self._look_survivors)
        elif self._running:
            if self.rank is not None:
                text = _ASK_LEFT % (self.pid, self.pid)
                self._tell(order("exec", "target", HELPER, "[", text, "]"))
            self.run.loop.call_later(_SURVIVOR_LOOK, self._look_survivors)
        else:
            self.kill_survivors()
            self.run.look_over()

    def _on_left(self) -> None:
        """It has exited, and something else holds its output. taktuk tells its status when nothing
        does any more: what can be found is killed. What cannot is not waited for, and the signal
        taken for the status."""
        self._left = self._left or self._ending
        if self._ending != signal.SIGKILL:
            self._signal(signal.SIGKILL)
        elif self._left is not None:
            self._exit(self._left, drained=False)

    def kill_survivors(self) -> None:
        """Kill what is left of it now, if it was told to end."""
        if self._survivors_until is not None and not self._running:
            self._survivors_until = None
            if self._can_guard and self.connected:
                self._tell_guard(signal.SIGKILL)

    # -- input ----------------------------------------------------------------------------------

    def _send_input(self, *, soon: bool) -> None:
        while self._input and self._on_way < WINDOW:
            data = self._input.popleft()
            if data is None:
                self._tell(order("input", "target", COMMAND, "close"), soon=soon)
            else:
                self._on_way += len(data)
                self._tell(input_data(COMMAND, data), len(data), soon=soon)

    def on_delivered(self) -> None:
        """The host has the oldest order that it had not confirmed."""
        size = self._unconfirmed.popleft() if self._unconfirmed else 0
        if size and self._running:
            self._on_way -= size
            self._sink.on_written(size)
            if self._on_way <= WINDOW // 2:
                # Not at once: others have it about now, and will be told the same.
                self._send_input(soon=False)

    def _give_up_input(self) -> None:
        unsent = any(piece is not None for piece in self._input)
        self._input.clear()
        if unsent:
            why = "it ended before it had read all"
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, why))

    # -- told by taktuk -------------------------------------------------------------------------

    def on_started(self, pid: int) -> None:
        """Something runs on the host: the command, then the guard, then what helps."""
        if self._tried:
            if self._guard_pid is None and not self._no_guard:
                self._guard_pid = pid
            return
        self._tried = True
        self.pid = pid
        self.start_date = time.time()
        self._running = True
        if not self.told:
            self._sink.on_start()
        if self.told or (self.run is not None and self.run.closing):
            self._signal(signal.SIGKILL)  # given up meanwhile

    def on_not_started(self, said: Iterable[str]) -> None:
        """What should have run on the host next could not be started.

        :param said: what taktuk has written of late
        """
        if self._tried:
            self._no_guard = self._no_guard or self._guard_pid is None
            return
        self._tried = True
        self.fail(no_room(self.target, self.request.command, said))

    def on_output(self, stream: int, pid: int, data: bytes) -> None:
        if pid == self.pid:
            if (not self.told or self._undrained) and not self._forgotten:
                self._deliver(stream, data)
        elif pid == self._guard_pid:
            hello = parse_hello(data.decode("utf-8", "replace"))
            self._no_guard = self._no_guard or (hello is not None and not hello.linux)
        elif self._running and data.strip() == _LEFT.encode():
            self._on_left()

    def on_status(self, pid: int, status: int) -> None:
        """Something has exited, and its output is closed."""
        if pid == self._guard_pid:
            self._no_guard = True
        elif pid == self.pid and self._running:
            self._exit(status)

    def on_failed(self, via: str) -> None:
        """It could not be connected to.

        :param via: the host that has tried, empty for this machine
        """
        self.connected = False
        self.refuse(connect_failure(self.target, self.lines, via))

    def on_lost(self, why: str = "") -> None:
        """Its connection is lost, and what ran there with it.

        :param why: if that is known better than by its own connector
        """
        self.connected = False
        self._survivors_until = None
        self._no_guard = True
        if self._hung_up is not None and self._running:
            self._exit(self._hung_up)
        else:
            self.fail(self._why_lost(why))

    def _why_lost(self, why: str) -> ProcessError:
        if self.pid is not None:
            return lost(self.target, self.lines, why)
        return not_reached(self.target, why or "the connection was lost", self.lines)

    def _exit(self, status: int, *, drained: bool = True) -> None:
        self._running = False
        if self.told:
            return
        self.told = True
        self._give_up_input()
        self._undrained = not drained
        if drained:
            self._deliver(1, None)
            self._deliver(2, None)
        self._sink.on_exit(status)

    def _deliver(self, stream: int, data: bytes | None) -> None:
        """Output, or None for its end. What comes while it is paused waits here."""
        if self._paused:
            self._held.append((stream, data))
            if data is not None:
                self._held_bytes += len(data)
                if self.holds_too_much and self.run is not None:
                    self.run.look_paused()
        elif data is None:
            self._sink.on_eof(stream, None)
        else:
            self._sink.on_data(stream, data)

    def _release(self, held: list[tuple[int, bytes | None]]) -> None:
        for index, (stream, data) in enumerate(held):
            if self._paused:  # again, by its sink
                self._held = held[index:] + self._held
                self._held_bytes = sum(len(one or b"") for _, one in self._held)
                return
            self._deliver(stream, data)
