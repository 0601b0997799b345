"""What a host says before a command of another user begins, in pieces of any size."""

from __future__ import annotations

import pytest

from execo.becoming.dialogue import LONGEST, Dialogue, Said
from execo.becoming.texts import Marks
from execo.transports.base import Become
from fuzzing import cheap

MARKS = Marks("ab12")
HELLO, BEGUN = b"execo-ab12-hello-a.", b"execo-ab12-begun."
METHODS = pytest.mark.parametrize("method", ["sudo", "su", "doas"])


def dialogue(method: str = "sudo") -> Dialogue:
    return Dialogue(Become("root", method, "secret"), MARKS)


@METHODS
@pytest.mark.parametrize("start", [b"", HELLO], ids=["before hello", "after hello"])
def test_a_host_that_talks_in_small_pieces_is_heard_quickly(method: str, start: bytes) -> None:
    # Each piece had all of it searched again, on the I/O thread: minutes for this megabyte.
    one = dialogue(method)
    one.take(1, start)
    one.take(2, start)
    said: list[Said] = []
    with cheap():
        for _ in range(LONGEST // 16 + 1):
            said += one.take(1, b" " * 16)
    assert said == [Said.TOO_MUCH]


@pytest.mark.parametrize("size", [1, 2, 7, 300, 5000])
def test_marks_may_be_cut_anywhere(size: int) -> None:
    one = dialogue()
    noise = b"n" * 3000
    prompt = MARKS.prompt.encode()
    first = noise + HELLO + noise + prompt
    second = noise + BEGUN + noise
    said: list[Said] = []
    said += one.take(2, HELLO)
    for at in range(0, len(first), size):
        said += one.take(1, first[at : at + size])
    assert said == [Said.HELLO, Said.PROMPT]
    one.answered()
    said = one.take(2, BEGUN)
    for at in range(0, len(second), size):
        said += one.take(1, second[at : at + size])
    assert said == [Said.BEGUN]
    assert one.early[1] == noise
    assert one.rest[1] == noise
    assert isinstance(one.rest[1], bytes)


def test_one_stream_may_be_far_ahead_of_the_other() -> None:
    one = dialogue()
    assert one.take(1, HELLO + BEGUN + b"o" * 5000) == []
    assert one.take(2, b"noise") == []
    assert one.take(2, HELLO) == [Said.HELLO]
    assert one.take(2, BEGUN) == [Said.BEGUN]
    assert one.rest == {1: b"o" * 5000, 2: b""}


def test_a_stream_that_closes_without_its_marks_is_not_waited_for() -> None:
    # It was what was missing: hello and begun were never told, and a prompt came before hello.
    one = dialogue()
    assert one.take(1, HELLO + MARKS.prompt.encode()) == []
    assert one.close(2) == [Said.HELLO, Said.PROMPT]
    one.answered()
    assert one.take(1, BEGUN + b"out") == [Said.BEGUN]
    assert one.rest[1] == b"out"
    other = dialogue()
    other.take(2, HELLO)
    assert other.take(1, HELLO) == [Said.HELLO]
    assert other.take(1, BEGUN + b"out") == []
    assert other.close(2) == [Said.BEGUN]
    assert other.rest[1] == b"out"
