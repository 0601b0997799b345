"""What tests with made-up input share: valid input that was damaged, and limits of what it costs.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rounds import ROUNDS

__all__ = ["CPU", "cheap", "damaged", "examples", "no_internal_error", "pieces", "unlucky_numbers"]

CPU = 20.0
"""Seconds of computing that what should take milliseconds may take: a hang, not a speed."""

Text = TypeVar("Text", str, bytes)


def examples(count: int) -> Callable[[Any], Any]:
    """So many examples, times ``EXECO_ROUNDS``."""
    return settings(
        max_examples=count * ROUNDS,
        # A folder for all examples of a test does.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@contextlib.contextmanager
def cheap(seconds: float = CPU) -> Iterator[None]:
    """Fails if what is inside computes for longer: time of this process, however busy the machine
    is. In the main thread."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it computes for more than {seconds:g} s")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class _Errors(logging.Handler):
    """What execo's threads have raised and nobody expected."""

    def __init__(self) -> None:
        super().__init__()
        self.raised: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.raised.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


@contextlib.contextmanager
def no_internal_error() -> Iterator[None]:
    """Nothing on the threads of execo has raised what nobody expected."""
    errors = _Errors()
    logger = logging.getLogger("execo")
    logger.addHandler(errors)
    try:
        yield
    finally:
        logger.removeHandler(errors)
    assert not errors.raised, "\n".join(errors.raised)


NUMBERS = ["0", "-1", "1e999", "nan", "4294967296", "9223372036854775808", "9" * 5000, "٣", "1_0"]
unlucky_numbers = st.sampled_from(NUMBERS)
"""Numbers that programs trip over, as texts."""

_MARKS = [
    "",
    " ",
    "\n",
    "\r",
    "\t",
    "\0",
    "\x01",
    "\x1b",
    "\x7f",
    "é",
    "\u2028",
    ":",
    "=",
    ",",
    "%",
]
_MARKS += ["'", '"', "\\", "{{", "}}", "{", "}", "<<", "[", "]", "(", ")", "|", "*", "?", "!", "$("]
_MARKS += ["`", "#", "@", "-", "~", "/", "..", "{{canary()}}", "a" * 300, " " * 3000]


def damaged(valid: st.SearchStrategy[Text], words: Sequence[Text] = ()) -> st.SearchStrategy[Text]:
    """What ``valid`` gives, with up to five pieces of it cut, doubled, moved, or replaced.

    :param words: of the language at hand, beside those that trouble every language
    """
    return st.builds(_damage, valid, st.lists(_steps(words), max_size=5))


def _steps(words: Sequence[Any]) -> st.SearchStrategy[tuple[float, float, str, Any]]:
    share = st.floats(0, 1, exclude_max=True)
    word = st.sampled_from([*words, *_MARKS]) | unlucky_numbers
    if words and isinstance(words[0], bytes):
        word = word.map(_encoded) | st.binary(max_size=8)
    return st.tuples(share, share, st.sampled_from(["cut", "double", "put", "swap", "end"]), word)


def _encoded(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


def _damage(text: Any, steps: list[tuple[float, float, str, Any]]) -> Any:
    for place, share, kind, word in steps:
        if isinstance(text, bytes):
            word = _encoded(word)
        begin = int(place * (len(text) + 1))
        end = begin + 1 + int(share * share * (len(text) - begin))
        before, middle, after = text[:begin], text[begin:end], text[end:]
        if kind == "cut":
            text = before + after
        elif kind == "double":
            text = before + middle + middle + after
        elif kind == "put":
            text = before + word + middle + after
        elif kind == "swap":
            text = before + word + after
        else:
            text = before
    return text


def pieces(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """``data`` in pieces of these sizes, over and over."""
    at = turn = 0
    while at < len(data):
        size = max(1, cuts[turn % len(cuts)]) if cuts else len(data)
        yield data[at : at + size]
        at, turn = at + size, turn + 1
