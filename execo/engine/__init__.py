"""Experiments: sweeps that resume, and engines that run them."""

from __future__ import annotations

from .attempt import Attempt, AttemptCancelled, AttemptTimeout
from .combination import HashableDict
from .drawing import save_picture
from .engine import Engine, logger
from .experiment import Experiment, experiment
from .host_pool import NotEnoughHosts
from .html import write_report
from .identity import RecordError, ResultFolderError
from .load import LoadError, load
from .matrix import draw_sweep
from .names import slugify
from .plots import draw_results
from .record import Record
from .redirect import copy_outputs, redirect_outputs
from .run import ActionRow, ProcessRow, ResultRow, Run
from .sweep import geom, igeom, sweep
from .sweep_stats import sweep_stats
from .sweeper import ParamSweeper, SweepCounts, SweepStats
from .timeline import draw_timeline
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
    "draw_results",
    "draw_sweep",
    "draw_timeline",
    "experiment",
    "geom",
    "igeom",
    "load",
    "logger",
    "redirect_outputs",
    "save_picture",
    "slugify",
    "sweep",
    "sweep_stats",
    "write_report",
]
