"""Experiments: sweeps that resume, and engines that run them."""

from __future__ import annotations

from .attempt import Attempt, AttemptCancelled, AttemptTimeout
from .combination import HashableDict
from .engine import Engine, logger
from .experiment import Experiment, experiment
from .host_pool import NotEnoughHosts
from .identity import ResultFolderError
from .load import LoadError, load
from .names import slugify
from .record import Record, RecordError
from .redirect import copy_outputs, redirect_outputs
from .run import ActionRow, ProcessRow, ResultRow, Run
from .sweep import geom, igeom, sweep
from .sweep_stats import sweep_stats
from .sweeper import ParamSweeper, SweepCounts, SweepStats
from .trial import Trial

__all__ = [
    "ActionRow",
    "Attempt",
    "AttemptCancelled",
    "AttemptTimeout",
    "Engine",
    "Experiment",
    "HashableDict",
    "LoadError",
    "NotEnoughHosts",
    "ParamSweeper",
    "ProcessRow",
    "Record",
    "RecordError",
    "ResultFolderError",
    "ResultRow",
    "Run",
    "SweepCounts",
    "SweepStats",
    "Trial",
    "copy_outputs",
    "experiment",
    "geom",
    "igeom",
    "load",
    "logger",
    "redirect_outputs",
    "slugify",
    "sweep",
    "sweep_stats",
]
