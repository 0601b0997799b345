"""What a process has printed: bytes as they came, text when it is asked for.

Capturing is linear in the output. The I/O thread appends blocks; they are decoded once, by the
thread that first asks for the text.
"""

from __future__ import annotations

import codecs
from collections import deque

from ._core.locks import ForkSafeLock

__all__ = ["STDERR", "STDOUT", "Capture", "new_decoder"]

STDOUT = 1
"""The number of the standard output, in handlers and elsewhere."""

STDERR = 2
"""The number of the standard error output."""

# One lock for all captures: it is held while a text is put together, which the user's thread does.
_lock = ForkSafeLock()


def new_decoder() -> codecs.IncrementalDecoder:
    """A decoder for one stream: UTF-8, and what is not UTF-8 survives as surrogates (PEP 383)."""
    return codecs.getincrementaldecoder("utf-8")("surrogateescape")


class Capture:
    """The output of one stream.

    ``append`` and ``finish`` belong to the I/O thread, the rest to any thread.

    :param limit: bytes that are kept, the first ones; None = all. The rest is counted.
    """

    __slots__ = ("_decoder", "_finished", "_limit", "_new", "_size", "_text", "dropped")

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._size = 0
        self.dropped = 0
        # Blocks that are not decoded yet. A deque, since both sides work on it without a lock.
        self._new: deque[bytes] = deque()
        self._text = ""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._finished = False

    def append(self, data: bytes) -> None:
        """Keep ``data``, as far as the limit allows."""
        if self._limit is not None and self._size + len(data) > self._limit:
            room = self._limit - self._size
            self.dropped += len(data) - room
            data = data[:room]
        if data:
            self._size += len(data)
            self._new.append(data)

    def finish(self) -> None:
        """Nothing more will come: an incomplete character at the end is given up."""
        self._finished = True

    @property
    def text(self) -> str:
        """All of it so far. Decodes what came since the last call."""
        if not self._new and not (self._finished and self._decoder is not None):
            return self._text
        with _lock:
            finished = self._finished
            decoder = self._decoder or new_decoder()
            parts = [self._text] if self._text else []
            # Taken one by one, so that each block is freed as its text is made: at no time do
            # the bytes and the text of a large output both exist whole.
            while self._new:
                parts.append(decoder.decode(self._new.popleft()))
            if finished:
                parts.append(decoder.decode(b"", final=True))
                self._decoder = None
            else:
                self._decoder = decoder
            self._text = parts[0] if len(parts) == 1 else "".join(parts)
            return self._text

    @property
    def data(self) -> bytes:
        """All of it so far, as the process wrote it."""
        with _lock:
            if not self._text and self._decoder is None:
                return b"".join(self._new)
        text = self.text
        # Decoding with surrogateescape loses nothing, so the bytes need not be kept beside it.
        data = text.encode("utf-8", "surrogateescape")
        with _lock:
            if self._decoder is not None:
                data += self._decoder.getstate()[0]
        return data
