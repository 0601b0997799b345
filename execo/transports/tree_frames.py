"""What is said between this script and the program of a gateway, :mod:`~execo.transports.node`.

A frame is a line of JSON, an object, and after it as many raw bytes as its ``n`` says::

    {"op": "out", "id": 7, "s": 1, "n": 5}\\n hello

The first frame of a gateway is ``hello`` with its version; what comes before it on the stream
(login shells may print) is noise. What a gateway sends is not trusted: it is checked here, and what
cannot be is a :class:`FrameError`.
"""

from __future__ import annotations

import json
import pkgutil
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

__all__ = [
    "PIECE",
    "VERSION",
    "Frame",
    "FrameError",
    "FrameParser",
    "bootstrap_words",
    "frame",
    "input_frame",
    "program",
    "reading_words",
]

VERSION = 1
"""Of what is said here. The program of another one is refused."""

PIECE = 65536
"""Bytes of input in one frame at most."""

_LONGEST_HEADER = 4096
_LONGEST_PAYLOAD = 1 << 20
_LONGEST_NOISE = 1 << 18
_NOISE_LINES = 20
_NOISE_LENGTH = 500
_GREATEST = 1 << 53

_OPS = frozenset({"hello", "pong", "up", "no", "out", "end", "took", "stuck", "exit"})


class FrameError(ValueError):
    """A gateway has sent what cannot be."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a gateway says.

    :param op: what has happened
    :param id: the connection or session that it is about, -1 for none
    :param stream: 1 or 2, for ``out`` and ``end``
    :param count: for ``took`` the bytes, for ``hello`` the version
    :param code: for ``exit`` the exit code or status, None if it is not known
    :param why: for ``no``
    :param spawn: for ``no``: the program on the gateway could not be started
    :param payload: for ``out``
    """

    op: str
    id: int = -1
    stream: int = 0
    count: int = 0
    code: int | None = None
    why: str = ""
    spawn: bool = False
    payload: bytes = b""


def frame(op: str, payload: bytes = b"", **fields: object) -> bytes:
    """One frame for a gateway."""
    header: dict[str, object] = {"op": op, **fields}
    if payload:
        header["n"] = len(payload)
    return json.dumps(header).encode() + b"\n" + payload


class FrameParser:
    """Cuts what a gateway sends into frames, as it comes. ``noise`` is what came before."""

    def __init__(self) -> None:
        self.noise: deque[str] = deque(maxlen=_NOISE_LINES)
        self.greeted = False
        self._buffer = bytearray()
        self._needed = 0
        self._skipped = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now.

        :raises FrameError: for what cannot be one
        """
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        if len(buffer) < self._needed:
            return frames
        self._needed = at = 0
        while True:
            end = buffer.find(b"\n", at, at + _LONGEST_HEADER)
            if end < 0:
                if len(buffer) - at >= _LONGEST_HEADER:
                    at = self._skip(at)
                    continue
                break
            header = bytes(buffer[at:end])
            if not self.greeted and not header.startswith(b'{"op": "hello"'):
                self._note(header)
                at = end + 1
                continue
            read, size = _read(header)
            if self.greeted is (read.op == "hello"):
                raise FrameError(f"a frame out of turn: {header[:100]!r}")
            self.greeted = True
            after = end + 1 + size
            if len(buffer) < after:
                if read.op != "hello":
                    self._needed = after - at
                    break
                raise FrameError("a hello with bytes")
            if size:
                read = Frame(read.op, read.id, read.stream, payload=bytes(buffer[end + 1 : after]))
            frames.append(read)
            at = after
        del buffer[:at]
        return frames

    def _skip(self, at: int) -> int:
        """Pass over a long line that comes before the first frame."""
        if self.greeted:
            raise FrameError("a line without an end")
        self._note(bytes(self._buffer[at : at + _LONGEST_HEADER]))
        return at + _LONGEST_HEADER

    def _note(self, line: bytes) -> None:
        self._skipped += len(line) + 1
        if self._skipped > _LONGEST_NOISE:
            raise FrameError("no program of ours answers, but something else")
        text = line.decode("utf-8", "replace").strip()
        if text:
            self.noise.append(text[:_NOISE_LENGTH])


def _read(line: bytes) -> tuple[Frame, int]:
    """The frame that a header begins, and how many bytes belong to it."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise FrameError(f"not a frame: {line[:100]!r}") from exc
    if not isinstance(header, dict):
        raise FrameError(f"not a frame: {line[:100]!r}")
    op = header.get("op")
    if not isinstance(op, str) or op not in _OPS:
        raise FrameError(f"an unknown frame: {line[:100]!r}")
    size = _number(header, "n", 0, _LONGEST_PAYLOAD)
    if (op == "out") is not bool(size):
        raise FrameError(f"a frame with the wrong bytes: {line[:100]!r}")
    if op == "hello":
        return Frame(op, count=_number(header, "version", None)), size
    if op == "pong":
        return Frame(op), size
    number = _number(header, "id", None)
    if op in ("out", "end"):
        stream = _number(header, "s", None, 2)
        if stream < 1:
            raise FrameError(f"an unknown stream: {line[:100]!r}")
        return Frame(op, number, stream), size
    if op == "took":
        return Frame(op, number, count=_number(header, "by", None)), size
    if op == "exit":
        code = None if header.get("code") is None else _number(header, "code", None, 0xFFFF)
        return Frame(op, number, code=code), size
    why = header.get("why", "")
    if not isinstance(why, str):
        raise FrameError(f"not a text: {line[:100]!r}")
    return Frame(op, number, why=why[:_NOISE_LENGTH], spawn=header.get("spawn") is True), size


def _number(header: dict[str, object], key: str, default: int | None, most: int = _GREATEST) -> int:
    value = header.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise FrameError(f"{key} cannot be {str(value)[:50]!r}")
    return value


# -- the program ----------------------------------------------------------------------------------

# On one line, which every login shell can be given. Python 2 and what is before 3.6 understand it,
# too. Isolated (-I): the folder and the environment on the gateway add no modules.
_BOOTSTRAP = (
    "import os,sys;v=sys.version_info[:2];"
    'v<(3,6) and sys.exit("execo: python3 there is %%d.%%d, and has to be 3.6 or later"%%v);'
    "b=[];n=%d;exec("
    '"while n:\\n d=os.read(0,n)\\n if not d:sys.exit(0)\\n b.append(d)\\n n-=len(d)");'
    't=b"".join(b);g={"__name__":"execo_node"};exec(compile(t,"execo_node","exec"),g);'
    'g["TEXT"]=t;g["main"](%d)'
)


@cache
def program() -> bytes:
    """The text of the program."""
    data = pkgutil.get_data("execo.transports", "node.py")
    if data is None:
        raise FileNotFoundError("execo/transports/node.py, the program of gateways, is not there")
    return data


def bootstrap_words(fanout: int) -> tuple[str, ...]:
    """The command that reads the program from its stdin, and becomes it.

    :param fanout: how many hosts it may be connecting to at a time
    """
    return reading_words(program(), fanout)


def reading_words(text: bytes, number: int) -> tuple[str, ...]:
    """The command that reads a program from its stdin, and calls its ``main`` with a number. The
    program finds its own text as ``TEXT``."""
    return ("python3", "-I", "-S", "-c", _BOOTSTRAP % (len(text), number))


def input_frame(ids: Iterable[int], data: bytes) -> bytes:
    """Input for some sessions at once, which is sent once."""
    return frame("in", data, ids=list(ids))
