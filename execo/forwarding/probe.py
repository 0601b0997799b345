"""Whether a host carries connections at all."""

from __future__ import annotations

from collections.abc import Callable

from execo.errors import ProcessError
from execo.transports.base import Channel

__all__ = ["Probe"]


class Probe:
    """The sink of a connection that is made to see if it can be.

    :param on_answer: called once, with None or the error
    """

    def __init__(self, on_answer: Callable[[ProcessError | None], object]) -> None:
        self._on_answer = on_answer
        self._channel: Channel | None = None

    def on_open(self, channel: Channel) -> None:
        self._channel = channel

    def on_start(self) -> None:
        assert self._channel is not None
        self._channel.abort()

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._on_answer(None)

    def on_error(self, error: ProcessError) -> None:
        self._on_answer(error)

    def on_data(self, stream: int, data: bytes) -> None:
        """Whoever answers there is not listened to."""

    def on_eof(self, stream: int, error: OSError | None) -> None:
        """Likewise."""

    def on_written(self, count: int) -> None:
        """Nothing is written."""

    def on_write_error(self, error: OSError) -> None:
        """Likewise."""
