"""Reaching a host: its name is resolved, a connection made, its first words awaited.

No thread waits for a host: names are resolved by a worker, the rest happens on the I/O thread. A
host that has accepted the connection but says nothing costs one descriptor, and no place among
those whose connections are being set up.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
from typing import TYPE_CHECKING, Any, Protocol

from execo._core.loop import owned
from execo._core.runtime import Runtime
from execo.errors import ProcessError, Reason

from .base import Target
from .wire import AnyWire, Wire

if TYPE_CHECKING:
    from asyncio import TimerHandle

__all__ = ["DEFAULT_PORT", "Dial", "DialListener", "TcpDial", "known_name", "place"]

DEFAULT_PORT = 22

TOO_MANY = (b"Exceeded MaxStartups", b"Not allowed at this time")
"""What some servers say to a connection that is one too many, before they close it."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS})
_FAMILIES = {None: socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


def known_name(target: Target) -> str:
    """The name that the host of ``target`` has in files of known hosts."""
    port = target.port or DEFAULT_PORT
    address = target.address.lower()  # as ssh does
    return address if port == DEFAULT_PORT else f"[{address}]:{port}"


def place(target: Target) -> str:
    """The host of ``target`` and how it is reached, for messages."""
    name = target.name or target.address
    at = "" if name == target.address else f" ({target.address})"
    if target.proxy_command is not None:
        return f"{name}{at} by its proxy command"
    if target.via is not None:
        return f"{name}{at} through {target.via.name or target.via.address}"
    return f"{name}{at}"


def _hint(address: str) -> str:
    """What may be wrong with an address that nobody knows: it is ssh's or a browser's way to write
    more than an address."""
    user, at, host = address.rpartition("@")
    host, colon, port = host.partition(":")
    if at or (colon and port.isdigit()):
        given = [
            repr(host),
            *([f"user={user!r}"] if at else []),
            *([f"port={port}"] if colon else []),
        ]
        return f"user and port are given apart: Host({', '.join(given)})"
    return "is it spelt right?"


class DialListener(Protocol):
    """Is told what becomes of a dial. All on the I/O thread."""

    def dial_ready(self, wire: AnyWire) -> None:
        """The host has begun to speak. Nothing follows."""

    def dial_failed(self, error: ProcessError) -> None:
        """It cannot be reached. Nothing follows."""

    def dial_silent(self, *, connected: bool) -> None:
        """It has taken longer than most do."""

    def dial_again(self) -> None:
        """It has hung up before its first word, and is tried once more."""


class Dial:
    """One attempt to reach a host, of which there are kinds. All on the I/O thread.

    :param listener: is told of the outcome
    """

    def __init__(self, runtime: Runtime, target: Target, listener: DialListener) -> None:
        self._runtime = runtime
        self._loop = runtime.loop
        self._target = target
        self._listener = listener
        self._errors: list[str] = []
        self._pause = _FIRST_PAUSE
        self._over = False
        self._silence: TimerHandle | None = None
        self._deadline: TimerHandle | None = None

    # -- what a kind of dials does --------------------------------------------------------------

    def _begin(self) -> None:
        """Try for the first time."""
        raise NotImplementedError

    def _try(self) -> None:
        """Try once more."""
        raise NotImplementedError

    def _connected(self) -> bool:
        """Whether something has accepted the connection."""
        raise NotImplementedError

    def _drop(self) -> None:
        """Close what there is of this try."""
        raise NotImplementedError

    # -- beginning and end ----------------------------------------------------------------------

    def start(self, patience: float) -> None:
        """Begin; the listener is told the outcome.

        :param patience: seconds after which it is said to be silent
        """
        timeout = self._target.options.connect_timeout
        if timeout is not None:
            self._deadline = self._loop.call_later(timeout, self._on_timeout)
        self._silence = self._loop.call_later(patience, self._on_silent)
        self._begin()

    def cancel(self) -> None:
        """Give up without a word."""
        self._over = True
        for timer in (self._silence, self._deadline):
            if timer is not None:
                timer.cancel()
        self._drop()

    def _on_silent(self) -> None:
        self._listener.dial_silent(connected=self._connected())

    def _hung_up(self, said: bytes) -> None:
        """A server with too many that have not logged in yet (MaxStartups) hangs up at once, some
        versions with a word of it."""
        text = said.decode("ascii", "replace").strip() or "it hung up before its first word"
        self._note(text)
        self._listener.dial_again()
        self._again()

    def _note(self, text: str) -> None:
        if text not in self._errors:
            self._errors.append(text)

    def _again(self) -> None:
        """Try the same place after a pause, which grows, and differs from host to host."""
        self._drop()
        pause = self._pause * (0.5 + random.random())
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._loop.call_later(pause, self._retry)

    def _retry(self) -> None:
        if not self._over:
            self._try()

    def _on_timeout(self) -> None:
        seconds = self._target.options.connect_timeout
        said = f" ({', '.join(self._errors)})" if self._errors else ""
        what = "it accepts connections but says nothing" if self._connected() else "no answer"
        if self._errors:
            what = "no connection"
        text = f"{what} within {seconds:g} s (connect_timeout){said}"
        self._fail(text, TimeoutError(errno.ETIMEDOUT, text))

    def _fail(self, why: str, cause: BaseException | None, reason: Reason = Reason.CONNECT) -> None:
        self.cancel()
        target = self._target
        error = ProcessError(
            f"cannot connect to {place(target)}: {why}",
            reason=reason,
            host=target.name or target.address,
        )
        error.__cause__ = cause
        self._listener.dial_failed(error)

    def _ready(self, wire: AnyWire) -> None:
        self.cancel()
        self._listener.dial_ready(wire)


class TcpDial(Dial):
    """A TCP connection to one of the addresses of the host's name."""

    def __init__(self, runtime: Runtime, target: Target, listener: DialListener) -> None:
        super().__init__(runtime, target, listener)
        self._sock: socket.socket | None = None
        self._places: list[tuple[Any, ...]] = []
        self._next = 0
        self._place_limit: TimerHandle | None = None

    def _begin(self) -> None:
        owned.add(self)
        try:
            # An address in numbers needs no look-up and no other thread.
            places = self._look_up(socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            self._runtime.workers.submit(self._resolve)
        else:
            self._resolved(places, None)

    def cancel(self) -> None:
        owned.discard(self)
        super().cancel()

    # -- the name -------------------------------------------------------------------------------

    def _look_up(self, flags: int) -> list[tuple[Any, ...]]:
        target = self._target
        port = target.port or DEFAULT_PORT
        family = _FAMILIES[target.family]
        return socket.getaddrinfo(
            target.address, port, family=family, type=socket.SOCK_STREAM, flags=flags
        )

    def _resolve(self) -> None:
        # Blocks for as long as the name servers like: on a worker.
        places: list[tuple[Any, ...]] = []
        error: Exception | None = None
        try:
            places = self._look_up(0)
        except (OSError, UnicodeError) as exc:  # the latter for a label that is too long
            error = exc
        self._loop.call_soon(self._resolved, places, error)

    def _resolved(self, places: list[tuple[Any, ...]], error: Exception | None) -> None:
        if self._over:
            return
        if error is not None or not places:
            why = getattr(error, "strerror", None) or str(error or "it has no address")
            family = self._target.family
            kind = "" if family is None else f" to an address of the family {family!r}"
            hint = _hint(self._target.address)
            self._fail(f"its name cannot be resolved{kind} ({why}); {hint}", error)
            return
        self._places = places
        self._try()

    # -- the connection -------------------------------------------------------------------------

    def _try(self) -> None:
        family, kind, protocol, _, address = self._places[self._next]
        try:
            sock = self._sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            result = sock.connect_ex(address)
        except OSError as exc:
            if exc.errno in _NO_ROOM:
                self._note("no free descriptor here; raise the limit (ulimit -n)")
                self._again()
                return
            result = exc.errno or errno.EIO
        if result in (0, errno.EINPROGRESS):
            assert self._sock is not None
            self._loop.add_writer(self._sock, self._on_connected)
            self._limit_place()
        else:
            self._on_refused(result)

    def _limit_place(self) -> None:
        # A name with several addresses, of which the first ones do not answer.
        timeout = self._target.options.connect_timeout
        left = len(self._places) - self._next
        if timeout is not None and left > 1:
            wait = timeout / (left + 1)
            self._place_limit = self._loop.call_later(wait, self._on_refused, errno.ETIMEDOUT)

    def _on_connected(self) -> None:
        assert self._sock is not None
        self._loop.remove_writer(self._sock)
        result = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            self._on_refused(result)
        else:
            self._loop.add_reader(self._sock, self._on_words)

    def _on_refused(self, number: int) -> None:
        self._drop()
        text = os.strerror(number).lower()
        self._note(text)
        self._next += 1
        if self._next < len(self._places):
            self._try()
        else:
            port = self._target.port or DEFAULT_PORT
            self._fail(f"port {port}: {', '.join(self._errors)}", OSError(number, text))

    def _on_words(self) -> None:
        sock = self._sock
        assert sock is not None
        try:
            some = sock.recv(255, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            some = b""
        if not some or some.startswith(TOO_MANY):
            self._hung_up(some)
            return
        self._loop.remove_reader(sock)
        self._sock = None
        self._ready(Wire(self._loop, sock))

    def _connected(self) -> bool:
        if self._sock is None:
            return False
        with contextlib.suppress(OSError):
            self._sock.getpeername()
            return True
        return False

    def _drop(self) -> None:
        if self._place_limit is not None:
            self._place_limit.cancel()
            self._place_limit = None
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.remove_writer(sock)
            self._loop.remove_reader(sock)
            sock.close()

    def close_inherited(self) -> None:
        """In a forked child: close the copy, which the parent goes on to use."""
        if self._sock is not None:
            self._sock.close()
