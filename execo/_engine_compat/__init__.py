"""What scripts of execo 2 import as ``execo_engine``: the names of :mod:`execo.engine`."""

from __future__ import annotations

from execo.engine import (
    Engine,
    HashableDict,
    ParamSweeper,
    copy_outputs,
    geom,
    igeom,
    logger,
    redirect_outputs,
    slugify,
    sweep,
    sweep_stats,
)

__all__ = [
    "Engine",
    "HashableDict",
    "ParamSweeper",
    "copy_outputs",
    "geom",
    "igeom",
    "logger",
    "redirect_outputs",
    "slugify",
    "sweep",
    "sweep_stats",
]
