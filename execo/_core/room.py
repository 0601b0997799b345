"""What needs a descriptor where there is none at the moment."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["NO_ROOM", "with_room"]

T = TypeVar("T")

NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE})
"""This process, or the machine, has no free descriptor."""

PATIENCE = 5.0
"""Seconds in which others may give some back: as long as a local process waits for its start."""

_INTERVAL = 0.05

_vain_until = 0.0  # somebody has waited in vain: who begins before then does not wait


def with_room(function: Callable[..., T], *args: Any) -> T:
    """``function(*args)``, and once more after a while, as long as there is no descriptor for it.

    For files that have something to say: one that cannot be opened for this reason must not be
    taken for one that is not there. Blocks: never for the I/O thread. When somebody has waited in
    vain, others do not for a while: a thousand hosts are not to be patient in turn.

    :raises OSError: as ``function``; in the end for want of descriptors, too
    """
    global _vain_until
    begin = time.monotonic()
    nap = threading.Event()
    while True:
        try:
            return function(*args)
        except OSError as exc:
            if exc.errno not in NO_ROOM or begin < _vain_until:
                raise
            if time.monotonic() > begin + PATIENCE:
                _vain_until = time.monotonic() + PATIENCE
                raise
        nap.wait(_INTERVAL)
