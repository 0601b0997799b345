"""One command on a host behind a gateway: between its sink and a session of the gateway.

::

    WAITING ──> SENT ──> RUNNING ──> EXITED
       │          │         │
       └──────────┴─────────┴──> OVER      (refused, given up, or lost)

WAITING: for a gateway, for its connection to the host. Until then nothing has been started, and it
may take another way; from SENT on it never does.
"""

from __future__ import annotations

import enum
import errno
import os
import signal
import time
from collections import deque
from typing import TYPE_CHECKING, cast

from execo.errors import CancelledError, ProcessError, Reason, SpawnError
from execo.log import logger

from .base import ENDING_SIGNALS, Channel, Exec, Sink, Target
from .ssh_messages import SSH_FAILED, failure, place, read_log
from .tree_frames import PIECE

if TYPE_CHECKING:
    from .tree import TreeTransport
    from .tree_leaf import TreeLeaf
    from .tree_link import TreeLink

__all__ = ["State", "TreeChannel"]

FROZEN_AFTER = 10.0
"""Seconds from SIGKILL to the end, after which the host is asked, and as many for its answer."""

_SURVIVOR_LOOK = 1.0
_LAST_LOOK = 30.0
_LINES = 20


class State(enum.Enum):
    """See the module."""

    WAITING = enum.auto()
    SENT = enum.auto()
    RUNNING = enum.auto()
    EXITED = enum.auto()
    OVER = enum.auto()


class TreeChannel:
    """A channel over a gateway. All on the I/O thread, save ``open``.

    - ``tried``: the gateways that were lost before it had started
    - ``why``: of the last of them
    - ``link``, ``leaf``: its gateway, and its connection from there to the host
    - ``id``: its number at the gateway
    - ``number``: its number among the commands of the leaf
    - ``plain``: it has an ssh of its own, and no guard
    - ``is_program``: it is the program of a gateway
    """

    pid: int | None = None
    start_date: float | None = None
    waited = 0.0
    failed = False
    process: object = None
    descriptors: tuple[int | None, int | None, int | None] = (None, None, None)

    def __init__(self, transport: TreeTransport, request: Exec, target: Target, sink: Sink) -> None:
        self.request = request
        self.target = target
        self.state = State.WAITING
        self.tried: set[str] = set()
        self.why: ProcessError | None = None
        self.link: TreeLink | None = None
        self.leaf: TreeLeaf | None = None
        self.attempts = 0
        self.is_program = False
        self.id = -1
        self.number = 0
        self.plain = not target.options.guard
        self._transport = transport
        self._loop = transport.loop
        self._sink = sink
        self._began = transport.loop.time()
        self._ending: int | None = None
        self._signalled: int | None = None
        self._unwanted = False
        self._forgotten = False
        self._watches_survivors = False
        self._input: deque[bytes] = deque()
        self._input_closed = False
        self._on_way = 0
        self._window = 0
        self._room = 0  # bytes of output that may come
        self._owed = 0  # bytes that were delivered, and not granted again
        self._paused = False
        self._held: deque[tuple[int, bytes | None]] = deque()
        self._ended: set[int] = set()  # streams whose end has been delivered
        self._tail: deque[bytes] = deque(maxlen=_LINES)

    # -- what is known of it --------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The host as the routes know it."""
        return self.target.name or self.target.address

    @property
    def told(self) -> bool:
        """Its sink has heard of its end."""
        return self.state in (State.EXITED, State.OVER)

    @property
    def ending(self) -> bool:
        """It was told to end."""
        return self._ending is not None

    @property
    def at(self) -> str:
        """Its gateway, for messages."""
        return "" if self.link is None else self.link.name

    # -- starting -------------------------------------------------------------------------------

    def open(self) -> None:
        """Show itself to the sink."""
        self._sink.on_open(cast(Channel, self))

    def refuse(self, error: ProcessError) -> None:
        """It will not be started. From any thread before it is routed, else on the I/O thread."""
        self.failed = True
        if self._loop.in_thread():
            self.fail(error)
        else:
            self._loop.call_soon(self.fail, error)

    def sent(self, number: int, window: int) -> None:
        """The gateway was told to start it.

        :param number: its number there
        :param window: bytes that may be on their way to it, or from it
        """
        self.state = State.SENT
        self.id = number
        self._window = self._room = window
        self.waited = self._loop.time() - self._began

    def back(self) -> None:
        """It was certainly not started: it waits again."""
        self.state = State.WAITING
        self.id = -1
        self.leaf = None

    def fail(self, error: ProcessError) -> None:
        """It could not be started, or it is lost."""
        if self.told:
            return
        self.failed = self.state in (State.WAITING, State.SENT)
        self.state = State.OVER
        self._give_up_input()
        self._paused = False
        if self.failed:
            self._held.clear()
        while self._held:
            self._deliver(*self._held.popleft())  # all that it printed comes first
        self._sink.on_error(error)
        self._transport.ended(self)

    # -- asked by the process -------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not data:
            return
        if self.state is not State.RUNNING or self._input_closed:
            running = self.state is State.RUNNING
            why = "its stdin was closed" if running else "it has ended"
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, why))
            return
        self._input += [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
        self._send_input()

    def close_stdin(self) -> None:
        if self.state is State.RUNNING and not self._input_closed:
            self._input_closed = True
            self._send_input()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        while self._held and not self._paused and self.state is not State.SENT:
            self._deliver(*self._held.popleft())

    def forget(self) -> None:
        self._forgotten = True
        self._paused = False
        self._held.clear()
        if self.id >= 0 and self.link is not None and len(self._ended) < 2:
            self.link.tell("mute", id=self.id)

    def abort(self) -> None:
        if self.state is State.RUNNING:
            self.send_signal(signal.SIGKILL)
        elif not self.told:
            self._unwanted = self.state is State.SENT
            self.fail(CancelledError("given up before it had started"))
            if not self._unwanted:
                self._leave()

    def send_signal(self, number: int) -> bool:
        if self.state is State.RUNNING:
            self._signal(number)
            return True
        if self.state is State.EXITED and not self._forgotten and self.request.group and self.leaf:
            self.leaf.kill(self.number, number, group=True, runs=False)
        return self.state not in (State.EXITED, State.OVER)

    # -- signals --------------------------------------------------------------------------------

    def _signal(self, number: int) -> None:
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self._signalled = number
        ending = number in ENDING_SIGNALS
        if ending:
            self._ending = number
        group = self.request.group
        if self.leaf is None or not self.leaf.kill(self.number, number, group=group, runs=True):
            self._signal_plainly(number)
            return
        patience = self.request.kill_timeout
        if number == signal.SIGTERM and patience is not None and group:
            if not self._watches_survivors:
                self._watches_survivors = True
                self._loop.call_later(patience, self._look_survivors)
        elif number == signal.SIGKILL:
            self._loop.call_later(FROZEN_AFTER, self._look_frozen)

    def _signal_plainly(self, number: int) -> None:
        """There is no guard: ending its connection is all that can be done."""
        what = f"no guard on {place(self.target)}"
        if number not in ENDING_SIGNALS:
            logger.warning(
                "cannot send signal %d to %r: %s to do it", number, self.request.command, what
            )
            return
        logger.warning(
            "%s: its connection is ended, but what %r has started there may go on",
            what,
            self.request.command,
        )
        if self.link is not None:
            self.link.tell("drop", id=self.id)

    def _look_frozen(self) -> None:
        """It was killed hard, and has not ended: the host does not answer, or what bears no mark of
        it holds its output open."""
        if self.state is State.RUNNING and self.leaf is not None:
            self.leaf.look(self.number, self._on_killed)
            self._loop.call_later(FROZEN_AFTER, self._give_up)

    def _on_killed(self, left: str) -> None:
        if self.state is State.RUNNING and left != "lead" and self.link is not None:
            self.link.tell("drop", id=self.id)

    def _give_up(self) -> None:
        if self.state is not State.RUNNING:
            return
        if self.link is not None:
            self.link.tell("drop", id=self.id)
        through = f" (through {self.at})" if self.at else ""
        self.lose(
            f"{place(self.target)} does not answer{through}: killed here, what ran there may go on"
        )

    def _look_survivors(self, delay: float = _SURVIVOR_LOOK) -> None:
        """Its time is over. ssh does not say that it has died before its output is closed."""
        if self.state is not State.RUNNING:
            self.kill_survivors()
        elif self._watches_survivors and self.leaf is not None:
            self.leaf.look(self.number, self._on_left)
            self._loop.call_later(delay, self._look_survivors, min(2 * delay, _LAST_LOOK))

    def _on_left(self, left: str) -> None:
        if self.state is State.RUNNING and left == "left" and self.leaf is not None:
            self.leaf.kill(self.number, signal.SIGKILL, group=True, runs=False)

    def kill_survivors(self) -> None:
        """Kill what is left of it, if it was told to end."""
        if self._watches_survivors and self.state is not State.RUNNING:
            self._watches_survivors = False
            if self.leaf is not None:
                self.leaf.kill(self.number, signal.SIGKILL, group=True, runs=False)
            self._leave()

    # -- input ----------------------------------------------------------------------------------

    def _send_input(self) -> None:
        link = self.link
        if link is None:
            return
        while self._input and self._on_way < self._window:
            data = self._input.popleft()
            self._on_way += len(data)
            link.feed([self.id], data)
        if self._input_closed and not self._input:
            link.tell("eof", id=self.id)

    def _give_up_input(self) -> None:
        unsent = bool(self._input)
        self._input.clear()
        if unsent:
            why = "it ended before it had read all"
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, why))

    # -- told by the gateway --------------------------------------------------------------------

    def on_up(self) -> None:
        """It runs."""
        if self._unwanted:
            killed = self.leaf is not None and self.leaf.kill(
                self.number, signal.SIGKILL, group=True, runs=True
            )
            if not killed and self.link is not None:
                self.link.tell("drop", id=self.id)
            self.forget()
        if self.state is not State.SENT:
            return
        self.state = State.RUNNING
        self.start_date = time.time()
        self._sink.on_start()
        if self._transport.closed and not self.request.detach:
            self._signal(signal.SIGKILL)
        if not self._paused:
            self.resume()

    def on_no(self, why: str, spawn: bool) -> None:
        """The gateway has not started it."""
        leaf = self.leaf
        if self.state is State.RUNNING and self.link is not None:
            self.link.mistrust(f"it says that {self.name} has not started what it has started")
        elif self.state is not State.SENT:
            self._leave()
        elif leaf is not None:
            leaf.refused(self, why)
        else:
            self.failed = True
            kind = SpawnError if spawn else ProcessError
            text = f"cannot reach {place(self.target)}{self._through()}: {why}"
            self.fail(
                kind(text, reason=None if spawn else Reason.CONNECT, host=self.target.address)
            )
            self._leave()

    def on_out(self, stream: int, data: bytes) -> None:
        if stream == 2 and self.plain:
            self._tail.append(data[-1000:])
        if self.state is State.SENT:
            self.on_up()  # what prints runs: it is seen before ssh says so
        if self.state is State.OVER or self._forgotten or stream in self._ended:
            return
        self._room -= len(data)
        if self._room < 0 and self.link is not None:
            self.link.mistrust(f"it sends more output of {self.name} than there is room for")
            return
        self._take(stream, data)

    def on_end(self, stream: int) -> None:
        if stream in self._ended:
            return
        if self.state is State.OVER or self._forgotten:
            self._ended.add(stream)
            self._look_drained()
        else:
            self._take(stream, None)

    def on_took(self, count: int) -> None:
        count = min(count, self._on_way)
        self._on_way -= count
        if count and self.state is State.RUNNING:
            self._sink.on_written(count)
            self._send_input()

    def on_stuck(self) -> None:
        """It does not read its stdin any more."""
        if self.state is State.RUNNING and (self._input or self._on_way):
            self._input.clear()
            self._on_way = 0
            why = "it reads no more of its stdin"
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, why))

    def on_exit(self, code: int | None) -> None:
        """It has ended.

        :param code: its exit code, None if it has died of a signal; of an ssh the wait status
        """
        if self.state is State.SENT:
            self.on_up()  # ssh says of a quick one that it has ended, and nothing before
        if self.state is State.RUNNING:
            status, error = self._status(code)
            if error is not None:
                self.fail(error)
            else:
                self.state = State.EXITED
                self._on_way = 0
                self._give_up_input()
                self._sink.on_exit(status)
                self._transport.ended(self)
        self._left_after_exit()

    def _left_after_exit(self) -> None:
        if self.leaf is not None:
            self.leaf.exited(self)
        self._look_drained()
        if not self._watches_survivors and len(self._ended) == 2:
            self._leave()

    def _status(self, code: int | None) -> tuple[int, ProcessError | None]:
        if self.plain:
            if self._ending is not None and (
                code is None or code == SSH_FAILED or os.WIFSIGNALED(code)
            ):
                return self._ending, None
            text = b"".join(self._tail).decode("utf-8", "replace")
            status = SSH_FAILED if code is None else code
            tail = text.splitlines()[-_LINES:]
            error = failure(self.target, status, read_log(text), tail, follows=False)
            return status, error
        if code is not None:
            return (code & 0xFF) << 8, None
        return self._signalled or SSH_FAILED, None

    def lose(self, why: str) -> None:
        """Its host, or the way there, is lost: nothing more comes of it.

        :param why: for the message
        """
        if self.leaf is not None:
            self.leaf.remove(self)
        self.leaf = None
        if not self.told:
            self.fail(ProcessError(why, reason=Reason.CONNECT, host=self.target.address))
        elif self.state is State.EXITED and not self._forgotten:
            broken = ConnectionResetError(errno.ECONNRESET, why)
            for stream in (1, 2):
                if stream not in self._ended and (stream, None) not in self._held:
                    self._ended.add(stream)
                    while self._held:
                        self._deliver(*self._held.popleft())
                    self._sink.on_eof(stream, broken)
        self._leave()

    def _through(self) -> str:
        return f" (tried from {self.at})" if self.at else ""

    # -- output ---------------------------------------------------------------------------------

    def _take(self, stream: int, data: bytes | None) -> None:
        """Output, or None for its end. What comes while it is paused waits here: no more than the
        gateway has been granted."""
        # The output of what is about to be refused ends, too: nobody is told before it runs.
        if self._paused or self._held or self.state is State.SENT:
            self._held.append((stream, data))
        else:
            self._deliver(stream, data)

    def _deliver(self, stream: int, data: bytes | None) -> None:
        if data is None:
            if stream not in self._ended:
                self._ended.add(stream)
                self._sink.on_eof(stream, None)
                self._look_drained()
            return
        self._sink.on_data(stream, data)
        self._owed += len(data)
        if self._owed >= self._window // 2 and self.link is not None:
            self.link.tell("room", id=self.id, by=self._owed)
            self._room += self._owed
            self._owed = 0

    def _look_drained(self) -> None:
        """All has come, and nothing is to be killed later: it is of no interest any more."""
        if len(self._ended) == 2 and self.told and not self._watches_survivors:
            self._leave()

    def _leave(self) -> None:
        link, leaf = self.link, self.leaf
        if leaf is not None:
            leaf.remove(self)
        if link is not None:
            link.forget(self)
