"""The transport ``forward``: runs :class:`Listen` requests by way of the transports that they
name."""

from __future__ import annotations

from collections.abc import Sequence
from signal import SIGTERM

from execo._core.runtime import Runtime
from execo.transports.base import Channel, Request, Sink, not_supported

from .listener import Listener
from .request import Listen
from .ssh_listener import SshListener

__all__ = ["ForwardingTransport"]


class ForwardingTransport:
    """Listens here. The ssh command listens by itself; what reaches hosts in another way carries
    the connections that are accepted here."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        # Listening or about to. Belongs to the I/O thread.
        self._live: set[Listener] = set()

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        channels: list[Channel] = []
        for request, sink in pairs:
            if not isinstance(request, Listen):
                raise not_supported("forward", request)
            if request.transport == "openssh":
                channels.append(SshListener(self.runtime, request, sink).open())
            else:
                channels.append(Listener(self, request, sink).open())
        return channels

    def add(self, listener: Listener) -> None:
        """One that may listen. On the I/O thread, as the next."""
        self._live.add(listener)

    def remove(self, listener: Listener) -> None:
        """It listens no more."""
        self._live.discard(listener)

    def close_idle(self) -> None:
        """Does nothing: nothing is kept."""

    def close(self) -> None:
        """Stop listening. The ssh commands are ended by the transport that runs them."""
        self.runtime.loop.run_sync(self._end_all)

    def _end_all(self) -> None:
        for listener in list(self._live):
            if not listener.send_signal(SIGTERM):
                listener.abort()
