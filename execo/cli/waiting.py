"""Waiting for an action, with what Ctrl-C means meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from execo import Action
from execo.hostset import fold

from .outcome import address_of
from .printing import printer, tell

__all__ = ["INTERRUPTED", "run_to_end"]

INTERRUPTED = 130
"""The exit status after Ctrl-C."""


def run_to_end(action: Action, *, progress: bool = False, source: Any = None) -> bool:
    """Start an action and wait for its end; whether Ctrl-C has ended it.

    The first Ctrl-C tells what is pending and ends it (SIGTERM, ``kill_timeout`` later SIGKILL),
    the second one kills it at once, the third one ends this program as it is.

    :param source: is told to feed the action when that has started
    """
    shown: Any = contextlib.nullcontext()
    if progress:
        from execo.progress import show

        shown = show(action)
    printer.when_lost = action.kill
    presses = 0
    with shown:
        while True:
            try:
                if presses == 0:
                    action.start()
                    if source is not None:
                        source(action)
                elif presses == 1:
                    _tell_pending(action)
                    action.kill()
                else:
                    tell("killing all that is left")
                    action.kill(signal.SIGKILL)
                action.wait()
                return presses > 0
            except KeyboardInterrupt:
                presses += 1
                if presses > 2:
                    # Not sys.exit(): a thread may hold the lock of stdout, where nobody reads. What
                    # is left on hosts ends as after any lost script.
                    os._exit(INTERRUPTED)


def _tell_pending(action: Action) -> None:
    pending = [process for process in action.processes if not process.ended]
    waiting = [address_of(process) for process in pending if process.start_date is None]
    running = [address_of(process) for process in pending if process.start_date is not None]
    for what, hosts in (("still running", running), ("not started", waiting)):
        if hosts:
            tell(f"{what}: {fold(hosts)} ({len(hosts)})")
    if pending:
        tell("ending them; Ctrl-C again kills at once")
