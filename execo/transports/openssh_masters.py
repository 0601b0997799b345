"""The masters of each target: who has a place on which, how many there are, when they go.

A stock sshd refuses the eleventh session of a connection (MaxSessions in sshd_config(5)), so there
are further masters for more commands. A host that refuses earlier is believed from then on.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from execo._core.child import highest_descriptor_limit
from execo._core.room import NO_ROOM
from execo.log import logger

from .base import Target
from .openssh_folder import LogFolder
from .openssh_master import Client, OpenSshMaster
from .openssh_window import Entrant
from .ssh_messages import MasterEvent, place

if TYPE_CHECKING:
    from .openssh import OpenSshTransport

__all__ = ["LIMIT", "Masters"]

_EACH_MASTER = 16
"""Descriptors for each master: its own four, those of the guard, which stays too, and as many again
for those who come and go."""

LIMIT = 10
"""Sessions of a connection: MaxSessions of a stock sshd. The last place is the guard's."""


@dataclass(slots=True, eq=False)
class _Site:
    """The masters of one target."""

    target: Target
    limit: int = LIMIT
    plain: bool = False  # masters do not work there
    masters: list[OpenSshMaster] = field(default_factory=list)
    queue: dict[Client, None] = field(default_factory=dict)

    def places(self, client: Client | None = None) -> int:
        """How many a master takes until ``client`` is one too many."""
        kept = 0 if client is not None and client.reserved else int(self.target.options.guard)
        return max(1, self.limit - kept)


class Masters:
    """All masters of a transport. ``join`` and ``give_up`` may be called from any thread; all else
    on the I/O thread, unless it says other."""

    def __init__(self, transport: OpenSshTransport, folder: LogFolder) -> None:
        self.loop = transport.loop
        self._transport = transport
        self._start = transport.start_soon
        self._folder = folder
        self._lock = threading.Lock()
        self._sites: dict[Target, _Site] = {}
        self._live: set[OpenSshMaster] = set()
        self._numbers = itertools.count(1)
        self._counts: Counter[str] = Counter()

    # -- joining --------------------------------------------------------------------------------

    def join(self, clients: Iterable[Client]) -> tuple[list[Client], list[Entrant]]:
        """Give each a place on a master, now or when there is one.

        Returns those that have one, and who is to enter the window: new masters, and clients for
        whom there can be no master. The caller is to start them.
        """
        with self._lock:
            sites: dict[_Site, None] = {}
            plain: list[Entrant] = []
            for client in clients:
                site = self._sites.setdefault(client.target, _Site(client.target))
                if site.plain:
                    plain += self._alone([client])
                    continue
                sites[site] = None
                if client.reserved:
                    site.queue = {client: None, **site.queue}
                else:
                    site.queue[client] = None
            seated: list[Client] = []
            for site in sites:
                seated += self._seat(site)
                plain += self._grow(site)
            return seated, plain

    def give_up(self, client: Client) -> bool:
        """Take ``client`` out of the queue; False if it is not in there."""
        with self._lock:
            site = self._sites.get(client.target)
            if site is None or client not in site.queue:
                return False
            del site.queue[client]
            return True

    def queued(self) -> list[Client]:
        """Those that have no place yet. Any thread."""
        with self._lock:
            return [client for site in self._sites.values() for client in site.queue]

    def _seat(self, site: _Site) -> list[Client]:
        seated: list[Client] = []
        for master in site.masters if site.queue else ():
            if not master.ready:
                continue
            if not os.path.exists(master.socket):
                logger.debug("the socket of a connection to %s is gone", place(site.target))
                master.retire()
                if not master.clients:
                    self.loop.call_soon(master.end)
                continue
            before = len(seated)
            while site.queue:
                client = next(iter(site.queue))
                if client.held:
                    break
                if len(master.clients) >= site.places(client):
                    break
                del site.queue[client]
                client.master = master
                master.clients.add(client)
                seated.append(client)
            if len(seated) > before:
                # Its answer is not waited for: what it does not take is started again.
                if master.quiet:
                    self.loop.call_soon(master.check)
                self.loop.call_soon(master.watch)
        return seated

    def _grow(self, site: _Site) -> list[Entrant]:
        """The masters that the queue still needs; the queue itself if there can be none."""
        new: list[Entrant] = []
        coming = sum(master.coming for master in site.masters)
        while _wanted(site.queue) > coming * site.places():
            if len(self._live) >= max(1, highest_descriptor_limit() // _EACH_MASTER):
                # A master stays. Were they to take all descriptors, their clients would wait for
                # ever; a connection for a command alone ends with it.
                new += self._alone(site.queue)
                site.queue.clear()
                break
            try:
                socket = self._folder.socket(next(self._numbers))
            except OSError as exc:
                logger.debug("no shared connection to %s: %s", place(site.target), exc)
                site.plain = exc.errno not in NO_ROOM
                new += self._alone(site.queue)
                site.queue.clear()
                break
            master = OpenSshMaster(self, site.target, socket, self._transport.nonce(site.target))
            site.masters.append(master)
            self._live.add(master)
            self._counts["masters made"] += 1
            new.append(master)
            coming += 1
        return new

    def _alone(self, clients: Iterable[Client]) -> list[Client]:
        """Those that get connections of their own, since there is no master for them."""
        return [client for client in clients if self._transport.needs_own(client)]

    def look(self, target: Target) -> None:
        """What the commands of ``target`` have waited for is on its way, or will not come."""
        with self._lock:
            site = self._sites.get(target)
            seated = [] if site is None else self._seat(site)
        if seated:
            self._start(seated, ())

    # -- leaving --------------------------------------------------------------------------------

    def leave(self, client: Client) -> None:
        """The ssh of ``client`` has ended: its place is free."""
        master = client.master
        if master is None:
            return
        if client in master.clients and not client.ended_by_itself:
            master.lingering = master.lingering or client.opened
            master.nudge()
        with self._lock:
            master.clients.discard(client)
            site = self._sites[master.target]
            seated = self._seat(site)
            idle = not master.clients
        if seated:
            self._start(seated, ())
        elif idle:
            self._fell_idle(master)

    def _fell_idle(self, master: OpenSshMaster) -> None:
        limit = master.target.options.idle_limit
        if not master.ready and not master.coming:
            master.end()
        elif limit is not None:
            master.idle_timer.set(limit, self._retire_idle, master)

    def _retire_idle(self, master: OpenSshMaster) -> None:
        if not master.over and self._withdraw(master):
            self._counts["masters closed idle"] += 1
            master.end()

    def _withdraw(self, master: OpenSshMaster) -> bool:
        """Let nobody join ``master``; False if somebody has."""
        with self._lock:
            if master.clients:
                return False
            master.retire()
            return True

    def suspect(self, master: OpenSshMaster, since: float) -> None:
        """``master`` has not taken a client since then. If it has said nothing at all, it is
        frozen, and ended: what runs over it is lost, what it has not sent is started again."""
        master.retire()
        if master.heard_at < since:
            self.frozen(master)

    def frozen(self, master: OpenSshMaster) -> None:
        """``master`` does not answer: it is ended, with what runs over it."""
        if master.killed or master.over:
            return
        master.retire()
        logger.warning(
            "the shared connection to %s does not answer: it is ended", place(master.target)
        )
        self._counts["masters frozen"] += 1
        master.freeze()

    # -- what masters say -----------------------------------------------------------------------

    def ready(self, master: OpenSshMaster) -> None:
        """``master`` listens."""
        with self._lock:
            site = self._sites[master.target]
            seated = self._seat(site)
        if seated:
            self._start(seated, ())
        else:
            self._fell_idle(master)

    def settled(self, master: OpenSshMaster) -> None:
        """The host of ``master`` has opened a session: its set-up is over for both sides."""
        self._transport.window.leave(master)

    def tell(self, master: OpenSshMaster, number: int, event: MasterEvent) -> None:
        """Pass on what ``master`` says of a command."""
        for client in list(master.clients):
            if client.number == number:
                client.heard(event)
                return
        if event is MasterEvent.COMMAND and number:
            self._transport.late(master.target, number)

    def refused(self, master: OpenSshMaster) -> None:
        """The host opens no further session of ``master``: it takes fewer than we thought."""
        with self._lock:
            site = self._sites[master.target]
            found = sum(client.opened for client in master.clients)
            self._counts["sessions refused"] += 1
            if master.lingering:
                # Commands whose client was killed may run on, and count: that says nothing of the
                # limit, and another connection has all of its places.
                master.retire()
            elif found < site.limit:
                logger.debug("%s takes %d sessions of a connection", place(site.target), found)
                site.limit = max(1, found)
                site.plain = site.plain or not found

    def gone(self, master: OpenSshMaster, *, expected: bool) -> None:
        """The ssh of ``master`` has ended."""
        self._transport.window.leave(master)
        alone: list[Entrant] = []
        failed: list[Client] = []
        with self._lock:
            site = self._sites[master.target]
            site.masters.remove(master)
            self._live.discard(master)
            if not expected:
                self._counts["masters lost"] += 1
            site.plain = site.plain or master.useless
            left = [one for one in site.masters if one.ready or one.coming]
            coming = sum(one.coming for one in left)
            # Others of the target have places for these at some time, but who waits must not wait
            # for the end of a server that runs there.
            guards = sum(one.reserved for one in site.queue) if coming else 0
            waiting = list(site.queue)[guards + coming * site.places() :]
            if expected:
                alone += self._grow(site)
            elif waiting:
                for client in waiting:
                    del site.queue[client]
                if master.error is not None and not left:
                    failed += waiting
                else:
                    alone += self._alone(waiting)
        for client in failed:
            assert master.error is not None
            error = type(master.error)(
                str(master.error), reason=master.error.reason, host=master.error.host
            )
            client.refuse(error)
        if alone:
            self._start((), alone)
        self._transport.master_ended()

    # -- the end --------------------------------------------------------------------------------

    def close(self, *, idle: bool) -> set[OpenSshMaster]:
        """Have masters end; returns those that are to.

        :param idle: those alone that nobody uses
        """
        with self._lock:
            ending = {one for one in self._live if not (idle and one.clients)}
            if idle:
                ending = {one for one in ending if not self._sites[one.target].queue}
            for master in ending:
                master.retire()
        for master in ending:
            if self._transport.window.give_up(master):
                master.end()
                master.on_exit(None)
            else:
                master.end()
        return ending

    def kill(self) -> None:
        """End those that were told to end, and have not."""
        for master in list(self._live):
            if not (master.ready or master.coming):
                master.end(signal.SIGKILL)

    def live(self) -> set[OpenSshMaster]:
        """Those whose ssh has not ended."""
        return set(self._live)

    def statistics(self) -> dict[str, int]:
        """Any thread."""
        with self._lock:
            live = list(self._live)
            return {
                "masters": sum(one.ready for one in live),
                "masters coming": sum(one.coming for one in live),
                "sessions": sum(len(one.clients) for one in live),
                "waiting for a master": sum(len(site.queue) for site in self._sites.values()),
                **self._counts,
            }


def _wanted(queue: Iterable[Client]) -> int:
    """How many places these want. The guard has one of its own; alone it is a reason to connect."""
    reserved = [client.reserved for client in queue]
    return reserved.count(False) or len(reserved)
