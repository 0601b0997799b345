"""A real terminal: scripts run in the shell of a tmux of its own, and what is on the screen is
read."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 40.0
"""Seconds: a hang, not a speed."""


class Terminal:
    """A shell in a terminal of some size.

    :param folder: for the socket and the scripts; the shell's working directory
    """

    def __init__(self, folder: Path, columns: int = 80, lines: int = 24) -> None:
        self.folder = folder
        self._socket = folder / "tmux"
        size = ("-x", str(columns), "-y", str(lines))
        environ = {"PYTHONPATH": str(ROOT), "HISTFILE": ""}
        given = [word for key, value in environ.items() for word in ("-e", f"{key}={value}")]
        shell = "exec env 'PS1=$ ' bash --norc --noprofile"
        self._tmux("new-session", "-d", *size, *given, "-c", str(folder), shell)
        self.wait_for(lambda lines: lines == ["$"])

    def close(self) -> None:
        """End all that runs in it."""
        self._tmux("kill-server")

    def run(self, code: str, before: str = "", after: str = "") -> None:
        """Type the command that runs a script, on a screen without anything else.

        :param before: what is typed before that, on the same line
        :param after: what is typed behind it
        """
        script = self.folder / "script.py"
        script.write_text(textwrap.dedent(code))
        self._tmux("clear-history")
        python = shlex.quote(sys.executable)
        self.type(f"clear; {before} {python} {script.name} {after}")

    def type(self, text: str) -> None:
        """A line, and the key that ends it."""
        self._tmux("send-keys", "-l", "--", text)
        self._tmux("send-keys", "Enter")

    def key(self, name: str) -> None:
        """A key by its name: ``C-c``."""
        self._tmux("send-keys", name)

    def resize(self, columns: int, lines: int) -> None:
        """As if a user did it with the mouse."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def rows(self, above: int = 0) -> list[str]:
        """The lines on it, without blanks at their ends.

        :param above: so many of those that have left it at its top, too
        """
        lines = self._tmux("capture-pane", "-p", "-S", str(-above)).split("\n")
        return [line.rstrip() for line in lines]

    def wait_for(self, test: Callable[[list[str]], object], above: int = 0) -> list[str]:
        """Look at the screen until the test is true of it; returns it, without empty lines."""
        nap, deadline = threading.Event(), time.monotonic() + PATIENCE
        while not test(lines := list(filter(None, self.rows(above)))):
            if time.monotonic() > deadline:
                pytest.fail("this is what the terminal shows:\n" + "\n".join(lines))
            nap.wait(0.05)
        return lines

    def wait_for_end(self) -> list[str]:
        """Until the shell asks for the next command; returns what is above."""
        return self.wait_for(lambda lines: lines[-1:] == ["$"])[:-1]

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *words]
        environ = {**os.environ, "TERM": "xterm-256color"}
        for name in ("TMUX", "NO_COLOR", "COLUMNS", "LINES"):
            environ.pop(name, None)
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode != 0 and words[0] != "kill-server":
            raise RuntimeError(f"tmux {words[0]}: {done.stderr}")
        return done.stdout
