"""Commands of a scheduler: here or on its login host, never for longer than a limit, never many at
once, and less and less often where they fail."""

from __future__ import annotations

import os
import random
import shlex
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from execo.errors import Reason
from execo.host import Host
from execo.process import Process, ProcessBase, SshProcess
from execo.time_utils import sleep

from .errors import SchedulerError

__all__ = ["Backoff", "CallFailed", "Caller", "quiet"]

SPACING = 0.2
"""Seconds between the starts of two commands: a controller serves a whole cluster."""

LATE = 10.0
"""Seconds more than its limit after which a command is given up that cannot even be killed, or a
login host that cannot be reached."""


HOPELESS = frozenset({Reason.AUTH, Reason.HOST_KEY, Reason.SPAWN})


class CallFailed(SchedulerError):
    """One command has failed.

    ``exit_code`` is None where it has not come to an exit of its own: then nothing is known of
    what it has done. ``reason`` is that of the process.
    """

    exit_code: int | None = None
    reason: Reason | None = None

    @property
    def hopeless(self) -> bool:
        """Whether it will not go away by itself while one waits."""
        return self.reason in HOPELESS or self.exit_code == 127


class Backoff:
    """Pauses between tries. They double, up to ``most`` seconds, and vary by chance: many scripts
    that have seen the same failure must not come back at the same instant."""

    def __init__(self, first: float = 1.0, most: float = 60.0) -> None:
        self._first = first
        self._most = most
        self._next = first

    def pause(self) -> float:
        """Seconds until the next try."""
        now, self._next = self._next, min(self._most, 2 * self._next)
        return random.uniform(now / 2, now)

    def reset(self) -> None:
        """It has worked."""
        self._next = self._first


class Caller:
    """Where and how commands are run. From any thread.

    :param login: the host to run them on; None: this machine
    :param connection_params: how to reach it
    :param folder: where the commands are; None: they are on the PATH
    :param env: variables for them; None as a value unsets
    :param timeout: seconds for one command
    """

    def __init__(
        self,
        login: Host | None,
        connection_params: Mapping[str, Any] | None,
        folder: str | None,
        env: Mapping[str, str | None],
        timeout: float,
    ) -> None:
        self.login = login
        self.timeout = timeout
        self._params = connection_params
        self._folder = folder
        self._env = dict(env)
        self._lock = threading.Lock()
        self._free_at = 0.0

    @property
    def place(self) -> str | None:
        """The login host's address."""
        return None if self.login is None else self.login.address

    def words(self, *words: str) -> list[str]:
        """A command, found where commands are."""
        folder = self._folder
        return [words[0] if folder is None else os.path.join(folder, words[0]), *words[1:]]

    def process(self, command: Sequence[str], **options: Any) -> ProcessBase:
        """For a command whose end nobody here waits for."""
        options = {**quiet(), **options, "env": self._env}
        if self.login is None:
            return Process(list(command), **options)
        return SshProcess(list(command), self.login, self._params, **options)

    def call(self, *words: str, stdin: str = "") -> str:
        """What a command has printed. Blocks until its end, for ``timeout`` and some seconds at
        the most.

        :raises CallFailed: it did not exit with 0 in this time
        """
        command = self.words(*words)
        self._take_turn()
        shown = shlex.join(command)
        process = self.process(command, timeout=self.timeout)
        try:
            process.start()
            if stdin:
                process.write(stdin)
            process.close_stdin()
            # Its own time begins when the login host has been reached, and a command that hangs
            # may not heed TERM.
            process.wait(self.timeout + LATE)
        except (RuntimeError, OSError) as exc:  # at the end of the interpreter, or out of memory
            raise CallFailed(str(exc), command=shown, host=self.place) from exc
        finally:
            if not process.ended:
                process.kill(signal.SIGKILL)
        if not process.ended:
            raise CallFailed(
                f"no answer within {self.timeout + LATE:g} s",
                command=shown,
                host=self.place,
                stderr=process.stderr,
            )
        if not process.ok:
            error = CallFailed(
                _why(process, self.timeout), command=shown, host=self.place, stderr=process.stderr
            )
            error.reason = process.reason
            if process.reason is Reason.EXIT_CODE:
                error.exit_code = process.exit_code
            raise error
        return process.stdout

    def _take_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free_at)
            self._free_at = start + SPACING
        if start > now:
            sleep(start - now)


def quiet() -> dict[str, Any]:
    """Whoever calls says what has failed, once."""
    return {
        "nolog_exit_code": True,
        "nolog_error": True,
        "nolog_timeout": True,
        "ignore_write_error": True,  # one that refuses its options does not read its input
        "nolog_write_error": True,
    }


def _why(process: ProcessBase, timeout: float) -> str:
    if process.reason is Reason.TIMEOUT:
        return f"no answer within {timeout:g} s"
    if process.reason is Reason.EXIT_CODE:
        if process.exit_code == 127:
            return "exited with 127, it is not there: say folder=, or the login host of the cluster"
        return f"exited with {process.exit_code}"
    return process.message or "it has failed"
