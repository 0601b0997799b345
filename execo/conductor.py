"""The object behind all processes in execo 2.8.2, for scripts that start and end it.

Here the first process starts what runs in the background, and the end of the script ends it.
"""

from __future__ import annotations

from typing import Self

from ._core.runtime import current_runtime

__all__ = ["Conductor", "the_conductor"]


class Conductor:
    """Ends all processes at once. There is one, :data:`the_conductor`."""

    def start(self) -> Self:
        """Does nothing: the first process starts what it needs, also in a forked child."""
        return self

    def terminate(self) -> Self:
        """End all processes that run and all connections, as the end of the script does.

        They get a SIGTERM, and ``configuration["term_timeout"]`` seconds later a SIGKILL; those
        that were started with ``configuration["kill_childs_at_end"]`` False are left alone. Blocks
        until they have ended. Processes may be started afterwards (execo 2.8.2: none could). Not
        for handlers, nor while other threads start processes.
        """
        runtime = current_runtime()
        if runtime is not None:
            runtime.end_all()
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


#: The one :class:`Conductor`.
the_conductor = Conductor()
