"""The reading of what is put, for one host or for many that take it in step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from execo._core.pool import Strand
from execo._core.runtime import Runtime

from .send import Package

__all__ = ["LATE", "Supply", "Taker"]

LATE = 5.0
"""Seconds that those in step wait for others of them before they go on without these."""


class Taker(Protocol):
    """What sends the blocks of a package to a host. On the I/O thread.

    - ``supply``: where its blocks come from
    - ``started``: it can take blocks, sooner or later
    - ``ready``: it has room for a block now
    """

    supply: Supply
    started: bool

    @property
    def ready(self) -> bool: ...

    def take(self, block: bytes | None) -> None:
        """Send ``block``, or the end."""

    def fail(self, exc: Exception) -> None:
        """The package cannot be read."""


class Supply:
    """Reads a package block by block, on the worker threads, once for all that take it.

    All get a block in the same turn of the loop, the first one when all have started: a transport
    that tells many hosts the same at once sends it once. Those that do not get rid of their blocks
    part from the others after a while, and go on by themselves: their host may be gone.

    On the I/O thread, save :meth:`join` and what runs on the strand.

    :param package: what is read
    :param label: for messages
    :param skip: how many blocks have been taken already
    """

    def __init__(self, runtime: Runtime, package: Package, label: str, *, skip: int = 0) -> None:
        self._runtime = runtime
        self._package = package
        self._label = label
        self._strand = Strand(runtime.workers, lambda: label)
        self._blocks: Iterator[bytes] | None = None
        self._count = skip  # of the blocks that have been taken
        # Keeps their order: hosts that are told the same get it in the order of the action.
        self._takers: dict[Taker, None] = {}
        self._waited_for: set[Taker] = set()  # those that are not ready
        self._busy = False  # it reads, or hands out
        self._watching = False

    def join(self, taker: Taker) -> None:
        """``taker`` is one of those that take it. Before anything has been read."""
        taker.supply = self
        self._takers[taker] = None
        if not taker.ready:
            self._waited_for.add(taker)

    def leave(self, taker: Taker) -> None:
        """``taker`` takes no more."""
        self._takers.pop(taker, None)
        self.on_ready(taker)

    def on_ready(self, taker: Taker) -> None:
        """``taker`` has room for a block."""
        self._waited_for.discard(taker)
        self._look()

    def _look(self) -> None:
        """Read on, if all are ready."""
        if self._busy or not self._takers:
            return
        if self._waited_for:
            self._watch()
            return
        self._busy = True
        if self._package.ready is None:
            self._strand.submit(self._read)
        else:
            self._hand_out(self._next())

    def _next(self) -> bytes | None:
        if self._blocks is None:
            self._blocks = islice(self._package.blocks(), self._count, None)
        return next(self._blocks, None)

    def _read(self) -> None:
        """On the strand."""
        loop = self._runtime.loop
        try:
            block = self._next()
        except Exception as exc:  # noqa: BLE001 - passed on as the error of the processes
            loop.call_soon(self._fail, exc)
        else:
            loop.call_soon(self._hand_out, block)

    def _hand_out(self, block: bytes | None) -> None:
        takers = list(self._takers)
        if block is None:
            self._takers.clear()  # there is nothing more to read
        self._count += 1
        for taker in takers:
            taker.take(block)
            if taker in self._takers and not taker.ready:
                self._waited_for.add(taker)
        self._busy = False
        self._look()

    def _fail(self, exc: Exception) -> None:
        takers = list(self._takers)
        self._takers.clear()
        for taker in takers:
            taker.fail(exc)

    # -- those that hold up the others ----------------------------------------------------------

    def _watch(self) -> None:
        if not self._watching and len(self._takers) > 1:
            self._watching = True
            self._runtime.loop.call_later(LATE, self._look_late, self._count)

    def _look_late(self, count: int) -> None:
        """Part from those that have had no room for so long."""
        self._watching = False
        late = [taker for taker in self._takers if taker in self._waited_for]
        # As long as hosts are connected to, nobody is late.
        if (
            count == self._count
            and all(one.started for one in late)
            and len(late) < len(self._takers)
        ):
            theirs = Supply(self._runtime, self._package, self._label, skip=count)
            for taker in late:
                theirs.join(taker)
                self.leave(taker)
            return
        self._look()
