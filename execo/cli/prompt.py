"""``execo shell``: a prompt for commands on many hosts, over connections that stay."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from execo import Local
from execo.hostset import fold

from .choosing import apply_settings, chosen_hosts, connection_params, nodes_of
from .outcome import QUIET, exit_status
from .parser import Misuse
from .printing import OutputLost, printer, tell
from .run import execute
from .waiting import INTERRUPTED, run_to_end

__all__ = ["shell"]

HISTORY_SIZE = 1000
HELP = """\
COMMAND   run it on the hosts
@SET      these are the hosts from now on; @ alone: which are they?
+SET      these hosts, too
-SET      without these hosts
!COMMAND  run it here
=         equal outputs together, or each line as it comes
?         this text
quit      end, as Ctrl-D does; Ctrl-C ends the command that runs
"""


def shell(options: argparse.Namespace) -> int:
    """Ask for commands and run them until ``quit`` or the end of the input; returns the exit
    status: that of the last command."""
    apply_settings(options)
    session = _Session(chosen_hosts(options), connection_params(options), options)
    asks = sys.stdin is not None and sys.stdin.isatty()
    with _history() if asks else contextlib.nullcontext():
        while (line := _line(session.prompt if asks else "")) is not None:
            if line in ("quit", "exit"):
                break
            try:
                session.obey(line)
            except Misuse as exc:
                tell(str(exc))
            except KeyboardInterrupt:
                session.status = INTERRUPTED
            except OutputLost:
                break
    return session.status


def _line(prompt: str) -> str | None:
    """The next line; None = there is none."""
    while True:
        try:
            return input(prompt).strip() if prompt and sys.stdout.isatty() else _read(prompt)
        except EOFError:
            if prompt:
                sys.stderr.write("\n")
            return None
        except KeyboardInterrupt:
            sys.stderr.write("\n")  # what was typed is given up


def _read(prompt: str) -> str:
    # input() would put it among the data, where stdout is a file.
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


class _Session:
    """The hosts, and how output is shown, from one command to the next."""

    def __init__(
        self, hosts: list[str], params: dict[str, Any], options: argparse.Namespace
    ) -> None:
        self.hosts = hosts
        self.status = 0
        self._params = params
        self._options = options

    @property
    def prompt(self) -> str:
        """The hosts, shortened."""
        text = fold(self.hosts)
        if len(text) > 40:
            text = f"{text[:30]}...({len(self.hosts)})"
        return f"{text}> "

    def obey(self, line: str) -> None:
        """Do what a line says.

        :raises Misuse: it makes no sense
        """
        mark, rest = line[:1], line[1:].strip()
        if not line:
            return
        if mark == "?":
            printer.text(HELP)
        elif mark == "=" and not rest:
            self._toggle()
        elif mark == "!":
            self._local(rest)
        elif mark in "@+-":
            self._choose(mark, rest)
        else:
            self.status = execute(line, self.hosts, self._params, self._options)

    def _toggle(self) -> None:
        options = self._options
        on = not options.gather
        options.gather_all = options.by_host = options.diff = options.json = False
        options.gather = on
        tell("equal outputs together" if on else "each line as it comes")

    def _local(self, command: str) -> None:
        if not command:
            raise Misuse("no command after !")
        args = {**QUIET, "shell": True, "stdout_handlers": [1], "stderr_handlers": [2]}
        kept = {"default_stdout_handler": False, "default_stderr_handler": False}
        action = Local(command, process_args={**args, **kept})
        interrupted = run_to_end(action, source=Local.close_stdin)
        self.status = INTERRUPTED if interrupted else exit_status(action.processes)

    def _choose(self, mark: str, text: str) -> None:
        if mark == "@" and not text:
            printer.text(f"{fold(self.hosts)} ({len(self.hosts)})\n")
            return
        if not text:
            raise Misuse(f"no hosts after {mark}")
        named = nodes_of(text)
        if mark == "@":
            self.hosts = named
        elif mark == "+":
            self.hosts = list(dict.fromkeys([*self.hosts, *named]))
        else:
            left = [host for host in self.hosts if host not in set(named)]
            if not left:
                raise Misuse("no host would be left")
            self.hosts = left


@contextlib.contextmanager
def _history() -> Any:
    """Lines that can be edited and are remembered, in a file for this user alone."""
    try:
        import readline
    except ImportError:  # a Python without it
        yield
        return
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(state).expanduser() / "execo" / "history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_SIZE)
    try:
        yield
    finally:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # It may hold what was typed in error. readline itself would make it for all to read.
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            os.chmod(path, 0o600)
            readline.write_history_file(path)
            os.chmod(path, 0o600)  # some write a new file
        except OSError as exc:
            tell(f"the history is not kept: {path}: {exc.strerror}")
