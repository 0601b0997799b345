"""What helps to test programs that use execo: a fake transport, whose commands follow a script, and
a cluster of real SSH hosts on loopback."""

from __future__ import annotations

from .cluster import Cluster, ClusterError
from .fake import FakeChannel, FakeTransport
from .script import (
    CloseStdin,
    Echo,
    Eof,
    Err,
    Event,
    Exit,
    Fail,
    Gate,
    Out,
    Read,
    Script,
    Start,
    scripts,
)
from .settings import Fault

__all__ = [
    "CloseStdin",
    "Cluster",
    "ClusterError",
    "Echo",
    "Eof",
    "Err",
    "Event",
    "Exit",
    "Fail",
    "FakeChannel",
    "FakeTransport",
    "Fault",
    "Gate",
    "Out",
    "Read",
    "Script",
    "Start",
    "scripts",
]
