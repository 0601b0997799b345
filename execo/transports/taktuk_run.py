"""One local taktuk and the hosts that it reaches: what it says, and what it is told."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from execo.errors import ProcessError

from .base import Channel
from .remote_shell import ORDER_BYE
from .taktuk_failures import bad_options, not_found, not_tried
from .taktuk_frames import ROOT, Event, Frame, FrameParser, Kind, StateChange
from .taktuk_orders import Orders
from .taktuk_words import GUARD, for_all, for_ranks, input_data, order

if TYPE_CHECKING:
    from .taktuk import TaktukTransport
    from .taktuk_channel import TaktukChannel

__all__ = ["TaktukRun"]

ENDS_WITHIN = 5.0
"""Seconds from ``quit`` to the end of the local taktuk."""

GATHER = 0.01
"""Seconds in which what hosts are told is gathered, where it need not be at once."""

_DRAIN = 1.0
_SAID_LINES = 20
_GIVEN_UP = re.compile(r"Giving up connection to (\S+)$")


class TaktukRun:
    """The sink of one local taktuk, which the commands of its hosts share. On the I/O thread.

    :param file: the path of its file of hosts, which is removed when it has been read
    """

    def __init__(
        self, transport: TaktukTransport, members: Sequence[TaktukChannel], file: str
    ) -> None:
        self.members = list(members)
        self.loop = transport.loop
        self.detached = self.members[0].request.detach
        self.closing = False  # what starts from now on is killed
        self._transport = transport
        self.file = file
        self._local: Channel | None = None
        self._started = False
        self._over = False
        self._parser = FrameParser()
        self._said: deque[str] = deque(maxlen=_SAID_LINES)
        # taktuk counts the hosts in the order in which it is given them.
        self._at = {str(number): member for number, member in enumerate(self.members, 1)}
        self._parents: dict[str, str] = {}  # host -> from where it was connected to
        self._connectors: dict[str, int] = {}  # host -> pid of its connector, at the parent
        self._settled: set[str] = set()  # connected, or failed
        self._given_up: set[str] = set()  # addresses that taktuk could not even try
        self._numbering = False
        self._orders: Orders[TaktukChannel] = Orders()
        self._armed = False
        self._cancelled = False
        self._paused = False
        self._dismissed = False
        self._status: int | None = None
        self._exited = False
        self._drained = False
        for position, member in self._at.items():
            member.position = position
            member.run = self

    # -- what the commands ask of it ------------------------------------------------------------

    def tell(self, host: TaktukChannel, text: bytes, *, soon: bool = True) -> None:
        """Have ``host`` told something, after what it was told before. Others that are told the
        same about now are told with it.

        :param soon: False: a little later, when others may be told the same
        """
        self._orders.add(host, text)
        if not self._numbering:
            # One host alone is told something by its number, and none has a number as long as
            # there are some that are being connected to.
            self._numbering = True
            self._write(order("network", "renumber"))
        self._look_cancel()
        self._arm(0 if soon else GATHER)

    def hang_up(self, host: TaktukChannel) -> bool:
        """End the connection to ``host``; False if it is not one of this machine's."""
        pid = self._connectors.get(host.position, 0)
        if self._parents.get(host.position) != ROOT or self._local is None or pid <= 0:
            return False
        try:
            # It may have ended, and its number may be another process's.
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(stat[1]) != self._local.pid:
                return False
            os.killpg(pid, signal.SIGTERM)
        except (OSError, ValueError, IndexError):
            return False
        return True

    def look_paused(self) -> None:
        """All hosts share one stream of taktuk, which is paused while one of them has too much."""
        paused = any(member.holds_too_much for member in self.members)
        if paused != self._paused and self._local is not None:
            self._paused = paused
            if paused:
                self._local.pause()
            else:
                self._local.resume()

    def look_over(self) -> None:
        """Send taktuk away if nothing is left to do."""
        self._look_cancel()
        self._transport.look_waits()
        if all(member.over for member in self.members):
            self.dismiss()

    # -- telling taktuk -------------------------------------------------------------------------

    def _arm(self, delay: float) -> None:
        if not self._armed:
            self._armed = True
            self.loop.call_later(delay, self._flush)

    def _flush(self) -> None:
        self._armed = False
        for text, hosts in self._orders.take():
            ranks = [host.rank for host in hosts if host.rank is not None]
            if ranks:
                self._write(for_ranks(ranks, text))
            for host in hosts:
                if host.rank is None and host.connected:
                    self._orders.add(host, text)

    def _write(self, data: bytes) -> None:
        if self._local is not None and not self._exited:
            self._local.write(data)

    def _look_cancel(self) -> None:
        """Wait no more for hosts that nobody wants: numbers, and so all orders, wait for them."""
        if self._cancelled or not self._started or len(self._settled) == len(self.members):
            return
        if all(one.told for one in self.members if one.position not in self._settled):
            self._cancelled = True
            self._write(order("network", "cancel"))

    # -- its end --------------------------------------------------------------------------------

    def dismiss(self) -> None:
        """Have it end: nothing runs any more that it should wait for."""
        if self._dismissed or self._over:
            return
        self._dismissed = True
        if not self._started:
            self.end()
            return
        for member in self.members:
            member.kill_survivors()
        self._flush()
        bye = input_data(GUARD, ORDER_BYE.encode())
        ranks = [member.rank for member in self.members if member.rank is not None]
        self._write(for_ranks(ranks, bye) if ranks else for_all(bye))
        self._write(order("quit"))
        if self._local is not None:
            self._local.close_stdin()
        self.loop.call_later(ENDS_WITHIN, self.end)

    def end(self) -> None:
        """End it hard: the connections drop, and the guards end what has not ended."""
        self._dismissed = True
        if self._local is not None and not self._exited:
            if self._started:
                self._local.send_signal(signal.SIGKILL)
            else:
                self._local.abort()

    def _look_ended(self, *, drained: bool) -> None:
        if self._over or not self._exited or not (drained or self._drained):
            return
        self._over = True
        if self._local is not None:
            # What has left its process group may still be there, with its output open.
            self._local.send_signal(signal.SIGKILL)
        how = _how_ended(self._status)
        said = "; ".join([*self._said, *self._parser.noise])
        why = f"the taktuk command on this machine {how}" + (f": {said}" if said else "")
        for member in self.members:
            if not member.told and not self._settled:
                member.fail(bad_options(member.target, [how, *self._said, *self._parser.noise]))
            else:
                member.on_lost(why)
        self._finish()

    def _finish(self) -> None:
        self._over = True
        self._remove_file()
        self._transport.run_ended(self)

    def _remove_file(self) -> None:
        file, self.file = self.file, ""
        if file:
            with contextlib.suppress(OSError):
                os.unlink(file)

    def _look_options(self) -> None:
        """It waits for orders, and has heard of no host: it was not given any."""
        if not self._settled and not self._over:
            for member in self.members:
                member.fail(bad_options(member.target, [*self._said, *self._parser.noise]))
            self.end()

    def _refuse_given_up(self) -> None:
        """It has come to the end of its hosts, and passed over some: no state tells of these."""
        for position, member in self._at.items():
            if position not in self._settled and member.target.address in self._given_up:
                self._settled.add(position)
                member.refuse(not_tried(member.target, self._said))
        self.look_over()

    # -- the sink of the local taktuk -----------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._local = channel

    def on_start(self) -> None:
        self._started = True
        assert self._local is not None
        for member in self.members:
            member.process = self._local.process
        if self._dismissed:
            self.end()

    def on_data(self, stream: int, data: bytes) -> None:
        if stream != 1:
            self._said += data.decode("utf-8", "replace").splitlines()
            return
        frames = self._parser.feed(data)
        for frame in frames:
            self._on_frame(frame)
        if frames:
            self.look_over()

    def on_eof(self, stream: int, error: OSError | None) -> None:
        if stream == 1:
            self._drained = True
            self._look_ended(drained=True)

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._status = status
        self._exited = True
        self._look_ended(drained=False)
        if not self._over:
            self.loop.call_later(_DRAIN, self._stop_draining)

    def _stop_draining(self) -> None:
        self._look_ended(drained=True)

    def on_error(self, error: ProcessError) -> None:
        self._exited = True
        missing = isinstance(error.__cause__, FileNotFoundError)
        for member in self.members:
            program = member.target.options.taktuk[0]
            member.refuse(not_found(program, member.target, error) if missing else error)
        self._finish()

    def on_written(self, count: int) -> None:
        pass

    def on_write_error(self, error: OSError) -> None:
        pass

    # -- what taktuk says -----------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind is Kind.TAKTUK:
            text = frame.payload.decode("utf-8", "replace")
            self._said.append(text)
            if (given_up := _GIVEN_UP.search(text)) is not None:
                self._given_up.add(given_up[1])
            return
        if frame.kind is Kind.CONNECTOR:
            position, _, line = frame.payload.decode("utf-8", "replace").partition(" ")
            if position in self._at:
                self._at[position].lines.append(line.rstrip())
            return
        if frame.kind is Kind.STATE:
            change = StateChange.parse(frame.payload)
            if change is not None:
                self._on_state(frame, change)
            return
        member = self._at.get(frame.position)
        if member is None:
            return
        if frame.kind is Kind.STATUS:
            if frame.payload.isdigit() and len(frame.payload) < 10:
                member.on_status(frame.pid, int(frame.payload))
        else:
            member.on_output(1 if frame.kind is Kind.OUTPUT else 2, frame.pid, frame.payload)

    def _on_state(self, frame: Frame, change: StateChange) -> None:
        member = self._at.get(frame.position)
        peer = self._at.get(change.peer)
        if peer is not None:
            self._on_connection(change, peer, frame)
        elif member is not None:
            if change.event is Event.COMMAND_STARTED:
                member.on_started(frame.pid)
            elif change.event is Event.COMMAND_FAILED:
                member.on_not_started(self._said)
            elif change.event is Event.DELIVERED:
                member.on_delivered()
            elif change.event is Event.NUMBERED:
                member.rank = change.rank
                if self._orders:
                    self._arm(GATHER)
        elif frame.position == ROOT and change.event is Event.READY:
            self._remove_file()
            if not self._settled:
                self.loop.call_later(_DRAIN, self._look_options)  # it says more
            if self._given_up:
                self.loop.call_later(_DRAIN, self._refuse_given_up)

    def _on_connection(self, change: StateChange, peer: TaktukChannel, frame: Frame) -> None:
        """Something has happened between two hosts, seen from the upper one."""
        self._settled.add(change.peer)
        if change.event is Event.CONNECTED:
            self._parents[change.peer] = frame.position
            self._connectors[change.peer] = frame.pid
            peer.connected = True
        elif change.event is Event.CONNECTION_FAILED:
            upper = self._at.get(frame.position)
            peer.on_failed(upper.target.address if upper is not None else "")
        elif change.event is Event.CONNECTION_LOST:
            peer.on_lost()
            why = f"{peer.target.address}, through which it was reached, is lost"
            for position in self._below(change.peer, change.given):
                self._settled.add(position)
                self._at[position].on_lost(why)

    def _below(self, lost: str, given: Sequence[str]) -> list[str]:
        """The hosts that were, or would have been, reached through one that is lost."""
        found = {lost, *given} & self._at.keys()
        below = list(found)
        for upper in below:  # grows meanwhile
            more = [one for one, parent in self._parents.items() if parent == upper]
            below += [one for one in more if one not in found]
            found.update(more)
        return [position for position in below if position != lost]


def _how_ended(status: int | None) -> str:
    if status is None:
        return "has ended"
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"  # a real-time signal
        return f"was ended ({name})"
    return f"has exited with {code}"
