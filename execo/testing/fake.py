"""A fake transport: nothing is run, each command follows a script, without delay unless asked.

::

    import signal
    from execo import Process, transports
    from execo.testing import Err, Exit, Gate, Out, Script, scripts

    transports.register("fake", "execo.testing.fake:FakeTransport")
    scripts["uptime"] = Script(Out(b"up 3 days\n"), Err(b"and tired\n"), Exit(3))
    scripts["serve"] = Script(Out(b"ready\n"), Gate(), signals={signal.SIGTERM: None})

    process = Process("uptime")
    process.transport = "fake"  # or as an attribute of a class of yours
    process.run()
    assert (process.stdout, process.exit_code) == ("up 3 days\n", 3)

The fake passes the contract test of the real transports: its stdin and outputs have a limited
size, a command is held up while its output is paused, and signals end it.
"""

from __future__ import annotations

import errno
import itertools
import shlex
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from execo.errors import CancelledError, SpawnError
from execo.transports.base import Channel, Exec, Request, Sink, not_supported

from .script import CloseStdin, Echo, Eof, Err, Event, Exit, Fail, Gate, Out, Read, Script, Start
from .script import scripts as the_scripts

__all__ = ["FakeChannel", "FakeTransport"]

CAPACITY = 64 * 1024
"""Bytes that stdin holds while the script reads none, and each output while it is paused."""

_HARMLESS = {
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),
    *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
}

_pids = itertools.count(1 << 23)  # no real one is that high: a kill() by mistake finds nobody


class _Runtime(Protocol):
    @property
    def loop(self) -> Any: ...


class FakeTransport:
    """Follows scripts instead of running commands. A command without one cannot be started.

    :param runtime: given by the registry of transports
    :param scripts: command -> its script; default: ``execo.testing.scripts``
    :param slots: commands that run at a time, others wait for their start; None = all
    """

    def __init__(
        self,
        runtime: _Runtime,
        *,
        scripts: Mapping[str, Script] | None = None,
        slots: int | None = None,
    ) -> None:
        self.loop = runtime.loop
        self.scripts = the_scripts if scripts is None else scripts
        self.slots = slots
        self._waiting: deque[FakeChannel] = deque()
        self._live: set[FakeChannel] = set()

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        channels: list[Channel] = []
        for request, sink in pairs:
            if not isinstance(request, Exec):
                raise not_supported("fake", request)
            command = request.command
            text = command if isinstance(command, str) else shlex.join(command)
            script = self.scripts.get(text) or Script(Fail(_unknown(text)))
            channel = FakeChannel(self, request, sink, script)
            script.channels.append(channel)
            sink.on_open(channel)
            if self.slots is None:
                channel.prepare()
            self.loop.call_soon(self._enqueue, channel)
            channels.append(channel)
        return channels

    def close_idle(self) -> None:
        """Does nothing: nothing is kept."""

    def close(self) -> None:
        self.loop.run_sync(self._end_all)

    def forget(self, channel: FakeChannel) -> None:
        """``channel`` is over: another one may start."""
        self._live.discard(channel)
        if channel in self._waiting:
            self._waiting.remove(channel)
        self._admit()

    def _enqueue(self, channel: FakeChannel) -> None:
        self._waiting.append(channel)
        self._admit()

    def _admit(self) -> None:
        while self._waiting and (self.slots is None or len(self._live) < self.slots):
            channel = self._waiting.popleft()
            self._live.add(channel)
            channel.admitted = True
            channel.advance()

    def _end_all(self) -> None:
        for channel in [*self._waiting, *self._live]:
            if not channel.request.detach:
                channel.send_signal(signal.SIGTERM)
                channel.abort()


class FakeChannel:
    """A command that follows its script. Beside what a channel has, tests may look at:

    - ``request``: what was asked
    - ``received``: the bytes of its stdin that it has read
    - ``signals``: the signals that it was sent
    """

    def __init__(self, transport: FakeTransport, request: Exec, sink: Sink, script: Script) -> None:
        self.request = request
        self.received = bytearray()
        self.signals: list[int] = []
        self.pid: int | None = None
        self.start_date: float | None = None
        self.waited = 0.0
        self.failed = self.admitted = False
        self.process: object = None
        self._transport, self._sink, self._reactions = transport, sink, script.signals
        self._opened = time.monotonic()
        self._events = deque(script.events)
        first = script.events[0] if script.events else None
        if not isinstance(first, Fail) and not any(isinstance(e, Start) for e in script.events):
            self._events.appendleft(Start())
        self._started = self._exited = self._over = self._paused = False
        self._fate: Event | None = None  # comes instead of the rest of the script
        self._timed: Event | None = None  # its delay runs,
        self._due: Event | None = None  # is over
        self._steps = 0
        self._advancing = self._again = False
        self._written, self._stdin = bytearray(), bytearray()  # in front of the pipe, and in it
        self._stdin_open, self._stdin_ending = True, False
        self._outputs = {1: bytearray(), 2: bytearray()}
        self._eofs: dict[int, OSError | None] = {}
        self._open = {1, 2}

    @property
    def descriptors(self) -> tuple[None, None, None]:
        """It has none."""
        return None, None, None

    def prepare(self) -> None:
        """What is known when open_all() returns, of a command that starts or fails at once."""
        first = self._events[0]
        if not first.delay and isinstance(first, Start):
            self.pid, self.start_date = next(_pids), time.time()
        self.failed = not first.delay and isinstance(first, Fail)

    def step(self) -> None:
        """Open the next gate, see :meth:`Script.step`. From any thread."""
        self._transport.loop.run_sync(self._step)

    # -- what is done to it: the I/O thread ---------------------------------------------------

    def write(self, data: bytes) -> None:
        if not self._stdin_open or self._stdin_ending:
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, "stdin is closed"))
            return
        self._written += data
        self.advance()

    def close_stdin(self) -> None:
        self._stdin_ending = True
        self.advance()

    def send_signal(self, number: int) -> bool:
        alive = self._started and not self._exited and not self._over
        if self._started and not self._exited and not self._over:
            self.signals.append(number)
            code = self._reactions.get(number, None if number in _HARMLESS else -number)
            if number == signal.SIGKILL:
                code = -number
            if code is not None and self._fate is None:
                self._fate = Exit(code)
                # Not within this call: what has sent the signal notes it first, as with a real one.
                self._transport.loop.call_soon(self.advance)
        return alive

    def forget(self) -> None:
        """Nothing: a script leaves nothing behind."""

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self.advance()

    def abort(self) -> None:
        if self._started:
            self.send_signal(signal.SIGKILL)
        elif self.pid is None and not self.failed and not self._over:
            self._fate = Fail(CancelledError("given up while it waited for its start"))
            self.advance()

    # -- the script: the I/O thread -----------------------------------------------------------

    def _step(self) -> None:
        self._steps += 1
        self.advance()

    def advance(self) -> None:
        """Follow the script until it must wait."""
        self._again = True  # the sink may call back in the middle of a step
        while self._again and not self._advancing:
            self._again, self._advancing = False, True
            try:
                while not self._over and self._next():
                    pass
            finally:
                self._advancing = False

    def _next(self) -> bool:
        """Do what can be done now; False = it must wait."""
        if not self.admitted and self._fate is None:
            return False
        if self._started:
            self._move()
        if self._fate is not None:
            self._events, self._fate = deque([self._fate]), None
        if not self._events:
            return self._finish()
        event = self._events[0]
        if event.delay and self._due is not event:
            if self._timed is not event:
                self._timed = event
                self._transport.loop.call_later(event.delay, self._delayed, event)
            return False
        if not self._do(event):
            return False
        self._events.popleft()
        self._timed = self._due = None
        return True

    def _delayed(self, event: Event) -> None:
        if self._timed is event:
            self._due = event
            self.advance()

    def _do(self, event: Event) -> bool:
        match event:
            case Start(waited):
                self._start(waited)
            case Out(data):
                return self._put(1, data)
            case Err(data):
                return self._put(2, data)
            case Eof(stream, error):
                self._eofs.setdefault(stream, error)
            case Exit(code):
                self._exit(code)
            case Fail(error):
                self.failed = not self._started
                self._sink.on_error(error)
                self._give_back()
            case Gate():
                self._steps -= 1
                if self._steps < 0:
                    self._steps = 0
                    return False
            case Read(until):
                return self._read(until)
            case Echo():
                return self._echo()
            case CloseStdin():
                self._close_stdin()
        return True

    def _start(self, waited: float | None) -> None:
        if self.pid is None:
            self.pid, self.start_date = next(_pids), time.time()
        self.waited = time.monotonic() - self._opened if waited is None else waited
        self._started = True
        self._sink.on_start()

    def _exit(self, code: int | None) -> None:
        self._exited = True
        self._close_stdin()
        if code is None:
            self._sink.on_exit(None, SpawnError("its exit status is lost"))
        else:
            self._sink.on_exit(code << 8 if code >= 0 else -code)

    def _finish(self) -> bool:
        if not self._exited:
            self._exit(0)
        elif len(self._eofs) < 2:
            for stream in self._outputs:
                self._eofs.setdefault(stream, None)
        else:
            if not self._open:
                self._give_back()
            return False
        return True

    def _give_back(self) -> None:
        self._over, self._stdin_open = True, False
        self._transport.forget(self)

    # -- its pipes ----------------------------------------------------------------------------

    def _move(self) -> None:
        taken = self._written[: CAPACITY - len(self._stdin)]
        if taken:
            del self._written[: len(taken)]
            self._stdin += taken
            self._sink.on_written(len(taken))
        for stream, waiting in self._outputs.items():
            if waiting and not self._paused:
                data = bytes(waiting)
                waiting.clear()
                self._sink.on_data(stream, data)
            if stream in self._eofs and stream in self._open and not (waiting or self._paused):
                self._open.discard(stream)
                self._sink.on_eof(stream, self._eofs[stream])

    def _put(self, stream: int, data: bytes) -> bool:
        if len(self._outputs[stream]) >= CAPACITY:
            return False
        self._outputs[stream] += data
        return True

    def _read(self, until: bytes) -> bool:
        ended = self._stdin_ended
        found = self._stdin.find(until) if until else -1
        if found >= 0:
            self._take(found + len(until))
        else:  # what may be the beginning of ``until`` stays
            self._take(len(self._stdin) - (0 if ended else max(0, len(until) - 1)))
        return found >= 0 or ended

    def _echo(self) -> bool:
        ended = self._stdin_ended
        self._outputs[1] += self._take(CAPACITY - len(self._outputs[1]))
        return ended and not self._stdin

    def _take(self, count: int) -> bytes:
        data = bytes(self._stdin[: max(0, count)])
        del self._stdin[: len(data)]
        self.received += data
        self._again = self._again or bool(data)  # there is room now, and maybe output
        return data

    @property
    def _stdin_ended(self) -> bool:
        return not self._written and (self._stdin_ending or not self._stdin_open)

    def _close_stdin(self) -> None:
        self._stdin_open = False
        if self._written:
            self._written.clear()
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, "it does not read any more"))


def _unknown(command: str) -> SpawnError:
    advice = f"execo.testing.scripts[{command!r}] = Script(...)"
    return SpawnError(f"cannot start {command!r}: it has no script; add {advice}", command=command)
