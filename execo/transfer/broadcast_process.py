"""The process of a Put whose files hosts pass on to one another."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import ClassVar

from execo.connection import connection_to, seen_from_hosts
from execo.transports.base import Target

from .process import PutProcess
from .request import Broadcast, Transfer

__all__ = ["BroadcastProcess", "ChainProcess"]

WIDTH = 2


class BroadcastProcess(PutProcess):
    """Local files on their way to one host, by way of others."""

    may_use_scp = False
    width: ClassVar[int] = WIDTH
    """How many others a host feeds."""

    def _connection(self) -> tuple[str, Target]:
        if self._params["topology"] is None:
            return super()._connection()
        return connection_to(self.host, {**self._params, "transport": "tree"})

    def _request(self) -> Transfer:
        request = super()._request()
        package, target = request.package, request.target
        if package is None or target is None or request.transport in ("become", "taktuk"):
            return request  # nobody else can say the password, or knows the way
        if target.options.tree is None:
            target = seen_from_hosts(self.host, self._params)
        again = partial(self._words, package)
        return replace(request, broadcast=Broadcast(self.width, target, again))


class ChainProcess(BroadcastProcess):
    """As one of a chain."""

    width = 1
