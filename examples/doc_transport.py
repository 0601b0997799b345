"""A transport of one's own: the local one with a lower priority.

One should see the niceness of a process that runs over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from execo import Process, transports
from execo.errors import NotSupported
from execo.transports.base import Channel, Exec, Request, Sink


# The transport.
class NiceTransport:
    """Runs commands here, under ``nice``."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        # Not in __init__: the registry makes one transport at a time.
        local = transports.get(self._runtime, "local")
        return local.open_all([(self._nice(request), sink) for request, sink in pairs])

    def close(self) -> None:
        """Nothing to do: the local transport ends its processes itself."""

    def _nice(self, request: Request) -> Exec:
        if not isinstance(request, Exec):
            raise NotSupported("the transport 'nice' cannot forward ports")
        command = request.command
        words = ("/bin/sh", "-c", command) if isinstance(command, str) else command
        return replace(request, command=("nice", "-n", "5", *words))


# Its use.
class NiceProcess(Process):
    """A local process with a lower priority."""

    transport = "nice"


transports.register("nice", f"{__name__}:NiceTransport")
print("niceness:", NiceProcess("nice").run(check=True).stdout.strip())
