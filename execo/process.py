"""Processes: one command each, started, watched and ended by the I/O thread.

``process.start()`` returns as soon as the command runs, ``process.wait()`` when it has ended; its
outcome is data: ``ok``, ``exit_code``, ``stdout``, ``reason``, ``message``. A failed process is
never an exception unless you ask (``check=True``, ``raise_if_failed()``).

This module is the door to all kinds of processes and their handlers; it holds no code of theirs.
"""

from __future__ import annotations

from .expect import ExpectOutputHandler
from .factory import get_process
from .handlers import ProcessLifecycleHandler, ProcessOutputHandler, handle_process_output
from .local_process import Process
from .output import STDERR, STDOUT
from .port_forwarder import PortForwarder
from .process_base import ProcessBase
from .process_state import ProcessArgs
from .serial import Serial, SerialSsh
from .ssh_process import SshProcess
from .taktuk import TaktukProcess
from .tree import TreeProcess

__all__ = [
    "STDERR",
    "STDOUT",
    "ExpectOutputHandler",
    "PortForwarder",
    "Process",
    "ProcessArgs",
    "ProcessBase",
    "ProcessLifecycleHandler",
    "ProcessOutputHandler",
    "Serial",
    "SerialSsh",
    "SshProcess",
    "TaktukProcess",
    "TreeProcess",
    "get_process",
    "handle_process_output",
]
