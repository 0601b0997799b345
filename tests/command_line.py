"""The command ``execo`` as a user runs it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

__all__ = ["PATIENCE", "environment", "execo", "spawn"]

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60
"""Seconds: a hang, not a speed."""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def execo(
    *words: str,
    stdin: bytes | IO[bytes] | None = None,
    status: int = 0,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end.

    :param stdin: what it is given, or a file; None: nothing
    :param status: the exit status that it is to have
    """
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL if stdin is None else stdin}
    if isinstance(stdin, bytes):
        given = {"input": stdin}
    done = subprocess.run(
        [sys.executable, "-m", "execo", *words],
        env=env or environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        cwd=cwd,
        **given,
    )
    assert done.returncode == status, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def spawn(words: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start it."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    options.setdefault("env", environment())
    return subprocess.Popen([sys.executable, "-m", "execo", *words], **options)
