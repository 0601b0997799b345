"""The files of ssh_config that are in use: read once, and again when they have changed.

Whether they have is looked at ten times a second at the most, however many hosts are asked for.
"""

from __future__ import annotations

import functools
import os
import time

from execo._core.locks import new_lock
from execo._core.room import with_room
from execo.errors import SshConfigError

from . import ssh_config
from .ssh_config import SshConfig

__all__ = ["SshConfigFiles", "files_of"]

KEPT = 0.1
"""Seconds for which nobody looks whether a file has changed."""

_lock = new_lock()  # one for all of them: it has to outlive a fork


class SshConfigFiles:
    """One choice of files. For any thread.

    :param choice: None = the user's and the system's, ``none`` = no file, else that file alone
    """

    def __init__(self, choice: str | None) -> None:
        self._choice = choice
        self._until = 0.0
        self._read: SshConfig | None = None
        self._error: SshConfigError | None = None
        self._environment: dict[str, str] = {}

    def current(self) -> SshConfig:
        """What they say: the same object until something has changed. May read files.

        :raises SshConfigError: for what ssh refuses, the same until somebody has mended it
        """
        if time.monotonic() >= self._until:
            with _lock:
                if time.monotonic() >= self._until:
                    self._look()
        read = self._read
        if read is None:
            assert self._error is not None
            raise self._error.with_traceback(None)
        return read

    def _look(self) -> None:
        # The environment, too, is in what was read: ${NAME}, and the variables of SendEnv.
        environment = dict(os.environ)
        if self._read is None or self._read.changed or environment != self._environment:
            try:
                self._read, self._error = with_room(_read, self._choice), None
            except SshConfigError as exc:
                self._error, self._read = exc, None
            except OSError as exc:
                error = SshConfigError(f"it cannot be read: {exc.strerror}", filename=exc.filename)
                self._error, self._read = error, None
            self._environment = environment
        self._until = time.monotonic() + KEPT


def _read(choice: str | None) -> SshConfig:
    if choice is None:
        return SshConfig.load(ssh_config.USER_FILE, ssh_config.SYSTEM_FILE)
    return SshConfig.none() if choice == "none" else SshConfig.load_file(choice)


@functools.lru_cache(maxsize=64)
def files_of(choice: str | None) -> SshConfigFiles:
    """The files of one choice, the same object for all who make it."""
    return SshConfigFiles(choice)
