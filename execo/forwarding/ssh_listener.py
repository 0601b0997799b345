"""A port that an ssh command listens on: ``ssh -L`` (ssh(1), ssh_config(5))."""

from __future__ import annotations

import os
import re
from dataclasses import replace

from execo import transports
from execo._core.runtime import Runtime
from execo.errors import CancelledError, ProcessError, Reason, SpawnError
from execo.transports.base import Channel, Exec, Sink, Target

from .request import Listen, place

__all__ = ["SshListener"]

READY = b"execo-forwards"
"""What the host says when ssh listens here and has let us in."""

_TAIL = 1024
_CANNOT_LISTEN = re.compile(
    r"bind \[[^]]*\]:\d+: ([^;]+)|"
    r"fwd_listener\w*: getaddrinfo\([^)]*\): ([^;]+)|"
    r"(cannot listen to port): \d+"
)


class SshListener:
    """Between the run of a port forwarder and the ssh that listens for it.

    Its command on the host says that it is there, and stays until the connection ends. ssh tells
    nobody of a client whose connection cannot be carried on, so neither do we. All on the I/O
    thread, save ``open`` and ``on_open``.
    """

    def __init__(self, runtime: Runtime, request: Listen, sink: Sink) -> None:
        self._runtime = runtime
        self._request = request
        self._sink = sink
        self._listening = False
        self._heard = b""

    def open(self) -> Channel:
        """Start ssh."""
        request = self._request
        assert request.target is not None
        command = Exec(
            f"echo {READY.decode()}; exec cat >/dev/null",
            # Its end is that of the connection then, and nobody has to be there to signal it.
            pty=True,
            kill_timeout=request.kill_timeout,
            target=self._target(request.target),
        )
        carrier = transports.get(self._runtime, request.transport)
        return carrier.open_all([(command, self)])[0]

    def _target(self, target: Target) -> Target:
        request, options = self._request, target.options
        here = place(request.bind, request.port)
        there = place(request.to_host, request.to_port)
        words = ("-o", "ExitOnForwardFailure=yes", "-L", f"{here}:{there}")
        # A guard is one more ssh with the same options: it would want the same port.
        return replace(
            target, options=replace(options, guard=False, ssh_options=words + options.ssh_options)
        )

    # -- the sink of the command ----------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._sink.on_open(channel)

    def on_start(self) -> None:
        """It is ssh that runs: the host says when it listens."""

    def on_data(self, stream: int, data: bytes) -> None:
        if self._listening:
            return
        # Start-up files of the login shell may have printed before.
        self._heard = (self._heard + data)[-_TAIL:]
        if READY in self._heard.split():
            self._listening = True
            self._sink.on_start()
            if self._request.on_listening is not None:
                self._request.on_listening()

    def on_eof(self, stream: int, error: OSError | None) -> None:
        """Told at the exit: what is printed there is no output of the forwarder."""

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        if self._listening:
            self._sink.on_eof(1, None)
            self._sink.on_eof(2, None)
            self._sink.on_exit(status, error)
        elif error is not None:
            self._sink.on_error(error)
        elif status is not None and os.WIFSIGNALED(status):
            self._sink.on_error(CancelledError("given up before it listened"))
        else:
            self._sink.on_error(self._no_word(status))

    def _no_word(self, status: int | None) -> ProcessError:
        target = self._request.target
        name = "" if target is None else target.name
        code = None if status is None else os.waitstatus_to_exitcode(status)
        said = " ".join(self._heard.decode("utf-8", "replace").split())
        text = f"{name} does not stay connected: it exited {code}{': ' if said else ''}{said}"
        return ProcessError(
            f"{text}; its login shell has to run commands", reason=Reason.CONNECT, host=name
        )

    def on_error(self, error: ProcessError) -> None:
        cannot = _CANNOT_LISTEN.search(str(error))
        if cannot is not None and not self._listening:
            here = place(self._request.bind or "*", self._request.port)
            why = cannot[cannot.lastindex or 0].strip().lower()
            told = SpawnError(f"cannot listen on {here}: {why}")
            told.__cause__ = error
            error = told
        self._sink.on_error(error)

    def on_written(self, count: int) -> None:
        """Nothing is written."""

    def on_write_error(self, error: OSError) -> None:
        """Likewise."""
