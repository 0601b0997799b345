"""What those who expect output read of it: piece by piece, the same text as all at once."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from execo.output import START, Capture, Place
from execo.reading import Recent

# Bytes as processes print them, and what is no UTF-8 at all.
PIECES = st.lists(
    st.one_of(
        st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.sampled_from([b"\xe2", b"\x82", b"\xac", b"\xf0\x9f", b"\x98\x80", b"\xff", b"\n"]),
        st.binary(max_size=8),
    ),
    max_size=12,
)
# Between the pieces: somebody reads so many bytes, or asks for the whole text (0).
STEPS = st.lists(st.integers(0, 9).filter(lambda n: n == 0 or n >= 4), max_size=4)


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def read_on(source: Capture | Recent, place: Place, most: int) -> tuple[str, Place]:
    """All that can be read after ``place``."""
    parts: list[str] = []
    while True:
        text, after, lost = source.read(place, most)
        assert lost == 0
        if after == place:
            return "".join(parts), place
        parts.append(text)
        place = after


@given(st.lists(st.tuples(PIECES, STEPS), max_size=5))
def test_a_capture_read_piece_by_piece_is_its_text(
    rounds: list[tuple[list[bytes], list[int]]],
) -> None:
    capture = Capture(None)
    place, text = START, ""
    for pieces, steps in rounds:
        for piece in pieces:
            capture.append(piece)
        for most in steps:
            if most:
                more, place, _ = capture.read(place, most)
                text += more
                # A place is the bytes and the characters before it.
                assert place == (len(text.encode("utf-8", "surrogateescape")), len(text))
            else:
                assert capture.text.startswith(text)
    capture.finish()
    rest, end = read_on(capture, place, 4)
    assert text + rest == capture.text == text_of(capture.data)
    assert end == (capture.size, len(capture.text))
    assert capture.tail(5) == (capture.text[-5:], end)


@given(PIECES, st.integers(1, 6))
def test_the_tail_of_a_capture_is_where_reading_goes_on(pieces: list[bytes], most: int) -> None:
    capture = Capture(None)
    cut = len(pieces) // 2
    for piece in pieces[:cut]:
        capture.append(piece)
    tail, place = capture.tail(most)
    assert tail == capture.text[-most:]
    before = capture.text
    for piece in pieces[cut:]:
        capture.append(piece)
    capture.finish()
    assert before + read_on(capture, place, 7)[0] == text_of(capture.data)


@given(st.lists(st.tuples(PIECES, STEPS), max_size=5))
def test_recent_output_read_piece_by_piece(rounds: list[tuple[list[bytes], list[int]]]) -> None:
    recent = Recent(0, 10_000)
    place, text, whole = START, "", b""
    for pieces, steps in rounds:
        for piece in pieces:
            recent.append(piece)
            whole += piece
        for most in steps:
            more, place, lost = recent.read(place, max(4, most))
            assert lost == 0
            text += more
    recent.finish()
    rest, end = read_on(recent, place, 4)
    assert text + rest == text_of(whole)
    assert end[0] == recent.size == len(whole)


@given(st.text(max_size=40), st.integers(1, 6), st.integers(0, 3))
def test_the_tail_of_recent_output(text: str, most: int, cut: int) -> None:
    whole = text.encode("utf-8", "surrogatepass")
    whole = text_of(whole).encode("utf-8", "surrogateescape")
    recent = Recent(100, 10_000)
    recent.append(whole[: len(whole) - cut])
    tail, place = recent.tail(most)
    # What begins in the middle of a character is read when the rest of it has come.
    recent.append(whole[len(whole) - cut :])
    recent.finish()
    rest, end = read_on(recent, place, 5)
    assert text_of(whole).endswith(tail + rest)
    assert end[0] == 100 + len(whole)


def test_recent_output_forgets_the_oldest_and_says_so() -> None:
    recent = Recent(0, 10)
    for number in range(10):
        recent.append(b"%09d\n" % number)
    assert recent.size == 100
    assert recent.first >= 80
    text, place, lost = recent.read(START, 1000)
    assert lost == recent.first
    assert text.endswith("000000009\n")
    assert place[0] == 100
    assert recent.read(place, 10)[0] == ""


def test_places_agree_while_another_thread_decodes() -> None:
    capture = Capture(None)
    stop = threading.Event()

    def decode() -> None:
        while not stop.is_set():
            assert len(capture.text) <= capture.size

    thread = threading.Thread(target=decode)
    thread.start()
    try:
        place, text = START, ""
        for number in range(5000):
            capture.append(f"é{number}€\n".encode())
            tail, end = capture.tail(3)
            assert tail == "".join(f"é{number}€\n"[-3:])
            assert end[0] == capture.size
            more, place, _ = capture.read(place, 8)
            text += more
    finally:
        stop.set()
        thread.join()
    capture.finish()
    assert text + read_on(capture, place, 100)[0] == capture.text
