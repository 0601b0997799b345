"""What processes print, on its way into the record's folder: held back for a moment, without
secrets, short ones for the line of the process's end, longer ones into files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from .masks import Masks
from .run import output_name

__all__ = ["STREAMS", "Noted", "Outputs"]

STREAMS = {1: "stdout", 2: "stderr"}

KEEP = 1.0
"""Seconds that output waits in memory for more."""

SHORT_OUTPUT = 256
"""Bytes of output that stand in the line of the process's end instead of a file of their own."""

BLOCK = 1 << 18
"""Bytes of output that are written before KEEP is over."""


class Noted:
    """A process that runs. ``sizes`` and ``full`` are the I/O thread's, the rest the writer's, save
    ``cut``, which both may set."""

    # Defaults of the class cost a process nothing until they change: most print little or nothing.
    sizes: list[int] | None = None
    cut = False
    full = False
    held: dict[int, bytearray] | None = None
    since = 0.0
    files: frozenset[int] = frozenset()

    def __init__(self, number: int, action: int | None) -> None:
        self.number = number
        self.action = action


class Outputs:
    """Belongs to the writer's thread.

    :param folder: the record's
    :param masks: what must not be in it
    :param fail: is told what could not be written
    """

    def __init__(self, folder: Path, masks: Masks, fail: Callable[[str], None]) -> None:
        self._folder = folder
        self._masks = masks
        self._fail = fail
        self._holding: dict[Noted, None] = {}  # in the order of their first piece

    @property
    def waiting(self) -> bool:
        """Whether something is held back."""
        return bool(self._holding)

    def add(self, noted: Noted, stream: int, data: bytes) -> None:
        """A piece of it."""
        if noted.held is None:
            noted.held = {}
        held = noted.held.setdefault(stream, bytearray())
        held += data
        if noted not in self._holding:
            noted.since = time.monotonic()
            self._holding[noted] = None
        if len(held) > BLOCK:
            self._spill(noted)

    def spill(self, now: float, *, all_of_it: bool) -> None:
        """Write what has been held back for long enough."""
        for noted in list(self._holding):
            if not all_of_it and now - noted.since < KEEP:
                break
            self._spill(noted, last=all_of_it)

    def ended(self, noted: Noted) -> dict[str, str]:
        """Nothing more comes: write the rest, save what is short; that is given back, by the names
        of the streams."""
        found = {}
        for stream, held in list((noted.held or {}).items()):
            if stream not in noted.files and len(held) <= SHORT_OUTPUT:
                with contextlib.suppress(UnicodeDecodeError):
                    found[STREAMS[stream]] = self._masks.data(bytes(held)).decode()
                    held.clear()
        self._spill(noted, last=True)
        return found

    def _spill(self, noted: Noted, *, last: bool = False) -> None:
        """Write what is held back of it into its files."""
        self._holding.pop(noted, None)
        outputs = noted.held or {}
        for stream, held in outputs.items():
            data = self._masks.data(bytes(held))
            # A secret may go on in the next piece.
            keep = 0 if last else min(len(data), max(0, self._masks.longest - 1))
            held[:] = data[len(data) - keep :]
            if len(data) > keep:
                self._append(noted, stream, data[: len(data) - keep])
        if not last and any(outputs.values()):
            noted.since = time.monotonic()
            self._holding[noted] = None

    def _append(self, noted: Noted, stream: int, data: bytes) -> None:
        path = self._folder / output_name(noted.number, STREAMS[stream])
        try:
            # Opened each time: a thousand that run shall not take a thousand descriptors.
            with path.open("ab", buffering=0) as file:
                if file.write(data) < len(data):
                    raise OSError(f"no space left for {path.name}")
        except OSError as exc:
            noted.cut = True
            self._fail(f"cannot write {path}: {exc}")
        else:
            noted.files |= {stream}
