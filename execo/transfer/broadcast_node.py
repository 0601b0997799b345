"""The program of a host that passes on what it receives: to its own script, and to other hosts.

It is sent to hosts that have Python 3.6 or later and no execo: it imports the standard library
alone, and nothing here is newer than that. Its stdin is its own text, four bytes with a length and
so much JSON that says what is to be done, and then frames: a letter, four bytes with a length, and
as many bytes.

=====  =============================================================
``D``  of what is put
``E``  that was all of it
``X``  a list of numbers: these hosts are not to receive it any more
=====  =============================================================

A host that passes it on, too, is sent this program, its own orders, and all frames as they come; a
host that does not gets the bytes alone, as the stdin of its script. On stdout are lines of JSON
with what happens, those of the hosts behind others too; see :mod:`.broadcast_stream`.

What is read waits here until all have taken it, as far as ``ROOM`` goes. Who takes next to nothing
while the others wait is given up: it is fed another way. When stdin ends, the script is lost, or
does not want it any more: scripts see that something is missing, and remove what they have.
"""

import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional

__all__ = ["main"]

HELLO = b"execo-broadcast 1"
UP = b"execo-broadcast up"
ROOM = 1 << 22
PIECE = 1 << 18
LEAST = 1 << 20
"""Bytes that one who holds up the others has to take in ``late`` seconds."""

LONGEST_SAID = 1 << 13
LONGEST_LINE = 1 << 20
TELLS_EVERY = 0.25
SPEAKS_EVERY = 1.0
LAST_WAIT = 3.0
FILES = 1 << 16
F_SETPIPE_SZ = 1031

TEXT = b""
"""This text, as it has come: set by what has read it."""


class Outlet:
    """One that takes what has come: a script here, one on another host, or this program there."""

    raw = True
    alone = False
    process: "Optional[subprocess.Popen[bytes]]" = None

    def __init__(self, node: "Node", number: int, words: List[bytes]) -> None:
        self.node = node
        self.number = number
        self.words = words
        self.queue: Deque[bytes] = deque()
        self.offset = 0
        self.size = 0
        self.taken = 0
        self.told = 0
        self.stdin = self.stderr = -1
        self.outputs: Dict[int, bytearray] = {}
        self.said = b""
        self.writing = False
        self.closing = False
        self.up = False
        self.status: Optional[int] = None
        self.ended = False
        self.up_by = 0.0
        self.full_since = 0.0
        self.taken_then = 0

    def start(self) -> None:
        try:
            process = subprocess.Popen(
                self.words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                close_fds=False,  # none of ours is inherited
                start_new_session=True,
            )
        except (OSError, ValueError) as exc:
            self.end()
            self.give_up("%s cannot be run: %s" % (self.words[0].decode("latin-1"), exc))
            return
        self.process = process
        self.up_by = time.monotonic() + self.node.patience
        assert process.stdin and process.stdout and process.stderr
        self.stdin = process.stdin.fileno()
        widen(self.stdin)
        os.set_blocking(self.stdin, False)
        self.stderr = process.stderr.fileno()
        for file in (process.stdout, process.stderr):
            at = file.fileno()
            os.set_blocking(at, False)
            self.outputs[at] = bytearray()
            self.node.watch(at, lambda at=at: self.read(at))  # type: ignore[misc]
        self.look()

    # -- what it is given

    def give(self, data: bytes) -> None:
        if self.stdin >= 0 or self.process is None:
            self.queue.append(data)
            self.size += len(data)
            self.look()

    def finish(self) -> None:
        """It has been given all."""
        self.closing = True
        self.look()

    def cut(self) -> None:
        """It gets no more: its script sees that something is missing."""
        self.queue.clear()
        self.size = 0
        self.finish()

    def look(self) -> None:
        if self.stdin < 0:
            return
        if bool(self.queue) != self.writing:
            self.writing = not self.writing
            if self.writing:
                self.node.watch(self.stdin, self.write, selectors.EVENT_WRITE)
            else:
                self.node.unwatch(self.stdin)
        if self.closing and not self.queue:
            self.close()

    def write(self) -> None:
        try:
            data = memoryview(self.queue[0])[self.offset : self.offset + PIECE]
            count = os.write(self.stdin, data)
        except BlockingIOError:
            return
        except OSError:
            # It says why by its end.
            self.queue.clear()
            self.size = 0
            self.close()
            return
        self.taken += count
        self.size -= count
        self.offset += count
        if self.offset == len(self.queue[0]):
            self.queue.popleft()
            self.offset = 0
        self.look()

    def close(self) -> None:
        if self.stdin >= 0:
            if self.writing:
                self.writing = False
                self.node.unwatch(self.stdin)
            assert self.process is not None and self.process.stdin is not None
            self.process.stdin.close()
            self.stdin = -1

    # -- what it says

    def read(self, at: int) -> None:
        try:
            data = os.read(at, PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close_output(at)
            self.look_over()
            return
        said = self.outputs[at]
        said += data
        if at == self.stderr:
            del said[:-LONGEST_SAID]
            return
        lines = said.split(b"\n")
        said[:] = lines.pop()
        for line in lines:
            self.hear(bytes(line))
        if len(said) > LONGEST_LINE:
            del said[:]

    def close_output(self, at: int) -> None:
        self.node.unwatch(at)
        said = self.outputs.pop(at)
        assert self.process and self.process.stdout and self.process.stderr
        if at == self.stderr:
            self.said = bytes(said)
            self.process.stderr.close()
        else:
            self.process.stdout.close()

    def hear(self, line: bytes) -> None:
        if line.strip() == UP:
            self.greet()

    def greet(self) -> None:
        if not self.up:
            self.up = True
            self.node.tell({"up": self.number})
            self.node.start_more()

    # -- its end

    def exited(self, status: int) -> None:
        """It has ended, with an exit code, or by a signal if that is less than 0."""
        self.status = status
        self.queue.clear()
        self.size = 0
        self.close()
        # What it has left behind may hold its output open.
        self.node.later.append((time.monotonic() + 1.0, self))
        self.look_over()

    def look_over(self, *, at_once: bool = False) -> None:
        if self.ended or self.status is None or (self.outputs and not at_once):
            return
        for at in list(self.outputs):
            self.close_output(at)
        self.end()
        self.conclude(self.status)

    def conclude(self, status: int) -> None:
        """Say how it has ended."""
        self.node.tell({"end": self.number, "code": status, "said": self.said.decode("latin-1")})

    def end(self) -> None:
        self.ended = True
        self.node.outlets.pop(self.number, None)
        self.node.start_more()

    def give_up(self, why: str) -> None:
        """It has to be fed another way, and so has all behind it."""
        self.node.tell({"lost": self.number, "why": why[-1000:], "alone": self.alone})

    def part(self, why: str) -> None:
        """End it, as far as it can be ended from here."""
        self.cut()
        self.kill(signal.SIGTERM)
        self.conclude = lambda status: self.give_up(why)  # type: ignore[method-assign]
        self.node.parted.append((time.monotonic() + LAST_WAIT, self))

    def kill(self, number: int) -> None:
        if self.process is not None and self.status is None:
            try:
                os.killpg(self.process.pid, number)
            except OSError:
                pass


class Own(Outlet):
    """The script of this host."""

    alone = True

    def start(self) -> None:
        Outlet.start(self)
        if self.process is not None:
            self.greet()


class Far(Outlet):
    """The script of another host, by ssh."""

    def conclude(self, status: int) -> None:
        if self.up and 0 <= status < 255:
            Outlet.conclude(self, status)
        else:
            self.give_up(self.why(status))

    def why(self, status: int) -> str:
        lines = self.said.decode("utf-8", "replace").splitlines()
        said = "; ".join(line.strip() for line in lines[-3:] if line.strip())
        return said or "its ssh has ended (%d)" % status


class Relay(Far):
    """This program on another host."""

    raw = False

    def __init__(self, node: "Node", number: int, words: List[bytes], order: object) -> None:
        Far.__init__(self, node, number, words)
        self.heard = 0.0
        text = json.dumps(order).encode()
        self.give(TEXT + struct.pack(">I", len(text)) + text)

    def hear(self, line: bytes) -> None:
        self.heard = time.monotonic()
        if line.strip() == HELLO:
            self.greet()
        elif self.up:
            self.node.pass_on(line)

    def conclude(self, status: int) -> None:
        # Who has no more to say is not missed: the script knows what it waits for.
        self.give_up(self.why(status))


class Node:
    """The program: what comes in, and who takes it."""

    def __init__(self, order: Dict[str, Any]) -> None:
        self.selector = selectors.DefaultSelector()
        self.patience = float(order["patience"])
        self.late = float(order["late"])
        self.silent = float(order["silent"])
        self.fanout = int(order["fanout"])
        self.outlets: Dict[int, Outlet] = {}
        self.waiting: Deque[Outlet] = deque()
        self.parted: List[Any] = []
        self.later: List[Any] = []
        self.input = bytearray()
        self.reading = True
        self.complete = False
        self.over = False
        self.output = bytearray()
        self.writing = False
        self.tells_at = self.speaks_at = 0.0
        self.woken, self.waker = socket.socketpair()
        for sock in (self.woken, self.waker):
            sock.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self.waker.fileno())
        os.set_blocking(1, False)
        os.set_blocking(0, False)
        widen(0)
        self.watch(0, self.read)
        self.watch(self.woken.fileno(), self.reap)
        self.say(HELLO)
        if order["text"] is not None:
            text = order["text"].encode("latin-1")
            self.waiting.append(Own(self, order["id"], [b"/bin/sh", b"-c", text]))
        for child in order["children"]:
            words = [word.encode("latin-1") for word in child["words"]]
            if child["order"] is None:
                self.waiting.append(Far(self, child["id"], words))
            else:
                self.waiting.append(Relay(self, child["id"], words, child["order"]))
        for outlet in self.waiting:
            self.outlets[outlet.number] = outlet
        self.start_more()

    def start_more(self) -> None:
        """As many as may be connected to at a time."""
        coming = sum(1 for one in self.outlets.values() if one.process and not one.up)
        while self.waiting and coming < self.fanout and not self.over:
            self.waiting.popleft().start()
            coming += 1

    # -- descriptors

    def watch(
        self, descriptor: int, function: Callable[[], None], events: int = selectors.EVENT_READ
    ) -> None:
        self.selector.register(descriptor, events, function)

    def unwatch(self, descriptor: int) -> None:
        self.selector.unregister(descriptor)

    def turn(self, patience: float) -> None:
        """Wait for something, and do it."""
        mapping = self.selector.get_map()
        for key, _ in self.selector.select(patience):
            # What was done for another one may have ended it, and its number may be reused.
            if mapping.get(key.fd) is key:
                key.data()

    # -- to the script

    def tell(self, what: Dict[str, Any]) -> None:
        self.say(json.dumps(what).encode())

    def pass_on(self, line: bytes) -> None:
        self.say(line)

    def say(self, line: bytes) -> None:
        self.output += line + b"\n"
        self.flush()

    def flush(self) -> None:
        try:
            while self.output:
                del self.output[: os.write(1, self.output[:PIECE])]
        except BlockingIOError:
            pass
        except OSError:
            self.over = True
            self.output.clear()
        if bool(self.output) != self.writing:
            self.writing = not self.writing
            if self.writing:
                self.watch(1, self.flush, selectors.EVENT_WRITE)
            else:
                self.unwatch(1)

    # -- from the script

    def read(self) -> None:
        try:
            data = os.read(0, PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.over = True
            return
        self.input += data
        at = 0
        while len(self.input) - at >= 5:
            letter, size = struct.unpack(">cI", self.input[at : at + 5])
            end = at + 5 + size
            if len(self.input) < end:
                break
            frame = bytes(self.input[at:end])
            at = end
            self.obey(letter, frame)
        if at:
            del self.input[:at]

    def obey(self, letter: bytes, frame: bytes) -> None:
        bare = frame[5:]
        unwanted = json.loads(bare.decode()) if letter == b"X" else ()
        for outlet in list(self.outlets.values()):
            if not outlet.raw:
                outlet.give(frame)
            elif letter == b"D" and not outlet.closing:
                outlet.give(bare)
            elif letter == b"E":
                outlet.finish()
            elif outlet.number in unwanted:
                outlet.cut()
        if letter == b"E":
            self.complete = True

    def look_room(self) -> None:
        """Read on if all have room."""
        full = [one for one in self.outlets.values() if one.size >= ROOM]
        if self.reading is bool(full):
            self.reading = not self.reading
            if self.reading:
                self.watch(0, self.read)
            else:
                self.unwatch(0)
        now = time.monotonic()
        for outlet in list(self.outlets.values()):
            if outlet.process is None or outlet.status is not None:
                continue
            if not outlet.up:
                if now > outlet.up_by:
                    outlet.part("it does not answer")
                    outlet.up_by = now + 3600
            elif isinstance(outlet, Relay) and now - outlet.heard > self.silent:
                outlet.part("nothing is heard of it")
                outlet.heard = now + 3600
            elif outlet not in full:
                outlet.full_since = 0.0
            elif not outlet.full_since or outlet.taken - outlet.taken_then >= LEAST:
                outlet.full_since, outlet.taken_then = now, outlet.taken
            elif now - outlet.full_since > self.late:
                took = outlet.taken - outlet.taken_then
                outlet.part("it took %d bytes in %d s and held up the others" % (took, self.late))
                outlet.full_since = now + 3600

    def reap(self) -> None:
        try:
            while self.woken.recv(4096):
                pass
        except BlockingIOError:
            pass
        for outlet in list(self.outlets.values()):
            if outlet.process is not None and outlet.status is None:
                status = outlet.process.poll()
                if status is not None:
                    outlet.exited(status)

    def look_late(self) -> None:
        now = time.monotonic()
        for when, outlet in self.later:
            if when <= now:
                outlet.look_over(at_once=True)
        self.later = [one for one in self.later if one[0] > now]
        for when, outlet in self.parted:
            if when <= now:
                outlet.kill(signal.SIGKILL)
        self.parted = [one for one in self.parted if one[0] > now]
        if now >= self.tells_at:
            self.tells_at = now + TELLS_EVERY
            taken = {}
            for outlet in self.outlets.values():
                if outlet.raw and outlet.taken != outlet.told:
                    outlet.told = outlet.taken
                    taken[outlet.number] = outlet.taken
            if taken or now >= self.speaks_at:
                # Who says nothing is taken for lost.
                self.speaks_at = now + SPEAKS_EVERY
                self.tell({"at": taken})

    # -- from the start to the end

    def run(self) -> None:
        try:
            while not self.over and self.outlets:
                self.turn(TELLS_EVERY)
                self.look_late()
                self.look_room()
        finally:
            self.end()

    def end(self) -> None:
        """All have ended; or the script is lost, and all are ended."""
        if self.outlets:
            self.output.clear()  # nobody reads it
        self.over = True
        if self.reading:
            self.reading = False
            self.unwatch(0)
        for outlet in list(self.outlets.values()):
            outlet.cut()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for outlet in list(self.outlets.values()):
                outlet.kill(number)
            self.wait()
        end = time.monotonic() + LAST_WAIT
        while self.output and time.monotonic() < end:
            self.turn(0.1)

    def wait(self) -> None:
        end = time.monotonic() + LAST_WAIT
        while any(one.process and one.status is None for one in self.outlets.values()):
            if time.monotonic() >= end:
                return
            self.turn(max(0.0, end - time.monotonic()))


def widen(descriptor: int) -> None:
    """Give a pipe more room, where it can have it."""
    try:
        import fcntl

        fcntl.fcntl(descriptor, F_SETPIPE_SZ, LEAST)
    except (ImportError, OSError):
        pass


def main(_: int) -> None:
    """Called by what has sent it."""
    try:
        import resource  # not everywhere

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (ImportError, OSError, ValueError):
        pass
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    head = receive(4)
    text = receive(struct.unpack(">I", head)[0]) if head else b""
    if not text:
        return
    node = Node(json.loads(text.decode()))
    signal.signal(signal.SIGTERM, lambda number, frame: leave(node))
    node.run()


def receive(count: int) -> bytes:
    """So many bytes of stdin; none if it ends before."""
    got = bytearray()
    while len(got) < count:
        data = os.read(0, count - len(got))
        if not data:
            return b""
        got += data
    return bytes(got)


def leave(node: Node) -> None:
    """Told to end."""
    node.over = True
