"""Our end of the guard: a small shell on a host that signals what commands have started.

It runs on a channel of its own and costs nothing while it waits for an order. When the connection
is lost without a farewell it ends the commands that had not ended. What it does is written in
:mod:`~execo.transports.remote_shell`.
"""

from __future__ import annotations

from collections.abc import Callable

from . import remote_shell
from .channel import SshChannel, exec_request
from .remote_shell import Hello
from .session import Session

__all__ = ["Guard"]

_LONGEST_HELLO = 4096


class Guard:
    """One guard. All on the I/O thread.

    ``unsent`` are the signals that were to be sent before it was there; if it never is, somebody
    else has to send them.

    :param nonce: what its commands are marked with
    :param first: a command without a mark runs before it
    :param on_settled: called once: with what the host has said of itself, or with None if it can
      have no guard
    """

    def __init__(
        self,
        session: Session,
        nonce: str,
        on_settled: Callable[[Hello | None], object],
        *,
        first: bool,
    ) -> None:
        self.hello: Hello | None = None
        self.unsent: list[int] = []
        self._on_settled: Callable[[Hello | None], object] | None = on_settled
        self._orders: list[bytes] = []
        self._heard = b""
        text = remote_shell.guard_text(nonce, first=first)
        self._channel = SshChannel(session, self, [exec_request(text.encode())])

    @property
    def works(self) -> bool:
        """Whether it is there, and can find the processes of commands."""
        return self.hello is not None and self.hello.linux

    def kill(self, number: int, command: int, *, group: bool, runs: bool) -> None:
        """Have a signal sent to ``command``, and if ``group`` to all that it has started.

        :param runs: it is known to run
        """
        if self._on_settled is not None:
            self.unsent.append(number)  # only the first command can be that early
        self._order(remote_shell.kill_order(command, number, group=group, runs=runs))

    def first_ended(self) -> None:
        """Tell that the first command, which bears no mark, has ended."""
        self._order(remote_shell.ORDER_END_FIRST)

    def runs(self, command: int) -> None:
        """Tell that ``command`` runs."""
        self._order(remote_shell.ORDER_RUN.format(command))

    def ended(self, command: int) -> None:
        """Tell that ``command``, which it was told runs, has ended."""
        self._order(remote_shell.ORDER_END.format(command))

    def dismiss(self) -> None:
        """Send it away: what follows is no loss."""
        self._order(remote_shell.ORDER_BYE)

    def make_way(self, on_gone: Callable[[Hello | None], object]) -> None:
        """Send it away for good: ``on_gone`` is called, with None, when its session is free."""
        self.dismiss()
        self.hello = None
        self._on_settled = on_gone

    def give_up(self) -> None:
        """It does not answer: do without it. If it comes all the same, it is sent away: an end
        without a word would be a loss to it."""
        self._channel.write(remote_shell.ORDER_BYE.encode())
        self._channel.end()
        self._settle(None)

    def _order(self, text: str) -> None:
        line = text.encode()
        if self._on_settled is not None:
            self._orders.append(line)
        elif self.hello is not None:
            self._channel.write(line)

    def _settle(self, hello: Hello | None) -> None:
        on_settled, self._on_settled = self._on_settled, None
        if on_settled is not None:
            self.hello = hello
            if hello is not None:
                for line in self._orders:
                    self._channel.write(line)
            self._orders.clear()
            on_settled(hello)

    # -- the channel ----------------------------------------------------------------------------

    def channel_opened(self) -> None:
        pass

    def channel_refused(self, why: str) -> None:
        self._settle(None)

    def channel_answered(self, ok: bool) -> None:
        if not ok:
            self.give_up()

    def channel_data(self, stream: int, data: bytes) -> None:
        if self._on_settled is None or stream != 1:
            return
        self._heard += data
        # A start-up file of the login shell may have printed lines of its own before.
        *lines, rest = self._heard.split(b"\n")
        self._heard = rest
        for line in lines:
            hello = remote_shell.parse_hello(line.decode("utf-8", "replace"))
            if hello is not None:
                self._settle(hello)
                return
        if len(rest) > _LONGEST_HELLO:
            self.give_up()

    def channel_eof(self) -> None:
        pass

    def channel_exit(self, status: int | None, why: str) -> None:
        pass

    def channel_written(self, count: int) -> None:
        pass

    def channel_closed(self) -> None:
        self._settle(None)
        self.hello = None
