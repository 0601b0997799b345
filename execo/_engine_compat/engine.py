"""The module of execo 2."""

from __future__ import annotations

from execo.engine import Engine, copy_outputs, logger, redirect_outputs

__all__ = ["Engine", "copy_outputs", "logger", "redirect_outputs"]
