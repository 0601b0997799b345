"""Files to and from hosts: :class:`Put` and :class:`Get`, and other ways to do the same."""

from __future__ import annotations

from .actions import Get, Put
from .chain import ChainPut
from .progress import Progress
from .taktuk import TaktukGet, TaktukPut

__all__ = ["ChainPut", "Get", "Progress", "Put", "TaktukGet", "TaktukPut"]
