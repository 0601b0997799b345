"""One command that becomes another user, or has secret variables: between its sink and the channel
of the transport that carries it.

::

    OPENING ──> HELLO ──> ASKING ──> BEGUN ──> RUNNING ──> EXITED
       │          │         │          │          │
       └──────────┴─────────┴──────────┴──────────┴──> OVER      (refused, given up, or lost)
"""

from __future__ import annotations

import enum
import ipaddress
import secrets
import signal
import time
from typing import TYPE_CHECKING, cast

from execo.errors import CancelledError, ProcessError, Reason, SpawnError
from execo.transports.base import ENDING_SIGNALS, Channel, Exec, Sink, Target
from execo.transports.remote_shell import Mark, join

from .dialogue import Dialogue, Said
from .passwords import Question
from .texts import Marks, hint, opening, order

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from .guard import BecomeGuard
    from .transport import BecomingTransport

__all__ = ["BecomeChannel"]

HELLO_TIME = 120.0
"""Seconds for the login shell to begin, after the connection was asked to: with the ssh command
these are also the ones for logging in (LoginGraceTime in sshd_config(5))."""

STEP_TIME = 60.0
"""Seconds for the program to answer, where ``connect_timeout`` sets no limit."""

PATIENCE = 10.0
"""Seconds that a host has to end a command that got a SIGKILL."""

_SSH_FAILED = 255 << 8
"""The status of an ssh whose command died of a signal; not all that fails so has."""

_LAST_WORDS = 5.0
_DRAIN = 0.5
_LOOK = 1.0


class _State(enum.Enum):
    """See the module."""

    OPENING = enum.auto()
    HELLO = enum.auto()
    ASKING = enum.auto()
    BEGUN = enum.auto()
    RUNNING = enum.auto()
    EXITED = enum.auto()
    OVER = enum.auto()


class BecomeChannel:
    """A channel for its process, and the sink of another channel.

    All on the I/O thread, save ``open`` and ``on_open``.

    :param guard: what signals its processes; None = the transport that carries it
    """

    pid: int | None = None
    start_date: float | None = None
    failed = False

    _state = _State.OPENING
    _inner: Channel | None = None
    _inner_over = False
    _unwanted = False
    _asked = 0  # prompts
    _question: Question | None = None
    _timer: TimerHandle | None = None
    _last_words: str | None = None  # why it fails, while the program has its last words
    _refused = False  # the password was
    _ours = 0  # bytes written that are not the user's
    _forgotten = False
    _ending = False
    _signalled = 0  # the last signal of which it may have died
    _watches_survivors = False
    _exit_looked_for = False
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
        self._transport = transport
        self._loop = transport.runtime.loop
        self._sink = sink
        self._guard = guard
        self._number = 0 if guard is None else guard.next_number()
        self._marks = Marks(secrets.token_hex(8))
        self._dialogue = Dialogue(request.become, self._marks)
        self._eofs: dict[int, OSError | None] = {}
        self._opened = time.monotonic()

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
        return self._guard is not None

    @property
    def ending(self) -> bool:
        """It was told to end."""
        return self._ending

    # -- starting -------------------------------------------------------------------------------

    def open(self) -> None:
        """Show itself to the sink."""
        self._sink.on_open(cast(Channel, self))

    def carried(self) -> Exec:
        """What the other transport is to run.

        :raises ValueError: if there can be no such command
        """
        request = self.request
        order(request, echo=False)  # now, where the error is one of the start
        mark = None
        if self._guard is not None:
            mark = Mark(self._guard.nonce, self._number, request.detach)
        return Exec(
            # Without exec, some login shells would wait for it, and tell how it ended.
            f"exec {join(opening(request, self._marks, mark))}",
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
        self._loop.call_soon(self._fail, error)

    def _step(self, seconds: float | None, why: str) -> None:
        """The next word is to come within so many seconds; None = as long as it takes."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._late, seconds, why)

    def _late(self, seconds: float, why: str) -> None:
        self._timer = None
        reason = Reason.CONNECT if self._state is _State.HELLO else Reason.AUTH
        text = f"{self._what}: {why} for {seconds:g} s"
        said = self._dialogue.words
        self._fail(ProcessError(f"{text}; it said: {said!r}" if said else text, reason=reason))

    @property
    def _step_time(self) -> float:
        return self.target.options.connect_timeout or STEP_TIME

    @property
    def _what(self) -> str:
        """How messages begin."""
        become = self.request.become
        name = self.target.name or self.target.address
        if become is None:
            return f"{name}: cannot begin the command"
        return f"{name}: cannot become {become.user!r} with {become.method}"

    # -- the dialogue ---------------------------------------------------------------------------

    def _hear(self, said: list[Said]) -> None:
        for one in said:
            if self._last_words is not None or self._state is _State.OVER:
                return
            if one is Said.HELLO:
                self._state = _State.ASKING
                self._step(self._step_time, "no answer of the program")
            elif one is Said.PROMPT:
                self._prompted()
            elif one is Said.BEGUN:
                self._begin()
            else:
                self._fail(SpawnError(f"{self._what}: the host prints without end before it"))

    def _prompted(self) -> None:
        become = self.request.become
        assert become is not None
        self._asked += 1
        self._dialogue.answered()
        if self._asked > 1:
            self._end_dialogue("the password was refused", accepted=False)
        elif become.password is None:
            self._end_dialogue("it asks for a password: give become_password")
        elif not _is_trusted(self.target):
            self._end_dialogue(
                "no password is sent to a host that is trusted by default alone: set "
                "host_key_policy to 'accept-new' or 'strict', or to 'off' to send it all the same"
            )
        else:
            host = self.target.name or self.target.address
            self._question = Question(host, become.user, become.method, become.password)
            self._step(None, "")  # a human may be typing
            self._transport.passwords.ask(self._question, self, self._opened)

    def take_password(self, password: str) -> None:
        self._step(self._step_time, "no word on the password")
        self._write(password.encode("utf-8", "surrogateescape") + b"\n")

    def no_password(self, why: str) -> None:
        self._question = None
        self._end_dialogue(f"no password: {why}")

    def _settle(self, accepted: bool | None) -> None:
        question, self._question = self._question, None
        if question is not None:
            self._transport.passwords.settle(question, self, accepted)

    def _end_dialogue(self, why: str, accepted: bool | None = None) -> None:
        """Have the program leave, which says why in its own words, and fail."""
        self._settle(accepted)
        self._refused = accepted is False
        self._last_words = why
        self._step(None, "")
        if self._inner is not None:
            self._inner.close_stdin()
        self._loop.call_later(_LAST_WORDS, self._fail_with_words)

    def _fail_with_words(self) -> None:
        if self._state is _State.OVER:
            return
        become, why = self.request.become, self._last_words
        said = self._dialogue.words
        reason = Reason.SPAWN
        if become is not None:
            reason = Reason.AUTH
            if self._question is not None:
                # It has had the password, and has left: su and doas ask once only.
                why, self._refused = why or "the password was refused", True
                self._settle(False)
            said += hint(become, said, pty=self.request.pty)
        # Where it was sent away, it has nothing to say.
        texts = [why, said] if self._refused else [why or said]
        text = ": ".join(filter(None, texts)) or "it has ended without a word"
        self._fail(ProcessError(f"{self._what}: {text}", reason=reason))

    def _begin(self) -> None:
        """It is the other user, and waits."""
        self._state = _State.BEGUN
        self._settle(True)
        self._step(None, "")
        if self._guard is None:
            self._go()
        else:
            # First the guard: what runs as another user would outlive this script without it.
            self._guard.join(self)

    def guard_settled(self) -> None:
        """The guard is there, or will not come."""
        if self._state is _State.BEGUN:
            self._go()

    def _go(self) -> None:
        dialogue = self._dialogue
        self._write(order(self.request, echo=dialogue.echo))
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

    def _write(self, data: bytes) -> None:
        if self._inner is not None:
            self._ours += len(data)
            self._inner.write(data)

    def _fail(self, error: ProcessError) -> None:
        """It was not started, or is lost."""
        if self._state is _State.OVER:
            return
        self.failed = self._state not in (_State.RUNNING, _State.EXITED)
        self._state = _State.OVER
        self._step(None, "")
        self._settle(None)
        command = self.request.command
        text = command if isinstance(command, str) else " ".join(command)
        own = type(error)(str(error), reason=error.reason, host=self.target.address, command=text)
        own.__cause__ = error.__cause__
        self._transport.remove(self)
        self._leave_guard()
        self._sink.on_error(own)
        if self._inner is not None and not self._inner_over:
            self._inner.close_stdin()
            self._loop.call_later(_LAST_WORDS, self._abort_inner)

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
        if self._guard is None:
            return self._inner.send_signal(number)
        alive = self._state is _State.RUNNING
        if number and not self._forgotten and (alive or self.request.group):
            self._signal(self._guard, number)
        return alive

    def _signal(self, guard: BecomeGuard, number: int) -> None:
        guard.kill(self, number, self._number, group=self.request.group)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self._signalled = number
        if number not in ENDING_SIGNALS:
            return
        if number != signal.SIGINT:
            self._ending = True
            # ssh does not end before they do: there one has to look from now on.
            if self._state is _State.EXITED or self.request.through == "openssh":
                self._watch_survivors()
        if number == signal.SIGKILL and self._state is _State.RUNNING:
            self._loop.call_later(PATIENCE, self._on_no_end)

    def signal_inner(self, number: int) -> None:
        """There is no guard: the host may signal it all the same."""
        if self._inner is not None and not self._inner_over:
            self._inner.send_signal(number)

    def _on_no_end(self) -> None:
        if self._state is _State.RUNNING:
            name = self.target.name or self.target.address
            why = "the host or its connection may be frozen, or has no guard as the other user"
            text = f"{name}: it has not ended {PATIENCE:g} s after a SIGKILL: {why}"
            self._fail(ProcessError(text, reason=Reason.CONNECT))

    def abort(self) -> None:
        if self._state is _State.OPENING:
            self._unwanted = True
            if self._inner is not None:
                self._inner.abort()
        elif self._state is _State.RUNNING:
            self.send_signal(signal.SIGKILL)
        elif self._state is not _State.EXITED:
            self._fail(CancelledError("given up while it waited for its start"))

    def forget(self) -> None:
        if self._forgotten:
            return
        self._forgotten = True
        if not self._watches_survivors:
            self._leave_guard()
        # What was given up is still to be ended.
        if self._inner is not None and (self._inner_over or self._state is not _State.OVER):
            self._inner.forget()

    def end_hard(self) -> None:
        """Kill it with all that it has started, even if it has exited itself."""
        if self._guard is not None and self._state in (_State.RUNNING, _State.EXITED):
            self._signalled = signal.SIGKILL
            self._guard.kill(self, signal.SIGKILL, self._number, group=True)

    def _watch_survivors(self) -> None:
        """What survives its leader, which was told to end, has so long to do the same."""
        patience = self.request.kill_timeout
        if patience is None or not self.request.group or self._watches_survivors:
            return
        if self._guard is not None:
            self._watches_survivors = True
            self._loop.call_later(patience, self.kill_survivors)

    def kill_survivors(self) -> None:
        """Kill what is left of it, if it was told to end."""
        if self._state is _State.RUNNING and not getattr(self._inner, "command_exited", False):
            if not self._exit_looked_for:
                self._exit_looked_for = True
                self._loop.call_later(_LOOK, self._look_exited)
            return
        if self._guard is not None and self._watches_survivors:
            self._watches_survivors = False
            self._guard.kill(self, signal.SIGKILL, self._number, group=True)
        if self._forgotten:
            self._leave_guard()

    def _look_exited(self) -> None:
        self._exit_looked_for = False
        self.kill_survivors()

    def _leave_guard(self) -> None:
        if self._guard is not None:
            self._guard.leave(self)

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
        self._state = _State.HELLO
        if self._unwanted:
            self.abort()
        else:
            self._step(HELLO_TIME, "the login shell has not begun")

    def on_data(self, stream: int, data: bytes) -> None:
        if self._state in (_State.RUNNING, _State.EXITED):
            self._sink.on_data(stream, data)
        elif self._state is not _State.OVER:
            self._hear(self._dialogue.take(stream, data))

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self._eofs[stream] = error
        if self._state in (_State.RUNNING, _State.EXITED):
            self._sink.on_eof(stream, error)
        elif self._state is not _State.OVER:
            if len(self._eofs) < 2:
                self._hear(self._dialogue.close(stream))
            if self._inner_over:
                self._fail_with_words()

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._inner_over = True
        if self._state is _State.RUNNING:
            self._exit(status, error)
        elif self._state is not _State.OVER:
            # Of a program that has not become the other user. Its last words may still come.
            if len(self._eofs) == 2:
                self._fail_with_words()
            else:
                self._loop.call_later(_DRAIN, self._fail_with_words)
        elif self._forgotten and self._inner is not None:
            self._inner.forget()

    def _exit(self, status: int | None, error: ProcessError | None) -> None:
        self._state = _State.EXITED
        self._transport.remove(self)
        if self._ending:
            self._watch_survivors()
        if self._guard_lost is not None and status and not self._ending:
            self._state = _State.OVER
            self._leave_guard()
            self._sink.on_error(self._guard_lost)
            return
        if self.request.through == "openssh" and status == _SSH_FAILED and self._signalled:
            status = self._signalled  # ssh does not say of which, but it was sent
        self._sink.on_exit(status, error)

    def on_error(self, error: ProcessError) -> None:
        self._inner_over = True
        self._fail(error)

    def on_written(self, count: int) -> None:
        ours = min(count, self._ours)
        self._ours -= ours
        if count > ours and self._state is _State.RUNNING:
            self._sink.on_written(count - ours)

    def on_write_error(self, error: OSError) -> None:
        if self._state in (_State.RUNNING, _State.EXITED):
            self._sink.on_write_error(error)


def _is_trusted(target: Target) -> bool:
    """Whether a password may go there: somebody has said how its key is looked at, or it is this
    machine."""
    if target.options.host_key_policy != "off" or target.options.policy_chosen:
        return True
    if target.via is not None or target.proxy_command is not None:
        return False
    try:
        return ipaddress.ip_address(target.address).is_loopback
    except ValueError:
        return target.address == "localhost"
