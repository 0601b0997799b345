"""What an engine tells the record of its run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from .combination import HashableDict

__all__ = ["Recorder", "current_combination", "open_record"]

current_combination: ContextVar[HashableDict | None] = ContextVar("execo_combination", default=None)
"""The combination that this thread works on."""


class Recorder(Protocol):
    """Takes down what became of each attempt; see :class:`~execo.engine.run.ResultRow`."""

    def result(
        self,
        combination: HashableDict,
        *,
        state: str,
        result: Any = None,
        start: float | None = None,
        end: float | None = None,
        reason: str | None = None,
        attempt: int = 1,
        hosts: Sequence[str] = (),
    ) -> None:
        """An attempt has ended. Called by the thread that runs the engine; must not block long."""


def open_record(folder: Path) -> AbstractContextManager[Recorder | None]:
    """The record of a run, from now until the end of the block: the one place that says which.

    :param folder: the result folder
    """
    return nullcontext(None)
