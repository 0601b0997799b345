"""Files to and from hosts: :class:`Put`, :class:`Get` and :class:`ChainPut`."""

from __future__ import annotations

from .actions import Get, Put
from .chain import ChainPut

__all__ = ["ChainPut", "Get", "Put"]
