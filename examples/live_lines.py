#!/usr/bin/env python3
"""Read the output of processes line by line, while they run.

You should see the lines of two countdowns mixed, each with the second at which it came.
"""

from __future__ import annotations

import time

from execo import Local, ParallelActions, ProcessOutputHandler
from execo.process import ProcessBase

COUNTDOWN = "for i in 3 2 1; do echo $i; sleep 0.2; done; echo go"


class Show(ProcessOutputHandler):
    """Prints each line as it comes. Its methods run on a thread of their own."""

    def read_line(self, process: ProcessBase, stream: int, line: str) -> None:
        print(f"{time.monotonic() - begin:.1f} s  {process.name}: {line}", flush=True)


begin = time.monotonic()
ParallelActions(
    [
        Local(COUNTDOWN, {"shell": True, "stdout_handlers": [Show()], "name": name})
        for name in ("left", "right")
    ]
).run()
