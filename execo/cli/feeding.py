"""The stdin of this program for the commands on all hosts."""

from __future__ import annotations

import os
import threading
from typing import BinaryIO

from execo import Action, Remote

from .printing import tell

__all__ = ["Broadcast", "has_input"]

_BLOCK = 128 * 1024


def has_input() -> bool:
    """Whether stdin is there, and no terminal."""
    try:
        return not os.isatty(0) and os.fstat(0) is not None
    except OSError:
        return False  # closed


class Broadcast:
    """Called with an action that has started, gives what stdin has to all its processes: by a
    thread of its own, no faster than the slowest host reads, so that memory holds what hosts are
    apart, not the whole. What waits for its turn (``fanout``) gets it all when it starts."""

    def __call__(self, action: Action) -> None:
        assert isinstance(action, Remote)
        # Unbuffered: at its end the interpreter would wait for the lock of a buffer, in vain.
        source = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - the thread's
        # A daemon: nobody waits for input that no command wants any more.
        thread = threading.Thread(
            target=_feed, args=(action, source), name="execo-stdin", daemon=True
        )
        thread.start()


def _feed(action: Remote, source: BinaryIO) -> None:
    try:
        while not action.ended and (data := source.read(_BLOCK)):
            action.write(data)
    except OSError as exc:
        tell(f"stdin cannot be read: {exc.strerror}")
    if not action.ended:
        action.close_stdin()
