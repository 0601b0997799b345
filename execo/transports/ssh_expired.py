"""How sshd says that a password has expired to a user whom it has let in: in place of the command
it runs one that says so and exits with 1, or, on a terminal, ``passwd``, which waits for somebody.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["ExpiryWatch"]

EXIT_STATUS = 1 << 8
"""Of what says so, without a terminal. It may be there before the words."""

PATIENCE = 0.25
"""Seconds that these words have to come after it, where output does not end with the command."""

_WARNING = b"WARNING: Your password has expired."
_TEXTS = (
    _WARNING + b"\nPassword change required but no TTY available.\n",
    _WARNING + b"\r\nYou must change your password now and login again!\r\n",
)
_MOST = max(map(len, _TEXTS))


class ExpiryWatch:
    """Reads the beginning of a command's output, and keeps its exit back while that is not enough
    to tell. On the I/O thread.

    :param call_later: calls a function after so many seconds
    :param on_exit: given an exit that was kept back, and is the command's own
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], object]], object],
        on_exit: Callable[[int | None, str], object],
    ) -> None:
        self._call_later = call_later
        self._on_exit = on_exit
        self._head = b""
        self._kept: tuple[int, str] | None = None

    def reads(self, data: bytes) -> bool:
        """Take some output: whether it now says that the password has expired."""
        self._head += data[:_MOST]
        return self._head.startswith(_TEXTS)

    @property
    def doubts(self) -> bool:
        """Whether more output may yet say so."""
        return any(text.startswith(self._head) for text in _TEXTS)

    def keeps(self, status: int | None, why: str) -> bool:
        """Whether an exit is kept back, for a moment."""
        if status != EXIT_STATUS or self._kept is not None or not self.doubts:
            return False
        self._kept = status, why
        self._call_later(PATIENCE, self.settle)
        return True

    def settle(self) -> None:
        """It is a command that has run: its exit, if there was one, is its own."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._on_exit(*kept)
