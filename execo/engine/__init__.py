"""Experiments: sweeps that resume."""

from __future__ import annotations

from .combination import HashableDict
from .load import LoadError, load
from .record import Record, RecordError
from .run import ActionRow, ProcessRow, ResultRow, Run
from .sweep import geom, igeom, sweep
from .sweeper import ParamSweeper, SweepStats

__all__ = [
    "ActionRow",
    "HashableDict",
    "LoadError",
    "ParamSweeper",
    "ProcessRow",
    "Record",
    "RecordError",
    "ResultRow",
    "Run",
    "SweepStats",
    "geom",
    "igeom",
    "load",
    "sweep",
]
