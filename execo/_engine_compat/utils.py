"""The module of execo 2."""

from __future__ import annotations

from execo.engine import copy_outputs, logger, redirect_outputs, slugify

__all__ = ["copy_outputs", "logger", "redirect_outputs", "slugify"]
