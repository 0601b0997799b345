"""What a process has printed: bytes as they came, text when it is asked for.

Capturing is linear in the output. The I/O thread appends blocks; they are decoded once, by the
thread that first asks for the text.
"""

from __future__ import annotations

import codecs

from ._core.locks import new_lock

__all__ = ["START", "STDERR", "STDOUT", "Capture", "Place", "new_decoder"]

STDOUT = 1
"""The number of the standard output, in handlers and elsewhere."""

STDERR = 2
"""The number of the standard error output."""

Place = tuple[int, int]
"""A place in an output: the bytes and the characters before it."""

START: Place = (0, 0)

# One lock for all captures: it is held while a text is put together, which the user's thread does.
_lock = new_lock()


def new_decoder() -> codecs.IncrementalDecoder:
    """A decoder for one stream: UTF-8, and what is not UTF-8 survives as surrogates (PEP 383)."""
    return codecs.getincrementaldecoder("utf-8")("surrogateescape")


class Capture:
    """The output of one stream.

    ``append`` and ``finish`` belong to the I/O thread, the rest to any thread.

    :param limit: bytes that are kept, the first ones; None = all. The rest is counted.
    """

    __slots__ = ("_decoded", "_finished", "_limit", "_new", "_text", "dropped", "size")
    first = 0
    """The first byte that is kept."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.size = 0
        self.dropped = 0
        self._decoded = 0  # bytes of it that are in the text
        # What is not decoded yet. One array, not a list of blocks: a large one grows by moving
        # its pages, so that each byte costs one page of fresh memory here and one in the text.
        # Appending, decoding and deleting are single steps under the interpreter's lock.
        self._new = bytearray()
        self._text = ""
        self._finished = False

    def append(self, data: bytes) -> None:
        """Keep ``data``, as far as the limit allows.

        :raises MemoryError: if there is no memory for it: from then on nothing more is kept
        """
        if self._limit is not None and self.size + len(data) > self._limit:
            room = self._limit - self.size
            self.dropped += len(data) - room
            data = data[:room]
        if not data:
            return
        try:
            self._new += data
        except MemoryError:
            # What is kept stays a beginning without holes; the rest is counted.
            self._limit = self.size
            self.dropped += len(data)
            raise
        self.size += len(data)

    def finish(self) -> None:
        """Nothing more will come: an incomplete character at the end is given up."""
        self._finished = True

    @property
    def text(self) -> str:
        """All of it so far. Decodes what came since the last call."""
        if self._new:
            with _lock:
                self._decode()
        return self._text

    @property
    def data(self) -> bytes:
        """All of it so far, as the process wrote it."""
        with _lock:
            # Decoding with surrogateescape loses nothing, so the bytes need not be kept beside it.
            return self._text.encode("utf-8", "surrogateescape") + self._new

    def tail(self, most: int) -> tuple[str, Place]:
        """The last characters so far, at most ``most``, and the place after them."""
        with _lock:
            self._decode()
            return self._text[-most:], (self._decoded, len(self._text))

    def read(self, place: Place, most: int) -> tuple[str, Place, int]:
        """What comes after ``place``, at most ``most`` bytes or characters of it; the place after
        that; and how many bytes in front of it are lost: none.

        For those who read piece by piece: it costs what it gives.

        :param most: at least 4, the bytes of the longest character
        """
        size, length = place
        with _lock:
            if length < len(self._text):
                text = self._text[length : length + most]
                used = len(text if text.isascii() else text.encode("utf-8", "surrogateescape"))
            else:
                begin = size - self._decoded
                piece = self._new[begin : begin + most]
                whole = self._finished and begin + len(piece) == len(self._new)
                text, used = codecs.utf_8_decode(piece, "surrogateescape", whole)
        return text, (size + used, length + len(text)), 0

    def _decode(self) -> None:
        # An incremental decoder would copy all of it first, into more fresh memory.
        text, used = codecs.utf_8_decode(self._new, "surrogateescape", self._finished)
        # What may fail for want of memory comes before anything is changed.
        whole = self._text + text if self._text else text
        del self._new[:used]
        self._decoded += used
        self._text = whole
