"""At the end of a script: commands that are to outlive it have some seconds to start at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection

from execo._core.latch import Latch
from execo._core.loop import Loop
from execo.log import logger

from .base import Exec

__all__ = ["let_detached_start"]

WAIT = 10.0
"""Seconds for that; a Ctrl-C ends them."""

_LOOK = 0.05


def let_detached_start(loop: Loop, starting: Callable[[], Collection[Exec]]) -> None:
    """Block until the hosts have taken the commands that are to be left alone, but not for long.
    Those that they have not are named in a warning each: they do not run. In the main thread.

    :param starting: those that are not taken yet; called on the I/O thread
    """

    def look(latch: Latch) -> Latch:
        if starting():
            loop.call_later(_LOOK, look, latch)
        else:
            latch.fire()
        return latch

    with contextlib.suppress(KeyboardInterrupt):
        all_taken = loop.run_sync(look, Latch())
        if all_taken is None or all_taken.wait(WAIT):
            return
    for request in loop.run_sync(starting) or ():
        target = request.target
        logger.warning(
            "the script ends before %s has taken the detached command %r: it is not run",
            "its host" if target is None else target.name or target.address,
            request.command,
        )
