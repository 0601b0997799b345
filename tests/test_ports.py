"""Free ports of this machine, one after the other."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from execo.config import configuration
from execo.ports import get_port


@pytest.fixture
def port_range(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Five ports that are free."""
    for first in range(31000, 32000, 5):
        socks = [socket.socket() for _ in range(5)]
        try:
            for number, sock in enumerate(socks):
                sock.bind(("", first + number))
        except OSError:
            continue
        finally:
            for sock in socks:
                sock.close()
        monkeypatch.setitem(configuration, "port_range", (first, first + 4))
        return first, first + 4
    raise AssertionError("no five free ports in a row")


def test_ports_come_round_robin(port_range: tuple[int, int]) -> None:
    first, last = port_range
    ports = [get_port() for _ in range(10)]
    assert sorted(ports[:5]) == list(range(first, last + 1))
    assert ports[5:] == ports[:5]


def test_ports_where_somebody_listens_are_left_out(port_range: tuple[int, int]) -> None:
    first, _ = port_range
    with (
        socket.create_server(("127.0.0.1", first)),
        socket.create_server(("127.0.0.2", first + 1)),
        socket.create_server(("0.0.0.0", first + 2)),
    ):
        assert {get_port() for _ in range(6)} == {first + 3, first + 4}


def test_when_none_is_free(port_range: tuple[int, int]) -> None:
    first, _ = port_range
    configuration["port_range"] = (first, first)
    words = f"no port from {first} to {first} is free; widen"
    with socket.create_server(("127.0.0.1", first)), pytest.raises(OSError, match=words):
        get_port()
    assert get_port() == first


@pytest.mark.parametrize("value", [(5, 1), (0, 10), (1, 70000), None, 3, ("a", "b"), (1, 2, 3)])
def test_what_is_no_range(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setitem(configuration, "port_range", value)
    with pytest.raises(ValueError, match="is the first and the last port"):
        get_port()


def test_threads_get_different_ports() -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.extend(get_port() for _ in range(20)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 160
