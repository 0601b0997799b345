"""Secrets that must stand in no record: those that are known are put out of every text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["MASK", "Masks", "is_secret_name", "masked_arguments"]

MASK = "***"

SHORTEST = 4
"""Characters. What is shorter stands in any text by chance."""

_SECRET_NAME = re.compile(
    r"passw|passphrase|secret|token|credential|authorization|api_?key|access_?key|private_?key",
    re.IGNORECASE,
)
_PARAMS = ("password", "passphrase", "become_password")


def is_secret_name(name: str) -> bool:
    """Whether what has this name is probably nobody else's business."""
    return _SECRET_NAME.search(name) is not None


class Masks:
    """The secrets that are known so far. One thread adds; texts may be masked by any."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self._words: frozenset[str] = frozenset()
        self._text: re.Pattern[str] | None = None
        self._bytes: re.Pattern[bytes] | None = None
        self.longest = 0
        """Bytes of the longest."""
        self.add(words)

    def add(self, words: Iterable[Any]) -> None:
        """More of them. What is no text is passed over: a function that would be asked."""
        new = {str(word) for word in words if isinstance(word, str) and len(word) >= SHORTEST}
        if new <= self._words:
            return
        self._words |= new
        # The longest first: one may begin as another does.
        ordered = sorted(self._words, key=len, reverse=True)
        coded = [word.encode("utf-8", "surrogateescape") for word in ordered]
        self._text = re.compile("|".join(map(re.escape, ordered)))
        self._bytes = re.compile(b"|".join(map(re.escape, coded)))
        self.longest = max(map(len, coded))

    def add_of(self, process: Any) -> None:
        """Those that a process was given."""
        secret_env = getattr(process, "secret_env", None)
        if secret_env:
            self.add(secret_env.values())
        params = getattr(process, "_params", None)
        if params:
            self.add_params(params)

    def add_params(self, params: Mapping[str, Any]) -> None:
        """Those among connection parameters."""
        found = [word for name in _PARAMS if (word := params.get(name)) is not None]
        if found:
            self.add(found)

    def text(self, text: str) -> str:
        """The text without them."""
        return text if self._text is None else self._text.sub(MASK, text)

    def data(self, data: bytes) -> bytes:
        """The same of bytes."""
        return data if self._bytes is None else self._bytes.sub(MASK.encode(), data)


def masked_arguments(words: Iterable[str], masks: Masks) -> list[str]:
    """The words of a command line without secrets: those that are known, and what follows an
    option whose name says so."""
    shown: list[str] = []
    hide = False
    for word in words:
        name, equals, _ = word.partition("=")
        if hide and not word.startswith("-"):
            shown.append(MASK)
            hide = False
        elif equals and is_secret_name(name):
            shown.append(f"{masks.text(name)}={MASK}")
            hide = False
        else:
            shown.append(masks.text(word))
            hide = word.startswith("-") and is_secret_name(word)
    return shown
