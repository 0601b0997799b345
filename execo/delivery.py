"""Events and output of one run on their way from the I/O thread to the user's handlers.

They go through one strand, which keeps their order, and the output that waits there is bounded:
past ``configuration["handler_queue_size"]`` bytes the process is paused, so a slow handler costs
its process time, not the program memory; only while a handler waits for a process is there no
bound. A process without handlers has none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ._core.pool import Strand, current_strand
from ._core.runtime import Runtime
from .handlers import FileOutlet, Outlet, ProcessOutputHandler, make_outlet
from .log import logger
from .output import new_decoder

if TYPE_CHECKING:
    from .action_base import Action
    from .process_base import ProcessBase
    from .transports.base import Channel

__all__ = ["Delivery", "call_handlers"]


class Delivery:
    """The strand of one run and what passes through it.

    Methods belong to the I/O thread, save those whose name begins with an underscore, which run
    on the strand.
    """

    def __init__(self, process: ProcessBase, runtime: Runtime, limit: int, folder: str) -> None:
        self.strand = Strand(runtime.pool, lambda: repr(process))
        self._process = process
        self._loop = runtime.loop
        self._dispatcher = Dispatcher(process, folder)
        self.strand.on_wait = self._on_wait
        self._limit = limit
        self._waiting = False
        self._handed_over = 0
        self._delivered = 0
        self._channel: Channel | None = None  # set while it is paused

    @property
    def paused(self) -> bool:
        """True while the process is held up for its handlers."""
        return self._channel is not None

    def event(self, name: str) -> None:
        """Call the method ``name`` (start, end) of the lifecycle handlers."""
        self.strand.submit(call_handlers, self._process, name)

    def output(
        self, channel: Channel | None, stream: int, data: bytes, *, eof: bool, error: bool = False
    ) -> None:
        """Hand a piece of output to the handlers of ``stream``; pauses ``channel`` if need be."""
        self._handed_over += len(data)
        self.strand.submit(self._deliver, stream, data, eof, error)
        if channel is None or self._waiting:
            return
        if self._handed_over - self._delivered > self._limit:
            if self._channel is None:
                self._channel = channel
                channel.pause()
            # The last of it may have been delivered before the pause could be seen there, or a
            # handler may have begun to wait.
            self._resume_if_short()

    def finish(self, then: Callable[[], object]) -> None:
        """Close the files and call ``then``, after all that was handed over."""
        self.strand.submit(self._finish, then)

    def _deliver(self, stream: int, data: bytes, eof: bool, error: bool) -> None:
        try:
            self._dispatcher.deliver(stream, data, eof, error)
        finally:
            self._delivered += len(data)
        if self._channel is not None:
            self._loop.call_soon(self._resume_if_short)

    def _finish(self, then: Callable[[], object]) -> None:
        try:
            self._dispatcher.close()
        finally:
            self.strand.on_wait = None  # its hold on this
            then()

    def _on_wait(self, waiting: bool) -> None:
        # A handler that waits for its own process, or for one that needs this one, would wait for
        # ever if the process were paused until the handler returns. So the bound is lifted.
        self._waiting = waiting
        if waiting:
            self._loop.call_soon(self._resume_if_short)

    def _resume_if_short(self) -> None:
        short = self._waiting or self._handed_over - self._delivered <= self._limit // 2
        if self._channel is not None and short:
            channel, self._channel = self._channel, None
            channel.resume()


def call_handlers(subject: ProcessBase | Action, name: str) -> None:
    """Call the method ``name`` of the lifecycle handlers of a process or action; one that raises
    is logged, and the others go on."""
    strand = current_strand()
    for handler in list(subject.lifecycle_handlers):
        if strand is not None:
            strand.running = handler
        try:
            getattr(handler, name)(subject)
        except BaseException:
            logger.exception("%s of lifecycle handler %r failed for %r", name, handler, subject)
    if strand is not None:
        strand.running = None


class Dispatcher:
    """Delivers the output of one run of a process to its handlers. Runs on the process's strand.

    :param folder: where the names of files begin: the current folder at its start
    :param process: the process; its lists of handlers are read at each delivery, so that what is
      appended while it runs is served from then on
    """

    def __init__(self, process: ProcessBase, folder: str) -> None:
        self._process = process
        self._folder = folder
        self._decoders = {1: new_decoder(), 2: new_decoder()}
        # The entry is kept beside its outlet, so that its id() stays its own.
        self._outlets: dict[tuple[int, int], tuple[object, Outlet]] = {}
        self._failures: dict[tuple[int, int], int] = {}
        self._strand: Strand | None = None

    def deliver(self, stream: int, data: bytes, eof: bool, error: bool) -> None:
        """Give ``data`` to every handler of ``stream``."""
        process = self._process
        self._strand = current_strand()
        entries = process.stdout_handlers if stream == 1 else process.stderr_handlers
        text = self._decoders[stream].decode(data, final=eof)
        for entry in list(entries):
            if entry is None:
                continue
            key = (stream, id(entry))
            if self._strand is not None:
                self._strand.running = entry
            if self._failures.get(key, 0) and not isinstance(entry, ProcessOutputHandler):
                self._failures[key] += 1  # the file is broken; one message is enough
                continue
            try:
                if key not in self._outlets:
                    self._outlets[key] = (entry, make_outlet(entry, self._folder))
                self._outlets[key][1](process, stream, data, text, eof, error)
            except BaseException as exc:  # noqa: BLE001 - the user's code; logged
                self._failed(key, entry, exc)
        if self._strand is not None:
            self._strand.running = None

    def close(self) -> None:
        """Close the files that are ours, and say what the failed handlers have missed."""
        for _, outlet in self._outlets.values():
            if isinstance(outlet, FileOutlet):
                outlet.close()
        for count in self._failures.values():
            if count > 1:
                logger.warning(
                    "an output handler of %r failed %d times; the first is logged above",
                    self._process,
                    count,
                )

    def _failed(self, key: tuple[int, int], entry: object, exc: BaseException) -> None:
        self._failures[key] = self._failures.get(key, 0) + 1
        if self._failures[key] > 1:
            return
        if isinstance(exc, OSError) and not isinstance(entry, ProcessOutputHandler):
            logger.error("cannot write the output of %r to %r: %s", self._process, entry, exc)
            self._process._sink_failed(key[0])
        else:
            logger.error("output handler %r of %r failed", entry, self._process, exc_info=exc)
