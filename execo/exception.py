"""The two exceptions that scripts of execo 2 import from here; the tree is in `execo.errors`."""

from __future__ import annotations

from execo.errors import ActionsFailed, ProcessesFailed

__all__ = ["ActionsFailed", "ProcessesFailed"]
