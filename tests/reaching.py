"""How tests say in which way a host is reached: the fields of its target, beside what processes
say. ``pytest_plugins = ["reaching"]``; a test takes ``reach``::

    def test_behind(reach, gateway, host):
        reach(host, via=gateway)
        assert run(host, "true").ok

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from execo import Host
from execo.config import make_connection_params
from execo.connection import connection_to
from execo.transports.base import Target

__all__ = ["Reach", "reach"]


class Reach:
    """The ways to hosts, by their addresses and ports; ``options`` are for all of them."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self._changes: dict[tuple[str, int | None], dict[str, Any]] = {}

    def __call__(self, host: Host, *, via: Host | None = None, **changes: Any) -> None:
        """From now on ``host`` is reached like this: ``via`` another host, and other fields of
        its target."""
        self._changes[host.address, host.port] = {"via": via, **changes}

    def target(self, host: Host, params: Mapping[str, Any] | None = None) -> Target:
        """The target of a host."""
        return self.connection_to(host, make_connection_params(params))[1]

    def connection_to(self, host: Host, params: Mapping[str, Any]) -> tuple[str, Target]:
        name, target = connection_to(host, params)
        changes = dict(self._changes.get((host.address, host.port), {}))
        via = changes.pop("via", None)
        if via is not None:
            changes["via"] = self.connection_to(via, params)[1]
        options = replace(target.options, **self.options)
        return name, replace(target, options=options, **changes)


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Reach:
    """Says how hosts are reached."""
    ways = Reach()
    monkeypatch.setattr("execo.ssh_process.connection_to", ways.connection_to)
    return ways
