"""Reaching a host by way of something else: another host, or a program that leads there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from signal import Signals

from execo._core.runtime import Runtime
from execo.errors import ProcessError, Reason

from .base import Channel, Sink, Target
from .carried_wire import CarriedWire
from .dial import TOO_MANY, Dial, DialListener, place
from .ssh_lease import SshForward

__all__ = ["ThroughDial", "Way", "beyond"]

_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Way:
    """How the channel to a host is opened and ended. Both are called on the I/O thread.

    ``open(sink)`` opens one, without blocking; ``hang_up(channel)`` ends one that has started.
    """

    open: Callable[[Sink], object]
    hang_up: Callable[[Channel], object]


def beyond(target: Target, error: ProcessError) -> ProcessError:
    """The error of a host that is behind a gateway with this ``error``."""
    assert target.via is not None
    gateway = target.via.name or target.via.address
    text = str(error)
    for said in (f"cannot connect to {gateway}: ", f"{gateway}: "):
        text = text.removeprefix(said)
    name = target.name or target.address
    if error.reason is Reason.AUTH and isinstance(target.options.login.password, str):
        text += f"; a password that is a text is for {name} alone, a function is asked here too"
    own = ProcessError(f"cannot connect to {place(target)}: {text}", reason=error.reason, host=name)
    own.__cause__ = error
    return own


class ThroughDial(Dial):
    """A channel that leads to the host, opened by ``way``."""

    def __init__(self, runtime: Runtime, target: Target, listener: DialListener, way: Way) -> None:
        super().__init__(runtime, target, listener)
        self._way = way
        self._wire: CarriedWire | None = None
        self._open = False

    def _begin(self) -> None:
        self._try()

    def _try(self) -> None:
        self._wire = CarriedWire(self._loop, self, self._way.hang_up)
        # Not within the call: it may have the pool advance, which is what has called.
        self._loop.call_soon(self._open_way, self._wire)

    def _open_way(self, wire: CarriedWire) -> None:
        if self._wire is wire:
            self._way.open(wire)

    def _connected(self) -> bool:
        return self._open

    def _drop(self) -> None:
        self._open = False
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    # -- the wire -------------------------------------------------------------------------------

    def wire_connected(self) -> None:
        # That a program runs does not mean that it has reached anything.
        self._open = self._target.proxy_command is None

    def wire_spoke(self, data: bytes) -> None:
        wire = self._wire
        if wire is None:
            return
        if data.startswith(TOO_MANY):
            self._hung_up(data)
            return
        wire.listener = None
        self._wire = None
        self._ready(wire)

    def wire_ended(self, status: int | None, error: ProcessError | None) -> None:
        wire, self._wire = self._wire, None
        if wire is None or self._over:
            return
        if self._target.proxy_command is not None:
            self._on_program_ended(wire, status, error)
        elif error is None:
            self._hung_up(b"")
        elif isinstance(wire.channel, SshForward) and wire.channel.connection_lost:
            # The gateway was there a moment ago: it may be again, and there is time.
            self._hung_up(str(error).encode("ascii", "replace"))
        else:
            own = beyond(self._target, error)
            self.cancel()
            self._listener.dial_failed(own)

    def _on_program_ended(
        self, wire: CarriedWire, status: int | None, error: ProcessError | None
    ) -> None:
        said = f": {wire.last_words}" if wire.last_words else ""
        command = self._target.proxy_command or ""
        if len(command) > _SHOWN:
            command = command[:_SHOWN] + "..."
        if error is not None:
            self._fail(f"{command!r} could not be run: {error}", error)
        elif status == 0:
            # As a program does that only carries: the server has hung up.
            self._hung_up(wire.last_words.encode())
        else:
            code = None if status is None else os.waitstatus_to_exitcode(status)
            how = f"exited with {code}"
            if code is not None and code < 0:
                how = f"was ended by {Signals(-code).name}"
            self._fail(f"{command!r} {how}{said}", None, Reason.CONNECT)
