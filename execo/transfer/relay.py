"""Between a process that puts or gets files and the transport that runs its script.

Every transport carries files in the same way: a relay stands between its channel and the run of
the process. It feeds the script's stdin, or takes its stdout, and lets the run end when the local
side is done. Files are read and written on the worker threads, one call at a time for each
process; on the I/O thread nothing blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from signal import SIGTERM
from typing import cast

from execo import transports
from execo._core.latch import Latch
from execo._core.runtime import Runtime
from execo.transports.base import Channel, Request, Sink, not_supported

from .broadcast import Tree, is_worth_it
from .download import Download
from .request import Transfer
from .rsync_relay import RsyncRelay
from .script import PATIENCE, Relay
from .send import Package
from .supply import Supply
from .upload import Upload

__all__ = ["TransferTransport"]

_IN_STEP = frozenset({"taktuk"})
"""Transports that send once what many hosts are told at the same time."""


class TransferTransport:
    """Runs :class:`Transfer` requests by way of the transports that they name."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._live: set[Download] = set()
        self._empty: Latch | None = None
        # The callbacks run last one first: when the scripts have been ended, whichever transports
        # were made first.
        runtime.at_exit.insert(0, self._finish_local)

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        groups: dict[str, list[tuple[Request, Sink]]] = {}
        shared: dict[Package, Supply] = {}
        trees, pairs = self._trees(pairs)
        for request, sink in pairs:
            if not isinstance(request, Transfer):
                raise not_supported("transfer", request)
            relay: Relay
            if request.rsync is not None:
                relay = RsyncRelay(self, request, sink)
            elif request.package is None:
                relay = Download(self, request, sink)
            else:
                relay = Upload(self, request, sink, self._supply(request, request.package, shared))
            groups.setdefault(request.transport, []).append((request, relay))
        channels: list[Channel] = []
        for name, group in groups.items():
            channels += transports.get(self.runtime, name).open_all(group)
        for tree in trees:
            channels += [cast(Channel, run) for run in tree.runs]
            for run in tree.runs:
                run.open()
            self.runtime.loop.call_soon(tree.begin)
        return channels

    def _trees(
        self, pairs: Sequence[tuple[Request, Sink]]
    ) -> tuple[list[Tree], list[tuple[Request, Sink]]]:
        """What hosts are to pass on to one another, and the rest."""
        groups: dict[tuple[Package, int], list[tuple[Transfer, Sink]]] = {}
        rest: list[tuple[Request, Sink]] = []
        for request, sink in pairs:
            passed_on = request.broadcast if isinstance(request, Transfer) else None
            if passed_on is None:
                rest.append((request, sink))
            else:
                assert isinstance(request, Transfer) and request.package is not None
                groups.setdefault((request.package, passed_on.width), []).append((request, sink))
        trees: list[Tree] = []
        for members in groups.values():
            if is_worth_it(members):
                trees.append(Tree(self, members))
            else:
                rest += members
        return trees, rest

    def _supply(self, request: Transfer, package: Package, shared: dict[Package, Supply]) -> Supply:
        supply = shared.get(package) or Supply(self.runtime, package, request.label)
        if request.transport in _IN_STEP:
            shared[package] = supply
        return supply

    def close_idle(self) -> None:
        """Does nothing: nothing is kept."""

    def close(self) -> None:
        """Does nothing: the transports that run the scripts end them."""

    def _finish_local(self) -> None:
        """At exit, after all transports: stop the local side, and wait until it has removed what
        is not in place."""
        empty = self.runtime.loop.run_sync(self._stop_all)
        if empty is not None:
            empty.wait(PATIENCE)

    def add(self, relay: Download) -> None:
        """A relay begins to use files. On the I/O thread, as the next."""
        self._live.add(relay)

    def remove(self, relay: Download) -> None:
        """It uses them no more."""
        self._live.discard(relay)
        if self._empty is not None and not self._live:
            self._empty.fire()

    def _stop_all(self) -> Latch:
        self._empty = Latch()
        for relay in list(self._live):
            relay.stop_local(SIGTERM)
        if not self._live:
            self._empty.fire()
        return self._empty
