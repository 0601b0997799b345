"""Where tests of engines and experiments run: a working directory of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from execo.log import logger as core_logger

PATIENCE = 60


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory. Afterwards log levels, which an engine sets, are as before, and the
    threads that sweeps and attempts leave to end by themselves have ended."""
    monkeypatch.chdir(tmp_path)
    loggers = [core_logger, logging.getLogger("execo.engine")]
    levels = [one.level for one in loggers]
    yield tmp_path
    for one, level in zip(loggers, levels, strict=True):
        one.setLevel(level)
    for thread in threading.enumerate():
        if thread.name in ("execo-journal", "execo-sweeper", "execo-attempt"):
            thread.join(PATIENCE)
