"""Files to and from hosts: :class:`Put` and :class:`Get`."""

from __future__ import annotations

from .actions import Get, Put

__all__ = ["Get", "Put"]
