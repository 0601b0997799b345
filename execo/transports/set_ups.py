"""Connections on their way from wanted to logged in: how many at a time, and to where.

::

    queue ──> dialling ──first words──> spoke ──paramiko loaded──> setting up ──> logged in
                  └──> silent: holds up no others ──┘

What is limited is work for this machine (the set-up window), logins that are under way at one
address (a server hangs up on more than ten, MaxStartups) or through one gateway, and descriptors.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable

from execo._core.runtime import Runtime
from execo.errors import ProcessError, SpawnError
from execo.log import logger

from .base import Target
from .counters import Counters
from .dial import DEFAULT_PORT, Dial, DialListener
from .ssh_connection import SshConnection, State
from .wire import AnyWire

__all__ = ["AT_ONE_PLACE", "SetUps", "descriptors", "window_keys"]

SETTING_UP = 64
"""Connections that are being set up at a time; as many again are being dialled."""

AT_ONE_PLACE = 8
"""Connections to one address, or through one gateway, that have not logged in yet."""

SILENT = 0.25
"""Seconds after which a host that says nothing is taken for a silent one, if hosts answer soon."""

SILENT_AT_MOST = 5.0
SILENT_TIMES = 2.0
"""Where hosts answer late, so many times what they take on average: a network or a machine with
many of them that has too much to do must not be asked for more and more."""

_ANNOUNCE_AFTER = 5.0


def window_keys(target: Target) -> tuple[tuple[Hashable, ...], ...]:
    """What counts a connection to ``target`` while it is not logged in.

    First its address (and port), for those who see it from the same place; then the gateway, if it
    has one. Two proxy commands are the same gateway if they differ in the address alone.
    """
    address, port = target.address.lower(), target.port or DEFAULT_PORT
    if target.proxy_command is not None:
        command = target.proxy_command.replace(target.address, "%h")
        return ("at", command, address, port), ("by", command)
    if target.via is not None:
        return ("at", target.via, address, port), ("by", target.via)
    return (("at", None, address, port),)


class _Window:
    """Those that are counted at one place, and those that wait for others to be done."""

    def __init__(self, key: tuple[Hashable, ...]) -> None:
        self.key = key
        self.inside: set[SshConnection] = set()
        self.waiting: deque[SshConnection] = deque()

    @property
    def full(self) -> bool:
        return len(self.inside) >= AT_ONE_PLACE


class SetUps:
    """All on the I/O thread.

    :param make_dial: makes the dial of a connection, which is started here
    :param make_room: whether there are descriptors for one more; may close idle connections
    """

    def __init__(
        self,
        runtime: Runtime,
        counters: Counters,
        *,
        make_dial: Callable[[SshConnection, DialListener], Dial],
        make_room: Callable[[], bool],
    ) -> None:
        self.loaded = False  # paramiko is there
        self.open: set[SshConnection] = set()  # begun and not forgotten
        self.descriptors = 0  # that these hold, or soon will
        self._runtime = runtime
        self._counters = counters
        self._make_dial = make_dial
        self._make_room = make_room
        self._queue: deque[SshConnection] = deque()
        self._keys: dict[SshConnection, tuple[tuple[Hashable, ...], ...]] = {}
        self._windows: dict[tuple[Hashable, ...], _Window] = {}
        self._dials: dict[SshConnection, Dial] = {}
        self._dialling: set[SshConnection] = set()  # of these, those that are not silent
        self._began: dict[SshConnection, float] = {}
        self._patience = SILENT
        self._spoke: dict[SshConnection, AnyWire] = {}  # in the order in which they have
        self._setting_up: set[SshConnection] = set()
        self._announcing = False
        self._advancing = self._more = False

    # -- the way up -----------------------------------------------------------------------------

    def enqueue(self, connection: SshConnection) -> None:
        """Have it made when its turn comes, see :meth:`advance`."""
        self._keys[connection] = window_keys(connection.target)
        self._queue.append(connection)

    def advance(self) -> None:
        """Begin as much as may be under way."""
        # What fails at once (no route to the network) makes room for the next, and calls this
        # within the call: thousands of these would be too deep.
        self._more = True
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._more:
                self._more = False
                self._set_up()
                self._dial_some()
        finally:
            self._advancing = False

    def _set_up(self) -> None:
        while self._spoke and self.loaded and len(self._setting_up) < SETTING_UP:
            connection = next(iter(self._spoke))
            wire = self._spoke.pop(connection)
            self._setting_up.add(connection)
            _begin(connection, connection.set_up, wire)
            if connection.state is State.OVER:
                wire.close()

    def _dial_some(self) -> None:
        while self._queue and len(self._dialling) + len(self._spoke) < SETTING_UP:
            connection = self._queue.popleft()
            if connection.state is not State.DIALING or not self._enter(connection):
                continue  # given up; or it waits for one of its windows
            if descriptors(connection) and not self._make_room():
                self._leave(connection, self._windows_of(connection))
                self._queue.appendleft(connection)
                self._announce_later()
                return  # until one of the others is of no more use
            _begin(connection, self._dial, connection)

    def _dial(self, connection: SshConnection) -> None:
        self.open.add(connection)
        self.descriptors += descriptors(connection)
        self._dialling.add(connection)
        dial = self._dials[connection] = self._make_dial(connection, _Dialled(self, connection))
        if connection.target.proxy_command is None:  # which may log in to somebody first
            self._began[connection] = time.monotonic()
        dial.start(self._patience)

    def silent(self, connection: SshConnection, *, connected: bool) -> None:
        """It may be silent for ever: the others go on."""
        self._dialling.discard(connection)
        windows = self._windows_of(connection)
        if connection.target.proxy_command is not None:
            windows = []  # it may be logging in to its gateway
        elif connected:
            windows = [one for one in windows if one.key[0] != "at"]  # the server counts it
        self._leave(connection, windows)
        self.advance()

    def spoke(self, connection: SshConnection, wire: AnyWire) -> None:
        """The host has said its first words."""
        self._dialling.discard(connection)
        del self._dials[connection]
        began = self._began.pop(connection, None)
        if began is not None:
            self._learn(time.monotonic() - began)
        self._count(connection)  # if it was silent, again
        self._spoke[connection] = wire
        self.advance()

    def _learn(self, seconds: float) -> None:
        """A host has taken so long to its first words."""
        wanted = min(max(SILENT, SILENT_TIMES * seconds), SILENT_AT_MOST)
        self._patience += (wanted - self._patience) / 8

    def again(self, connection: SshConnection) -> None:
        """A host has hung up before its first word, and is tried once more."""
        self._counters.dial_retries += 1
        self._began.pop(connection, None)  # how long it takes now says nothing of others

    def done(self, connection: SshConnection) -> None:
        """It is logged in."""
        self._setting_up.discard(connection)
        self._leave(connection, self._windows_of(connection))
        self._keys.pop(connection, None)

    def forget(self, connection: SshConnection) -> None:
        """It is over."""
        self._setting_up.discard(connection)
        self._dialling.discard(connection)
        if connection in self.open:
            self.open.discard(connection)
            self.descriptors -= descriptors(connection)
        dial = self._dials.pop(connection, None)
        self._began.pop(connection, None)
        if dial is not None:
            dial.cancel()
        wire = self._spoke.pop(connection, None)
        if wire is not None:
            wire.close()
        self._leave(connection, self._windows_of(connection))
        self._keys.pop(connection, None)
        if self._queue:
            self._runtime.loop.call_soon(self.advance)  # in its place

    def clear(self) -> None:
        """Nothing more is to be made."""
        self._queue.clear()
        self._windows.clear()

    # -- the windows ----------------------------------------------------------------------------

    def _windows_of(self, connection: SshConnection) -> list[_Window]:
        """Those that are in use, and may count it."""
        keys = self._keys.get(connection, ())
        return [self._windows[key] for key in keys if key in self._windows]

    def _enter(self, connection: SshConnection) -> bool:
        windows = self._windows_of(connection)
        for window in windows:
            if window.full:
                window.waiting.append(connection)
                # The others may have let it go ahead of somebody who can.
                self._leave(connection, windows)
                return False
        self._count(connection)
        return True

    def _count(self, connection: SshConnection) -> None:
        for key in self._keys[connection]:
            self._windows.setdefault(key, _Window(key)).inside.add(connection)

    def _leave(self, connection: SshConnection, windows: list[_Window]) -> None:
        for window in windows:
            window.inside.discard(connection)
            free = AT_ONE_PLACE - len(window.inside)
            while window.waiting and free > 0:
                first = window.waiting.popleft()
                if first.state is State.DIALING:
                    self._queue.appendleft(first)
                    free -= 1
            if not window.inside and not window.waiting:
                self._windows.pop(window.key, None)

    # -- descriptors ----------------------------------------------------------------------------

    def _announce_later(self) -> None:
        if not self._announcing:
            self._announcing = True
            self._runtime.loop.call_later(_ANNOUNCE_AFTER, self._announce)

    def _announce(self) -> None:
        self._announcing = False
        if self._queue and not self._make_room():
            self._runtime.sweeper.submit(
                logger.warning,
                "%d connections wait for free descriptors beside %d; they are made as others end. "
                "Raise the limit (ulimit -n) to have more at once",
                len(self._queue),
                len(self.open),
            )

    # -- what there is --------------------------------------------------------------------------

    @property
    def wanting(self) -> bool:
        """Whether some wait for their turn."""
        return bool(self._queue)

    def all(self) -> list[SshConnection]:
        """All that are not forgotten, and those that wait for their turn."""
        waiting = [one for window in self._windows.values() for one in window.waiting]
        return [*self.open, *self._queue, *waiting]

    def numbers(self) -> dict[str, int]:
        """How many there are in each state."""
        lists = [self._queue, *(window.waiting for window in self._windows.values())]
        return {
            "queued": sum(one.state is State.DIALING for waiting in lists for one in waiting),
            "dialling": len(self._dialling),
            "silent": len(self._dials) - len(self._dialling),
            "setting_up": len(self._spoke) + len(self._setting_up),
        }


def descriptors(connection: SshConnection) -> int:
    """That it takes: a socket; for a proxy command, what a child takes; behind a gateway, none."""
    target = connection.target
    if target.proxy_command is not None:
        return 4
    return 1 if target.via is None else 0


def _begin(connection: SshConnection, step: Callable[..., object], *args: object) -> None:
    try:
        step(*args)
    except Exception as exc:  # it must not keep the others waiting, nor wait for ever itself
        logger.exception("internal error with %s", connection.target.name)
        error = SpawnError(f"internal error: {exc}")
        error.__cause__ = exc
        connection.fail(error)


class _Dialled:
    """What the dial of one connection tells."""

    def __init__(self, set_ups: SetUps, connection: SshConnection) -> None:
        self._set_ups = set_ups
        self._connection = connection

    def dial_ready(self, wire: AnyWire) -> None:
        self._set_ups.spoke(self._connection, wire)

    def dial_failed(self, error: ProcessError) -> None:
        self._connection.fail(error)

    def dial_silent(self, *, connected: bool) -> None:
        self._set_ups.silent(self._connection, connected=connected)

    def dial_again(self) -> None:
        self._set_ups.again(self._connection)
