"""The openssh transport: each command runs through a local ``ssh``, with all that it can do.

Its options are OpenSSH's (ssh(1), ssh_config(5)). The commands of a target share connections, which
*masters* of ours keep (:mod:`~execo.transports.openssh_masters`); where these cannot work, each has
its own. Beside the commands of a target runs one more ssh, the *guard*, which signals what they
have started, ends it if this script is lost, and leaves when its target has run nothing for a
while. Where there is none (not asked for, no Linux, it does not answer) a signal that is meant to
end a command ends its connection: a command with a terminal gets a HUP then, another may go on.
"""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from execo._core.latch import Latch
from execo._core.room import with_room
from execo._core.runtime import Runtime
from execo.config import configuration
from execo.errors import CancelledError, SpawnError
from execo.log import logger

from . import get as get_transport
from . import guard_path
from .base import Channel, ConnectionOptions, Exec, Request, Sink, Target, not_supported
from .last_start import let_detached_start
from .openssh_channel import OpenSshChannel
from .openssh_folder import LogFolder
from .openssh_guard import OpenSshGuard
from .openssh_master import Client, OpenSshMaster
from .openssh_masters import Masters
from .openssh_window import Entrant, Window
from .openssh_words import (
    Abilities,
    abilities,
    client_words,
    master_words,
    ssh_words,
    tells_of_commands,
    unshared,
)
from .remote_shell import Mark, command_text, guard_text
from .ssh_messages import place

__all__ = ["OpenSshTransport"]

_LAST_WAIT = 2.0


class OpenSshTransport:
    """Runs commands on hosts, each through an ssh that the local transport runs."""

    def __init__(self, runtime: Runtime) -> None:
        # First: at exit, what was made last is closed first.
        self.local = get_transport(runtime, "local")
        self.runtime = runtime
        self.loop = runtime.loop
        self.closed = False
        self._nonces: dict[Target, str] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._folder = LogFolder(partial(guard_path, runtime), sockets=True)
        self._abilities: dict[tuple[str, ...], Abilities] = {}
        self._guards: dict[Target, OpenSshGuard] = {}
        # Those whose ssh has not ended. Under the lock, as the two above.
        self._live: set[OpenSshChannel] = set()
        self._live_guards: set[OpenSshGuard] = set()
        self._waits: list[tuple[Callable[[], bool], Latch]] = []  # of the I/O thread
        self.window = Window(self.loop, partial(runtime.workers.submit, self._start))
        self.masters = Masters(self, self._folder)
        self._alone: dict[ConnectionOptions, bool] = {}

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        channels: list[OpenSshChannel] = []
        for request, sink in pairs:
            if not isinstance(request, Exec):
                raise not_supported("openssh", request)
            if request.target is None:
                raise ValueError(f"the openssh transport needs a target for {request.command!r}")
            number = next(self._numbers)
            channels.append(OpenSshChannel(self, request, request.target, sink, number))
        for channel in channels:
            with self._lock:
                self._live.add(channel)
            self._join_guard(channel)
            channel.open()
        # What is left alone at the end of the script cannot share a connection that ends.
        alone = [one for one in channels if one.request.detach or not self.shares(one.target)]
        if len(alone) < len(channels):
            ours = set(alone)
            shared = [one for one in channels if one not in ours]
            seated, entrants = self.masters.join([*shared, *self._guards_of(shared)])
            self._start([*seated, *self.window.enter([*entrants, *alone])])
        else:
            self._start(self.window.enter(alone))
        return [cast(Channel, channel) for channel in channels]

    def nonce(self, target: Target) -> str:
        """What the marks of the commands on ``target`` begin with. Any thread.

        Its own: two targets may be one machine under two names, and the guard of one that is lost
        must leave alone what runs for the other.
        """
        nonce = self._nonces.get(target)
        if nonce is None:
            nonce = self._nonces.setdefault(target, secrets.token_hex(8))
        return nonce

    @property
    def crowded(self) -> bool:
        """True while an ssh, or another process of this script, waits for descriptors."""
        return bool(getattr(self.local, "crowded", False))

    def shares(self, target: Target) -> bool:
        """Whether commands on ``target`` run over masters of ours. Blocks the first time, until
        its ssh has said what it can do."""
        options = target.options
        alone = self._alone.get(options)
        if alone is None:
            why = unshared(options)
            if why is None and not self._able(target).tells:
                why = "its ssh does not tell of commands (OpenSSH 8.5 does)"
            alone = self._alone[options] = why is not None
            if alone:
                logger.debug("no shared connections to %s: %s", place(target), why)
        return not alone

    def start_soon(self, seated: Sequence[Client], entrants: Sequence[Entrant]) -> None:
        """Start those that have a place on a master, and the others when there is a slot. On the
        I/O thread."""
        admitted = [*seated, *self.window.enter(entrants)]
        if admitted:
            self.runtime.workers.submit(self._start, admitted)

    def again(self, channel: OpenSshChannel) -> None:
        """Start ``channel`` with a connection of its own. On the I/O thread."""
        logger.debug(
            "%r was not taken over the shared connection to %s: it gets one of its own",
            channel.request.command,
            place(channel.target),
        )
        self.start_soon((), [channel])

    def give_up(self, client: Client) -> bool:
        """Take ``client`` out of where it waits for its start; False if it does not wait."""
        return self.masters.give_up(client) or self.window.give_up(client)

    def _start(self, admitted: Sequence[Entrant]) -> None:
        """Start those whose turn it is. Any thread but the I/O thread."""
        starts: list[tuple[Request, Sink]] = []
        for one in admitted:
            if isinstance(one, OpenSshMaster):
                argv = master_words(one.target, self._able(one.target), one.socket)
                starts.append((Exec(argv, kill_timeout=_LAST_WAIT), one))
            elif isinstance(one, OpenSshGuard):
                starts.append((self._guard_request(one), one))
            elif isinstance(one, OpenSshChannel):
                request = self._prepare(one)
                if request is not None:
                    starts.append((request, one))
        self.local.open_all(starts)

    def _prepare(self, channel: OpenSshChannel) -> Exec | None:
        """The local command for ``channel``, which is refused if there can be none."""
        request, target = channel.request, channel.target
        if self.closed:
            channel.refuse(CancelledError("not started: the interpreter is exiting"))
            return None
        if channel.given_up:
            channel.refuse(CancelledError("given up while it waited for its start"))
            return None
        try:
            text = command_text(
                request.command,
                cwd=request.cwd,
                env=request.env,
                mark=Mark(self.nonce(target), channel.number, request.detach),
                relay=request.relay,
            )
            able = self._able(target)
            log_file = with_room(self._folder.file, channel.number)
        except (ValueError, OSError) as exc:
            error = SpawnError(f"cannot run {request.command!r} on {target.name}: {exc}")
            error.__cause__ = exc
            channel.refuse(error)
            return None
        channel.admit(log_file, follows=able.tells)
        argv = self._words(channel, request.pty, log_file, able, text)
        # With relays the ssh need not stay for the command to live.
        detach = request.detach and not (request.relay or request.relayed)
        return Exec(argv, pty=request.pty, kill_timeout=_LAST_WAIT, detach=detach)

    def _words(
        self, client: Client, pty: bool, log_file: str, able: Abilities, text: str
    ) -> tuple[str, ...]:
        if client.master is None:
            return ssh_words(client.target, pty, log_file, able, text)
        return client_words(client.target, pty, log_file, able, text, client.master.socket)

    def _able(self, target: Target) -> Abilities:
        """What this ssh can do for ``target``; asks it, the first time."""
        words = target.options.ssh
        able = self._abilities.get(words)
        if able is None:
            able = self._abilities[words] = abilities(words)
        return able if tells_of_commands(target.options) else replace(able, tells=False)

    # -- guards ---------------------------------------------------------------------------------

    def _join_guard(self, channel: OpenSshChannel) -> None:
        """Give ``channel`` the guard of its target. The guard comes when it is needed."""
        if not channel.target.options.guard:
            return
        with self._lock:
            guard = self._guards.get(channel.target)
            if guard is None or guard.gone:
                guard = self._guards[channel.target] = OpenSshGuard(self, channel.target)
                self._live_guards.add(guard)
            self._assign(channel, guard)

    def _guards_of(self, channels: Sequence[OpenSshChannel]) -> list[OpenSshGuard]:
        """The guards that these are the first to need. They go first: a script that is lost while
        its commands start has nobody else to end them."""
        guards = {one.guard: None for one in channels if one.guard is not None}
        return [guard for guard in guards if self.claim(guard)]

    def claim(self, guard: OpenSshGuard, *, wanted: bool = False) -> bool:
        """Whether ``guard`` is to be started now, by who asks. Any thread."""
        with self._lock:
            return guard.claim(wanted=wanted)

    def needs_own(self, client: Client) -> bool:
        """Whether ``client``, for whom there is no master, is to have a connection of its own now.
        Any thread.

        A guard waits until it is wanted: it stays after its command, and many of them would keep
        the descriptors for which commands wait.
        """
        with self._lock:
            return not (isinstance(client, OpenSshGuard) and client.unclaim())

    def rejoin_guard(self, channel: OpenSshChannel) -> None:
        """Give ``channel`` the guard that its target has now, if its own is gone: it finds the
        commands of all of this script. On the I/O thread."""
        with self._lock:
            guard = self._guards.get(channel.target)
            if channel.guard is not None and channel.guard.gone and guard and not guard.gone:
                channel.guard.users.discard(channel)
                self._assign(channel, guard)

    def _assign(self, channel: OpenSshChannel, guard: OpenSshGuard) -> None:
        guard.users.add(channel)
        channel.signals.guard = guard

    def enter(self, guard: OpenSshGuard) -> None:
        """Start ``guard`` when there is a place or a slot. On the I/O thread."""
        if guard.alone or not self.shares(guard.target):
            self.start_soon((), [guard])
        else:
            self.start_soon(*self.masters.join([guard]))

    def _guard_request(self, guard: OpenSshGuard) -> Exec:
        able = replace(self._able(guard.target), tells=False)
        text = guard_text(self.nonce(guard.target), first=False)
        argv = self._words(guard, False, os.devnull, able, text)
        return Exec(argv, kill_timeout=_LAST_WAIT)

    def release_guard(self, guard: OpenSshGuard, channel: OpenSshChannel) -> None:
        """``channel`` needs its guard no more. On the I/O thread."""
        with self._lock:
            guard.users.discard(channel)
        guard.look_idle()

    def withdraw(self, guard: OpenSshGuard) -> bool:
        """Let no new command have ``guard``; False if one has it by now."""
        with self._lock:
            if guard.users:
                return False
            if self._guards.get(guard.target) is guard:
                del self._guards[guard.target]
            return True

    def guard_ended(self, guard: OpenSshGuard) -> None:
        """The ssh of ``guard`` has ended. On the I/O thread."""
        with self._lock:
            self._live_guards.discard(guard)
            if self._guards.get(guard.target) is guard:
                del self._guards[guard.target]
        self._look_waits()

    def late(self, target: Target, number: int) -> None:
        """A master sends a command whose ssh was ended: it is killed there. On the I/O thread."""
        guard = self._guards.get(target)
        if guard is not None:
            guard.kill(signal.SIGKILL, number, runs=True)

    # -- the end --------------------------------------------------------------------------------

    def ended(self, channel: OpenSshChannel) -> None:
        """The ssh of ``channel`` has ended. On the I/O thread."""
        with self._lock:
            self._live.discard(channel)
        self._look_waits()

    def close_idle(self) -> None:
        """Send away guards and masters of targets that run nothing. Blocks until they have
        gone."""
        self.dismiss_guards(idle=True)
        self._end_masters(idle=True)
        with self._lock:
            # Who comes after this look makes a new one.
            if not self._live and not self.masters.live():
                self._folder.close()

    def dismiss_guards(self, *, idle: bool) -> None:
        """Send guards away, and block until they have gone.

        :param idle: those alone whose target runs nothing
        """
        gone = self.loop.run_sync(self._dismiss, idle)
        if gone is not None and not gone.wait(_LAST_WAIT):
            self.loop.run_sync(self._end_guards)
            gone.wait(_LAST_WAIT)

    def close(self) -> None:
        """End what runs, on the hosts: TERM to all at once, KILL after ``term_timeout``, or at a
        Ctrl-C; what survives a command that has ended by then is killed at once. Then dismiss the
        guards, and remove ssh's messages. What is to be left alone has some seconds to start."""
        let_detached_start(self.loop, self._starting_detached)
        self.closed = True
        self.loop.run_sync(self._give_up_queued)
        try:
            patience = float(configuration["term_timeout"])
            if any(one.guard is not None and one.guard.coming for one in self._running()):
                patience += _LAST_WAIT  # for the TERM to get there at all
            if not self._end_all(self._signal, signal.SIGTERM, patience):
                self._end_all(self._signal, signal.SIGKILL, _LAST_WAIT)
        except KeyboardInterrupt:
            self._end_all(self._signal, signal.SIGKILL, _LAST_WAIT)
        finally:
            self._end_all(OpenSshChannel.hang_up, signal.SIGKILL, _LAST_WAIT)
            self.dismiss_guards(idle=False)
            self._end_masters(idle=False)
            self._folder.close()

    def _starting_detached(self) -> list[Exec]:
        # What waits for a slot is given up then, an ssh with relays ends with this script, and
        # another one finds no folder for its messages any more.
        with self._lock:
            live = list(self._live)
        return [one.request for one in live if one.request.detach and not one.taken]

    def _end_masters(self, *, idle: bool) -> None:
        def end() -> Latch:
            ending = self.masters.close(idle=idle)
            return self._wait_until(lambda: not ending & self.masters.live())

        gone = self.loop.run_sync(end)
        if gone is not None and not gone.wait(_LAST_WAIT):
            self.loop.run_sync(self.masters.kill)
            gone.wait(_LAST_WAIT)

    def master_ended(self) -> None:
        """The ssh of a master has ended. On the I/O thread."""
        self._look_waits()

    def statistics(self) -> dict[str, int]:
        """How many there are now, and were. Any thread."""
        with self._lock:
            guards = len(self._live_guards)
        waiting = len(self.window.queued())
        return {"guards": guards, "waiting for a slot": waiting, **self.masters.statistics()}

    def _give_up_queued(self) -> None:
        # Before anything ends: its slot would start the next.
        for one in [*self.window.queued(), *self.masters.queued()]:
            if isinstance(one, OpenSshGuard):
                one.dismiss()
            elif isinstance(one, OpenSshChannel):
                one.abort()

    def _end_all(
        self, how: Callable[[OpenSshChannel, int], object], number: int, patience: float
    ) -> bool:
        def end_all() -> Latch:
            for channel in self._running():
                how(channel, number)
            return self._wait_until(lambda: not self._running())

        empty = self.loop.run_sync(end_all)
        return empty is None or empty.wait(patience)

    def _running(self) -> list[OpenSshChannel]:
        with self._lock:
            return [channel for channel in self._live if not channel.request.detach]

    def _signal(self, channel: OpenSshChannel, number: int) -> None:
        # A second TERM makes some programs give up their clean end.
        if not channel.started:
            channel.abort()
        elif number != signal.SIGTERM or not channel.ending:
            channel.send_signal(number)

    def _dismiss(self, idle_only: bool) -> Latch:
        with self._lock:
            guards = [one for one in self._live_guards if not (idle_only and one.busy)]
            for guard in guards:
                self._guards.pop(guard.target, None)
        for guard in guards:
            guard.dismiss()
        return self._wait_until(lambda: not self._live_guards.intersection(guards))

    def _end_guards(self) -> None:
        for guard in list(self._live_guards):
            if guard.gone:
                guard.end()

    def _wait_until(self, condition: Callable[[], bool]) -> Latch:
        """A latch that fires when ``condition`` holds after the end of some ssh."""
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
