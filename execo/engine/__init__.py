"""Experiments: sweeps that resume, and engines that run them."""

from __future__ import annotations

from .attempt import Attempt, AttemptCancelled, AttemptTimeout
from .combination import HashableDict
from .engine import Engine, logger
from .experiment import Experiment, experiment
from .host_pool import NotEnoughHosts
from .identity import ResultFolderError
from .names import slugify
from .redirect import copy_outputs, redirect_outputs
from .sweep import geom, igeom, sweep
from .sweep_stats import sweep_stats
from .sweeper import ParamSweeper, SweepStats
from .trial import Trial

__all__ = [
    "Attempt",
    "AttemptCancelled",
    "AttemptTimeout",
    "Engine",
    "Experiment",
    "HashableDict",
    "NotEnoughHosts",
    "ParamSweeper",
    "ResultFolderError",
    "SweepStats",
    "Trial",
    "copy_outputs",
    "experiment",
    "geom",
    "igeom",
    "logger",
    "redirect_outputs",
    "slugify",
    "sweep",
    "sweep_stats",
]
