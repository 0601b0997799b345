"""One command or set of streams of a worker, as the task's thread has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from execo.errors import ProcessError
from execo.transports.base import Request

from .sink import ProcessSink, code_of

if TYPE_CHECKING:
    from .engine import Engine, Window
    from .worker import Worker

__all__ = ["Client", "ProcessClient"]


class Client:
    """One of what a worker runs; in the task's thread, where nothing else is said.

    :param worker: whose it is
    :param key: what its output is found under: the node, or the worker's key
    :param stderr: stderr is apart from stdout
    :param timeout: seconds from its start until it is ended; None or negative = no limit
    :param autoclose: the run does not wait for it
    """

    started = False
    closed = False
    engine: Engine | None = None
    window: Window | None = None
    due: tuple[Any, ...] | None = None
    """What the engine has noted of its timeout."""

    def __init__(
        self, worker: Worker, key: Any, stderr: bool, timeout: float | None, autoclose: bool
    ) -> None:
        self.worker = worker
        self.key = key
        self.stderr = stderr
        self.timeout = None if timeout is None or timeout < 0 else float(timeout)
        self.autoclose = autoclose
        self._rests: dict[str, list[bytes]] = {}  # of a line, by stream

    @property
    def nodes(self) -> Sequence[Any]:
        """The nodes that what it prints is of."""
        return (self.key,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.key!r} in {self.worker!r}>"

    # -- starting -----------------------------------------------------------------------------

    def prepare(self) -> None:
        """Get ready to start.

        :raises WorkerError: if it cannot be
        """

    def write(self, data: bytes | None, sname: str) -> None:
        """Write to its input, from any thread; None ends it."""
        raise NotImplementedError

    # -- from the inbox -----------------------------------------------------------------------

    def name_of(self, stream: int) -> str:
        """The name of the stream 1 or 2."""
        worker = self.worker
        return worker.SNAME_STDERR if stream == 2 and self.stderr else worker.SNAME_STDOUT

    def take(self, stream: int, data: bytes) -> None:
        """Output has come."""
        if self.engine is not None:
            self.engine.flow.taken(len(data))
        self.feed(self.name_of(stream), data)

    def feed(self, sname: str, data: bytes) -> None:
        """Make lines of output, and tell of those that are complete."""
        if self.closed:
            return
        rest = self._rests.get(sname)
        if b"\n" not in data:
            # In pieces: a line of many megabytes is put together once.
            if rest is None:
                rest = self._rests[sname] = []
            rest.append(data)
            return
        if rest:
            rest.append(data)
            data = b"".join(rest)
            rest.clear()
        lines = data.split(b"\n")
        last = lines.pop()
        if last:
            self._rests.setdefault(sname, []).append(last)
        if b"\r\n" in data:
            lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
        self.told(sname, lines)

    def told(self, sname: str, lines: list[bytes]) -> None:
        """Lines are complete."""
        self.worker._on_lines(self, self.nodes, sname, lines)

    def flush(self) -> None:
        """What comes after the last line is a line."""
        for sname in list(self._rests):
            rest = b"".join(self._rests.pop(sname, ()))
            if rest:
                self.told(sname, [rest])

    def wrote(self, count: int, sname: str = "") -> None:
        """Input has been taken."""
        if not self.closed:
            for node in self.nodes:
                self.worker._on_written(node, count, sname or self.worker.SNAME_STDIN)

    # -- the end ------------------------------------------------------------------------------

    def drop(self) -> None:
        """End it, and hear of it no more."""

    def finish(self, rc: int | None) -> None:
        """It has ended by itself."""
        if self.closed:
            return
        self.flush()
        if self.closed:
            return  # by a handler
        self._leave()
        self.worker._on_client_end(self, rc)

    def abort(self, *, timedout: bool = False) -> None:
        """End it now. What it has not finished is a line if its time is over, and dropped if it is
        aborted."""
        if self.closed:
            return
        if timedout and self.started:
            self.flush()
            if self.closed:
                return
        self._leave()
        if self.started:
            self.drop()
        self.aborted(timedout and self.started)

    def aborted(self, timedout: bool) -> None:
        """It has been ended."""
        self.worker._on_client_abort(self, timedout)

    def _leave(self) -> None:
        self.closed = True
        self._rests.clear()
        if self.engine is not None:
            self.engine.remove(self)


class ProcessClient(Client):
    """A command, by one of the transports."""

    _sink: ProcessSink | None = None
    _printed = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._early: list[bytes] = []
        self._early_end = False

    def request(self) -> tuple[str, Request]:
        """The name of a transport, and what it is asked to run.

        :raises Exception: where it cannot be asked at all; it ends this client alone
        """
        raise NotImplementedError

    def sink(self) -> ProcessSink:
        """The sink of its channel."""
        assert self.engine is not None
        engine = self.engine
        sink = self._sink = ProcessSink(self, engine.inbox, engine.flow, engine.loop)
        for data in self._early:
            sink.write(data)
        if self._early_end:
            sink.write(None)
        return sink

    def write(self, data: bytes | None, sname: str) -> None:
        if self._sink is not None:
            self._sink.write(data)
        elif data is None:
            self._early_end = True  # after what is still written before the start
        else:
            self._early.append(data)

    def told(self, sname: str, lines: list[bytes]) -> None:
        self._printed = True
        super().told(sname, lines)

    def ended(self, status: int | None, error: ProcessError | None) -> None:
        """The command has ended, or could not be started, or was lost."""
        if self.closed:
            return
        self.flush()
        if error is not None and not self.closed:
            self._tell_failure(status, error)
        self.finish(code_of(status, error))

    def _tell_failure(self, status: int | None, error: ProcessError) -> None:
        """Say why on stderr; where that is not apart, only if nothing else was printed: what has
        come is data."""
        worker = self.worker
        worker._note_failure(self, error)
        if status is None and (self.stderr or not self._printed):
            sname = worker.SNAME_STDERR if self.stderr else worker.SNAME_STDOUT
            super().told(sname, [line.encode(errors="replace") for line in str(error).splitlines()])

    def drop(self) -> None:
        if self._sink is not None:
            self._sink.drop()
