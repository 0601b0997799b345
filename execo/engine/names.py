"""Names for files and folders out of anything."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from .combination import encode

__all__ = ["folder_name", "slugify"]

LONGEST = 60
"""Characters of a folder's name before its digest: it stands in commands, too."""


def slugify(value: Any, separator: str = "-") -> str:
    """A text that can be the name of a file: lower case ASCII letters, digits, ``_ . -``. (execo
    2.8.2, which drops the dot: 1.5 and 15 would share a file)

    ``"A b/c: é(1)"`` gives ``a-bc-e1``, ``{"a": 1, "b": "x y"}`` gives ``a-1-b-x-y``. Different
    values may give the same. Never empty, and never ``.`` or ``..``: what has no such character
    gives a digest of it. Pure.

    :param value: a text; a dict or another iterable is joined; of anything else, its text
    :param separator: stands for blanks and between the parts
    """
    text = unicodedata.normalize("NFKD", " ".join(_words(value)))
    kept = re.sub(r"[^\w\s.-]", "", text.encode("ascii", "ignore").decode()).lower()
    # A name that begins with a dot is hidden, one with a hyphen looks like an option.
    words = [word for word in re.split(r"[\s-]+", kept.strip(" .-")) if word]
    if not words:
        return hashlib.sha256(repr(value).encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return separator.join(words)


def _words(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _words(pair)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for one in value:
            yield from _words(one)
    else:
        yield str(value)


def folder_name(combination: Mapping[Any, Any]) -> str:
    """A name that no other combination has: readable, with a digest at its end. Pure, and the same
    in whatever order the factors are."""
    text = str(sorted(encode(pair) for pair in combination.items()))
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{slugify(combination)[:LONGEST].rstrip('.-')}-{digest}"
