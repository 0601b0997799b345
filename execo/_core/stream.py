"""One descriptor, one owner, one close.

A :class:`Reader` or :class:`Writer` owns a descriptor from its creation on; all its methods, save
``close_inherited``, belong to the I/O thread. :func:`write_all` is for other threads.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
from collections import deque
from collections.abc import Callable

from .loop import Loop, owned

__all__ = ["Descriptor", "Reader", "Writer", "open_append", "write_all"]

CHUNK = 64 * 1024
"""Bytes of one read: the size of a pipe that nobody has grown."""

SMALL = 4096
"""Bytes of one read from when on memory was short."""

GROWN = 1024 * 1024
"""Size that the pipe of a busy process is given. Measured on 1 GB, against 64 KiB: 0.50 s instead
of 0.67; 100 processes with 10 MB each: 0.70 s instead of 1.0."""

GROW_AFTER = 2
"""Full reads in a row that make a process a busy one."""

GROWN_AT_MOST = 32
"""Pipes that are grown at a time: half of the 64 MiB that an unprivileged user has for pipes. Once
these are used up, the kernel gives all new pipes of that user a tenth of the usual size."""

BATCH = 64 * 1024
"""Bytes that one write gathers, so that a million short lines are not a million system calls."""

_F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", None)


class Descriptor:
    """A descriptor with one owner; closing it twice closes it once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        owned.add(self)

    @property
    def open(self) -> bool:
        return self.fd >= 0

    def close(self) -> None:
        """Close the descriptor and forget its number."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            owned.discard(self)
            # A user who closes ``process.stdin_fd`` must not cost the I/O thread its callback.
            with contextlib.suppress(OSError):
                os.close(fd)

    def close_inherited(self) -> None:
        """In a forked child: close the copy, leave the parent's registrations alone."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


class Reader(Descriptor):
    """Reads a pipe or the master side of a pseudo-terminal until its end.

    :param fd: the descriptor; owned from now on
    :param on_data: called with each block of bytes
    :param on_eof: called once, with the error that ended the stream or None; the descriptor is
      closed by then
    """

    _grown = 0
    _is_grown = False

    def __init__(
        self,
        fd: int,
        on_data: Callable[[bytes], object],
        on_eof: Callable[[OSError | None], object],
    ) -> None:
        super().__init__(fd)
        # It is read when there is something to read; but the number can be seen by the user, who
        # may read it, too, and the I/O thread must not hang for what he took.
        os.set_blocking(fd, False)
        self._on_data = on_data
        self._on_eof = on_eof
        self._loop: Loop | None = None
        self._reading = False
        self._held = False
        self._size = CHUNK
        self._full = 0

    def start(self, loop: Loop) -> None:
        """Begin to read, unless it was paused before."""
        self._loop = loop
        if not self._held:
            self.resume()

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self._held = False
        if self._loop is not None and self.open and not self._reading:
            self._reading = True
            self._loop.add_reader(self.fd, self._readable)

    def pause(self) -> None:
        """Read nothing until :meth:`resume`; the kernel then holds the writer up."""
        self._held = True
        if self._loop is not None and self.open and self._reading:
            self._reading = False
            self._loop.remove_reader(self.fd)

    def read(self) -> None:
        """Read once, now: for a regular file, which is always ready and cannot be waited for."""
        if self.open:
            self._readable()

    def close(self) -> None:
        self.pause()
        if self.open and self._is_grown:
            Reader._grown -= 1
        super().close()

    def _readable(self) -> None:
        # One read for each time that data is announced: a fast process cannot starve the others.
        error = None
        try:
            data = os.read(self.fd, self._size)
        except (BlockingIOError, InterruptedError):
            return
        except MemoryError:
            # It stays in the pipe. Small pieces come through where large ones do not.
            self._size = min(self._size, SMALL)
            return
        except OSError as exc:
            data = b""
            # A pseudo-terminal that nobody holds open any more reports its end in this way.
            error = None if exc.errno == errno.EIO else exc
        if data:
            if len(data) == self._size:
                self._grow()
            else:
                self._full = 0
            self._on_data(data)
        else:
            self.close()
            self._on_eof(error)

    def _grow(self) -> None:
        self._full += 1
        if (
            self._full == GROW_AFTER
            and self._size == CHUNK
            and Reader._grown < GROWN_AT_MOST
            and _F_SETPIPE_SZ is not None
        ):
            try:
                fcntl.fcntl(self.fd, _F_SETPIPE_SZ, GROWN)
            except OSError:
                return  # a terminal, or the user's share is used up: the usual size will do
            self._size = GROWN
            self._is_grown = True
            Reader._grown += 1


class Writer(Descriptor):
    """Writes to a pipe or a pseudo-terminal without ever blocking.

    :param fd: the descriptor; owned from now on, and made non-blocking
    :param on_written: called with the number of bytes that were taken
    :param on_error: called once if the other side has gone; the descriptor is closed by then and
      what was queued is dropped
    :param eof: written instead of closing, for a pseudo-terminal, whose descriptor is also read;
      a terminal takes it as the end of its input only at the start of a line
    """

    def __init__(
        self,
        fd: int,
        on_written: Callable[[int], object],
        on_error: Callable[[OSError], object],
        *,
        eof: bytes | None = None,
    ) -> None:
        super().__init__(fd)
        os.set_blocking(fd, False)
        self._on_written = on_written
        self._on_error = on_error
        self._eof = eof
        self._loop: Loop | None = None
        self._queue: deque[bytes] = deque()
        self._offset = 0
        self._owed = 0  # bytes of the user that on_written has not told of; the end is none
        self._at_line_start = True
        self._watching = False
        self._ending = False

    def start(self, loop: Loop) -> None:
        """Begin to write what was queued."""
        self._loop = loop
        self._writable()

    def write(self, data: bytes) -> None:
        """Queue ``data`` behind what is queued, and write what can be written now."""
        if not self.open or self._ending:
            self._on_error(BrokenPipeError(errno.EPIPE, "stdin is closed"))
            return
        if data:
            self._queue.append(data)
            self._owed += len(data)
            self._at_line_start = data.endswith(b"\n")
            if self._loop is not None and not self._watching:
                self._writable()

    def end(self) -> None:
        """End of file, once everything queued is written."""
        if not self.open or self._ending:
            return
        if self._eof is not None:
            # In the middle of a line the first one only hands the line over.
            self._queue.append(self._eof if self._at_line_start else self._eof * 2)
        self._ending = True
        if self._loop is not None and not self._watching:
            self._writable()

    @property
    def pending(self) -> bool:
        """True while something is queued that was not written."""
        return bool(self._queue)

    def give_up(self) -> bool:
        """Write nothing any more, and keep the descriptor open. True if something was queued."""
        pending = self.pending and self.open
        self._queue.clear()
        self._ending = True
        self._watch(False)
        return pending

    def close(self) -> None:
        self._watch(False)
        self._queue.clear()
        super().close()

    def _watch(self, wanted: bool) -> None:
        if wanted == self._watching or self._loop is None:
            return
        self._watching = wanted
        if wanted:
            self._loop.add_writer(self.fd, self._writable)
        else:
            self._loop.remove_writer(self.fd)

    def _writable(self) -> None:
        try:
            # One batch for each time that there is room, as in Reader.
            if self._queue:
                self._advance(os.write(self.fd, self._batch()))
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as exc:
            self.close()
            self._on_error(exc)
            return
        if self._queue:
            self._watch(True)
        elif self._ending and self._eof is None:
            self.close()
        else:
            self._watch(False)

    def _batch(self) -> bytes | memoryview:
        first = self._queue[0]
        if len(first) - self._offset >= BATCH or len(self._queue) == 1:
            return memoryview(first)[self._offset :]
        parts, size = [], 0
        offset = self._offset
        for data in self._queue:
            parts.append(data[offset:] if offset else data)
            size += len(data) - offset
            offset = 0
            if size >= BATCH:
                break
        return b"".join(parts)

    def _advance(self, count: int) -> None:
        left = count
        while left:
            rest = len(self._queue[0]) - self._offset
            if left < rest:
                self._offset += left
                break
            left -= rest
            self._queue.popleft()
            self._offset = 0
        told = min(count, self._owed)
        self._owed -= told
        if told:
            self._on_written(told)


def open_append(path: str | os.PathLike[str]) -> int:
    """Open ``path`` for appending, make it if needed, and give its descriptor.

    Appending makes a write of one process whole beside those of others that share the file.

    :raises OSError: as :func:`os.open`
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data`` to ``fd``. Blocks: never for the I/O thread.

    :raises OSError: as :func:`os.write`
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            # Somebody made the descriptor non-blocking; wait for room as a blocking one would.
            # Not select(), which knows no descriptor beyond 1023.
            room = select.poll()
            room.register(fd, select.POLLOUT)
            room.poll()
