"""The module of execo 2."""

from __future__ import annotations

from execo.engine import logger

__all__ = ["logger"]
