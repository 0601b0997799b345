"""Gateways that send what they should not: each command ends once, and nothing is raised."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import Recorder
from execo._core.runtime import get_runtime
from execo.transports import tree as tree_module
from execo.transports.base import Channel, ConnectionOptions, Exec, Request, Sink, Target
from execo.transports.tree import TreeTransport
from execo.transports.tree_frames import Frame, FrameError, FrameParser, frame
from fuzzing import cheap, damaged, examples, no_internal_error
from remote_commands import until

HELLO = b'{"op": "hello", "version": 1, "python": [3, 6, 0]}\n'


def header(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


numbers: st.SearchStrategy[Any] = st.sampled_from(
    [-1, 0, 1, 2, 3, 4, 5, 10**9, 10**30, None, True, "1", 1.5, [], {}]
)
ids = st.sampled_from([1, 1, 2, 2, 2, 3, 4, 99])
good = st.one_of(
    st.builds(lambda i: header(op="up", id=i), ids),
    st.builds(lambda i, c: header(op="exit", id=i, code=c), ids, st.sampled_from([0, 3, None])),
    st.builds(lambda i, s: header(op="end", id=i, s=s), ids, st.sampled_from([1, 2])),
    st.builds(lambda i, n: header(op="took", id=i, by=n), ids, st.sampled_from([0, 5, 10**12])),
    st.builds(lambda i: header(op="stuck", id=i), ids),
    st.builds(lambda i: header(op="no", id=i, why="no", spawn=False), ids),
    st.builds(lambda i, s, d: header(op="out", id=i, s=s, n=len(d)) + d, ids,
              st.sampled_from([1, 2]), st.sampled_from([b"x\n", b"execo-guard 1 sh linux\n"])),
    st.just(header(op="pong")),
)  # fmt: skip
streams = st.builds(lambda parts: HELLO + b"".join(parts), st.lists(good, max_size=30))
WORDS = [b"\n", b"{", b"[" * 3000, b'"op": "out"', b'"n": 99999999999', b"\0", b"\xff", HELLO]


@examples(100)
@given(st.binary(max_size=200), streams, st.lists(st.integers(1, 50), max_size=20))
def test_frames_are_the_same_however_they_come(
    noise: bytes, stream: bytes, cuts: Sequence[int]
) -> None:
    data = noise.replace(b"{", b"") + b"\n" + stream
    whole = FrameParser().feed(data)
    parser, found, at = FrameParser(), [], 0
    for cut in cuts:
        found += parser.feed(data[at : at + cut])
        at += cut
    found += parser.feed(data[at:])
    assert found == whole
    assert whole[0] == Frame("hello", count=1)


@examples(120)
@given(damaged(streams, WORDS))
def test_damaged_frames_are_refused(data: bytes) -> None:
    parser = FrameParser()
    with cheap():
        try:
            for at in range(0, len(data), 100):
                for one in parser.feed(data[at : at + 100]):
                    assert 1 <= one.stream <= 2 or one.op not in ("out", "end")
                    assert one.count >= 0
        except FrameError:
            pass
    assert len(parser._buffer) <= (1 << 20) + 8192


@examples(60)
@given(st.dictionaries(st.sampled_from(["op", "id", "s", "n", "by", "code", "why"]), numbers))
def test_any_header_is_a_frame_or_refused(fields: dict[str, Any]) -> None:
    for op in ("up", "out", "end", "took", "exit", "no", fields.get("op")):
        parser = FrameParser()
        parser.feed(HELLO)
        try:
            found = parser.feed(header(**{**fields, "op": op}))
        except FrameError:
            continue
        assert len(found) <= 1


@pytest.mark.parametrize(
    "data",
    [
        HELLO + header(op="out", id=1, s=1, n=1 << 40),
        HELLO + b'{"op":' + b"[" * 4000 + b"\n",
        HELLO + b"x" * 5000,
        HELLO + header(op="took", id=1, by=-1),
        HELLO + HELLO,
        HELLO + header(op="out", id=1, s=3, n=1) + b"x",
        b"noise\n" * 100_000,
        b"x" * 1_000_000,
    ],
)
def test_what_would_fill_the_memory_is_refused(data: bytes) -> None:
    parser = FrameParser()
    pieces = [data[at : at + 4096] for at in range(0, len(data), 4096)]
    with cheap(), pytest.raises(FrameError):
        list(map(parser.feed, pieces))


class Carrier:
    """A transport whose gateway says what the test wants."""

    def __init__(self) -> None:
        self.sinks: list[Sink] = []
        self.written = bytearray()

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        for _, sink in pairs:
            self.sinks.append(sink)
            nothing = lambda *args: True  # noqa: E731
            channel: Any = SimpleNamespace(
                write=self.written.extend,
                close_stdin=nothing,
                send_signal=nothing,
                abort=nothing,
                forget=nothing,
            )
            sink.on_open(channel)
        return []


class Ways:
    fanout = 8

    def parents(self, name: str) -> Sequence[str]:
        return ["gateway"] if name.startswith("leaf") else []

    def direct(self, name: str) -> tuple[str, Target]:
        return "carrier", Target(name)

    def below(self, name: str) -> Target:
        raise AssertionError(name)


@examples(60)
@given(st.one_of(streams, damaged(streams, WORDS)), st.booleans())
def test_whatever_a_gateway_says_each_command_ends_once(data: bytes, killed: bool) -> None:
    runtime = get_runtime()
    loop = runtime.loop
    carrier = Carrier()
    with pytest.MonkeyPatch.context() as patch, no_internal_error(), cheap():
        patch.setattr(tree_module, "get_transport", lambda runtime, name: carrier)
        patch.setattr(TreeTransport, "_start_directly", start_here)
        transport = TreeTransport(runtime)
        options = ConnectionOptions(tree=Ways(), keepalive=None)
        sinks = [Recorder(loop) for _ in range(3)]
        transport.open_all(
            [
                (Exec("cat", target=Target(f"leaf{n % 2}", options=options)), sink)
                for n, sink in enumerate(sinks)
            ]
        )

        def say() -> None:
            (link,) = carrier.sinks
            link.on_start()
            link.on_data(1, data)
            for sink in sinks:
                assert sink.channel is not None
                if "start" in sink.calls:
                    sink.channel.write(b"input")
                if killed:
                    sink.channel.abort()
            link.on_data(1, data.replace(HELLO, b""))
            link.on_exit(0)
            link.on_eof(1, None)

        until(lambda: carrier.sinks)
        loop.run_sync(say)
        for sink in sinks:
            sink.wait(lambda sink: sink.is_lost or "exit" in sink.calls)
            sink.check()
        assert not transport._live
        assert not transport._all


def test_more_output_than_there_is_room_for_is_refused() -> None:
    loop = get_runtime().loop
    carrier = Carrier()
    guard = header(op="out", id=1, s=1, n=23) + b"execo-guard 1 sh linux\n"
    flood = (header(op="out", id=2, s=1, n=1 << 20) + bytes(1 << 20)) * 4
    with pytest.MonkeyPatch.context() as patch, no_internal_error():
        patch.setattr(tree_module, "get_transport", lambda runtime, name: carrier)
        patch.setattr(TreeTransport, "_start_directly", start_here)
        transport = TreeTransport(get_runtime())
        sink = Recorder(loop)
        target = Target("leaf", options=ConnectionOptions(tree=Ways(), keepalive=None))
        transport.open_all([(Exec("cat", target=target), sink)])
        until(lambda: carrier.sinks)

        def say() -> None:
            (link,) = carrier.sinks
            link.on_start()
            link.on_data(1, HELLO + header(op="up", id=1) + guard + header(op="up", id=2))
            assert sink.channel is not None
            sink.channel.pause()
            link.on_data(1, flood)
            link.on_exit(0)

        loop.run_sync(say)
        sink.wait_over().check()
        assert "than there is room for" in str(sink.error)
        assert len(sink.out) == 1 << 20


def start_here(transport: TreeTransport, link: Any) -> None:
    carrier = vars(tree_module)["get_transport"](transport.runtime, "carrier")
    carrier.open_all([(link.request(Target(link.name)), link)])


def test_input_is_one_frame_for_many() -> None:
    from execo.transports.tree_frames import input_frame

    assert input_frame([1, 2], b"abc") == b'{"op": "in", "ids": [1, 2], "n": 3}\nabc'
    assert frame("ping") == b'{"op": "ping"}\n'


# -- what can be, but seldom is -------------------------------------------------------------------

READY = (
    HELLO + header(op="up", id=1) + header(op="out", id=1, s=1, n=23) + b"execo-guard 1 sh linux\n"
)


def opened(patch: pytest.MonkeyPatch, count: int = 1, **options: Any) -> tuple[Any, Any, Any]:
    """Commands on one host behind a gateway: the transport, the gateway, the sinks."""
    carrier = Carrier()
    patch.setattr(tree_module, "get_transport", lambda runtime, name: carrier)
    patch.setattr(TreeTransport, "_start_directly", start_here)
    transport = TreeTransport(get_runtime())
    sinks = [Recorder(get_runtime().loop) for _ in range(count)]
    target = Target("leaf", options=ConnectionOptions(tree=Ways(), keepalive=None, **options))
    transport.open_all([(Exec("cat", target=target), sink) for sink in sinks])
    until(lambda: carrier.sinks)
    return transport, carrier.sinks[0], sinks


def test_what_is_not_started_after_it_ran_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    _, link, (sink,) = opened(monkeypatch)

    def say() -> None:
        link.on_start()
        link.on_data(1, READY + header(op="up", id=2) + header(op="no", id=2, why="", spawn=False))

    get_runtime().loop.run_sync(say)
    sink.wait_over().check()
    assert "has not started what it has started" in str(sink.error)


@pytest.mark.parametrize("lost", ["the gateway", "the host"])
def test_what_is_given_up_as_another_one_is_lost_stays_so(
    monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    transport, link, sinks = opened(monkeypatch, 3)
    first, *others = sinks

    def give_up(call: str) -> None:
        if call == "error":
            for one in others:
                one.channel.abort()

    first.react = give_up

    def say() -> None:
        link.on_start()
        if lost == "the host":
            link.on_data(1, HELLO + header(op="up", id=1) + header(op="exit", id=1, code=255 << 8))
        link.on_exit(0)

    get_runtime().loop.run_sync(say)
    for sink in sinks:
        sink.wait_over().check()
    assert not transport._live


def test_a_gateway_is_kept_for_output_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = get_runtime().loop
    _, link, (sink,) = opened(monkeypatch, guard=False)

    def say(data: bytes) -> bool:
        link.on_data(1, data)
        runs: bool = link._idle.runs
        return runs

    loop.run_sync(link.on_start)
    assert not loop.run_sync(say, HELLO + header(op="up", id=1) + header(op="exit", id=1, code=0))
    sink.wait(lambda sink: "exit" in sink.calls)
    assert loop.run_sync(say, header(op="end", id=1, s=1) + header(op="end", id=1, s=2))
    sink.wait_over().check()
    loop.run_sync(link.on_exit, 0)


def test_a_question_that_is_answered_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = get_runtime().loop
    _, link, (sink,) = opened(monkeypatch)
    answers: list[str] = []

    def say() -> list[int]:
        link.on_start()
        link.on_data(1, READY + header(op="up", id=2))
        channel: Any = sink.channel
        channel.leaf.look(1, answers.append)
        channel.leaf.look(1, answers.append)
        link.on_data(1, header(op="out", id=3, s=1, n=5) + b"lead\n" + header(op="exit", id=3))
        link.on_data(1, header(op="end", id=3, s=1) + header(op="end", id=3, s=2))
        link.on_data(1, header(op="no", id=4))
        left = list(link._receivers)
        link.on_exit(0)
        return left

    assert loop.run_sync(say) == [1, 2]
    assert answers == ["lead"]
    sink.wait_over().check()


@pytest.mark.parametrize(
    ("why", "hint"),
    [("[Errno 24] Too many open files", "ulimit"), ("[Errno 2] No such", "install")],
)
def test_why_a_gateway_runs_no_ssh(monkeypatch: pytest.MonkeyPatch, why: str, hint: str) -> None:
    _, link, (sink,) = opened(monkeypatch)

    def say() -> None:
        link.on_start()
        link.on_data(1, HELLO + header(op="no", id=1, why=why, spawn=True))
        link.on_exit(0)

    get_runtime().loop.run_sync(say)
    sink.wait_over().check()
    assert hint in str(sink.error)
