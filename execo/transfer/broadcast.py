"""Files that hosts pass on to one another.

::

    Tree             one package, and the hosts that receive it: who feeds whom
      Stream           from here to a host that feeds others (broadcast_stream)
      BroadcastRun     one host that receives it (broadcast_run)

A host that does not get it from another one gets it from here, from the start: a file arrives under
a name of its own and is renamed when it is complete, so a second try is as good as the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from execo import transports
from execo.errors import ExecoError, ProcessError, Reason
from execo.log import logger
from execo.transports.base import Exec, Sink, Target

from .broadcast_run import BroadcastRun
from .broadcast_stream import Place, Stream
from .request import Transfer
from .send import Package
from .supply import Supply
from .upload import Upload

if TYPE_CHECKING:
    from .relay import TransferTransport

__all__ = ["LEAST", "LONGEST_CHAIN", "Tree", "is_worth_it"]

LEAST = 1 << 20
"""Bytes that are worth it: what is less is sent sooner than the hosts have connected."""

LONGEST_CHAIN = 64


def is_worth_it(members: Sequence[tuple[Transfer, Sink]]) -> bool:
    """Whether these are to pass on to one another what they receive."""
    package = members[0][0].package
    return len(members) > 1 and package is not None and package.total >= LEAST


class Tree:
    """Who feeds whom. All on the I/O thread, save what says otherwise.

    :param members: those that receive the same package
    """

    def __init__(
        self, transport: TransferTransport, members: Sequence[tuple[Transfer, Sink]]
    ) -> None:
        self.runtime = transport.runtime
        self.loop = transport.runtime.loop
        self.runs = [BroadcastRun(self, request, sink) for request, sink in members]
        package = members[0][0].package
        assert package is not None
        self._transport = transport
        self._package: Package = package
        self._label = members[0][0].label
        self._numbers = count()
        self._streams: list[Stream] = []
        self._works = False  # a host has reached another one
        self._left = len(self.runs)
        self._direct: list[BroadcastRun] = []

    # -- who feeds whom -------------------------------------------------------------------------

    def begin(self) -> None:
        """Plan, and start."""
        waiting = [run for run in self.runs if run.relayed]
        through = [run for run in waiting if _target(run).options.tree is not None]
        if through:
            tops = self._through_gateways(waiting)
        else:
            tops = self._among_themselves(waiting)
        for top in tops:
            self._start(top)

    def _place(self, run: BroadcastRun) -> Place:
        broadcast = run.request.broadcast
        assert broadcast is not None
        name = _target(run).name or _target(run).address
        return Place(next(self._numbers), name, broadcast.seen, run)

    def _among_themselves(self, runs: Sequence[BroadcastRun]) -> list[Place]:
        if not runs:
            return []
        broadcast = runs[0].request.broadcast
        assert broadcast is not None
        width = broadcast.width
        most = LONGEST_CHAIN if width == 1 else len(runs)
        tops = []
        for begin in range(0, len(runs), most):
            places = [self._place(run) for run in runs[begin : begin + most]]
            for index, place in enumerate(places[1:]):
                places[index // width].add(place)
            tops.append(places[0])
        return tops

    def _through_gateways(self, runs: Sequence[BroadcastRun]) -> list[Place]:
        places: dict[str, Place] = {}
        twice: list[BroadcastRun] = []
        for run in runs:
            place = self._place(run)
            if places.setdefault(place.name, place) is not place:
                twice.append(run)
        self._feed(twice, None)
        ways = next(
            one.seen.options.tree for one in places.values() if one.seen.options.tree is not None
        )
        tops: dict[Place, None] = {}
        for place in list(places.values()):
            while True:
                parents = ways.parents(place.name)
                if place.parent is not None or not parents:
                    break
                parent = min(
                    parents, key=lambda name: len(places[name].children) if name in places else 0
                )
                if parent not in places:
                    places[parent] = Place(next(self._numbers), parent, ways.below(parent))
                places[parent].add(place)
                place = places[parent]
            if place.parent is None:
                tops[place] = None
        return list(tops)

    # -- from here ------------------------------------------------------------------------------

    def _start(self, top: Place) -> None:
        """Feed a host, and by it those below."""
        if not any(one.waiting() for one in top.children):
            self._feed(top.waiting(), None)
            return
        stream = Stream(self, top, Supply(self.runtime, self._package, self._label))
        self._streams.append(stream)
        self.runtime.workers.submit(self._open_stream, stream)

    def _open_stream(self, stream: Stream) -> None:
        """On a worker thread: a transport may start a program, or read files."""
        top = stream.top
        try:
            if top.run is not None:
                name, target = top.run.request.transport, _target(top.run)
                patience = top.run.request.kill_timeout
            else:
                assert top.seen.options.tree is not None
                name, target = top.seen.options.tree.direct(top.name)
                patience = None
            request: Exec = stream.request(target, patience)
            transports.get(self.runtime, name).open_all([(request, stream)])
        except (ExecoError, ValueError, OSError) as exc:
            self.loop.call_soon(stream.on_error, ProcessError(str(exc), reason=Reason.SPAWN))

    def _feed(self, runs: Sequence[BroadcastRun], why: str | None) -> None:
        """Feed them from here, each by itself.

        :param why: why they are not fed by another host; None if it was never meant
        """
        chosen = [run for run in runs if run.lost(why or "")]
        if why is not None:
            self._direct += chosen
        groups: dict[str, list[tuple[Transfer, Upload]]] = {}
        for run in chosen:
            request = again(run.request)
            supply = Supply(self.runtime, self._package, request.label)
            upload = Upload(self._transport, request, run, supply)
            groups.setdefault(request.transport, []).append((request, upload))
        for name, group in groups.items():
            self.runtime.workers.submit(self._open_uploads, name, group)

    def _open_uploads(self, name: str, group: Sequence[tuple[Transfer, Upload]]) -> None:
        """On a worker thread."""
        try:
            transports.get(self.runtime, name).open_all(group)
        except (ExecoError, ValueError, OSError) as exc:
            for _, upload in group:
                error = ProcessError(str(exc), reason=Reason.SPAWN)
                self.loop.call_soon(upload.on_error, error)

    # -- told by streams and runs -----------------------------------------------------------------

    def reached(self, place: Place) -> None:
        """A host is there, by way of its parent."""
        self._works = self._works or place.parent is not None

    def lost_alone(self, place: Place, why: str) -> None:
        """The script of a host that feeds others is not fed any more."""
        if place.run is not None:
            self._feed([place.run], f"{place.name}: {why}")

    def lost(self, place: Place, why: str) -> None:
        """A host is lost, and with it the way to all below it."""
        if not place.waiting():
            return
        parent = "" if place.parent is None else f" from {place.parent.name}"
        text = f"{place.name} did not get it{parent}: {why}"
        logger.debug("%s: %s", self._label, text)
        if place.run is not None:
            self._feed([place.run], text)
        for child in place.children:
            if self._works and place.seen.options.tree is None:
                self._start(self._copy(child, None))
            else:
                self._feed(child.waiting(), text)

    def _copy(self, place: Place, parent: Place | None) -> Place:
        """The same hosts under new numbers: of the old ones nothing counts any more."""
        made = Place(next(self._numbers), place.name, place.seen, place.run)
        if parent is not None:
            parent.add(made)
        for child in place.children:
            if child.waiting():
                self._copy(child, made)
        return made

    def drop(self, run: BroadcastRun) -> None:
        """One is not to receive it any more."""
        for stream in list(self._streams):
            stream.drop(run)

    def ended(self, run: BroadcastRun) -> None:
        """One has heard of its end."""
        if run.request.on_end is not None:
            self.runtime.workers.submit(run.request.on_end)
        self._streams = [stream for stream in self._streams if not stream.over]
        self._left -= 1
        if self._left:
            return
        for stream in self._streams:
            stream.finish()
        if self._direct:
            names = self._package.paths
            logger.warning(
                "broadcast of %r%s: %d of %d hosts were fed from here, not by another host; the "
                "first: %s",
                names[0],
                f" and {len(names) - 1} more" if len(names) > 1 else "",
                len(self._direct),
                len(self.runs),
                self._direct[0].why,
            )


def again(request: Transfer) -> Transfer:
    """The transfer to one host by itself, with a script of its own."""
    assert request.broadcast is not None
    words = request.broadcast.again()
    return replace(request, command=words, broadcast=None, on_end=None)


def _target(run: BroadcastRun) -> Target:
    assert run.request.target is not None
    return run.request.target
