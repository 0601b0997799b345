"""What taktuk prints for us: the templates that we give it, and the frames that they make.

Reference: taktuk(1), TakTuk 3.7.7, section "OUTPUT TEMPLATES". Every message becomes a frame whose
length is told before it, so that output is exact whatever bytes it holds::

    \\x01 KIND position pid length \\n payload \\n
"""

from __future__ import annotations

import enum
import re
from collections import deque
from dataclasses import dataclass

__all__ = ["ROOT", "Event", "Frame", "FrameParser", "Kind", "StateChange", "template_words"]

ROOT = "0"
"""The position of the taktuk that runs here."""

_LONGEST_PAYLOAD = 1 << 28
_LONGEST_HEADER = 256
_NOISE_LINES = 20
_NOISE_LENGTH = 1000


class Kind(enum.Enum):
    """What a frame tells of."""

    OUTPUT = b"O"
    ERROR = b"E"
    STATUS = b"X"
    STATE = b"S"
    CONNECTOR = b"C"
    TAKTUK = b"T"


class Event(enum.IntEnum):
    """The states that taktuk is asked to tell of, by its own numbers."""

    READY = 0
    NUMBERED = 1
    CONNECTION_FAILED = 3
    CONNECTED = 4
    CONNECTION_LOST = 5
    COMMAND_STARTED = 6
    COMMAND_FAILED = 7
    DELIVERED = 19


@dataclass(frozen=True, slots=True)
class Frame:
    """One message.

    :param kind: of which stream
    :param position: of the host that it comes from, as taktuk counts them; :data:`ROOT` is here
    :param pid: the process there that it is about
    :param payload: for OUTPUT and ERROR what was written; for STATUS a wait status; for STATE see
      :class:`StateChange`; for CONNECTOR the position of a host, a blank, a line; else a text
    """

    kind: Kind
    position: str
    pid: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class StateChange:
    """What the payload of a STATE frame says.

    :param event: what has happened
    :param rank: the number of the host that tells it, -1 before they are numbered
    :param peer: the position of the host that it is about, where that is another one
    :param given: for CONNECTION_LOST: the positions of the hosts that are lost with it
    """

    event: Event
    rank: int
    peer: str
    given: tuple[str, ...]

    @classmethod
    def parse(cls, payload: bytes) -> StateChange | None:
        """None if it cannot be one."""
        words = payload.decode("utf-8", "replace").split("|", 3)
        try:
            event, rank = Event(int(words[0])), int(words[1])
            # Each is host:position, and the name of a host may hold colons, too.
            given = tuple(one.rpartition(":")[2] for one in words[3].split())
            return cls(event, rank, words[2], given)
        except (ValueError, IndexError):
            return None


def _template(kind: Kind, text: str, pid: str = "$pid", position: str = "$position") -> str:
    header = f'"\\x01{kind.value.decode()} {position} {pid} ".length({text})."\\n"'
    return f'{header}.{text}."\\n"'


def template_words() -> list[str]:
    """The options that make taktuk write frames, all to stdout."""
    told = "||".join(f"$line=={event.value}" for event in Event)
    state = _template(Kind.STATE, '"$line|$rank|$peer_position|$peers_given"')
    templates = {
        "output": _template(Kind.OUTPUT, '"$line$eol"'),
        "error": _template(Kind.ERROR, '"$line$eol"'),
        "status": _template(Kind.STATUS, '"$line"'),
        "state": f"({told})?{state}:undef",  # undef prints nothing
        "connector": _template(Kind.CONNECTOR, '"$peer_position $line"'),
        "taktuk": _template(Kind.TAKTUK, '"$level_name: $host: $line"', "0", "0"),
    }
    words = [word for name, text in templates.items() for word in ("-o", f"{name}={text}")]
    # Between the others, not on stderr: in their order. The last word on it, whatever was said.
    return [*words, *(w for name in templates for w in ("-R", f"{name}=>&=1"))]


_HEADER = re.compile(rb"\x01([OEXSCT]) (\d+(?:\.\d+)*) (-?\d{1,12}) (\d{1,9})\n")


class FrameParser:
    """Cuts the stdout of taktuk into frames, as it comes. What is no frame is noise, kept for
    messages: taktuk explains its options there when it does not understand ours."""

    def __init__(self) -> None:
        self.noise: deque[str] = deque(maxlen=_NOISE_LINES)
        self._buffer = bytearray()
        self._needed = 0  # bytes without which the first frame is not complete

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        if len(buffer) < self._needed:
            return frames  # not looked at again: a long line comes in a thousand pieces
        self._needed = at = 0
        while at < len(buffer):
            # Within what is waited for: in pieces a longer one would be noise.
            header = _HEADER.match(buffer, at, at + _LONGEST_HEADER)
            if header is None:
                end = self._end_of_noise(at)
                if end is None:
                    break
                self._note(bytes(buffer[at:end]))
                at = end
                continue
            begin = header.end()
            end = begin + int(header[4])
            if end - begin > _LONGEST_PAYLOAD:
                self._note(header[0])
                at = begin
                continue
            if len(buffer) <= end:
                self._needed = end + 1 - at
                break
            kind, position = Kind(bytes(header[1])), header[2].decode()
            frames.append(Frame(kind, position, int(header[3]), bytes(buffer[begin:end])))
            at = end + 1 if buffer[end] == 0x0A else end
        del buffer[:at]
        return frames

    def _end_of_noise(self, at: int) -> int | None:
        """Where what is no frame ends; None if more has to come to know."""
        buffer = self._buffer
        end = buffer.find(b"\n", at, at + _LONGEST_HEADER)
        start = buffer.find(b"\x01", at + 1, at + _LONGEST_HEADER)
        if start >= 0 and not 0 <= end < start:
            return start
        if end >= 0:
            return end + 1
        return at + _LONGEST_HEADER if len(buffer) - at > _LONGEST_HEADER else None

    def _note(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip("\x01\r\n ")
        if text:
            self.noise.append(text[:_NOISE_LENGTH])
