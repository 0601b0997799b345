"""How far things are, while they run: a line for each on the terminal.

::

    from execo.progress import show

    with show(remote, put):
        put.run()
        remote.run()

:func:`show` is for actions, transfers, processes and sweeps. Where ``configuration["progress"]`` is
True, all actions are shown, without a call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from . import board
from .board import show_all as show_all  # for actions
from .rows import check

__all__ = ["show"]


def show(*things: Any) -> AbstractContextManager[None]:
    """``with show(a, b):`` has a line on the terminal for each of them, until the end of the block.
    From any thread; several blocks at once have their lines together.

    The lines are written to stderr, below everything that the script prints or logs meanwhile, at
    most four times a second, by a thread of its own. At the end of the block, also by an exception
    or Ctrl-C, the last state of what was named stays on the terminal, and nothing else.

    Nothing at all happens where stderr is no terminal, or ``TERM`` is ``dumb`` or missing, or
    ``configuration["progress"]`` is False. Needs rich (``pip install 'execo[cli]'``); without it
    one warning says so, and nothing is shown. Where the script is asked for something (a password,
    by readline), or is in the background, nothing is drawn over that. (new)

    :param things: actions, processes, and sweepers (:class:`~execo.engine.ParamSweeper`, or what
      has its ``stats()``), started or not; with none: each action that starts in the block, as
      long as it runs, except those that are part of another one
    :raises TypeError: for anything else
    """
    for thing in things:
        check(thing)
    return _shown(things)


@contextmanager
def _shown(things: tuple[Any, ...]) -> Iterator[None]:
    ticket = board.join(things)
    try:
        yield
    finally:
        if ticket is not None:
            board.leave(ticket)
