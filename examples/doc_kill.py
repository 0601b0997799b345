"""Timeouts and kill: what each leaves behind as outcome.

One should see a timeout, a kill, and a kill that had to be forced.
"""

from __future__ import annotations

import threading

from execo import Process, ProcessOutputHandler
from execo.process import ProcessBase

# A timeout.
slow = Process("sleep 60", timeout=0.2, nolog_timeout=True).run()
print(slow.ok, slow.reason, slow.message)

# wait() has a limit of its own.
server = Process("sleep 60").start()
server.wait(0.2)
print(server.ended)

# Killed on purpose.
server.kill().wait()
print(server.ok, server.killed, server.exit_code)


# Killed by force.
class Ready(ProcessOutputHandler):
    """Tells the script that the process has printed a line."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def read_line(self, process: ProcessBase, stream: int, string: str) -> None:
        self.seen.set()


ready = Ready()
deaf = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
stubborn = Process(deaf, shell=True, stdout_handlers=[ready]).start()
ready.seen.wait(10)
stubborn.kill(auto_force_kill_timeout=0.2).wait()
print(stubborn.ok, stubborn.forced_kill, stubborn.message)
