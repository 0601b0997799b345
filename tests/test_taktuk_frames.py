"""The frames that taktuk prints for us, cut out of its stdout however it comes."""

from __future__ import annotations

import random
import shutil
import subprocess
import time

import pytest

from execo.transports.taktuk_frames import (
    Event,
    Frame,
    FrameParser,
    Kind,
    StateChange,
    template_words,
)


def frame(kind: str, payload: bytes, position: str = "1", pid: int = 7) -> bytes:
    return b"\x01%s %s %d %d\n%s\n" % (
        kind.encode(),
        position.encode(),
        pid,
        len(payload),
        payload,
    )


def test_a_frame_is_exact() -> None:
    payload = b"a\n\0\xff\x01O 1 7 3\n"
    parser = FrameParser()
    assert parser.feed(frame("O", payload, "3.12", 4711)) == [
        Frame(Kind.OUTPUT, "3.12", 4711, payload)
    ]
    assert list(parser.noise) == []


def test_frames_may_come_in_any_pieces() -> None:
    data = frame("O", b"hello\n") + frame("X", b"768") + frame("E", b"") + frame("O", b"\n\n")
    expected = FrameParser().feed(data)
    assert [one.kind.value for one in expected] == [b"O", b"X", b"E", b"O"]
    for size in range(1, len(data)):
        parser = FrameParser()
        found = [
            one for at in range(0, len(data), size) for one in parser.feed(data[at : at + size])
        ]
        assert found == expected


def test_what_is_no_frame_is_kept_as_noise() -> None:
    parser = FrameParser()
    data = b"Usage :\ntaktuk [ options ]\n" + frame("X", b"0") + b"\x01X 1 nonsense\nbye\n"
    assert [one.payload for one in parser.feed(data)] == [b"0"]
    assert list(parser.noise) == ["Usage :", "taktuk [ options ]", "X 1 nonsense", "bye"]


def test_noise_in_front_of_a_frame_does_not_hide_it() -> None:
    parser = FrameParser()
    assert parser.feed(b"no end of line" + frame("X", b"0")) == [Frame(Kind.STATUS, "1", 7, b"0")]
    assert list(parser.noise) == ["no end of line"]


def test_noise_without_an_end_takes_no_memory() -> None:
    parser = FrameParser()
    for _ in range(1000):
        assert parser.feed(b"x" * 10_000) == []
    assert len(parser._buffer) < 20_000
    assert sum(map(len, parser.noise)) < 20_000
    assert parser.feed(b"\n" + frame("X", b"0"))


def test_a_length_that_cannot_be_is_noise() -> None:
    parser = FrameParser()
    assert parser.feed(b"\x01O 1 7 999999999\n" + frame("X", b"0")) != []


def test_a_long_payload_in_small_pieces_is_linear() -> None:
    # Of the same number of pieces, those of one long line and those of short lines.
    def seconds(data: bytes) -> float:
        parser = FrameParser()
        begin = time.process_time()
        for at in range(0, len(data), 100):
            parser.feed(data[at : at + 100])
        return time.process_time() - begin

    short = seconds(frame("O", b"x" * 80) * 40_000)
    long = seconds(frame("O", b"x" * (40_000 * 100)))
    assert long < 5 * short + 0.5


@pytest.mark.parametrize("seed", range(200))
def test_anything_between_frames_is_survived(seed: int) -> None:
    chance = random.Random(seed)
    alphabet = [b"\x01", b"O", b" ", b"1", b"9", b"\n", b"-", b"\xff", b"\x01O 1 1 5\n", b"abc\n"]
    parts, wanted = [], []
    for number in range(chance.randrange(1, 30)):
        # Noise that ends with a line feed, and cannot swallow what follows.
        noise = b"".join(chance.choices([one for one in alphabet if b"\x01" not in one], k=9))
        payload = b"".join(chance.choices(alphabet, k=chance.randrange(20))) + b"%d" % number
        parts += [noise + b"\n", frame("O", payload)]
        wanted.append(payload)
    data = b"".join(parts)
    parser, found = FrameParser(), []
    while data:
        cut = chance.randrange(1, 40)
        found += parser.feed(data[:cut])
        data = data[cut:]
    assert [one.payload for one in found] == wanted


@pytest.mark.parametrize("seed", range(200))
def test_pure_garbage_is_survived(seed: int) -> None:
    chance = random.Random(seed)
    parser = FrameParser()
    pieces = [
        b"\x01",
        b"O 1 1 ",
        b"3\n",
        b"\n",
        b"\x01S 0 1 4\n0|-1",
        bytes([chance.randrange(256)]),
    ]
    for _ in range(100):
        for one in parser.feed(b"".join(chance.choices(pieces, k=chance.randrange(10)))):
            StateChange.parse(one.payload)
    assert len(parser._buffer) < 10_000


def test_what_a_change_of_state_says() -> None:
    assert StateChange.parse(b"6|-1||") == StateChange(Event.COMMAND_STARTED, -1, "", ())
    assert StateChange.parse(b"1|12||") == StateChange(Event.NUMBERED, 12, "", ())
    assert StateChange.parse(b"5|0|2|web1:3 ::1:4.1 ") == StateChange(
        Event.CONNECTION_LOST, 0, "2", ("3", "4.1")
    )
    for nonsense in (b"", b"x", b"6", b"6|x||", b"99|1||", b"6|1", b"\xff|\xff"):
        assert StateChange.parse(nonsense) is None


def test_taktuk_itself_prints_them() -> None:
    if shutil.which("taktuk") is None:
        pytest.skip("needs taktuk, see tests/install-servers")
    script = r"printf 'a\000\377\r\nb'; echo e >&2; exit 3"
    done = subprocess.run(
        ["taktuk", *template_words(), "exec", "[", script, "]"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    parser = FrameParser()
    frames = parser.feed(done.stdout)
    found: dict[Kind, bytes] = {}
    for one in frames:
        assert one.position == "0"
        found[one.kind] = found.get(one.kind, b"") + one.payload
    assert (found[Kind.OUTPUT], found[Kind.ERROR]) == (b"a\0\xff\r\nb", b"e\n")
    assert found[Kind.STATUS] == b"768"
    assert (list(parser.noise), done.stderr) == ([], b"")
    states = [StateChange.parse(one.payload) for one in frames if one.kind is Kind.STATE]
    assert Event.COMMAND_STARTED in [state.event for state in states if state is not None]
