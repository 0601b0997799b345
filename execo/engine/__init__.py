"""Experiments: sweeps that resume."""

from __future__ import annotations

from .combination import HashableDict
from .sweep import geom, igeom, sweep
from .sweeper import ParamSweeper, SweepStats

__all__ = ["HashableDict", "ParamSweeper", "SweepStats", "geom", "igeom", "sweep"]
