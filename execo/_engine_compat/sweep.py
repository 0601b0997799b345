"""The module of execo 2."""

from __future__ import annotations

from execo.engine import HashableDict, ParamSweeper, geom, igeom, logger, sweep, sweep_stats

__all__ = ["HashableDict", "ParamSweeper", "geom", "igeom", "logger", "sweep", "sweep_stats"]
