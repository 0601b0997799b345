"""From here to one host, which passes on what it is sent: the program there, what it is told and
what it says.

What it says are lines of JSON, each about one host by its number::

    {"up": 3}                                         it is there, and its script has started
    {"at": {"3": 1048576}}                            so many bytes it has taken
    {"end": 3, "code": 0, "said": ""}                 its script has ended, with this on stderr
    {"lost": 3, "why": "...", "alone": false}         it, and all behind it, are not fed any more

They are not trusted: what cannot be is passed over, or ends it.
"""

from __future__ import annotations

import json
import pkgutil
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from execo.errors import ProcessError, Reason
from execo.transports.base import Channel, Exec, Target
from execo.transports.remote_shell import command_text
from execo.transports.tree_frames import reading_words
from execo.transports.tree_leaf import ssh_words

from .broadcast_run import BroadcastRun
from .script import AHEAD, PATIENCE
from .supply import Supply

if TYPE_CHECKING:
    from .broadcast import Tree

__all__ = ["Place", "Stream", "program"]

LATE = 10.0
"""Seconds for which a host may hold up the others while it takes next to nothing."""

SILENT = 30.0
"""Seconds without a word after which a host that passes it on is taken for lost."""

_HELLO = b"execo-broadcast 1"
_UP = "execo-broadcast up"
_DRAINS_IN = 5.0
_LONGEST_LINE = 1 << 20
_LONGEST_NOISE = 1 << 18
_LINES = 5


@dataclass(eq=False, slots=True)
class Place:
    """A host's place in the tree, under a number of its own.

    :param run: what becomes of it; None for a gateway that receives nothing itself
    :param name: the host, for messages
    :param seen: where its parent finds it
    """

    number: int
    name: str
    seen: Target
    run: BroadcastRun | None = None
    parent: Place | None = None
    children: list[Place] = field(default_factory=list)

    def add(self, child: Place) -> None:
        child.parent = self
        self.children.append(child)

    def below(self) -> Iterator[Place]:
        """It, and all below it."""
        stack = [self]
        while stack:
            one = stack.pop()
            yield one
            stack += reversed(one.children)

    def waiting(self) -> list[BroadcastRun]:
        """Those who are still to receive it by this way."""
        return [one.run for one in self.below() if one.run is not None and one.run.relayed]

    def height(self) -> int:
        return 1 + max((one.height() for one in self.children), default=-1)


@cache
def program() -> bytes:
    """The text of the program."""
    data = pkgutil.get_data("execo.transfer", "broadcast_node.py")
    if data is None:
        raise FileNotFoundError("execo/transfer/broadcast_node.py is not there")
    return data


class Stream:
    """The sink of the program of one host that is fed from here, and a taker of what is put. All on
    the I/O thread, save ``on_open``.

    - ``works``: the host runs the program
    """

    supply: Supply
    started = False

    def __init__(self, tree: Tree, top: Place, supply: Supply) -> None:
        self.top = top
        self.over = False
        self.works = False
        self._tree = tree
        self._loop = tree.loop
        self._places = {one.number: one for one in top.below()}
        self._channel: Channel | None = None
        self._ahead = 0
        self._buffer = bytearray()
        self._noise = 0
        self._said: deque[str] = deque(maxlen=_LINES)
        self._open_streams = {1, 2}
        self._exited = False
        self._heard = True
        self._error: ProcessError | None = None
        supply.join(self)

    def request(self, target: Target, kill_timeout: float | None) -> Exec:
        """The program, as a command."""
        return Exec(reading_words(program(), 0), target=target, kill_timeout=kill_timeout)

    # -- what it is given -----------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self.started and self._ahead <= AHEAD // 2

    def take(self, block: bytes | None) -> None:
        if block is None:
            self._write(struct.pack(">cI", b"E", 0))
        elif block:
            self._write(struct.pack(">cI", b"D", len(block)) + block)

    def fail(self, exc: Exception) -> None:
        for run in self.top.waiting():
            run.unreadable(exc)
        self.finish()

    def drop(self, run: BroadcastRun) -> None:
        """One is not to receive it any more."""
        numbers = [number for number, one in self._places.items() if one.run is run]
        if numbers and self.started:
            text = json.dumps(numbers).encode()
            self._write(struct.pack(">cI", b"X", len(text)) + text)
        self.look()

    def _write(self, data: bytes) -> None:
        if not self.over and self._channel is not None:
            self._ahead += len(data)
            self._channel.write(data)

    # -- its end --------------------------------------------------------------------------------

    def look(self) -> None:
        """End it if nobody waits for it."""
        if not self.over and not self.top.waiting():
            self.finish()

    def finish(self) -> None:
        """End it: what runs there is told by the end of its input."""
        if self.over:
            return
        self.over = True
        self.supply.leave(self)
        self._loop.call_later(PATIENCE, self._abort)
        if self._channel is not None:
            self._channel.close_stdin()

    def _abort(self) -> None:
        if self._channel is not None:
            self._channel.abort()

    def _lose(self, why: str) -> None:
        """The host, or the program, is lost."""
        if not self.over:
            self.finish()
            self._tree.lost(self.top, why)

    # -- the sink -------------------------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._channel = channel

    def on_start(self) -> None:
        if self.over:
            self._abort()
            return
        text = json.dumps(order(self.top)).encode()
        self._write(program() + struct.pack(">I", len(text)) + text)
        self.started = True
        self._look_silent()
        self.supply.on_ready(self)

    def _look_silent(self) -> None:
        if not self.over and not self._exited:
            if not self._heard:
                self._lose(f"nothing is heard of {self.top.name}")
            self._heard = False
            self._loop.call_later(SILENT, self._look_silent)

    def on_data(self, stream: int, data: bytes) -> None:
        self._heard = True
        if stream != 1:
            self._said += data.decode("utf-8", "replace")[-2000:].splitlines()
            return
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        for line in lines:
            if self.over:
                return
            self._hear(bytes(line))
        if len(rest) > _LONGEST_LINE:
            self._lose("what it says has no end")

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self._open_streams.discard(stream)
        self._look_ended()

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._exited, self._error = True, error
        self._loop.call_later(_DRAINS_IN, self._ended)
        self._look_ended()

    def _look_ended(self) -> None:
        """Its last words may come after its exit."""
        if self._exited and not self._open_streams:
            self._ended()

    def _ended(self) -> None:
        self._channel = None
        said = "; ".join(line.strip() for line in self._said if line.strip())
        why = str(self._error) if self._error is not None else said or "it does not say why"
        self._lose(f"the program that passes it on has ended on {self.top.name}: {why}")

    def on_error(self, error: ProcessError) -> None:
        self._channel = None
        run = self.top.run
        unreached = error.reason in (Reason.CONNECT, Reason.AUTH, Reason.HOST_KEY)
        if unreached and not self.started and run is not None and run.relayed:
            run.fail(error)  # as by any other way from here
        self._lose(str(error))

    def on_written(self, count: int) -> None:
        self._ahead -= count
        if self.ready:
            self.supply.on_ready(self)

    def on_write_error(self, error: OSError) -> None:
        self.supply.leave(self)  # its end says more

    # -- what it says ---------------------------------------------------------------------------

    def _hear(self, line: bytes) -> None:
        if not self.works:
            self._noise += len(line)
            self.works = line.strip() == _HELLO
            if self._noise > _LONGEST_NOISE:
                self._lose("no program of ours answers, but something else")
            return
        try:
            said = json.loads(line)
            self._obey(said)
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
            self._lose(f"what it says is not understood: {line[:100]!r}")

    def _obey(self, said: Any) -> None:
        if not isinstance(said, dict) or not said:
            raise TypeError("no object")
        if "at" in said:
            self._count(dict(said["at"]))
            return
        kind = next(iter(said))
        place = self._places.get(int(said[kind]))
        if place is None:
            return
        run = place.run
        if kind == "up":
            self._tree.reached(place)
            if run is not None and run.relayed:
                run.up(None if place.parent is None else place.parent.name)
        elif kind == "end" and run is not None:
            code, text = int(said["code"]), str(said["said"]).encode("latin-1")
            if not -64 <= code <= 255:
                raise ValueError("no exit code")
            run.ended(code, text)
        elif kind == "lost":
            why = str(said["why"])[:500]
            if said["alone"]:
                self._tree.lost_alone(place, why)
            else:
                for one in place.below():
                    self._places.pop(one.number, None)
                self._tree.lost(place, why)
        self.look()

    def _count(self, taken: dict[str, Any]) -> None:
        for key, count in taken.items():
            place = self._places.get(int(key))
            if place is not None and place.run is not None and place.run.relayed:
                place.run.at(int(count))


# -- what is to be done there ---------------------------------------------------------------------


def order(place: Place) -> dict[str, Any]:
    """What the program on a host is told: its own script, and those that it feeds."""
    run = place.run
    text = None if run is None or not run.relayed else _latin(_script(run))
    limit = place.seen.options.connect_timeout
    children = [one for one in place.children if one.waiting()]
    tree = place.seen.options.tree
    return {
        "id": place.number,
        "text": text,
        "patience": 60.0 if limit is None else 3 * limit + 5,
        "late": LATE * (1 + place.height()),
        "silent": SILENT,
        "fanout": 32 if tree is None else tree.fanout,
        "children": [_child(one) for one in children],
    }


def _child(place: Place) -> dict[str, Any]:
    below = any(one.waiting() for one in place.children)
    if below:
        text = command_text(reading_words(program(), 0))
    else:
        assert place.run is not None
        text = f"echo {_UP}; {_script(place.run)}"
    words = [_latin(word) for word in ssh_words(place.seen, text)]
    return {"id": place.number, "words": words, "order": order(place) if below else None}


def _script(run: BroadcastRun) -> str:
    request = run.request
    assert request.broadcast is not None
    return command_text(request.broadcast.again(), cwd=request.cwd, env=request.env)


def _latin(text: str) -> str:
    """Its bytes, as JSON can carry them."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
