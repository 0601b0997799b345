"""Streams: the one owner of a descriptor reads or writes it, to its end and without blocking."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execo._core.loop import Loop, owned
from execo._core.runtime import get_runtime
from execo._core.stream import (
    CHUNK,
    GROWN,
    GROWN_AT_MOST,
    Descriptor,
    Reader,
    Writer,
    open_append,
    write_all,
)

TIMEOUT = 20.0


@pytest.fixture
def loop() -> Loop:
    return get_runtime().loop


@pytest.fixture
def far() -> Iterator[set[int]]:
    """The other ends, closed after the test."""
    fds: set[int] = set()
    yield fds
    for fd in fds:
        os.close(fd)


class Reading:
    """A reader and what it has read."""

    def __init__(self, fd: int, loop: Loop) -> None:
        self.blocks: list[bytes] = []
        self.errors: list[OSError | None] = []
        self.ended = threading.Event()
        self.some = threading.Event()
        self.loop = loop
        self.reader = Reader(fd, self._on_data, self._on_eof)

    def _on_data(self, data: bytes) -> None:
        self.blocks.append(data)
        self.some.set()

    def _on_eof(self, error: OSError | None) -> None:
        assert not self.reader.open
        self.errors.append(error)
        self.ended.set()

    def start(self) -> Reading:
        self.loop.run_sync(self.reader.start, self.loop)
        return self

    def wait(self) -> bytes:
        assert self.ended.wait(TIMEOUT)
        return self.data

    @property
    def data(self) -> bytes:
        return b"".join(self.blocks)


class Writing:
    """A writer and what it has told."""

    def __init__(self, fd: int, loop: Loop, eof: bytes | None = None) -> None:
        self.written = 0
        self.errors: list[OSError] = []
        self.failed = threading.Event()
        self.loop = loop
        self.on_written: Callable[[], object] = lambda: None
        self.writer = Writer(fd, self._on_written, self._on_error, eof=eof)

    def _on_written(self, count: int) -> None:
        self.written += count
        self.on_written()

    def _on_error(self, error: OSError) -> None:
        self.errors.append(error)
        self.failed.set()

    def do(self, method: str, *args: object) -> None:
        self.loop.run_sync(getattr(self.writer, method), *args)

    def start(self) -> Writing:
        self.do("start", self.loop)
        return self


def write_in_thread(fd: int, data: bytes, *, close: bool = True) -> threading.Thread:
    def write() -> None:
        write_all(fd, data)
        if close:
            os.close(fd)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


# -- descriptors --------------------------------------------------------------------------------


def test_a_descriptor_is_closed_once() -> None:
    read, write = os.pipe()
    one, other = Descriptor(read), Descriptor(write)
    assert one in owned
    assert one.open
    one.close()
    again = os.dup(other.fd)  # takes the number that has become free
    assert again == read
    one.close()
    os.fstat(again)
    assert not one.open
    assert one not in owned
    os.close(again)
    other.close()


def test_a_descriptor_that_others_have_closed_is_no_trouble() -> None:
    read, write = os.pipe()
    one = Descriptor(read)
    os.close(read)
    os.close(write)
    one.close()
    assert not one.open


def test_a_forked_child_closes_its_copy() -> None:
    read, write = os.pipe()
    one = Descriptor(read)
    one.close_inherited()
    one.close_inherited()
    assert not one.open
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read)
    owned.discard(one)
    os.close(write)


# -- reading ------------------------------------------------------------------------------------


def test_it_reads_to_the_end(loop: Loop) -> None:
    read, write = os.pipe()
    os.write(write, b"one")
    reading = Reading(read, loop).start()
    assert reading.some.wait(TIMEOUT)
    os.write(write, b"two")
    os.close(write)
    assert reading.wait() == b"onetwo"
    assert reading.errors == [None]


def test_it_reads_what_was_there_at_the_end(loop: Loop) -> None:
    read, write = os.pipe()
    os.write(write, bytes(60_000))
    os.close(write)
    assert len(Reading(read, loop).start().wait()) == 60_000


@given(sizes=st.lists(st.integers(1, 200_000), max_size=6))
def test_it_reads_whatever_is_written(sizes: list[int]) -> None:
    loop = get_runtime().loop
    data = b"".join(os.urandom(size) for size in sizes)
    read, write = os.pipe()
    reading = Reading(read, loop).start()
    thread = write_in_thread(write, data)
    assert reading.wait() == data
    thread.join()


def test_the_end_of_a_terminal_is_no_error(loop: Loop) -> None:
    master, slave = pty.openpty()
    reading = Reading(master, loop).start()
    os.write(slave, b"x\n")
    os.close(slave)
    assert reading.wait() == b"x\r\n"
    assert reading.errors == [None]


def test_an_error_ends_it_and_is_told(loop: Loop) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    reading = Reading(os.dup(client.fileno()), loop)
    # Closing it so is a reset for the other side.
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()
    reading.start()
    reading.wait()
    assert [error.errno for error in reading.errors if error is not None] == [errno.ECONNRESET]
    client.close()
    server.close()


def test_pause_and_resume(loop: Loop) -> None:
    read, write = os.pipe()
    reading = Reading(read, loop).start()
    for method in ("pause", "pause"):
        loop.run_sync(getattr(reading.reader, method))
    os.write(write, b"x")
    for _ in range(50):
        loop.run_sync(int)
    assert reading.data == b""
    for method in ("resume", "resume"):
        loop.run_sync(getattr(reading.reader, method))
    os.close(write)
    assert reading.wait() == b"x"
    for method in ("pause", "resume", "close"):  # after the end: nothing
        loop.run_sync(getattr(reading.reader, method))
    assert reading.errors == [None]


def test_pause_before_the_start_holds(loop: Loop) -> None:
    read, write = os.pipe()
    os.write(write, b"x")
    os.close(write)
    reading = Reading(read, loop)
    loop.run_sync(reading.reader.pause)
    reading.start()
    for _ in range(50):
        loop.run_sync(int)
    before = reading.data
    loop.run_sync(reading.reader.resume)
    reading.wait()
    assert before == b""


def test_a_closed_reader_says_nothing_more(loop: Loop) -> None:
    read, write = os.pipe()
    reading = Reading(read, loop).start()
    loop.run_sync(reading.reader.close)
    loop.run_sync(reading.reader.close)
    os.close(write)
    loop.run_sync(int)
    assert (reading.blocks, reading.errors) == ([], [])


def test_it_may_be_closed_by_its_own_data(loop: Loop) -> None:
    read, write = os.pipe()
    reading = Reading(read, loop)

    def close(data: bytes) -> None:
        reading.reader.close()
        reading.some.set()

    reading.reader._on_data = close
    reading.start()
    os.write(write, b"x")
    assert reading.some.wait(TIMEOUT)
    loop.run_sync(int)
    assert not reading.reader.open
    os.close(write)


# -- growth -------------------------------------------------------------------------------------


def capacity(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def make_busy(reading: Reading, write: int) -> None:
    """Fill the pipe again and again, until its reader has seen full reads in a row."""
    for _ in range(6):
        loop = reading.loop
        loop.run_sync(reading.reader.pause)
        os.set_blocking(write, False)
        try:
            while True:
                os.write(write, bytes(CHUNK))
        except BlockingIOError:
            pass
        seen = len(reading.blocks)
        loop.run_sync(reading.reader.resume)
        for _ in range(1000):
            if len(reading.blocks) > seen:
                break
            loop.run_sync(int)


def test_the_pipe_of_a_busy_writer_grows(loop: Loop, far: set[int]) -> None:
    read, write = os.pipe()
    far.add(write)
    reading = Reading(read, loop).start()
    before = Reader._grown
    assert capacity(write) == CHUNK
    make_busy(reading, write)
    assert (capacity(write), Reader._grown) == (GROWN, before + 1)
    loop.run_sync(reading.reader.close)
    loop.run_sync(reading.reader.close)
    assert Reader._grown == before


def test_small_reads_do_not_make_it_grow(loop: Loop, far: set[int]) -> None:
    read, write = os.pipe()
    far.add(write)
    reading = Reading(read, loop).start()
    for _ in range(20):
        reading.some.clear()
        os.write(write, bytes(1000))
        assert reading.some.wait(TIMEOUT)
    assert capacity(write) == CHUNK
    loop.run_sync(reading.reader.close)


def test_no_more_than_some_grow(loop: Loop, far: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "_grown", GROWN_AT_MOST)
    read, write = os.pipe()
    far.add(write)
    reading = Reading(read, loop).start()
    make_busy(reading, write)
    assert capacity(write) == CHUNK
    loop.run_sync(reading.reader.close)
    assert Reader._grown == GROWN_AT_MOST


def test_what_cannot_grow_is_read_all_the_same(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * CHUNK)
    reading = Reading(ours.detach(), loop).start()
    thread = write_in_thread(theirs.detach(), bytes(40 * CHUNK))
    assert len(reading.wait()) == 40 * CHUNK
    thread.join()


# -- writing ------------------------------------------------------------------------------------


def test_it_writes_what_was_queued_before_the_start(loop: Loop) -> None:
    read, write = os.pipe()
    writing = Writing(write, loop)
    for data in (b"one", b"", b"two"):
        writing.do("write", data)
    assert writing.writer.pending
    writing.do("end")
    writing.do("end")
    writing.start()
    assert Reading(read, loop).start().wait() == b"onetwo"
    assert (writing.written, writing.errors, writing.writer.open) == (6, [], False)


def test_a_full_pipe_holds_nobody_up(loop: Loop) -> None:
    data = os.urandom(20 << 20)
    read, write = os.pipe()
    writing = Writing(write, loop).start()
    writing.do("write", data)
    assert 0 < writing.written < len(data)
    assert writing.writer.pending
    writing.do("end")
    assert writing.writer.open  # all of it comes first
    assert Reading(read, loop).start().wait() == data
    loop.run_sync(int)
    assert (writing.written, writing.writer.pending) == (len(data), False)
    assert writing.errors == []


@given(sizes=st.lists(st.integers(0, 150_000), max_size=12), early=st.integers(0, 12))
def test_it_writes_all_in_order(sizes: list[int], early: int) -> None:
    loop = get_runtime().loop
    parts = [os.urandom(size) for size in sizes]
    read, write = os.pipe()
    writing = Writing(write, loop)
    for part in parts[:early]:
        writing.do("write", part)
    writing.start()
    for part in parts[early:]:
        writing.do("write", part)
    writing.do("end")
    assert Reading(read, loop).start().wait() == b"".join(parts)
    loop.run_sync(int)
    assert writing.written == sum(sizes)


def test_many_small_writes_are_few_large_ones(loop: Loop) -> None:
    read, write = os.pipe()
    writing = Writing(write, loop)
    calls: list[int] = []
    writing.on_written = lambda: calls.append(writing.written)
    for n in range(10_000):
        writing.writer.write(b"%05d\n" % n)
    writing.do("end")
    reading = Reading(read, loop).start()
    writing.start()
    assert reading.wait() == b"".join(b"%05d\n" % n for n in range(10_000))
    assert len(calls) < 1000


def test_it_may_be_written_to_by_its_own_news(loop: Loop) -> None:
    read, write = os.pipe()
    writing = Writing(write, loop)

    def again() -> None:
        if writing.written < 1000:
            writing.writer.write(b"x" * min(100, 1000 - writing.written))
        else:
            writing.writer.end()

    writing.on_written = again
    writing.start()
    writing.do("write", b"x")
    assert Reading(read, loop).start().wait() == b"x" * 1000


def test_nobody_reads_any_more(loop: Loop) -> None:
    read, write = os.pipe()
    writing = Writing(write, loop).start()
    os.close(read)
    writing.do("write", b"x")
    assert [error.errno for error in writing.errors] == [errno.EPIPE]
    assert not writing.writer.open
    assert not writing.writer.pending
    writing.do("write", b"y")
    assert len(writing.errors) == 2
    writing.do("end")
    writing.do("close")


def test_the_reader_leaves_in_the_middle(loop: Loop) -> None:
    read, write = os.pipe()
    writing = Writing(write, loop).start()
    writing.do("write", bytes(1 << 20))
    os.close(read)
    assert writing.failed.wait(TIMEOUT)
    assert [error.errno for error in writing.errors] == [errno.EPIPE]
    assert (writing.writer.open, writing.writer.pending) == (False, False)


def test_nothing_is_taken_after_the_end(loop: Loop) -> None:
    read, write = os.pipe()
    writing = Writing(write, loop).start()
    writing.do("write", bytes(1 << 18))
    writing.do("end")
    writing.do("write", b"late")
    assert len(writing.errors) == 1
    assert len(Reading(read, loop).start().wait()) == 1 << 18


def test_a_closed_writer_forgets_what_it_had(loop: Loop) -> None:
    read, write = os.pipe()
    writing = Writing(write, loop).start()
    writing.do("write", bytes(1 << 18))
    taken = writing.written
    writing.do("close")
    writing.do("close")
    assert not writing.writer.pending
    assert len(Reading(read, loop).start().wait()) == taken
    assert writing.errors == []


@pytest.mark.parametrize(
    ("data", "eot"), [(b"", b"\4"), (b"line\n", b"\4"), (b"part", b"\4\4"), (b"a\nb", b"\4\4")]
)
def test_the_end_on_a_terminal_is_a_character(loop: Loop, data: bytes, eot: bytes) -> None:
    read, write = os.pipe()
    writing = Writing(write, loop, eof=b"\4").start()
    writing.do("write", data)
    writing.do("end")
    writing.do("end")
    assert writing.writer.open  # the terminal is still read
    writing.do("close")
    assert Reading(read, loop).start().wait() == data + eot


# -- for other threads --------------------------------------------------------------------------


def test_write_all_waits_for_room() -> None:
    read, write = os.pipe()
    thread = write_in_thread(write, bytes(1 << 20))
    with open(read, "rb") as file:
        assert len(file.read()) == 1 << 20
    thread.join()


@pytest.mark.parametrize("lowest", [3, 1500])
def test_write_all_waits_where_somebody_has_made_it_non_blocking(lowest: int) -> None:
    read, low = os.pipe()
    # With thousands of processes descriptors have large numbers, which not all calls take.
    write = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, lowest)
    os.close(low)
    os.set_blocking(write, False)
    failures: list[BaseException] = []

    def fill() -> None:
        try:
            write_all(write, bytes(1 << 20))
        except (OSError, ValueError) as exc:
            failures.append(exc)
        finally:
            os.close(write)

    thread = threading.Thread(target=fill)
    thread.start()
    with open(read, "rb") as file:
        size = len(file.read())
    thread.join()
    assert (failures, size) == ([], 1 << 20)


def test_write_all_says_that_nobody_reads() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        write_all(write, b"x")
    os.close(write)


def test_open_append_makes_and_appends(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "log")
    for data in (b"one\n", b"two\n"):
        fd = open_append(path)
        write_all(fd, data)
        assert not os.get_inheritable(fd)
        os.close(fd)
    with open(path, "rb") as file:
        assert file.read() == b"one\ntwo\n"
    with pytest.raises(IsADirectoryError):
        open_append(tmp_path)
