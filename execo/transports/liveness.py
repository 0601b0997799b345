"""Whether the host at the other end of a connection that is ready still answers.

A connection may be dead without a word: the host has lost its power, or is frozen. Those that are
used are asked from time to time (:mod:`~execo.transports.upkeep`); one of which nothing was heard
for a while has to answer before it is leased to somebody who could not tell.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from .ssh_connection import Lessee, SshConnection

__all__ = ["Liveness"]

FRESH = 5.0
"""Seconds after the last word of a host in which its connection is taken to work; as long as a
host may take to say that it does, if ``connect_timeout`` is not shorter."""


_MOST_DOUBTS = 10
"""Questions in a row that may be followed by a part of a message only."""


class Liveness:
    """What is known of one connection. All on the I/O thread.

    - ``used_since``: when somebody began to use it whom nobody had used (monotonic)
    - ``needed_until``: something that nobody waits for is to be done by then (monotonic)
    - ``questions``: without an answer so far, the last one ``asked`` at (monotonic)
    - ``doubts``: questions in a row after which something came that was no whole message
    - ``unproven``: lessees that wait for an answer
    """

    def __init__(self, connection: SshConnection) -> None:
        self.used_since = 0.0
        self.needed_until = 0.0
        self.questions = 0
        self.doubts = 0
        self.asked = 0.0
        self.unproven: list[Lessee] = []
        self._connection = connection
        self._distrusted = 0.0
        self._proof: TimerHandle | None = None

    @property
    def heard(self) -> float:
        """When something last came from the host (monotonic)."""
        return self._connection.session.wire.heard

    def look_answered(self) -> None:
        """Whether the last question is still without an answer."""
        if not self.questions or self.heard <= self.asked:
            return
        # Bytes alone may be a part of a long message on a slow way; or of what is taken for one
        # since the stream was damaged, and then no answer is ever understood.
        understood = self._connection.session.understood > self.asked
        self.doubts = 0 if understood else self.doubts + 1
        if self.doubts < _MOST_DOUBTS:
            self.questions = 0

    @property
    def is_fresh(self) -> bool:
        """The host was heard of a moment ago."""
        return time.monotonic() - self.heard < FRESH

    @property
    def trusted(self) -> bool:
        """Whether it may be expected to work."""
        return not self._distrusted or self.heard > self._distrusted

    def distrust(self) -> None:
        """Another connection to the host was lost without a word: this one is not to be used until
        it is heard of."""
        self._distrusted = time.monotonic()

    # -- before a lease -------------------------------------------------------------------------

    def prove(self, lessee: Lessee) -> None:
        """Give ``lessee`` the connection when the host has answered; lose it if it does not."""
        self.unproven.append(lessee)
        if self._proof is None:
            connection = self._connection
            timeout = connection.target.options.connect_timeout
            patience = FRESH if timeout is None else min(FRESH, timeout / 2)
            loop = connection.runtime.loop
            now = time.monotonic()
            self._proof = loop.call_later(patience, self._on_no_answer, now, patience)
            connection.session.ask(self._on_answer)

    def _on_answer(self) -> None:
        self.stop()
        lessees, self.unproven = self.unproven, []
        for lessee in lessees:
            self._connection.grant(lessee)

    def _on_no_answer(self, asked: float, patience: float) -> None:
        if self.heard > asked:
            self._on_answer()
        else:
            self._connection.stopped_answering(f"it has not answered for {patience:g} s")

    def stop(self) -> None:
        """It is over, or has been answered."""
        if self._proof is not None:
            self._proof.cancel()
            self._proof = None
