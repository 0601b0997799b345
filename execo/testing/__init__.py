"""What helps to test programs that use execo: a fake transport, whose commands follow a script."""

from __future__ import annotations

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

__all__ = [
    "CloseStdin",
    "Echo",
    "Eof",
    "Err",
    "Event",
    "Exit",
    "Fail",
    "FakeChannel",
    "FakeTransport",
    "Gate",
    "Out",
    "Read",
    "Script",
    "Start",
    "scripts",
]
