"""The contract of Forward and Lease, for all transports that can do them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from contract import Place, Provider, Recorder, over
from execo._core.runtime import get_runtime
from execo.errors import CancelledError, Reason, SpawnError
from execo.testing import Cluster
from execo.transports.base import Forward, Lease
from tcp_services import TIMEOUT, digest, echo, read_all, refusing_port, serve

pytest_plugins = ["become_users", "sshd", "execo.testing.pytest_plugin"]


@pytest.fixture(scope="session", autouse=True)
def there_before_any_comparison(cluster: Cluster) -> None:
    """The embedded host."""


@pytest.fixture
def place(
    request: pytest.FixtureRequest, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    transport = provider.make(monkeypatch)
    here = Place(transport, get_runtime().loop, provider.target(request))
    yield here
    transport.close()
    for sink in here.sinks:
        sink.wait_over()
        sink.check()


def forward(place: Place, port: int, host: str = "127.0.0.1") -> Recorder:
    """A connection that is made, or has failed."""
    return _open(place, Forward(host, port, place.target))


def lease(place: Place) -> Recorder:
    return _open(place, Lease(place.target))


def _open(place: Place, request: Forward | Lease) -> Recorder:
    sink = Recorder(place.loop)
    place.sinks.append(sink)
    place.transport.open_all([(request, sink)])
    assert sink.opened_in == threading.get_ident()
    return sink.wait(lambda sink: "start" in sink.calls or sink.is_lost)


@over("forward")
def test_a_connection_carries_both_ways(place: Place) -> None:
    with serve(echo) as port:
        sink = forward(place, port)
        assert sink.channel is not None
        assert sink.channel.pid is None
        assert sink.channel.start_date is not None
        place.do(sink, "write", b"hello")
        sink.wait(lambda sink: sink.out == b"hello")
        assert sink.written == 5
        place.end(sink)
    assert (sink.out, sink.err, sink.status, sink.error) == (b"hello", b"", 0, None)


@over("forward")
def test_its_two_directions_end_apart(place: Place) -> None:
    data = os.urandom(5_000_000)
    with serve(digest) as port:
        sink = forward(place, port)
        place.do(sink, "write", data)
        place.end(sink)
    assert len(sink.out) == 32
    assert sink.written == len(data)

    seen: list[bytes] = []
    read = threading.Event()

    def ends_first(sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        seen.append(read_all(sock))
        read.set()

    with serve(ends_first) as port:
        sink = forward(place, port).wait(lambda sink: 1 in sink.eofs)
        assert "exit" not in sink.calls
        place.do(sink, "write", data)
        place.end(sink)
        assert sink.status == 0
        assert read.wait(TIMEOUT)
    assert seen == [data]


@over("forward")
def test_a_paused_connection_holds_the_other_side_up(place: Place) -> None:
    sent = 0

    def flood(sock: socket.socket) -> None:
        nonlocal sent
        for _ in range(1000):
            sock.sendall(bytes(100_000))
            sent += 100_000

    with serve(flood) as port:
        sink = forward(place, port)
        place.do(sink, "pause")
        before = -1
        while before != sent:
            before = sent
            threading.Event().wait(0.5)
        assert sent < 60_000_000
        place.do(sink, "resume")
        sink.wait(lambda sink: 1 in sink.eofs)
        place.end(sink)
    assert len(sink.out) == 100_000_000


@over("forward")
def test_a_destination_that_refuses_is_an_error(place: Place) -> None:
    with refusing_port() as port:
        sink = forward(place, port)
    assert sink.calls == ["open", "error"]
    assert sink.error is not None
    assert sink.error.reason is Reason.CONNECT
    assert not isinstance(sink.error, SpawnError)
    assert place.target is not None
    assert f"{place.target.name} cannot connect to 127.0.0.1 port {port}" in str(sink.error)
    assert sink.error.host == place.target.name


@over("forward")
def test_signals_that_end_close_it_and_others_do_not(place: Place) -> None:
    closed = threading.Event()

    def wait(sock: socket.socket) -> None:
        read_all(sock)
        closed.set()

    with serve(wait) as port:
        sink = forward(place, port)
        place.do(sink, "send_signal", 1)
        place.do(sink, "write", b"still there")
        sink.wait(lambda sink: sink.written == 11)
        place.do(sink, "send_signal", 15)
        sink.wait_over()
        assert sink.status == 15
        assert closed.wait(TIMEOUT)
        place.do(sink, "write", b"too late")
        assert len(sink.write_errors) == 1


@over("forward")
def test_it_can_be_given_up_before_it_is_there(place: Place) -> None:
    with serve(echo) as port:
        sink = Recorder(place.loop)
        place.sinks.append(sink)
        channels = place.transport.open_all([(Forward("127.0.0.1", port, place.target), sink)])
        place.loop.run_sync(channels[0].abort)
        sink.wait_over()
        assert isinstance(sink.error, CancelledError) or sink.status == 9
        assert forward(place, port).is_lost is False


@over("forward")
def test_a_lease_keeps_the_connection(place: Place) -> None:
    sink = lease(place)
    place.transport.close_idle()
    with serve(echo) as port:
        other = forward(place, port)
        place.end(other)
    assert "exit" not in sink.calls
    place.do(sink, "send_signal", 15)
    sink.wait_over()
    assert sink.status == 15


@over("forward")
def test_the_end_of_the_transport_ends_what_it_carries(place: Place) -> None:
    with serve(echo) as port:
        sinks = [lease(place), forward(place, port), forward(place, port)]
        place.transport.close()
        for sink in sinks:
            assert sink.wait_over().status == 9
