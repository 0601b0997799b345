"""What a cluster and its server process tell each other, and the names of the faults."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Fault", "Settings"]


class Fault(enum.StrEnum):
    """What a host can be made to do wrong. ``None`` in its place is a healthy host.

    ============  ======================================  =======================================
    fault         a new connection                        the connections there are
    ============  ======================================  =======================================
    ``refuse``    is refused: nothing listens             go on
    ``silent``    is accepted, and nothing is ever said   go on
    ``garbage``   is answered in another protocol         go on
    ``drop``      is closed before the banner             go on
    ``close``     as before                               are closed now, once; commands without
                                                          a terminal run on
    ``freeze``    as with ``silent``                      are neither read nor written any more;
                                                          commands run on
    ============  ======================================  =======================================

    A host that is healthy again goes on where it was: connections that were frozen move, and those
    that were met with silence get their banner. A machine that dies is ``refuse``, then ``close``.
    """

    REFUSE = "refuse"
    SILENT = "silent"
    GARBAGE = "garbage"
    DROP = "drop"
    CLOSE = "close"
    FREEZE = "freeze"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The first line that the server process reads. See :class:`~execo.testing.Cluster`."""

    folder: str
    hosts: int
    user: str
    shell: str
    env: dict[str, str]
    accept_env: list[str]
    max_sessions: int
    max_startups: int | None
