"""Processes: one command each, started, watched and ended by the I/O thread.

``process.start()`` returns as soon as the command runs, ``process.wait()`` when it has ended; its
outcome is data: ``ok``, ``exit_code``, ``stdout``, ``reason``, ``message``. A failed process is
never an exception unless you ask (``check=True``, ``raise_if_failed()``).

This module is the door to all kinds of processes and their handlers; it holds no code of theirs.
"""

from __future__ import annotations

from .expect import ExpectOutputHandler
from .handlers import ProcessLifecycleHandler, ProcessOutputHandler
from .local_process import Process
from .output import STDERR, STDOUT
from .process_base import ProcessBase
from .process_state import ProcessArgs
from .ssh_process import SshProcess

__all__ = [
    "STDERR",
    "STDOUT",
    "ExpectOutputHandler",
    "Process",
    "ProcessArgs",
    "ProcessBase",
    "ProcessLifecycleHandler",
    "ProcessOutputHandler",
    "SshProcess",
]
