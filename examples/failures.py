#!/usr/bin/env python3
"""How processes fail, are stopped, and say why: failures are data, not exceptions.

You should see a line for each command: whether it is ok, the reason in one word, and a sentence.
A process that was killed on purpose is ok.
"""

from __future__ import annotations

from execo import Process, ProcessesFailed, logger

logger.setLevel("ERROR")  # each failure would be a warning in the log as well

processes = [
    Process("true"),
    Process("sh -c 'exit 3'"),
    Process("sh -c 'kill -9 $$'"),
    Process("no-such-command"),
    Process("sleep 60", timeout=0.2),
    Process("sleep 61"),
]
for process in processes:
    process.start()
processes[-1].kill()
for process in processes:
    process.wait()
    print(f"{process.name:<20} ok={process.ok!s:<6} {process.reason or '-':<10} {process.message}")

try:
    Process("false").run(check=True)  # unless you ask
except ProcessesFailed as error:
    print(f"{type(error).__name__}: {error}")
