"""One gateway: the program that runs there, what it is told and what it says.

::

    COMING ──> READY ──> OVER
       └─────────────────┘
"""

from __future__ import annotations

import enum
import os
import signal
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from execo._core.timer import Timer
from execo.errors import ProcessError, Reason
from execo.log import logger

from .base import Channel, ConnectionOptions, Exec, Target, TreeWays
from .ssh_messages import place
from .tree_channel import State, TreeChannel
from .tree_frames import (
    VERSION,
    Frame,
    FrameError,
    FrameParser,
    bootstrap_words,
    frame,
    input_frame,
    program,
)
from .tree_leaf import TreeLeaf, ssh_words

if TYPE_CHECKING:
    from .tree import TreeTransport

__all__ = ["TreeLink"]

GREETS_WITHIN = 60.0
"""Seconds from the start of the program to its first word."""

ENDS_WITHIN = 8.0
"""Seconds from the farewell to the end of the program."""

MOST_WAITING = 64 << 20
"""Bytes of all commands of a gateway that may be held here for those who do not take them, and as
many there."""

LEAST_WINDOW, MOST_WINDOW = 1 << 14, 1 << 20

_SAID_LINES = 10


class _Receiver(Protocol):
    """What a frame of a gateway may be about."""

    id: int

    def on_up(self) -> None: ...
    def on_no(self, why: str, spawn: bool) -> None: ...
    def on_out(self, stream: int, data: bytes) -> None: ...
    def on_end(self, stream: int) -> None: ...
    def on_took(self, count: int) -> None: ...
    def on_stuck(self) -> None: ...
    def on_exit(self, code: int | None) -> None: ...


class _State(enum.Enum):
    COMING = enum.auto()
    READY = enum.auto()
    OVER = enum.auto()


class TreeLink:
    """A gateway, and the sink of the program there. All on the I/O thread.

    - ``assigned``: the commands that go through it and have not ended
    - ``leaves``: its connections to hosts
    """

    def __init__(self, transport: TreeTransport, ways: TreeWays, name: str) -> None:
        self.name = name
        self.ways = ways
        self.loop = transport.loop
        self.assigned: set[TreeChannel] = set()
        self.leaves: dict[Target, list[TreeLeaf]] = {}
        self._transport = transport
        self._state = _State.COMING
        self._channel: Channel | None = None
        self._started = False
        self._dismissed = False
        self._parser = FrameParser()
        self._said: deque[str] = deque(maxlen=_SAID_LINES)
        self._receivers: dict[int, _Receiver] = {}
        self._numbers = 0
        self._waiting: list[TreeChannel] = []
        self._patience = Timer(self.loop)
        self._pulse = Timer(self.loop)
        self._idle = Timer(self.loop)
        self._heard = True
        self._silent = 0

    @property
    def over(self) -> bool:
        """It is lost, or has been sent away."""
        return self._state is _State.OVER or self._dismissed

    @property
    def gone(self) -> bool:
        """Its program has ended, as far as can be known."""
        return self._state is _State.OVER

    def request(self, target: Target) -> Exec:
        """The program, as a command for the transport that reaches the gateway."""
        return Exec(bootstrap_words(self.ways.fanout), target=target, kill_timeout=None)

    # -- commands -------------------------------------------------------------------------------

    def place(self, channel: TreeChannel) -> None:
        """Have a command run on its host."""
        channel.link = self
        self.assigned.add(channel)
        self._idle.cancel()
        if self._state is not _State.READY:
            self._waiting.append(channel)
        elif channel.plain:
            self._run_plainly(channel)
        else:
            self._leaf(channel.target).add(channel)
        self._arm_pulse(channel.target.options)

    def _run_plainly(self, channel: TreeChannel) -> None:
        """With an ssh of its own, and without a guard."""
        words = ssh_words(channel.target, self._transport.text(channel.request))
        window = self.window()
        payload = "\0".join(words).encode("utf-8", "surrogateescape")
        channel.sent(self.order(channel, "run", payload, shared=False, room=window), window)

    def _leaf(self, target: Target) -> TreeLeaf:
        leaves = self.leaves.setdefault(target, [])
        for leaf in leaves:
            if leaf.usable:
                return leaf
        # Behind one that is full: the host takes as many over each.
        most = next((one.most for one in leaves if one.most is not None), None)
        made = TreeLeaf(self, target)
        made.most = most
        leaves.append(made)
        return made

    def window(self) -> int:
        """How many bytes of one more command may be on their way, each way."""
        share = MOST_WAITING // max(1, len(self.assigned))
        return max(LEAST_WINDOW, min(MOST_WINDOW, share))

    def remove(self, channel: TreeChannel) -> None:
        """A command has ended."""
        self.assigned.discard(channel)
        if channel in self._waiting:
            self._waiting.remove(channel)
        self.look_idle()

    def leaf_ended(self, leaf: TreeLeaf) -> None:
        """A connection has ended."""
        self._receivers.pop(leaf.id, None)
        leaves = self.leaves.get(leaf.target, [])
        if leaf in leaves:
            leaves.remove(leaf)
            if not leaves:
                del self.leaves[leaf.target]
        self.look_idle()

    # -- telling it -----------------------------------------------------------------------------

    def order(self, receiver: _Receiver, op: str, payload: bytes, **fields: object) -> int:
        """Order something new; its number."""
        self._numbers += 1
        number = self._numbers
        self._receivers[number] = receiver
        self._write(frame(op, payload, id=number, **fields))
        return number

    def tell(self, op: str, **fields: int) -> None:
        """Tell something about what was ordered."""
        self._write(frame(op, b"", **fields))

    def feed(self, ids: Sequence[int], data: bytes) -> None:
        """Input for some of its connections and sessions, sent to the gateway once.

        This is where one input for many hosts belongs: whoever calls it counts the bytes of each
        channel, which are told as taken one by one.
        """
        self._write(input_frame(ids, data))

    def drop(self, receiver: _Receiver) -> None:
        """Its number is not used any more: what comes of it is passed over."""
        self._receivers.pop(receiver.id, None)
        self.look_idle()

    def forget(self, channel: TreeChannel) -> None:
        """As :meth:`drop`, for one that has ended."""
        self._receivers.pop(channel.id, None)
        self.assigned.discard(channel)
        self.look_idle()

    def _write(self, data: bytes) -> None:
        if self._state is _State.READY and self._channel is not None:
            self._channel.write(data)

    # -- whether it is there --------------------------------------------------------------------

    def _arm_pulse(self, options: ConnectionOptions) -> None:
        if options.keepalive is not None and not self._pulse.runs:
            self._pulse.set(options.keepalive, self._look_pulse, options)

    def _look_pulse(self, options: ConnectionOptions) -> None:
        """Ask it, as often as nothing has come of it for a while and something runs."""
        if self._state is not _State.READY or not self.assigned:
            self._silent = 0
            if self._state is _State.COMING:
                self._arm_pulse(options)
            return
        if self._heard:
            self._silent = 0
        else:
            self._silent += 1
        self._heard = False
        if self._silent > options.keepalive_count:
            self._lose("it does not answer: is it frozen, or too busy?")
            return
        self.tell("ping")
        self._arm_pulse(options)

    # -- its end --------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nobody needs it."""
        return not self.assigned and all(
            leaf.idle for leaves in self.leaves.values() for leaf in leaves
        )

    def look_idle(self) -> None:
        """Send it away when it has no connection any more, and nobody needs it."""
        if self._state is _State.READY and self._needless:
            self._idle.set(1.0, self._dismiss_idle)

    @property
    def _needless(self) -> bool:
        # Without a connection that is kept, nor output to come of a command that has ended.
        return not (self.assigned or self.leaves or self._receivers)

    def _dismiss_idle(self) -> None:
        if self._needless:
            self.dismiss()

    def dismiss(self) -> None:
        """Send it away in good order: what commands have left on hosts stays."""
        if self.over:
            return
        self._dismissed = True
        self._patience.set(ENDS_WITHIN, self.end)
        if self._state is _State.COMING:
            self.end()
            return
        for leaves in list(self.leaves.values()):
            for leaf in list(leaves):
                leaf.dismiss()
        self.tell("bye")
        if self._channel is not None:
            self._channel.close_stdin()

    def end(self) -> None:
        """End it hard: guards end what has not ended."""
        self._dismissed = True
        if self._channel is None:
            self._over("it was sent away")
        elif not self._started:
            self._channel.abort()
        else:
            self._channel.send_signal(signal.SIGKILL)

    def mistrust(self, why: str) -> None:
        """It does what no program of ours does."""
        self._lose(why)

    def _lose(self, why: str) -> None:
        """It is lost; ``why`` for messages. What had not started goes elsewhere."""
        channel = self._channel
        self._over(why)
        if channel is not None:
            channel.send_signal(signal.SIGKILL)
            channel.abort()

    def _over(self, why: str) -> None:
        if self._state is _State.OVER:
            return
        greeted = self._state is _State.READY
        self._state = _State.OVER
        for timer in (self._patience, self._pulse, self._idle):
            timer.cancel()
        self._transport.link_over(self, expected=self._dismissed)
        waiting, self._waiting = self._waiting, []
        leaves = [leaf for some in list(self.leaves.values()) for leaf in list(some)]
        for leaf in leaves:
            waiting += leaf.waiting
            leaf.waiting = []
        text = f"gateway {self.name}: {why}"
        if greeted and not self._dismissed and self.assigned:
            logger.warning("%s; %d commands were on their way there", text, len(self.assigned))
        for leaf in leaves:
            leaf.lose(f"{place(leaf.target)} is lost with its {text}")
        for receiver in list(self._receivers.values()):
            if isinstance(receiver, TreeChannel) and receiver.state is not State.WAITING:
                receiver.lose(f"{place(receiver.target)} is lost with its {text}")
        self._receivers.clear()
        self.assigned.clear()
        for one in waiting:
            if one.told:
                continue  # given up as it heard of another one
            one.tried.add(self.name)
            one.back()
            one.link = None
            one.why = ProcessError(
                f"cannot reach {place(one.target)}: {text}", reason=Reason.CONNECT, host=self.name
            )
            self._transport.route(one)

    def _cause(self, status: int | None) -> str:
        """Why the program has ended."""
        said = "; ".join([*self._said, *self._parser.noise])
        if self._parser.greeted:
            return f"its program has ended{f' ({said})' if said else ''}"
        if status is not None and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 127:
            return f"no python3 there: {said}; install Python 3.6 or later (apt install python3)"
        return f"its program does not run: {said or 'it does not say why'}"

    # -- the sink of its program ----------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._channel = channel

    def on_start(self) -> None:
        self._started = True
        if self._dismissed:
            self.end()
        elif self._channel is not None:
            self._channel.write(program())
            self._patience.set(GREETS_WITHIN, self._lose, "its program says nothing")

    def on_data(self, stream: int, data: bytes) -> None:
        self._heard = True
        if stream != 1:
            self._said += data.decode("utf-8", "replace")[-2000:].splitlines()
            return
        if self._state is _State.OVER:
            return
        try:
            for one in self._parser.feed(data):
                self._on_frame(one)
        except FrameError as exc:
            self._lose(f"what it says is not understood: {exc}")

    def on_eof(self, stream: int, error: OSError | None) -> None:
        pass

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        if self._channel is not None and not self._dismissed:
            # What it has started may have survived it.
            self._channel.send_signal(signal.SIGKILL)
        self._over("it was sent away" if self._dismissed else self._cause(status))

    def on_error(self, error: ProcessError) -> None:
        self._over(str(error))

    def on_written(self, count: int) -> None:
        pass

    def on_write_error(self, error: OSError) -> None:
        pass

    # -- what it says ---------------------------------------------------------------------------

    def _on_frame(self, said: Frame) -> None:
        if said.op == "hello":
            self._greet(said.count)
            return
        receiver = self._receivers.get(said.id)
        if receiver is None or self._state is not _State.READY:
            return
        if said.op == "out":
            receiver.on_out(said.stream, said.payload)
        elif said.op == "end":
            receiver.on_end(said.stream)
        elif said.op == "took":
            receiver.on_took(said.count)
        elif said.op == "up":
            receiver.on_up()
        elif said.op == "exit":
            receiver.on_exit(said.code)
        elif said.op == "no":
            receiver.on_no(said.why, said.spawn)
        elif said.op == "stuck":
            receiver.on_stuck()

    def _greet(self, version: int) -> None:
        if version != VERSION:
            self._lose(f"its program speaks version {version}, and this one {VERSION}")
            return
        self._patience.cancel()
        self._state = _State.READY
        waiting, self._waiting = self._waiting, []
        for channel in waiting:
            self.place(channel)
