"""Waiting for what one process prints: what is found, from where on, and what ends the wait."""

from __future__ import annotations

import datetime
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import execo.reading
import execo.search
from execo import STDERR, Process, Reason, transports
from execo.testing import Eof, Err, Gate, Out, Script, scripts

LONG = 20
"""Seconds: a hang, not a speed."""


class Fake(Process):
    """Follows a script."""

    transport = "fake"


@pytest.fixture(autouse=True, scope="module")
def fake() -> Iterator[None]:
    transports.register("fake", "execo.testing.fake:FakeTransport")
    yield
    scripts.clear()


def play(*events: Any, **options: Any) -> tuple[Fake, Script]:
    script = scripts["play"] = Script(*events, signals=options.pop("signals", None))
    process = Fake("play", nolog_expect_fail=True, **options).start()
    return process, script


def gated(pieces: list[bytes], **options: Any) -> tuple[Fake, Script]:
    """Each step prints a piece."""
    events = [event for piece in pieces for event in (Gate(), Out(piece))]
    return play(*events, Gate(), **options)


def found(result: tuple[int | None, re.Match[str] | None]) -> str | None:
    return None if result[1] is None else result[1][0]


def printed(text: str, **options: Any) -> Process:
    """A process that has printed it, and ended."""
    return Process(["printf", "%s", text], nolog_expect_fail=True, **options).run()


# -- what is found ----------------------------------------------------------------------------


def test_a_dialogue() -> None:
    ask = 'printf "name? "; read name; echo "hello $name"; printf "age? "; read age; echo "$age!"'
    with Process(ask, shell=True).start() as p:
        assert p.expect(r"name\? ", LONG)[0] == 0
        p.write("Ada\n")
        index, match = p.expect([r"go away", r"hello (\w+)\n"], LONG)
        assert (index, match and match[1]) == (1, "Ada")
        p.expect(r"age\? ", LONG)
        p.write("36\n")
        assert found(p.expect(r"\d+!", LONG)) == "36!"
        p.wait(LONG)
    assert p.ok
    assert not p.expect_fail


def test_patterns_are_texts_or_compiled_in_any_collection() -> None:
    p = printed("one TWO three\n")
    assert found(p.expect("one")) == "one"
    assert found(p.expect(re.compile("two", re.IGNORECASE))) == "TWO"
    patterns: list[str | re.Pattern[str]] = ["nothing", re.compile("three")]
    assert p.expect(patterns)[0] == 1
    assert patterns == ["nothing", re.compile("three")]
    assert printed("b").expect(("a", "b"))[0] == 1


def test_of_several_patterns_the_first_in_the_output_wins() -> None:
    p = printed("error: no; ready")
    assert p.expect(["ready", "error"])[0] == 1
    assert p.expect(["ready", "error"])[0] == 0


def test_of_two_that_begin_together_the_first_in_the_list_wins() -> None:
    assert printed("abc").expect(["abc", "ab"])[0] == 0
    assert printed("abc").expect(["ab", "abc"])[0] == 0


def test_the_next_call_goes_on_after_the_last_match() -> None:
    p = printed("1 2 3")
    assert [found(p.expect(r"\d")) for _ in range(4)] == ["1", "2", "3", None]
    assert found(p.expect(" 3")) is None  # it was a match, and is over
    assert p.expect_fail


def test_what_was_not_found_is_still_there_for_others() -> None:
    p = printed("alpha beta")
    assert found(p.expect("gamma")) is None
    assert found(p.expect("alpha")) == "alpha"


def test_lines_and_words_after_a_match() -> None:
    p = printed("first\nsecond third")
    assert found(p.expect("fir")) == "fir"
    assert found(p.expect("^st")) is None  # in the middle of a line
    assert found(p.expect(r"\bst")) is None  # and of a word
    assert found(p.expect("st$")) == "st"
    assert found(p.expect("^$")) is None  # nor is there an empty line
    assert found(p.expect("^second")) == "second"
    assert found(p.expect("(?<=nd )third")) == "third"


def test_the_beginning_of_all_output_is_no_other_place() -> None:
    p = printed("a\na\n")
    start = re.compile(r"\Aa\n")
    assert found(p.expect(start)) == "a\n"
    assert found(p.expect(start)) is None


def test_lookbehind_sees_what_was_matched_before() -> None:
    p = printed("login: password: ")
    assert found(p.expect("login: ")) == "login: "
    assert found(p.expect("(?<=login: )password")) == "password"


def test_stderr_has_places_of_its_own() -> None:
    p = Process("echo out; echo err >&2", shell=True, nolog_expect_fail=True).run()
    assert found(p.expect("err", stream=STDERR)) == "err"
    assert found(p.expect("out")) == "out"
    assert found(p.expect("out", stream=STDERR)) is None


def test_the_last_characters_without_a_line_end() -> None:
    assert found(printed("the end").expect("end")) == "end"


def test_bytes_that_are_no_text() -> None:
    p = Process(r"printf 'a\377b\303'", shell=True).run()
    assert found(p.expect("a\udcffb\udcc3")) == "a\udcffb\udcc3"


def test_a_terminal() -> None:
    ask = 'printf "name? "; read name; echo "<$name>"'
    with Process(ask, shell=True, pty=True).start() as p:
        assert found(p.expect(r"name\? ", LONG)) == "name? "
        p.write("Ada\n")
        assert found(p.expect("<(.*)>\r\n", LONG)) == "<Ada>\r\n"
        p.wait(LONG)


def test_a_shell_that_is_talked_to() -> None:
    with Process(["sh", "-i"], pty=True, env={"PS1": "ready> "}).start() as p:
        for number in range(5):
            assert p.expect("ready> ", LONG, stream=STDERR)[0] == 0
            p.write(f"expr {number} + {number}\n")
            index, match = p.expect(r"^(\d+)\r\n", LONG)
            assert index == 0
            assert match
            assert match[1] == str(2 * number)
        p.write("exit 3\n")
        assert p.wait(LONG).exit_code == 3


# -- pieces -----------------------------------------------------------------------------------


def test_a_match_that_comes_in_pieces() -> None:
    p, script = gated([b"re", b"a", b"dy on port 80", b"80\n"])
    for _ in range(3):
        script.step()
        assert p.expect(r"ready on port (\d+)\n", 0) == (None, None)
    script.step()
    index, match = p.expect(r"ready on port (\d+)\n", 0)
    assert index == 0
    assert match
    assert match[1] == "8080"
    p.kill().wait()


def test_characters_that_come_in_pieces() -> None:
    euro = "€".encode()
    p, script = gated([euro[:1], euro[1:2], euro[2:] + b"\xff"])
    script.step()
    script.step()
    assert p.expect(".", 0) == (None, None)
    script.step()
    assert found(p.expect(".", 0)) == "€"
    assert found(p.expect(".", 0)) == "\udcff"
    p.kill().wait()


WORDS = st.lists(
    st.one_of(
        st.from_regex(r"<[a-zé]{0,9}>", fullmatch=True),
        st.sampled_from([" ", "<", ">", "é", "€\n", "\N{GRINNING FACE}", "a" * 30, "\udcff"]),
    ),
    max_size=20,
)


@settings(max_examples=60)
@given(WORDS, st.data())
def test_wherever_the_pieces_are_cut_the_same_is_found(words: list[str], data: Any) -> None:
    text = "".join(words)
    whole = text.encode("utf-8", "surrogateescape")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    # A match is at most 11 characters; so is the window.
    p, script = gated(pieces)
    seen = []
    for _ in pieces:
        script.step()
        while match := p.expect(r"(?<!a)<[a-zé]*>", 0, window=11)[1]:
            seen.append(match[0])
    p.kill().wait()
    assert seen == re.findall(r"(?<!a)<[a-zé]*>", text)


@settings(max_examples=60)
@given(WORDS, st.integers(4, 20), st.booleans())
def test_however_it_is_read_the_same_is_found(words: list[str], piece: int, kept: bool) -> None:
    text = "".join(words)
    whole = text.encode("utf-8", "surrogateescape")
    patch = pytest.MonkeyPatch()
    with patch.context() as small:
        small.setattr(execo.search, "_FIRST_PIECE", 4)
        small.setattr(execo.search, "_LARGEST_PIECE", piece)
        p, script = play(Gate(), Out(whole), default_stdout_handler=kept)
        p.expect("nothing so far", 0)
        script.step()
        if kept and piece % 2:
            assert p.stdout == text
        seen = []
        while match := p.expect(r"^<[a-zé]*>|<[a-zé]*>$", LONG, window=11)[1]:
            seen.append(match[0])
    assert seen == re.findall(r"^<[a-zé]*>|<[a-zé]*>$", text, re.MULTILINE)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("length", [4090, 4093, 4096, 65530, 65533, 65536])
def test_what_has_come_is_searched_as_one_text(length: int, kept: bool) -> None:
    before = "x" * length
    for pattern, text, expected in (
        (r"\d+", "12345 more", "12345"),
        (r"^x+$|end", "x\nend", before + "x"),
        (r"foo(?!bar)|b\w+", "foobar.", "bar"),
        (r"\w\Z|=", "yyy=", "="),
    ):
        p, script = play(Gate(), Out((before + text).encode()), default_stdout_handler=kept)
        p.expect("nothing so far", 0)
        script.step()
        assert found(p.expect(pattern, LONG)) == expected


def test_the_first_in_the_output_counts_however_long_it_is() -> None:
    p = printed("BEGIN\nfoo\n" + "x" * 60000 + "END\n")
    index, match = p.expect(["foo", r"BEGIN[\s\S]*?END"], LONG)
    assert (index, match and len(match[0])) == (1, 60013)
    assert found(p.expect(r"\n", 0)) == "\n"  # and on from its end
    assert p.expect(r"[\s\S]", 0) == (None, None)


def test_matches_of_one_text_share_it() -> None:
    p = printed("x" * 100 + "word " * 10000)
    matches = [p.expect(r"\w+ ", 0)[1] for _ in range(10000)]
    texts = {id(match.string): match.string for match in matches if match is not None}
    assert sum(map(len, texts.values())) < 500_000
    assert found(p.expect(r"\w+", 0)) is None


def test_a_match_begins_within_the_window() -> None:
    p, script = gated([b"[" + b"x" * 50, b"x" * 50, b"]"])
    for _ in range(2):
        script.step()
        assert p.expect(r"\[x*\]", 0, window=101) == (None, None)
    script.step()
    assert found(p.expect(r"\[x*\]", 0, window=101)) == "[" + "x" * 100 + "]"
    p.kill().wait()


def test_a_small_window_forgets() -> None:
    p, script = gated([b"[", *[b"x" * 200] * 3, b"]"])
    for _ in range(5):
        script.step()
        result = p.expect(r"\[x*\]|^x", 0, window=2)
        assert result == (None, None)  # nor is what is left the beginning of a line
    assert found(p.expect(r"\[x*\]", 0)) == "[" + "x" * 600 + "]"  # another window begins anew
    p.kill().wait()


# -- where it begins --------------------------------------------------------------------------


def test_without_backtrack_only_what_comes_counts() -> None:
    p, script = gated([b"ready\n", b"rea", b"dy\n"])
    script.step()
    assert p.expect("ready", 0, backtrack=False) == (None, None)
    script.step()
    assert found(p.expect("rea", 0, backtrack=True)) == "rea"
    script.step()
    assert p.expect("ready|^dy", 0, backtrack=False) == (None, None)
    p.kill().wait()


def test_without_backtrack_a_wait_sees_what_comes_behind_old_output() -> None:
    p, script = gated([b"old\xc3", b"\xa9 new\n"])
    script.step()
    thread = threading.Timer(0.05, script.step)
    thread.start()
    assert found(p.expect(r"\b\w+\b", LONG, backtrack=False)) == "new"  # é belongs to old
    thread.join()
    p.kill().wait()


@pytest.mark.parametrize("kept", [True, False])
def test_without_backtrack_a_line_begins_where_it_does(kept: bool) -> None:
    p, script = gated([b"x", b"go; ", b"\ngo"], default_stdout_handler=kept)
    p.expect("nothing", 0)
    script.step()

    def step_twice() -> None:
        script.step()
        script.step()

    thread = threading.Timer(0.02, step_twice)
    thread.start()
    _, match = p.expect("^go", LONG, backtrack=False)
    thread.join()
    assert match
    assert match.string[match.start() - 1] == "\n"
    p.kill().wait()


def test_each_thread_has_a_place_of_its_own() -> None:
    p = printed("1 2 3")
    assert found(p.expect(r"\d")) == "1"
    seen: list[str | None] = []
    for _ in range(5):  # threads that end, whose numbers are given to the next ones
        thread = threading.Thread(target=lambda: seen.append(found(p.expect(r"\d"))))
        thread.start()
        thread.join()
    assert seen == ["1"] * 5
    assert found(p.expect(r"\d")) == "2"
    assert p._run is not None
    assert len(p._run.reading._searches) <= 2  # those of threads that are gone are gone


def test_two_threads_at_once() -> None:
    p, script = gated([b"one two "])
    seen: dict[str, list[str | None]] = {"a": [], "b": []}

    def read(name: str) -> None:
        seen[name] += [found(p.expect(r"\w+ ", LONG)) for _ in range(2)]

    threads = [threading.Thread(target=read, args=[name]) for name in seen]
    for thread in threads:
        thread.start()
    script.step()
    for thread in threads:
        thread.join()
    p.kill().wait()
    assert seen == {"a": ["one ", "two "], "b": ["one ", "two "]}


def test_a_second_run_begins_anew() -> None:
    p = printed("again")
    assert found(p.expect("again")) == "again"
    assert found(p.expect("again")) is None
    assert p.expect_fail
    p.reset()
    assert not p.expect_fail
    assert p.ok
    p.run()
    assert found(p.expect("again")) == "again"
    assert p.ok


# -- what ends the wait -----------------------------------------------------------------------


def test_a_timeout() -> None:
    with Process("echo almost; exec sleep 1000", shell=True, nolog_expect_fail=True).start() as p:
        assert p.expect("ready", 0.2) == (None, None)
        assert p.running
    assert p.expect_fail
    assert not p.ok
    p.wait(LONG)


@pytest.mark.parametrize("zero", [0, 0.0, "0", "0:00:00", datetime.timedelta(0), -1])
def test_a_timeout_of_zero_only_looks(zero: Any) -> None:
    p, script = gated([b"ready"])
    assert p.expect("ready", zero) == (None, None)
    script.step()
    assert found(p.expect("ready", zero)) == "ready"
    p.kill().wait()


@pytest.mark.parametrize("limit", [0.05, "0.05", "0:00:00.05", datetime.timedelta(seconds=0.05)])
def test_timeouts_in_all_formats(limit: Any) -> None:
    p, _ = gated([], default_expect_timeout=limit)
    assert p.expect("ready", limit) == (None, None)
    assert p.expect("ready") == (None, None)
    assert p.expect("ready", False) == (None, None)
    p.kill().wait()


def test_all_that_has_come_is_searched_whatever_the_timeout() -> None:
    p = Process("seq 300000; echo ready", shell=True).run()
    assert found(p.expect("ready", 0)) == "ready"


def test_the_default_timeout_and_none() -> None:
    p, script = gated([b"ready"], default_expect_timeout=0.01)
    assert p.expect("ready") == (None, None)
    thread = threading.Timer(0.1, script.step)
    thread.start()
    assert found(p.expect("ready", None)) == "ready"
    thread.join()
    p.kill().wait()


def test_the_end_of_the_process() -> None:
    p = Process("read line; echo bye", shell=True, nolog_expect_fail=True).start()
    thread = threading.Timer(0.05, p.close_stdin)
    thread.start()
    assert p.expect("ready") == (None, None)
    thread.join()
    assert p.wait(LONG).reason is Reason.EXPECT
    assert p.message == "did not print 'ready' to its end"


def test_the_end_of_its_output() -> None:
    p = Process("exec >&-; exec sleep 1000", shell=True, nolog_expect_fail=True).start()
    assert p.expect("ready") == (None, None)
    assert p.running
    p.kill().wait(LONG)


def test_the_end_of_the_other_output_is_none() -> None:
    p, script = play(Eof(2), Gate(), Out(b"ready"))
    thread = threading.Timer(0.05, script.step)
    thread.start()
    assert found(p.expect("ready")) == "ready"
    thread.join()
    p.wait(LONG)


def test_what_comes_with_the_end_is_found() -> None:
    for _ in range(20):
        p = Process("echo ready", nolog_expect_fail=True).start()
        assert found(p.expect("ready\n")) == "ready\n"
        p.wait(LONG)


def test_a_kill_by_another_thread() -> None:
    p, _ = gated([])
    thread = threading.Timer(0.05, p.kill)
    thread.start()
    assert p.expect("ready") == (None, None)
    thread.join()
    p.wait(LONG)
    assert p.expect_fail
    assert p.killed


def test_a_reset_by_another_thread_leaves_the_next_run_alone() -> None:
    p, _ = gated([])
    thread = threading.Timer(0.05, p.reset)
    thread.start()
    assert p.expect("ready") == (None, None)
    thread.join()
    assert not p.started
    assert not p.expect_fail
    scripts["play"] = Script(Out(b"ready"))
    assert p.run(LONG).ok
    assert found(p.expect("ready")) == "ready"


def test_a_process_that_could_not_be_started() -> None:
    p = Process("/no/such/program", nolog_error=True).start()
    assert p.expect("ready") == (None, None)
    assert p.wait(LONG).reason is Reason.SPAWN
    assert p.expect_fail


def test_a_timeout_of_the_process() -> None:
    options = {"nolog_timeout": True, "nolog_expect_fail": True}
    p = Process("sleep 1000", timeout=0.1, **options).start()  # type: ignore[arg-type]
    assert p.expect("ready") == (None, None)
    p.wait(LONG)
    assert p.reason is Reason.TIMEOUT
    assert p.message == "reached its timeout of 0.1 s; did not print 'ready' to its end"


def test_ctrl_c_leaves_nothing_behind() -> None:
    p, _ = gated([])

    main = threading.get_ident()

    def interrupt() -> None:
        signal.pthread_kill(main, signal.SIGINT)

    def on_signal(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def expect_from(thread: threading.Timer) -> None:
        thread.start()
        p.expect("ready", LONG)

    old = signal.signal(signal.SIGINT, on_signal)
    try:
        for _ in range(3):
            thread = threading.Timer(0.05, interrupt)
            with pytest.raises(KeyboardInterrupt):
                expect_from(thread)
            thread.join()
    finally:
        signal.signal(signal.SIGINT, old)
    assert p._run is not None
    assert p._run.reading._watchers == ()
    assert not p.expect_fail
    assert p.expect("ready", 0) == (None, None)  # and can be asked again
    p.kill().wait()


# -- output that is not kept ------------------------------------------------------------------


def test_without_a_capture_searching_begins_with_the_first_call() -> None:
    p, script = gated([b"ready 1\n", b"ready 2\n", b"rea", b"dy 3\n"], default_stdout_handler=False)
    script.step()
    assert p.expect(r"ready \d", 0) == (None, None)
    script.step()
    assert found(p.expect(r"ready \d\n", 0)) == "ready 2\n"
    script.step()
    script.step()
    assert found(p.expect(r"ready \d\n", 0)) == "ready 3\n"
    assert p.stdout == ""
    p.kill().wait()


def test_with_a_limit_what_was_kept_counts_if_it_is_all() -> None:
    p, script = gated([b"ready 1\n", b"much\n" * 10, b"ready 2\n"], max_output=20)
    script.step()
    assert found(p.expect(r"ready \d\n", 0)) == "ready 1\n"
    script.step()
    script.step()
    assert found(p.expect(r"ready \d\n", 0)) == "ready 2\n"
    assert p.stdout == "ready 1\nmuch\nmuch\nmu"
    p.kill().wait()


def test_with_a_limit_that_was_passed() -> None:
    p, script = gated([b"ready 1\n", b"ready 2\n", b"ready 3\n"], max_output=8)
    script.step()
    script.step()
    assert p.expect(r"ready \d\n", 0) == (None, None)
    script.step()
    assert found(p.expect(r"ready \d\n", 0)) == "ready 3\n"
    p.kill().wait()


def test_what_was_lost_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(execo.reading, "KEPT", 100)
    lines = [b"%09d\n" % number for number in range(100)]
    p, script = gated([b"begin <", *lines, b">\n"], default_stdout_handler=False)
    assert p.expect("begin", 0) == (None, None)
    script.step()
    assert found(p.expect("begin", 0)) == "begin"
    for _ in range(101):
        script.step()
    assert found(p.expect(r"<[^>]*>|^0+99\n", 0)) == "000000099\n"  # no match across the gap
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert re.fullmatch(
        r"<Fake 'play'.*> printed faster than its output was searched: \d+ bytes were passed over",
        messages[0],
    )
    p.kill().wait()


def test_no_more_than_a_part_is_held_in_memory() -> None:
    command = "echo begin; read go; seq 2000000; echo ready; cat"
    p = Process(command, shell=True, default_stdout_handler=False, nolog_expect_fail=True).start()
    p.expect("begin", 0)
    p.write("go\n")
    assert found(p.expect("ready", LONG)) == "ready"
    p.close_stdin().wait(LONG)
    assert p._run is not None
    reading = p._run.reading
    source = reading.source(1)
    assert isinstance(source, execo.reading.Recent)
    assert source.size > 14_000_000
    assert source.size - source.first <= 2 * execo.reading.KEPT
    assert len(reading._searches[threading.current_thread()][1]._text) <= 1024


def test_a_search_in_vain_holds_no_more_than_two_windows() -> None:
    p = Process("seq 500000", nolog_expect_fail=True).run()
    p.expect("ready", 0, window=1000)
    assert p._run is not None
    search = p._run.reading._searches[threading.current_thread()][1]
    assert len(search._text) <= 2200


def test_many_matches_read_no_more_than_they_need() -> None:
    p = Process("seq 300000").run()
    for number in range(1, 2001):
        assert found(p.expect(r"\d+\n", 0, window=1000)) == f"{number}\n"
    assert p._run is not None
    search = p._run.reading._searches[threading.current_thread()][1]
    assert len(search._text) <= 10_000


# -- linear -----------------------------------------------------------------------------------


def searched(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """How many characters were looked at in the pieces that were read."""
    total = 0
    read = execo.search.Search._read

    def counting(self: execo.search.Search) -> bool:
        nonlocal total
        before = self._place
        result = read(self)
        total += self._place[0] - before[0]
        return result

    monkeypatch.setattr(execo.search.Search, "_read", counting)
    work()
    return total


def test_polling_reads_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    line = b"nothing to see here\n" * 100
    p, script = gated([line] * 200)

    def poll() -> None:
        for _ in range(200):
            script.step()
            assert p.expect("ready", 0) == (None, None)

    assert searched(monkeypatch, poll) == 200 * len(line)
    p.kill().wait()


def test_many_matches_read_little_each(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 20_000
    p = Process(f"seq {count}", nolog_expect_fail=True).run()

    def loop() -> None:
        for number in range(1, count + 1):
            assert found(p.expect(r"\d+\n", 0)) == f"{number}\n"

    assert searched(monkeypatch, loop) <= count * 4096


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"regexes": "(unclosed"}, re.error, "unterminated"),
        ({"regexes": ["fine", "[z-a]"]}, re.error, "bad character range"),
        ({"regexes": b"bytes"}, TypeError, "b'bytes'"),
        ({"regexes": [b"bytes"]}, TypeError, "b'bytes'"),
        ({"regexes": re.compile(b"bytes")}, TypeError, "compiled from a text"),
        ({"regexes": 3}, TypeError, "patterns are texts"),
        ({"regexes": None}, TypeError, "patterns are texts"),
        ({"regexes": ["a", None]}, TypeError, "not None"),
        ({"regexes": []}, ValueError, "no pattern"),
        ({"stream": 3}, ValueError, "STDOUT"),
        ({"stream": 0}, ValueError, "STDOUT"),
        ({"window": 0}, ValueError, "at least 1"),
        ({"window": True}, ValueError, "at least 1"),
        ({"window": "1"}, ValueError, "at least 1"),
        ({"timeout": "1h"}, ValueError, "1h"),
        ({"timeout": True}, TypeError, "True"),
    ],
)
def test_bad_input(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    p, _ = gated([])
    with pytest.raises(error, match=re.escape(words)):
        p.expect(**{"regexes": "x", **arguments})
    assert not p.expect_fail
    p.kill().wait()


def test_a_process_that_was_not_started() -> None:
    with pytest.raises(ValueError, match="was not started: call start"):
        Process("true").expect("x")


def test_python_that_is_talked_to() -> None:
    with Process([sys.executable, "-i", "-q", "-u"], env={"PYTHONSTARTUP": None}).start() as p:
        for number in range(3):
            assert p.expect(">>> ", LONG, stream=STDERR)[0] == 0
            p.write(f"{number} + 1000\n")
            assert found(p.expect(r"^\d+\n", LONG)) == f"{number + 1000}\n"
        p.close_stdin().wait(LONG)


def test_two_streams_of_one_script() -> None:
    p, _ = play(Out(b"to be"), Err(b"or not"))
    assert found(p.expect("be")) == "be"
    assert found(p.expect("not", stream=STDERR)) == "not"
    p.wait(LONG)


def test_output_goes_to_the_other_handlers_as_well(tmp_path: Path) -> None:
    p = Process("echo ready", stdout_handlers=[str(tmp_path / "out")]).start()
    assert found(p.expect("ready", LONG)) == "ready"
    p.wait(LONG)
    assert (tmp_path / "out").read_text() == "ready\n"
