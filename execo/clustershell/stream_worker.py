"""Workers without nodes: on descriptors of the user, and local commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from execo._core.stream import Reader, Writer
from execo.config import configuration
from execo.lifecycle import kill_timeout
from execo.transports.base import Exec, Request

from .client import Client, ProcessClient
from .errors import WorkerBadArgumentError
from .event import tell
from .sink import Pausable
from .worker import Worker

if TYPE_CHECKING:
    from .event import EventHandler

__all__ = ["WORKER_CLASS", "StreamWorker", "WorkerPopen", "WorkerSimple", "local_request"]

File = int | IO[Any]
Stream = tuple[File, bool, bool]
"""A file, whether its worker lasts as long as it, whether it is closed then."""


def local_request(command: str | tuple[str, ...], stderr: bool, env: Any = None) -> Exec:
    """A command for this machine, in a session of its own.

    :param stderr: stderr is apart; else both come in the order in which they were written
    """
    return Exec(
        command,
        env=env,
        kill_timeout=kill_timeout(),
        detach=not configuration["kill_childs_at_end"],
        merge=not stderr,
    )


def checked_data(data: Any) -> bytes:
    """What is to be written.

    :raises TypeError: if it is not bytes
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"what is written to a worker is bytes, not {type(data).__name__}")
    return bytes(data)


class _Source(Pausable):
    """A descriptor that is read. On the I/O thread, save its making."""

    def __init__(self, client: StreamClient, sname: str, fd: int) -> None:
        self._client = client
        self._sname = sname
        assert client.engine is not None
        self._inbox, self._flow = client.engine.inbox, client.engine.flow
        self._loop = client.engine.loop
        self._reader = Reader(fd, self._on_data, self._on_eof)
        self._held = False
        self._plain = False

    def start(self) -> None:
        try:
            self._reader.start(self._loop)
        except PermissionError:  # a regular file, which is always ready, and cannot be waited for
            self._plain = True
            self._read_on()

    def _read_on(self) -> None:
        if self._reader.open and not self._held:
            self._reader.read()
            self._loop.call_soon(self._read_on)

    def _on_data(self, data: bytes) -> None:
        self._inbox.put((self._client.take_from, self._sname, data))
        self._flow.arrived(self, self._loop, len(data))

    def _on_eof(self, error: OSError | None) -> None:
        self._flow.leave(self)
        self._inbox.put((self._client.stream_ended, self._sname))

    def pause(self) -> None:
        self._held = True
        if not self._plain:
            self._reader.pause()

    def resume(self) -> None:
        self._held = False
        if self._plain:
            self._loop.call_soon(self._read_on)
        else:
            self._reader.resume()

    def close(self) -> None:
        self._flow.leave(self)
        self._reader.close()


class StreamClient(Client):
    """Descriptors of the user: name -> number, and whether the client lasts as long as it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.readers: dict[str, Stream] = {}
        self.writers: dict[str, Stream] = {}
        self._sources: dict[str, _Source] = {}
        self._sinks: dict[str, Writer] = {}
        self._early: list[tuple[str, bytes | None]] = []
        self._lasting: set[str] = set()

    def prepare(self) -> None:
        assert self.engine is not None
        loop = self.engine.loop
        self._lasting = {
            name for name, one in (*self.readers.items(), *self.writers.items()) if one[1]
        }
        for name, (file, _, closefd) in self.writers.items():
            wrote, ended = partial(self._put_wrote, name), partial(self._put_ended, name)
            self._sinks[name] = Writer(_owned(file, closefd), wrote, ended)
        for name, (file, _, closefd) in self.readers.items():
            self._sources[name] = _Source(self, name, _owned(file, closefd))
        self.readers, self.writers = {}, {}
        for writer in self._sinks.values():
            loop.call_soon(writer.start, loop)
        for name, data in self._early:
            self._write(data, name)
        self._early.clear()
        for source in self._sources.values():
            loop.call_soon(source.start)
        if not self._lasting:
            self._put_ended("", None)

    def _put_wrote(self, sname: str, count: int) -> None:
        if self.engine is not None:
            self.engine.inbox.put((self.wrote, count, sname))

    def _put_ended(self, sname: str, error: OSError | None) -> None:
        if self.engine is not None:
            self.engine.inbox.put((self.stream_ended, sname))

    def write(self, data: bytes | None, sname: str) -> None:
        if sname not in self.writers and sname not in self._sinks:
            raise KeyError(sname)
        if self.started:
            self._write(data, sname)
        else:
            self._early.append((sname, data))

    def _write(self, data: bytes | None, sname: str) -> None:
        assert self.engine is not None
        writer = self._sinks[sname]
        if data is None:
            self.engine.loop.call_soon(self._end_writer, writer, sname)
        else:
            self.engine.loop.call_soon(_write_to, writer, data)

    def _end_writer(self, writer: Writer, sname: str) -> None:
        writer.end()
        self._await_writer(writer, sname)

    def _await_writer(self, writer: Writer, sname: str) -> None:
        assert self.engine is not None
        if writer.open and writer.pending:
            self.engine.loop.call_later(0.01, self._await_writer, writer, sname)
        else:
            self._put_ended(sname, None)

    def take_from(self, sname: str, data: bytes) -> None:
        """Output has come."""
        assert self.engine is not None
        self.engine.flow.taken(len(data))
        self.feed(sname, data)

    def stream_ended(self, sname: str) -> None:
        """Nothing more comes of it, or can be written to it."""
        self._lasting.discard(sname)
        if not self._lasting and not self.closed:
            self.drop()
            self.finish(None)

    def aborted(self, timedout: bool) -> None:
        if self.started:
            tell(self.worker, "ev_hup", self.key, None)
        super().aborted(timedout)

    def drop(self) -> None:
        if self.engine is not None:
            for source in self._sources.values():
                self.engine.loop.call_soon(source.close)
            for writer in self._sinks.values():
                self.engine.loop.call_soon(writer.close)


def _write_to(writer: Writer, data: bytes) -> None:
    if writer.open:
        writer.write(data)


class StreamWorker(Worker):
    """A worker on descriptors that the user has: lines that come from some of them, and what is
    written to others.

    :param handler: see :class:`Worker`
    :param key: what its results are found under; default: the worker itself
    :param stderr: kept for derived classes
    :param timeout: seconds from its start until it is ended; None or negative = no limit
    :param autoclose: it is aborted when all else of the task is over
    :param client_class: without effect here
    """

    def __init__(
        self,
        handler: EventHandler | None,
        key: Any = None,
        stderr: bool = False,
        timeout: float | None = -1,
        autoclose: bool = False,
        client_class: Any = None,
    ) -> None:
        super().__init__(handler)
        self.key: Any = self if key is None else key
        self._client = self._make_client(stderr, timeout, autoclose)
        self._clients = [self._client]

    def _make_client(self, stderr: bool, timeout: float | None, autoclose: bool) -> Client:
        return StreamClient(self, self.key, stderr, timeout, autoclose)

    @property
    def clients(self) -> list[Client]:
        """What it runs: one."""
        return self._clients

    def set_key(self, key: Any) -> None:
        """Before its start: what its results are found under."""
        self.key = self._client.key = key

    def set_reader(
        self, sname: str, sfile: int | IO[Any] | None, retain: bool = True, closefd: bool = True
    ) -> None:
        """Read lines from a file.

        :param sname: the name of the stream; its output is gathered if the task's default
          ``<sname>_msgtree`` is True
        :param sfile: an open file, or its descriptor; it is made non-blocking
        :param retain: the worker lasts until its end
        :param closefd: close the descriptor then
        """
        self._streams("readers")[sname] = (_checked(sfile), retain, closefd)

    def set_writer(
        self, sname: str, sfile: int | IO[Any] | None, retain: bool = True, closefd: bool = True
    ) -> None:
        """Have what is written to ``sname`` go into a file; see :meth:`set_reader`."""
        self._streams("writers")[sname] = (_checked(sfile), retain, closefd)

    def _streams(self, which: str) -> dict[str, Stream]:
        if not isinstance(self._client, StreamClient):
            raise WorkerBadArgumentError(f"{self!r} has the streams of its command")
        streams: dict[str, Stream] = getattr(self._client, which)
        return streams

    def read(self, node: Any = None, sname: str = "stdout") -> bytes | None:
        return super().read(self.key if node is None else node, sname)

    def write(self, buf: bytes, sname: str | None = None) -> None:
        """Write to a stream: what is not taken yet waits.

        :param sname: its name; default: ``SNAME_STDIN``
        """
        if not self._ended:
            self._client.write(checked_data(buf), sname or self.SNAME_STDIN)

    def set_write_eof(self, sname: str | None = None) -> None:
        """End a stream after all that was written to it."""
        if not self._ended:
            self._client.write(None, sname or self.SNAME_STDIN)


class WorkerSimple(StreamWorker):
    """A worker on up to three files; deprecated there: use :class:`StreamWorker`.

    :param file_reader: read from, as stdout; None = not
    :param file_writer: written to, as stdin; None = not
    :param file_error: read from, as stderr, with ``stderr``; None = not
    :param key: see :class:`StreamWorker`, as all that follow
    :param handler: see there
    :param stderr: see there
    :param timeout: see there
    :param autoclose: see there
    :param closefd: see :meth:`StreamWorker.set_reader`
    :param client_class: see there
    """

    def __init__(
        self,
        file_reader: int | IO[Any] | None,
        file_writer: int | IO[Any] | None,
        file_error: int | IO[Any] | None,
        key: Any,
        handler: EventHandler | None,
        stderr: bool = False,
        timeout: float | None = -1,
        autoclose: bool = False,
        closefd: bool = True,
        client_class: Any = None,
    ) -> None:
        super().__init__(handler, key, stderr, timeout, autoclose, client_class)
        self._numbers: dict[str, int] = {}
        self._files = (file_reader, file_writer, file_error)  # not to be closed by the collector
        set_one: Callable[..., None]
        for sname, file, set_one in (
            (self.SNAME_STDOUT, file_reader, self.set_reader),
            (self.SNAME_STDERR, file_error, self.set_reader),
            (self.SNAME_STDIN, file_writer, self.set_writer),
        ):
            if file is not None:
                set_one(sname, file, retain=True, closefd=closefd)
                self._numbers[sname] = _number(file)

    def reader_fileno(self) -> int | None:
        """The descriptor that is read."""
        return self._numbers.get(self.SNAME_STDOUT)

    def writer_fileno(self) -> int | None:
        """The descriptor that is written to."""
        return self._numbers.get(self.SNAME_STDIN)

    def error_fileno(self) -> int | None:
        """The descriptor of stderr."""
        return self._numbers.get(self.SNAME_STDERR)

    def error(self) -> bytes | None:
        """What was printed on stderr, None if nothing."""
        return self.read(self.key, self.SNAME_STDERR)


class _PopenClient(ProcessClient):
    """A local command."""

    def request(self) -> tuple[str, Request]:
        worker = self.worker
        assert isinstance(worker, WorkerPopen)
        return "local", local_request(worker.command, self.stderr)


class WorkerPopen(WorkerSimple):
    """A command on this machine, for ``/bin/sh``. A timeout, and ``abort()``, kill all that it has
    started, too.

    - ``command``: the command
    - ``key``: see below

    :param command: the command
    :param key: what its results are found under, and the ``node`` of its events; default: the
      worker itself
    :param handler: see :class:`Worker`
    :param stderr: stderr is apart from stdout
    :param timeout: seconds from its start until it is killed; None or negative = no limit
    :param autoclose: it is aborted when all else of the task is over
    :raises ValueError: if there is no command
    """

    def __init__(
        self,
        command: str | bytes,
        key: Any = None,
        handler: EventHandler | None = None,
        stderr: bool = False,
        timeout: float | None = -1,
        autoclose: bool = False,
    ) -> None:
        if not command:
            raise WorkerBadArgumentError("missing command parameter in WorkerPopen constructor")
        super().__init__(None, None, None, key, handler, stderr, timeout, autoclose)
        self.command = os.fsdecode(command)
        self._rc: int | None = None

    def _make_client(self, stderr: bool, timeout: float | None, autoclose: bool) -> Client:
        return _PopenClient(self, self.key, stderr, timeout, autoclose)

    def retcode(self) -> int | None:
        """Its return code; None before its end, and where it did not end by itself."""
        return self._rc

    def _on_client_end(self, client: Client, rc: int | None) -> None:
        self._rc = rc
        super()._on_client_end(client, rc)


def _number(file: File) -> int:
    return file if isinstance(file, int) else file.fileno()


def _checked(file: File | None) -> File:
    if file is None:
        raise WorkerBadArgumentError("a stream needs a file")
    return file


def _owned(file: File, closefd: bool) -> int:
    """A descriptor for us to close."""
    if isinstance(file, int):
        return file if closefd else os.dup(file)
    fd = os.dup(file.fileno())
    if closefd:
        file.close()  # what it has in its buffer goes before what we write
    return fd


WORKER_CLASS = WorkerPopen
