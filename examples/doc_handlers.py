"""Handlers: told of the life of a process, given its output line by line.

One should see the lines of two processes as they come, and when each process starts and ends.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from execo import Process, ProcessLifecycleHandler, ProcessOutputHandler
from execo.process import ProcessBase


# The handlers.
class Watch(ProcessLifecycleHandler):
    """Says when a process starts and ends."""

    def start(self, process: ProcessBase) -> None:
        print(process.name, "has started")

    def end(self, process: ProcessBase) -> None:
        print(process.name, "has ended:", process.exit_code)


class Lines(ProcessOutputHandler):
    """Shows each line with the name of its process."""

    def read_line(self, process: ProcessBase, stream: int, string: str) -> None:
        print(f"{process.name}[{stream}]: {string}")


# Their use: one instance may serve many processes.
watch, lines = Watch(), Lines()
counters = [
    Process(f"seq {n}", name=f"to {n}", lifecycle_handlers=[watch], stdout_handlers=[lines])
    for n in (2, 3)
]
for counter in counters:
    counter.start()
for counter in counters:
    counter.wait()

# Files and objects with write().
with tempfile.TemporaryDirectory() as folder:
    log = Path(folder) / "words.txt"
    Process("echo hello", stdout_handlers=[log, sys.stdout]).run()
    Process("echo again", stdout_handlers=[log]).run()
    print(log.read_text().split())
