"""A network that fails: TCP links whose bytes pass through a process of its own, which breaks,
holds up, spoils or slows them, at a byte or when it is told.

::

    with Network() as network:
        link = network.link(host)             # link.host leads to host
        link.plan(Fault("reset", at=3000))    # the next connection; those after it are fine
        Remote("uptime", [link.host]).start()
        link.now("freeze")                    # all that there are

``python chaos_proxy.py`` is the process: orders come on stdin, a line of JSON each, answers go to
stdout; it ends with its stdin.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from execo import Host

__all__ = ["DOWN", "KINDS", "UP", "Fault", "Link", "Network"]

UP, DOWN = "up", "down"
"""From the client to the host, and back."""

KINDS = ("reset", "close", "half", "freeze", "garbage", "flip", "slow")
"""What happens to a connection:

- ``reset``: both ends get a RST
- ``close``: both get the end of file, as after a kill of the server
- ``half``: nothing more comes this way, and the other goes on
- ``freeze``: nothing passes any more, nor does the end, until ``thaw``
- ``garbage``: ``size`` random bytes are put in between, or ``data`` (in hexadecimal digits)
- ``flip``: one bit of the next byte changes
- ``slow``: from then on ``size`` bytes pass every ``pause`` seconds
"""

_HIGH = 1 << 17


@dataclass(frozen=True)
class Fault:
    """What happens to one connection.

    :param at: after so many bytes of that way
    """

    do: str
    at: int = 0
    way: str = DOWN
    size: int = 64
    pause: float = 0.01
    seed: int = 0
    data: str = ""


# -- the client -----------------------------------------------------------------------------------


class Link:
    """One way to one host; ``host`` is where it begins, here."""

    def __init__(self, network: Network, number: int, host: Host) -> None:
        self.host = host
        self._network = network
        self._number = number

    def plan(self, *faults: Fault | None) -> None:
        """What happens to the next connections, one after the other; None = nothing."""
        words = [None if fault is None else asdict(fault) for fault in faults]
        self._network.tell("plan", self._number, words)

    def now(self, do: str, **values: Any) -> None:
        """``do`` it, or ``thaw``, to all connections that there are."""
        fault = {**asdict(Fault(do)), **values}
        self._network.tell("now", self._number, fault)

    @property
    def passed(self) -> list[tuple[int, int]]:
        """Bytes that have passed, up and down, of each connection so far."""
        return [(up, down) for up, down in self._network.tell("passed", self._number, None)]

    @property
    def marks(self) -> tuple[int, int]:
        """Bytes until the banner of the host was through, and its last word without encryption, of
        the last connection."""
        banner, keys = self._network.tell("marks", self._number, None)
        return banner, keys


class Network:
    """The links, as long as the block lasts."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process is not None
        self._process.communicate()
        self._process = None

    def link(self, host: Host) -> Link:
        """A new way to ``host``."""
        from execo import Host

        number = next(self._numbers)
        address = f"127.0.{50 + number // 250}.{1 + number % 250}"
        port = self.tell("listen", number, [address, host.address, host.port])
        return Link(self, number, Host(address, host.user, host.keyfile, port))

    def heal(self) -> None:
        """No link does any harm from now on, and what was frozen goes on."""
        self.tell("heal", -1, None)

    def tell(self, order: str, number: int, value: Any) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lock:
            print(json.dumps([order, number, value]), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())


# -- the process ----------------------------------------------------------------------------------


class _Pipe:
    """One direction of a connection: what was read and has not been written."""

    def __init__(self, joint: _Joint, way: str) -> None:
        self.joint = joint
        self.way = way
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.passed = 0
        self.waiting: deque[bytes] = deque()
        self.ended = False  # the source has
        self.over = False
        self.full = False  # the sink takes no more
        self.slow: tuple[int, float] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.flip = False
        self.head = bytearray()

    def pump(self) -> None:
        while self.waiting and self.sink is not None and not (self.held or self.over):
            fault = self.joint.fault
            block = self.waiting.popleft()
            size = len(block)
            if fault is not None and fault.way == self.way:
                size = min(size, fault.at - self.passed)
            if self.slow is not None:
                size = min(size, self.slow[0])
            if size < len(block):
                self.waiting.appendleft(block[size:])
            if size > 0:
                self.send(block[:size])
            if fault is not None and fault.way == self.way and self.passed >= fault.at:
                self.joint.fault = None
                self.joint.do(fault, self)
        if self.ended and not self.waiting and not (self.held or self.over):
            self.over = True
            if self.sink is not None:
                self.sink.write_eof()
            self.joint.look_over()
        self.look_paused()

    def send(self, data: bytes) -> None:
        assert self.sink is not None
        self.passed += len(data)
        if len(self.head) < 4096:
            self.head += data
        if self.flip:
            self.flip = False
            data = bytes([data[0] ^ 1 << self.joint.random.randrange(8)]) + data[1:]
        self.sink.write(data)
        if self.slow is not None:
            self.timer = asyncio.get_running_loop().call_later(self.slow[1], self.tick)

    def tick(self) -> None:
        self.timer = None
        self.pump()

    @property
    def held(self) -> bool:
        return self.joint.frozen or self.full or self.timer is not None

    def look_paused(self) -> None:
        source = self.source
        if source is None or source.is_closing():
            return
        if self.joint.frozen or sum(map(len, self.waiting)) > _HIGH:
            source.pause_reading()
        elif not source.is_reading():
            source.resume_reading()

    @property
    def marks(self) -> tuple[int, int]:
        """See ``Link.marks``: by RFC 4253, 4.2 and 6, until NEWKEYS."""
        data = bytes(self.head)
        banner = at = data.find(b"\n") + 1
        while at + 6 <= len(data):
            kind = data[at + 5]
            at += 4 + int(struct.unpack_from(">I", data, at)[0])
            if kind == 21:
                return banner, at
        return banner, 0


class _Side(asyncio.Protocol):
    """One of the two sockets of a connection."""

    def __init__(self, joint: _Joint, reads: _Pipe, writes: _Pipe) -> None:
        self.joint = joint
        self.reads = reads
        self.writes = writes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast(asyncio.Transport, transport)
        self.joint.transports.append(made)
        if self.reads.way == UP:
            self.joint.begin()
        made.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reads.source = made
        self.writes.sink = made
        self.writes.pump()
        self.reads.look_paused()

    def data_received(self, data: bytes) -> None:
        self.reads.waiting.append(data)
        self.reads.pump()

    def eof_received(self) -> bool:
        self.reads.ended = True
        self.reads.pump()
        return True

    def pause_writing(self) -> None:
        self.writes.full = True

    def resume_writing(self) -> None:
        self.writes.full = False
        self.writes.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.joint.end(reset=True)


class _Joint:
    """One connection through a link."""

    def __init__(self, fault: Fault | None) -> None:
        self.fault = fault
        self.random = random.Random(fault.seed if fault else 0)
        self.frozen = False
        self.over = False
        self.transports: list[asyncio.Transport] = []
        self.up, self.down = _Pipe(self, UP), _Pipe(self, DOWN)

    def begin(self) -> None:
        """The client is there: what is to happen before the first byte."""
        if self.fault is not None and self.fault.at == 0:
            fault, self.fault = self.fault, None
            self.do(fault, self.up if fault.way == UP else self.down)

    def do(self, fault: Fault, pipe: _Pipe) -> None:
        if fault.do == "reset":
            self.end(reset=True)
        elif fault.do == "close":
            self.end(reset=False)
        elif fault.do == "half":
            pipe.over = True
            if pipe.sink is not None:
                pipe.sink.write_eof()
        elif fault.do in ("freeze", "thaw"):
            self.frozen = fault.do == "freeze"
            for one in (self.up, self.down):
                one.pump()
        elif fault.do == "garbage":
            if pipe.sink is not None:
                pipe.sink.write(bytes.fromhex(fault.data) or self.random.randbytes(fault.size))
        elif fault.do == "flip":
            pipe.flip = True
        elif fault.do == "slow":
            self.up.slow = self.down.slow = (fault.size, fault.pause)
        else:
            raise ValueError(fault.do)

    def look_over(self) -> None:
        if self.up.over and self.down.over:
            self.end(reset=False)

    def end(self, *, reset: bool) -> None:
        if self.over:
            return
        self.over = self.up.over = self.down.over = True
        for transport in self.transports:
            if reset:
                sock = transport.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                transport.abort()
            else:
                transport.close()


class _Way:
    """One link."""

    def __init__(self, address: str, port: int) -> None:
        self.upstream = (address, port)
        self.plan: deque[Fault | None] = deque()
        self.joints: list[_Joint] = []

    def accept(self) -> _Side:
        joint = _Joint(self.plan.popleft() if self.plan else None)
        self.joints.append(joint)
        task = asyncio.get_running_loop().create_task(self.connect(joint))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        return _Side(joint, joint.up, joint.down)

    async def connect(self, joint: _Joint) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Side(joint, joint.down, joint.up), *self.upstream)
        except OSError:
            joint.end(reset=True)
            return
        if joint.over:  # meanwhile
            joint.over = False
            joint.end(reset=True)


_tasks: set[asyncio.Task[None]] = set()


class _Server:
    def __init__(self) -> None:
        self.ways: dict[int, _Way] = {}

    async def answer(self, order: str, number: int, value: Any) -> Any:
        if order == "listen":
            address, *upstream = value
            way = self.ways[number] = _Way(*upstream)
            loop = asyncio.get_running_loop()
            server = await loop.create_server(way.accept, address, 0, backlog=256)
            return server.sockets[0].getsockname()[1]
        if order == "heal":
            for way in self.ways.values():
                way.plan.clear()
                self.now(way, Fault("thaw"))
                for joint in way.joints:
                    joint.fault = joint.up.slow = joint.down.slow = None
            return None
        way = self.ways[number]
        if order == "plan":
            way.plan = deque(None if one is None else Fault(**one) for one in value)
            way.joints = [joint for joint in way.joints if not joint.over]
        elif order == "now":
            self.now(way, Fault(**value))
        elif order == "passed":
            return [(joint.up.passed, joint.down.passed) for joint in way.joints]
        elif order == "marks":
            return way.joints[-1].down.marks
        return None

    def now(self, way: _Way, fault: Fault) -> None:
        for joint in way.joints:
            if not joint.over:
                joint.do(fault, joint.up if fault.way == UP else joint.down)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = _Server()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        print(json.dumps(await server.answer(*json.loads(line))), flush=True)
    os._exit(0)  # nobody is left whom a good end would serve


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    asyncio.run(_serve())
