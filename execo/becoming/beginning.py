"""The dialogue with a host until a command may begin: what is waited for, answered, and told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from execo.errors import ProcessError, Reason, SpawnError
from execo.transports.base import Exec, Target, is_loopback

from .dialogue import Dialogue, Said
from .passwords import Question
from .texts import Marks, hint

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from .channel import BecomeChannel
    from .transport import BecomingTransport

__all__ = ["Beginning", "may_have_password"]

HELLO_TIME = 120.0
"""Seconds for the login shell to begin, after the connection was asked to: with the ssh command
these are also the ones for logging in (LoginGraceTime in sshd_config(5))."""

STEP_TIME = 60.0
"""Seconds for the program to answer, where ``connect_timeout`` sets no limit."""

LAST_WORDS = 5.0
"""Seconds for a program that is sent away to say why, and to go."""


class Beginning:
    """One command's. All on the I/O thread.

    - ``dialogue``: what the host has said
    """

    def __init__(
        self, channel: BecomeChannel, transport: BecomingTransport, request: Exec, marks: Marks
    ) -> None:
        assert request.target is not None
        self.dialogue = Dialogue(request.become, marks)
        self._request = request
        self._target: Target = request.target
        self._channel = channel
        self._loop = transport.runtime.loop
        self._passwords = transport.passwords
        self._opened = time.monotonic()
        self._greeted = False
        self._over = False
        self._asked = 0  # prompts
        self._question: Question | None = None
        self._timer: TimerHandle | None = None
        self._last_words: str | None = None  # why it fails, while the program has its last words
        self._refused = False  # the password was

    def start(self) -> None:
        """The host has started what we have sent."""
        self._step(HELLO_TIME, "the login shell has not begun")

    def take(self, stream: int, data: bytes) -> None:
        """The host has said something."""
        self._hear(self.dialogue.take(stream, data))

    def close(self, stream: int) -> None:
        """It says no more on ``stream``."""
        self._hear(self.dialogue.close(stream))

    def stop(self, accepted: bool | None = None) -> None:
        """Nothing more is waited for.

        :param accepted: what came of the password; None = nobody knows
        """
        self._over = True
        self._step(None, "")
        self._settle(accepted)

    # -- what is waited for ---------------------------------------------------------------------

    def _step(self, seconds: float | None, why: str) -> None:
        """The next word is to come within so many seconds; None = as long as it takes."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._late, seconds, why)

    def _late(self, seconds: float, why: str) -> None:
        self._timer = None
        reason = Reason.AUTH if self._greeted else Reason.CONNECT
        text = f"{self._what}: {why} for {seconds:g} s"
        said = self.dialogue.words
        text = f"{text}; it said: {said!r}" if said else text
        self._channel.fail(ProcessError(text, reason=reason))

    @property
    def _step_time(self) -> float:
        return self._target.options.connect_timeout or STEP_TIME

    @property
    def _what(self) -> str:
        """How messages begin."""
        become = self._request.become
        name = self._target.name or self._target.address
        if become is None:
            return f"{name}: cannot begin the command"
        return f"{name}: cannot become {become.user!r} with {become.method}"

    # -- what is heard --------------------------------------------------------------------------

    def _hear(self, said: list[Said]) -> None:
        for one in said:
            if self._last_words is not None or self._over:
                return
            if one is Said.HELLO:
                self._greeted = True
                self._step(self._step_time, "no answer of the program")
            elif one is Said.PROMPT:
                self._prompted()
            elif one is Said.BEGUN:
                self.stop(accepted=True)
                self._channel.begin()
            else:
                error = SpawnError(f"{self._what}: the host prints without end before it")
                self._channel.fail(error)

    def _prompted(self) -> None:
        become = self._request.become
        assert become is not None
        self._asked += 1
        self.dialogue.answered()
        if self._asked > 1:
            self._end("the password was refused", accepted=False)
        elif become.password is None:
            self._end("it asks for a password: give become_password")
        elif not may_have_password(self._target, self._request.through):
            self._end(
                "no password is sent to a host that is trusted by default alone: set "
                "host_key_policy to 'accept-new' or 'strict', or to 'off' to send it all the same"
            )
        else:
            host = self._target.name or self._target.address
            self._question = Question(host, become.user, become.method, become.password)
            self._step(None, "")  # a human may be typing
            self._passwords.ask(self._question, self, self._opened)

    def take_password(self, password: str) -> None:
        self._step(self._step_time, "no word on the password")
        self._channel.send(password.encode("utf-8", "surrogateescape") + b"\n")

    def no_password(self, why: str) -> None:
        self._question = None
        self._end(f"no password: {why}")

    def _settle(self, accepted: bool | None) -> None:
        question, self._question = self._question, None
        if question is not None:
            self._passwords.settle(question, self, accepted)

    # -- why it fails ---------------------------------------------------------------------------

    def _end(self, why: str, accepted: bool | None = None) -> None:
        """Have the program leave, which says why in its own words, and fail."""
        self._settle(accepted)
        self._refused = accepted is False
        self._last_words = why
        self._step(None, "")
        self._channel.end_input()
        self._loop.call_later(LAST_WORDS, self.fail)

    def fail(self) -> None:
        """It has left, or stays in vain: it fails with what was said."""
        if self._over:
            return
        become, why = self._request.become, self._last_words
        said = self.dialogue.words
        reason = Reason.SPAWN
        if become is not None:
            reason = Reason.AUTH
            if self._question is not None:
                # It has had the password, and has left: su and doas ask once only.
                why, self._refused = why or "the password was refused", True
                self._settle(False)
            said += hint(become, said, pty=self._request.pty)
        # Where it was sent away, it has nothing to say.
        texts = [why, said] if self._refused else [why or said]
        text = ": ".join(filter(None, texts)) or "it has ended without a word"
        self._channel.fail(ProcessError(f"{self._what}: {text}", reason=reason))


def may_have_password(target: Target, through: str) -> bool:
    """Whether a password may go there: somebody has said how its key is looked at, or it is this
    machine."""
    if target.options.trust_decided:
        return True
    # The files of the ssh command may lead anywhere, whatever the address.
    if through == "openssh" or target.via is not None or target.proxy_command is not None:
        return False
    return target.address == "localhost" or is_loopback(target.address)
