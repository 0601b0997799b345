"""The program of a gateway: runs ``ssh`` for the script that has sent it, and carries the bytes.

It is sent to hosts that have Python 3.6 or later and no execo: it imports the standard library
alone, and nothing here is newer than that. It reads frames on stdin and writes frames on stdout,
see
:mod:`execo.transports.tree_frames`; when its stdin ends, the script is lost, and it ends all ssh.

A *connection* (order ``run``) is one ssh with pipes, which may share its connection. A *session*
(order ``open``) is one more command over a shared connection: it is asked for on the control socket
as ssh itself does (PROTOCOL.mux of OpenSSH, version 4), without another ssh process.

Output is read only as far as the script has room for it (``room``), for each session by itself.
Input is told to have been taken (``took``) when it is written, so that the script sends no more of
it than may wait here.
"""

import array
import errno
import functools
import heapq
import json
import os
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Set, Tuple

__all__ = ["VERSION", "main"]

VERSION = 1
FOLDER = "execo-tree-"

PIECE = 65536
LONGEST_HEADER = 1 << 20
LONGEST_PAYLOAD = 1 << 24
BACKLOG = 1 << 18
RETRY = 0.02
LONGEST_RETRY = 0.5
CONNECTS_WITHIN = 1.0
LAST_WAIT = 2.0
PROBE_WAIT = 5.0
FILES = 1 << 16

# The ssh of these versions agree on keys by sntrup761, unless told otherwise: of the 60 ms that a
# connection takes of the processor, 50 are that. What is configured comes before this line.
SLOW_KEYS = ((9, 0), (10, 0))
CONFIGURATION = """Include ~/.ssh/config
Include /etc/ssh/ssh_config
Host *
    KexAlgorithms ^curve25519-sha256
"""

MUX_HELLO = 0x00000001
MUX_NEW_SESSION = 0x10000002
MUX_ALIVE_CHECK = 0x10000004
MUX_DENIED = 0x80000002
MUX_FAILURE = 0x80000003
MUX_EXIT = 0x80000004
MUX_ALIVE = 0x80000005
MUX_OPENED = 0x80000006
MUX_VERSION = 4
LONGEST_MUX = 1 << 18


def pack(number: int, *parts: Any) -> bytes:
    """One message for a control socket: whole numbers and strings."""
    body = struct.pack(">I", number)
    for part in parts:
        if isinstance(part, int):
            body += struct.pack(">I", part)
        else:
            body += struct.pack(">I", len(part)) + part
    return struct.pack(">I", len(body)) + body


class Control:
    """One connection to the control socket of an ssh. It never waits: an ssh that is frozen holds
    up those alone who want something of it.

    - ``unsent``: what has not been sent: bytes, and a descriptor that goes with them or None
    """

    def __init__(
        self,
        node: "Node",
        path: str,
        on_message: Callable[[int, bytes], None],
        on_end: Callable[[str], None],
    ) -> None:
        self.node = node
        self.path = path
        self.on_message = on_message
        self.on_end = on_end
        self.buffer = b""
        self.unsent: Deque[Tuple[bytes, Optional[int]]] = deque()
        self.since = time.monotonic()
        self.delay = RETRY
        self.connected = False
        self.sock: Optional[socket.socket] = None

    def send(self, message: bytes, descriptors: Tuple[int, ...] = ()) -> None:
        """Begin to send. Once, at the beginning; the descriptors stay open until it has ended, or
        nothing is unsent."""
        self.unsent.append((pack(MUX_HELLO, MUX_VERSION) + message, None))
        self.unsent += [(b"\0", descriptor) for descriptor in descriptors]
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.setblocking(False)
        except OSError as exc:
            self.lose(str(exc))
            return
        self.connect()

    def connect(self) -> None:
        if self.sock is None:
            return
        try:
            self.sock.connect(self.path)
        except BlockingIOError:
            # More are waiting to be let in than there is room for, and nothing tells of its end.
            if time.monotonic() - self.since < PROBE_WAIT:
                self.delay = min(2 * self.delay, LONGEST_RETRY)
                self.node.after(self.delay, self.connect)
            else:
                self.lose("it lets nobody in: is it frozen?")
            return
        except OSError as exc:
            self.lose(str(exc))
            return
        self.connected = True
        self.node.watch(self.sock.fileno(), self.push, selectors.EVENT_WRITE)
        self.push()

    def push(self) -> None:
        """Send what can be sent, then read."""
        try:
            while self.unsent and self.sock is not None:
                data, descriptor = self.unsent.popleft()
                rights = []
                if descriptor is not None:
                    words = array.array("i", [descriptor])
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, words)]
                try:
                    count = self.sock.sendmsg([data], rights)
                except OSError:
                    self.unsent.appendleft((data, descriptor))
                    raise
                if count < len(data):
                    self.unsent.appendleft((data[count:], None))
        except BlockingIOError:
            return
        except OSError as exc:
            self.lose(str(exc))
            return
        if self.sock is not None:
            self.node.unwatch(self.sock.fileno())
            self.node.watch(self.sock.fileno(), self.read)

    def read(self) -> None:
        assert self.sock is not None
        try:
            data = self.sock.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.lose("it has hung up")
            return
        self.buffer += data
        while self.sock is not None and len(self.buffer) >= 8:
            length, kind = struct.unpack(">II", self.buffer[:8])
            if not 4 <= length <= LONGEST_MUX:
                self.lose("what it says is not understood")
            elif len(self.buffer) < 4 + length:
                return
            else:
                body, self.buffer = self.buffer[8 : 4 + length], self.buffer[4 + length :]
                self.on_message(kind, body)

    def lose(self, why: str) -> None:
        self.close()
        self.on_end(why)

    def close(self) -> None:
        if self.sock is not None:
            if self.connected:
                self.node.unwatch(self.sock.fileno())
            self.sock.close()
            self.sock = None


class Session:
    """One command: its pipes, what may be read of them, and what is to be written."""

    def __init__(self, node: "Node", number: int, room: int) -> None:
        self.node = node
        self.number = number
        self.room = room
        self.muted = False
        self.exited = False
        self.outputs: Dict[int, int] = {}
        self.reading: Set[int] = set()
        self.stdin: Optional[int] = None
        self.writing = False
        self.input: Deque[bytes] = deque()
        self.input_closed = False

    def attach(self, stdin: int, stdout: int, stderr: int) -> None:
        """Take over our ends of its pipes."""
        self.stdin = stdin
        self.outputs = {1: stdout, 2: stderr}
        for descriptor in (stdin, stdout, stderr):
            os.set_blocking(descriptor, False)
        self.look_outputs()
        self.look_input()

    # -- output

    def look_outputs(self) -> None:
        wanted = self.muted or self.room > 0
        for stream, descriptor in self.outputs.items():
            if wanted and stream not in self.reading:
                self.reading.add(stream)
                self.node.watch_output(descriptor, functools.partial(self.read, stream))
            elif not wanted and stream in self.reading:
                self.reading.discard(stream)
                self.node.unwatch_output(descriptor)

    def read(self, stream: int) -> None:
        most = PIECE if self.muted else min(PIECE, self.room)
        try:
            data = os.read(self.outputs[stream], most)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.reading.discard(stream)
            self.node.unwatch_output(self.outputs[stream])
            os.close(self.outputs.pop(stream))
            self.node.tell({"op": "end", "id": self.number, "s": stream})
            self.look_over()
        elif not self.muted:
            self.room -= len(data)
            self.node.tell({"op": "out", "id": self.number, "s": stream}, data)
            self.came(stream)
            if self.room <= 0:
                self.look_outputs()

    def came(self, stream: int) -> None:
        """Some output has come."""

    def give_room(self, count: int) -> None:
        self.room += count
        self.look_outputs()

    def mute(self) -> None:
        """Drop its output from now on: what it has left behind may go on writing."""
        self.muted = True
        self.look_outputs()

    # -- input

    def write(self, data: bytes) -> None:
        if data and not self.input_closed:
            self.input.append(data)
            self.look_input()

    def end_input(self) -> None:
        self.input_closed = True
        self.look_input()

    def look_input(self) -> None:
        if self.stdin is None:
            return
        if self.input and not self.writing:
            self.writing = True
            self.node.watch(self.stdin, self.drain, selectors.EVENT_WRITE)
        elif not self.input and self.writing:
            self.writing = False
            self.node.unwatch(self.stdin)
        if not self.input and self.input_closed:
            os.close(self.stdin)
            self.stdin = None

    def drain(self) -> None:
        assert self.stdin is not None
        data = self.input.popleft()
        try:
            count = os.write(self.stdin, data)
        except BlockingIOError:
            count = 0
        except OSError:
            self.break_input()
            return
        if count < len(data):
            self.input.appendleft(data[count:])
        if count:
            self.node.tell({"op": "took", "id": self.number, "by": count})
        self.look_input()

    def break_input(self) -> None:
        """Nobody reads it any more."""
        if self.stdin is not None:
            if self.writing:
                self.writing = False
                self.node.unwatch(self.stdin)
            os.close(self.stdin)
            self.stdin = None
            if self.input or not self.input_closed:
                self.node.tell({"op": "stuck", "id": self.number})
        self.input.clear()

    # -- its end

    def exit(self, code: Optional[int]) -> None:
        if not self.exited:
            self.exited = True
            self.break_input()
            self.node.tell({"op": "exit", "id": self.number, "code": code})
            self.look_over()

    def look_over(self) -> None:
        if self.exited and not self.outputs:
            self.node.sessions.pop(self.number, None)

    def release(self) -> None:
        """Give all descriptors back."""
        self.exited = True
        self.break_input()
        for stream, descriptor in self.outputs.items():
            if stream in self.reading:
                self.node.unwatch_output(descriptor)
            os.close(descriptor)
        self.outputs = {}
        self.reading = set()
        self.node.sessions.pop(self.number, None)

    def drop(self) -> None:
        """It is not wanted any more."""


class Connection(Session):
    """One ssh process."""

    process: Optional["subprocess.Popen[bytes]"] = None
    settled = False

    def __init__(
        self, node: "Node", number: int, room: int, words: List[str], shared: bool
    ) -> None:
        Session.__init__(self, node, number, room)
        self.users: Set[Session] = set()
        self.path = os.path.join(node.folder, str(number)) if shared else ""
        # Behind the program's name: of an option ssh takes what it sees first.
        ours = ["-M", "-S", self.path, "-oControlPersist=no"] if shared else []
        self.words = words[:1] + ours + node.file_words(words) + words[1:]

    def start(self) -> None:
        pipes: List[int] = []
        try:
            for _ in range(3):
                pipes += os.pipe()
            self.process = subprocess.Popen(
                self.words,
                stdin=pipes[0],
                stdout=pipes[3],
                stderr=pipes[5],
                close_fds=False,  # none of ours is inherited
                start_new_session=True,
            )
        except (OSError, ValueError) as exc:
            for descriptor in pipes:
                os.close(descriptor)
            self.node.tell({"op": "no", "id": self.number, "why": str(exc)[:500], "spawn": True})
            self.settle()
            self.release()
            return
        self.node.children[self.process.pid] = self
        for descriptor in (pipes[0], pipes[3], pipes[5]):
            os.close(descriptor)
        self.node.tell({"op": "up", "id": self.number})
        self.attach(pipes[1], pipes[2], pipes[4])
        if not self.path:
            # Its command may print nothing, for hours.
            self.node.after(CONNECTS_WITHIN, self.settle)

    def came(self, stream: int) -> None:
        if stream == 1:
            self.settle()

    def settle(self) -> None:
        """It is connected, or will never be: another one may begin."""
        if not self.settled:
            self.settled = True
            self.node.connecting -= 1
            self.node.connect_more()

    def exit(self, code: Optional[int]) -> None:
        self.settle()
        Session.exit(self, code)
        for session in list(self.users):
            session.release()  # nothing will ever be heard of it

    def signal(self, number: int) -> None:
        # Not by its own method, which may take the exit status that reap() waits for.
        if self.process is not None and self.process.pid in self.node.children:
            os.kill(self.process.pid, number)

    def drop(self) -> None:
        if self.process is None:
            self.node.waiting.remove(self)
            self.release()
            self.node.tell({"op": "exit", "id": self.number, "code": None})
            for stream in (1, 2):
                self.node.tell({"op": "end", "id": self.number, "s": stream})
        else:
            self.signal(signal.SIGTERM)


class Shared(Session):
    """One command over the connection of another ssh."""

    control: "Optional[Control]" = None
    opened = False
    theirs: Tuple[int, ...] = ()

    def __init__(
        self, node: "Node", number: int, room: int, connection: "Connection", text: bytes
    ) -> None:
        Session.__init__(self, node, number, room)
        self.connection = connection
        pipes: List[int] = []
        try:
            for _ in range(3):
                pipes += os.pipe()
        except OSError as exc:
            for descriptor in pipes:
                os.close(descriptor)
            self.refuse(str(exc)[:500])
            return
        self.theirs = (pipes[0], pipes[3], pipes[5])
        self.attach(pipes[1], pipes[2], pipes[4])
        connection.users.add(self)
        self.control = Control(node, connection.path, self.hear, self.lose)
        none = 0xFFFFFFFF
        request = pack(MUX_NEW_SESSION, 1, b"", 0, 0, 0, 0, none, b"", text)
        self.control.send(request, self.theirs)

    def look_outputs(self) -> None:
        # ssh closes the pipes of what it refuses before it says so, and that is no end of output.
        if self.opened or self.muted:
            Session.look_outputs(self)

    def look_input(self) -> None:
        # Nothing of the input is gone as long as it may be refused.
        if self.opened:
            Session.look_input(self)

    def begin(self) -> None:
        """Its ends of the pipes are with ssh, and what that does with them counts."""
        if not self.opened:
            self.opened = True
            self.close_theirs()
            self.look_outputs()
            self.look_input()

    def close_theirs(self) -> None:
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = ()

    def hear(self, kind: int, body: bytes) -> None:
        if kind == MUX_OPENED:
            self.node.tell({"op": "up", "id": self.number})
            self.begin()
        elif kind in (MUX_DENIED, MUX_FAILURE) and not self.opened:
            self.refuse(body[8:].decode("utf-8", "replace")[:500])
        elif kind == MUX_EXIT and len(body) >= 8:
            self.exit(struct.unpack(">I", body[4:8])[0])

    def exit(self, code: Optional[int]) -> None:
        self.begin()
        Session.exit(self, code)

    def look_over(self) -> None:
        Session.look_over(self)
        if self.exited and not self.outputs:
            self.connection.users.discard(self)

    def release(self) -> None:
        self.close_theirs()
        if self.control is not None:
            self.control.close()
        self.connection.users.discard(self)
        Session.release(self)

    def refuse(self, why: str) -> None:
        self.node.tell({"op": "no", "id": self.number, "why": why})
        self.release()

    def lose(self, why: str) -> None:
        """Hear no more of it from ssh. If it lives, the command has died of a signal: ssh tells of
        exit codes alone."""
        if self.control is not None and self.control.unsent:
            self.refuse(why[:500])
        elif not self.exited:
            self.node.probe(self.connection, self)

    def drop(self) -> None:
        if not self.exited:
            self.node.tell({"op": "exit", "id": self.number, "code": None})
        for stream in self.outputs:
            self.node.tell({"op": "end", "id": self.number, "s": stream})
        self.release()


class Node:
    """The program: frames in, frames out, and what runs meanwhile."""

    def __init__(self, fanout: int) -> None:
        self.fanout = fanout
        self.selector = selectors.DefaultSelector()
        # The outputs that may be read, apart: none is while the script, or the way to it, is slow.
        # Input and orders are taken all the same.
        self.sources = selectors.DefaultSelector()
        self.ready: "Deque[selectors.SelectorKey]" = deque()
        self.held_up = False
        self.timers: List[Tuple[float, int, Callable[[], None]]] = []
        self.timed = 0
        self.sessions: "Dict[int, Session]" = {}
        self.children: "Dict[int, Connection]" = {}
        self.waiting: "Deque[Connection]" = deque()
        self.connecting = 0
        self.files: Dict[str, str] = {}
        self.input = bytearray()
        self.output = bytearray()
        self.writing = False
        self.over = False
        self.left = False
        self.folder = tempfile.mkdtemp(prefix="%s%d-" % (FOLDER, os.getpid()))
        self.woken, waker = socket.socketpair()
        self.waker = waker
        for sock in (self.woken, waker):
            sock.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(waker.fileno())
        os.set_blocking(1, False)
        self.watch(0, self.read)
        self.watch(self.woken.fileno(), self.reap)
        self.watch(self.sources.fileno(), self.read_outputs)

    # -- descriptors

    def watch(
        self, descriptor: int, function: Callable[[], None], events: int = selectors.EVENT_READ
    ) -> None:
        self.selector.register(descriptor, events, function)

    def unwatch(self, descriptor: int) -> None:
        self.selector.unregister(descriptor)

    def watch_output(self, descriptor: int, function: Callable[[], None]) -> None:
        self.sources.register(descriptor, selectors.EVENT_READ, function)

    def unwatch_output(self, descriptor: int) -> None:
        self.sources.unregister(descriptor)

    def read_outputs(self) -> None:
        """Read in turn, as much as the script takes."""
        mapping = self.sources.get_map()
        if not self.ready:
            self.ready.extend(key for key, _ in self.sources.select(0))
        while self.ready and not self.held_up:
            key = self.ready.popleft()
            if mapping.get(key.fd) is key:
                key.data()

    def after(self, delay: float, function: Callable[[], None]) -> None:
        self.timed += 1
        heapq.heappush(self.timers, (time.monotonic() + delay, self.timed, function))

    def turn(self, patience: Optional[float] = None) -> None:
        """Wait for something, and do it."""
        if self.timers:
            rest = max(0.0, self.timers[0][0] - time.monotonic())
            patience = rest if patience is None else min(rest, patience)
        mapping = self.selector.get_map()
        for key, _ in self.selector.select(patience):
            # What was done for another one may have ended it, and its number may be reused.
            if mapping.get(key.fd) is key:
                key.data()
        while self.timers and self.timers[0][0] <= time.monotonic():
            heapq.heappop(self.timers)[2]()

    # -- to the script

    def tell(self, header: Dict[str, Any], payload: bytes = b"") -> None:
        if payload:
            header["n"] = len(payload)
        self.output += json.dumps(header).encode() + b"\n" + payload
        self.flush()

    def flush(self) -> None:
        try:
            while self.output:
                count = os.write(1, self.output[:PIECE])
                del self.output[:count]
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
        if (len(self.output) > BACKLOG) != self.held_up:
            self.held_up = not self.held_up
            if self.held_up:
                self.unwatch(self.sources.fileno())
            else:
                self.watch(self.sources.fileno(), self.read_outputs)

    # -- from the script

    def read(self) -> None:
        try:
            data = os.read(0, 4 * PIECE)
        except OSError as exc:
            if exc.errno in (errno.EAGAIN, errno.EINTR):
                return
            data = b""
        if not data:
            self.over = True
            self.unwatch(0)  # it would be ready for ever
            return
        self.input += data
        at = 0
        while not self.over:
            end = self.input.find(b"\n", at)
            if end < 0:
                break
            header = json.loads(self.input[at:end].decode())
            size = header.get("n", 0)
            if len(self.input) < end + 1 + size:
                break
            payload = bytes(self.input[end + 1 : end + 1 + size])
            at = end + 1 + size
            self.obey(header, payload)
        del self.input[:at]

    def obey(self, header: Dict[str, Any], payload: bytes) -> None:
        order = header["op"]
        if order == "in":
            for number in header["ids"]:
                session = self.sessions.get(number)
                if session is not None:
                    session.write(payload)
        elif order == "run":
            self.connect(header, payload)
        elif order == "open":
            self.open(header, payload)
        elif order == "ping":
            self.tell({"op": "pong"})
        elif order == "bye":
            self.over = self.left = True
        elif header["id"] in self.sessions:
            found = self.sessions[header["id"]]
            if order == "room":
                found.give_room(header["by"])
            else:
                {"eof": found.end_input, "mute": found.mute, "drop": found.drop}[order]()

    def connect(self, header: Dict[str, Any], payload: bytes) -> None:
        words = payload.decode("utf-8", "surrogateescape").split("\0")
        made = Connection(self, header["id"], header["room"], words, bool(header["shared"]))
        self.sessions[made.number] = made
        self.waiting.append(made)
        self.connect_more()

    def open(self, header: Dict[str, Any], payload: bytes) -> None:
        connection = self.sessions.get(header["on"])
        if isinstance(connection, Connection) and not connection.exited and connection.path:
            session = Shared(self, header["id"], header["room"], connection, payload)
            if not session.exited:
                self.sessions[session.number] = session
        else:
            self.tell({"op": "no", "id": header["id"], "why": "its connection has ended"})

    # -- ssh processes

    def file_words(self, words: List[str]) -> List[str]:
        """The words that have an ssh read a file of ours, where that saves much time."""
        options = words[: words.index("--")] if "--" in words else []
        if not options or any(word.startswith("-F") for word in options):
            return []
        if words[0] not in self.files:
            self.files[words[0]] = self.file_for(words[0])
        name = self.files[words[0]]
        return ["-F", name] if name else []

    def file_for(self, program: str) -> str:
        try:
            done = subprocess.run(
                [program, "-V"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=PROBE_WAIT,
                check=False,
            )
            found = re.match(rb"OpenSSH_(\d+)\.(\d+)", done.stdout)
            version = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
            if not SLOW_KEYS[0] <= version < SLOW_KEYS[1]:
                return ""
            name = os.path.join(self.folder, "config")
            with open(name, "w") as file:
                file.write(CONFIGURATION)
            return name
        except (OSError, ValueError, subprocess.SubprocessError):
            return ""

    def connect_more(self) -> None:
        """Start as many as may be connecting at a time."""
        while self.waiting and self.connecting < self.fanout and not self.over:
            self.connecting += 1
            self.waiting.popleft().start()

    def reap(self) -> None:
        try:
            while self.woken.recv(4096):
                pass
        except BlockingIOError:
            pass
        while self.children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except OSError:
                return
            if pid == 0:
                return
            connection = self.children.pop(pid, None)
            if connection is not None and connection.process is not None:
                connection.process.returncode = status
                connection.exit(status)

    def probe(self, connection: "Connection", session: "Session") -> None:
        """Ask an ssh whether it is there: if so, ``session`` has ended; if not, ssh is ended, and
        the script hears of that."""
        answers: List[int] = []
        control = Control(self, connection.path, lambda kind, body: hear(kind), lambda why: lose())

        def hear(kind: int) -> None:
            if kind == MUX_ALIVE:
                answers.append(kind)
                control.close()
                session.exit(None)

        def lose() -> None:
            if not answers:
                connection.signal(signal.SIGTERM)

        control.send(pack(MUX_ALIVE_CHECK, 1))

    # -- from the start to the end

    def run(self) -> None:
        try:
            while not self.over:
                self.turn()
        finally:
            self.end()

    def end(self) -> None:
        """End every ssh: at once if the script is lost, else when it has done what it was told."""
        self.over = True
        for session in list(self.sessions.values()):
            if isinstance(session, Connection) and session.process is not None:
                if self.left:
                    session.end_input()
                else:
                    session.signal(signal.SIGTERM)
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.wait_children()
            for connection in list(self.children.values()):
                connection.signal(number)
        self.wait_children()
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait_children(self) -> None:
        end = time.monotonic() + LAST_WAIT
        while self.children and time.monotonic() < end:
            try:
                self.turn(max(0.0, end - time.monotonic()))
            except OSError:
                self.reap()


def main(fanout: int) -> None:
    """Called by what has sent it, with how many ssh may be connecting at a time."""
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
    sweep()
    node = Node(fanout)
    signal.signal(signal.SIGTERM, lambda number, frame: leave(node))
    node.tell({"op": "hello", "version": VERSION, "python": list(sys.version_info[:3])})
    node.run()


def leave(node: "Node") -> None:
    """End it, as if the script were lost."""
    node.over = True


def sweep() -> None:
    """Remove the folders of those that were killed hard."""
    place = tempfile.gettempdir()
    for name in os.listdir(place):
        if name.startswith(FOLDER):
            path = os.path.join(place, name)
            pid = name[len(FOLDER) :].partition("-")[0]
            try:
                if os.stat(path).st_uid == os.getuid() and pid.isdigit():
                    os.kill(int(pid), 0)
            except ProcessLookupError:
                shutil.rmtree(path, ignore_errors=True)
            except OSError:
                pass
