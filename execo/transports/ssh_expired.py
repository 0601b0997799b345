"""How sshd says that a password has expired to a user whom it has let in: in place of the command
it runs one that says so and exits with 1, or, on a terminal, ``passwd``, which waits for somebody.
"""

from __future__ import annotations

__all__ = ["EXIT_STATUS", "PATIENCE", "SAYS_EXPIRED", "may_say_expired", "says_expired"]

EXIT_STATUS = 1 << 8
"""Of what says so, without a terminal. It may be there before the words."""

PATIENCE = 0.25
"""Seconds that these words have to come after it, where output does not end with the command."""

_WARNING = b"WARNING: Your password has expired."
_TEXTS = (
    _WARNING + b"\nPassword change required but no TTY available.\n",
    _WARNING + b"\r\nYou must change your password now and login again!\r\n",
)

SAYS_EXPIRED = max(map(len, _TEXTS))
"""Bytes of output that tell."""


def says_expired(head: bytes) -> bool:
    """Whether the output of a command begins like that."""
    return head.startswith(_TEXTS)


def may_say_expired(head: bytes) -> bool:
    """Whether the output of a command may yet turn out to begin like that."""
    return any(text.startswith(head) for text in _TEXTS)
