"""A job, as a scheduler tells of it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Job", "JobState", "Request"]


class JobState(enum.Enum):
    """What a state means for who wants nodes. A scheduler has more of them."""

    WAITING = "waiting"
    """It has no nodes yet, or they are not ready."""

    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"
    """A state that execo does not know: neither this nor that follows from it."""


@dataclass(frozen=True)
class Job:
    """A job at the time of one answer.

    - ``said``: its state in the scheduler's word, such as ``PENDING``
    - ``hosts``: names of its nodes; none before it runs
    - ``left``: seconds until its time is over; None: no limit, or not told
    - ``why``: why it waits, or has ended, in the scheduler's words
    - ``born``: tells it from an earlier one with the same id; changes when it is requeued
    """

    id: str
    state: JobState
    said: str
    name: str = ""
    hosts: tuple[str, ...] = ()
    left: float | None = None
    why: str = ""
    born: str = ""
    at: float = 0.0
    """When the scheduler was asked, by the monotonic clock."""

    def __str__(self) -> str:
        return f"{self.said} ({self.why})" if self.why else self.said


@dataclass(frozen=True)
class Request:
    """A job to be submitted.

    - ``script``: for ``/bin/sh``; runs on the first node
    - ``name``: no other job has it
    - ``walltime``: seconds
    - ``exclusive``: whole nodes
    - ``options``: more words for the scheduler's command, behind ours
    """

    script: str
    name: str
    nodes: int
    walltime: float
    exclusive: bool = True
    options: Sequence[str] = ()
