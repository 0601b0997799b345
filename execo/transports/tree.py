"""The tree transport: hosts are reached through gateways, which need Python 3.6 and ssh alone.

A program (:mod:`~execo.transports.node`) is sent to each gateway over a connection of its own, by
the transport that any host would get; it runs ``ssh`` to hosts and to further gateways, whose
programs are commands like others. A gateway, and its connections to hosts, are kept for the
commands to come.

What a gateway was told to start is never started again. What it was not, as it is lost, goes
through another gateway, if there is one.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from execo._core.latch import Latch
from execo._core.runtime import Runtime
from execo.config import configuration
from execo.errors import CancelledError, ExecoError, ProcessError, Reason, SpawnError

from . import get as get_transport
from .base import Channel, Exec, Request, Sink, TreeWays, not_supported
from .last_start import let_detached_start
from .remote_shell import Mark, command_text
from .ssh_messages import place
from .tree_channel import State, TreeChannel
from .tree_link import ENDS_WITHIN, TreeLink

__all__ = ["TreeTransport"]

_LAST_WAIT = 3.0

BAD_FOR = 30.0
"""Seconds for which a gateway that was lost is taken only where there is no other."""


class TreeTransport:
    """Runs commands on hosts behind gateways."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.loop = runtime.loop
        self.closed = False
        self._carriers: set[str] = set()
        # Of the I/O thread.
        self._links: dict[tuple[TreeWays, str], TreeLink] = {}
        self._all: set[TreeLink] = set()  # those that are on their way out, too
        self._bad: dict[tuple[TreeWays, str], float] = {}
        self._live: set[TreeChannel] = set()
        self._waits: list[tuple[Callable[[], bool], Latch]] = []
        self._lost = 0
        self._rerouted = 0

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        channels: list[TreeChannel] = []
        for request, sink in pairs:
            if not isinstance(request, Exec):
                raise not_supported("tree", request)
            if request.target is None or request.target.options.tree is None:
                raise ValueError(
                    f"the transport 'tree' needs a host and a topology for {request.command!r}"
                )
            channels.append(TreeChannel(self, request, request.target, sink))
        ready: list[TreeChannel] = []
        for channel in channels:
            channel.open()
            error = self._refusal(channel)
            if error is None:
                ready.append(channel)
            else:
                channel.refuse(error)
        self.loop.call_soon(self._begin, ready)
        return [cast(Channel, channel) for channel in channels]

    def _refusal(self, channel: TreeChannel) -> ProcessError | None:
        """Why it cannot be started anywhere."""
        request, target = channel.request, channel.target
        if self.closed:
            return CancelledError("not started: the interpreter is exiting")
        if request.pty:
            return SpawnError(
                f"cannot run {request.command!r} on {place(target)}: there is no terminal through "
                "gateways; use Remote",
                host=target.address,
            )
        try:
            if target.address.startswith("-"):
                raise ValueError(f"{target.address!r} looks like an option")
            self.text(request)
        except ValueError as exc:
            error = SpawnError(f"cannot run {request.command!r} on {place(target)}: {exc}")
            error.__cause__ = exc
            return error
        return None

    def text(self, request: Exec) -> str:
        """The command for the login shell, without a mark.

        :raises ValueError: if there can be no such command
        """
        text = command_text(
            request.command,
            cwd=request.cwd,
            env=request.env,
            mark=Mark("0", 1) if request.target and request.target.options.guard else None,
            relay=request.relay,
        )
        text.encode("utf-8", "surrogateescape")
        return text

    # -- which way ------------------------------------------------------------------------------

    def _begin(self, channels: Sequence[TreeChannel]) -> None:
        for channel in channels:
            if channel.told:
                continue
            self._live.add(channel)
            self.route(channel)

    def route(self, channel: TreeChannel) -> None:
        """Give a command that has not started to one of its gateways: that which is at work for the
        fewest, of those that are not known to be bad."""
        if channel.told:
            return
        ways = channel.target.options.tree
        assert ways is not None
        choice = [one for one in ways.parents(channel.name) if one not in channel.tried]
        if self.closed and not channel.request.detach:
            channel.refuse(CancelledError("not started: the interpreter is exiting"))
            return
        if not choice:
            channel.refuse(channel.why or _no_way(channel))
            return
        self._rerouted += bool(channel.tried)
        now = self.loop.time()

        def rank(name: str) -> tuple[bool, bool, int]:
            link = self._links.get((ways, name))
            bad = self._bad.get((ways, name), 0.0) > now
            if link is None:
                return bad, True, 0
            return bad, channel.target not in link.leaves, len(link.assigned)

        self._link(ways, min(choice, key=rank)).place(channel)

    def _link(self, ways: TreeWays, name: str) -> TreeLink:
        """The program of a gateway, which is started if it is not there."""
        link = self._links.get((ways, name))
        if link is not None and not link.over:
            return link
        link = self._links[ways, name] = TreeLink(self, ways, name)
        self._all.add(link)
        # Not now: what fails at once would give the command another way before it has this one.
        self.loop.call_soon(self._start, link)
        return link

    def _start(self, link: TreeLink) -> None:
        try:
            if link.ways.parents(link.name):
                request = link.request(link.ways.below(link.name))
                assert request.target is not None
                channel = TreeChannel(self, request, request.target, link)
                channel.is_program = True
                channel.open()
                self._begin([channel])
            else:
                self.runtime.workers.submit(self._start_directly, link)
        except (ExecoError, ValueError, OSError) as exc:
            link.on_error(ProcessError(str(exc), reason=Reason.CONNECT, host=link.name))

    def _start_directly(self, link: TreeLink) -> None:
        """On a thread for what may block: the transport may start a program, or read files."""
        try:
            name, target = link.ways.direct(link.name)
            carrier = get_transport(self.runtime, name)
            if name not in self._carriers:
                self._carriers.add(name)
                # The callbacks run last one first: what we run ends before what carries it.
                self.runtime.at_exit.append(self.close)
            carrier.open_all([(link.request(target), link)])
        except (ExecoError, ValueError, OSError) as exc:
            error = ProcessError(str(exc), reason=Reason.CONNECT, host=link.name)
            self.loop.call_soon(link.on_error, error)

    # -- told by what it has made, on the I/O thread ----------------------------------------------

    def ended(self, channel: TreeChannel) -> None:
        """A command has ended, or was not started."""
        self._live.discard(channel)
        if channel.link is not None:
            channel.link.remove(channel)
        self._look_waits()

    def link_over(self, link: TreeLink, *, expected: bool) -> None:
        """A gateway is lost, or was sent away."""
        key = (link.ways, link.name)
        self._all.discard(link)
        if self._links.get(key) is link:
            del self._links[key]
        if not expected:
            self._lost += 1
            self._bad[key] = self.loop.time() + BAD_FOR
        self._look_waits()

    def statistics(self) -> Mapping[str, int]:
        """What it is doing: gateways and connections that are kept, commands that run or wait."""
        links = list(self._links.values())
        return {
            "gateways": len(links),
            "connections": sum(
                len(leaves) for one in links for leaves in list(one.leaves.values())
            ),
            "commands": len(self._live),
            "gateways_lost": self._lost,
            "rerouted": self._rerouted,
        }

    # -- the end --------------------------------------------------------------------------------

    def close_idle(self) -> None:
        """Send away the gateways that nobody needs. Blocks until they have gone. Those through
        which other gateways are reached go after these."""
        while True:
            gone = self.loop.run_sync(self._dismiss_idle)
            if gone is None or not gone.wait(ENDS_WITHIN + _LAST_WAIT):
                break
            if not self.loop.run_sync(self._has_idle):
                break
        for name in sorted(self._carriers):
            get_transport(self.runtime, name).close_idle()

    def _has_idle(self) -> bool:
        return any(link.idle and not link.over for link in self._all)

    def _dismiss_idle(self) -> Latch:
        idle = {link for link in self._all if link.idle or link.over}
        for link in idle:
            link.dismiss()
        return self._wait_until(lambda: not idle & self._all)

    def close(self) -> None:
        """End what runs, on the hosts: TERM to all at once, KILL after ``term_timeout``, or at a
        Ctrl-C; then the gateways."""
        let_detached_start(self.loop, self._starting_detached)
        self.closed = True
        try:
            if not self._end_all(signal.SIGTERM, float(configuration["term_timeout"])):
                self._end_all(signal.SIGKILL, _LAST_WAIT)
        except KeyboardInterrupt:
            self._end_all(signal.SIGKILL, _LAST_WAIT)
        finally:
            self._dismiss_all()

    def _starting_detached(self) -> list[Exec]:
        waiting = (State.WAITING, State.SENT)
        return [one.request for one in self._live if one.request.detach and one.state in waiting]

    def _commands(self) -> list[TreeChannel]:
        # The programs of gateways are commands, too: these end last.
        return [
            one
            for one in self._live
            if not (one.is_program or (one.request.detach and one.state is State.RUNNING))
        ]

    def _end_all(self, number: int, patience: float) -> bool:
        def end_all() -> Latch:
            for channel in self._commands():
                if channel.state is not State.RUNNING:
                    channel.abort()
                elif number != signal.SIGTERM or not channel.ending:
                    channel.send_signal(number)
            return self._wait_until(lambda: not self._commands())

        empty = self.loop.run_sync(end_all)
        return empty is None or empty.wait(patience)

    def _dismiss_all(self) -> None:
        for hard in (False, True):
            # From the leaves to the root: what is lost before would end what it carries hard.
            for _ in range(64):
                left = self.loop.run_sync(self._dismiss_lowest, hard)
                if left is None or not left.wait(ENDS_WITHIN if not hard else _LAST_WAIT):
                    break
                if not self._all:
                    return

    def _dismiss_lowest(self, hard: bool) -> Latch:
        carrying = {one.link for one in self._live if one.is_program and one.link is not None}
        lowest = {link for link in self._all if hard or link not in carrying}
        for link in lowest:
            if hard:
                link.end()
            else:
                link.dismiss()
        return self._wait_until(lambda: not lowest & self._all)

    def _wait_until(self, condition: Callable[[], bool]) -> Latch:
        latch = Latch()
        self._waits.append((condition, latch))
        self._look_waits()
        return latch

    def _look_waits(self) -> None:
        for wait in list(self._waits):
            condition, latch = wait
            if condition():
                self._waits.remove(wait)
                latch.fire()


def _no_way(channel: TreeChannel) -> ProcessError:
    return ProcessError(
        f"no gateway leads to {place(channel.target)}",
        reason=Reason.CONNECT,
        host=channel.target.address,
    )
