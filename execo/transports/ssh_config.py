"""What ``~/.ssh/config`` and ``/etc/ssh/ssh_config`` say of a host, read as ssh reads them.

The files are read once, without running ssh; each host is then looked up in memory. What a
connection in process cannot do is named in :attr:`HostSettings.only_openssh`.

Reference: ssh_config(5); ssh of OpenSSH 9.2, which the tests compare with. What differs on purpose:

- Lists of algorithms, and values of keywords that are without effect here, are read by their form
  alone: what ssh would refuse in them is taken.
- An empty pattern of a Host line is refused for every host.
- Of IgnoreUnknown lines, an earlier one is enough for the file to be read; which one counts for a
  host is decided when it is looked up.
- A Host or a user with characters of the shell is refused only where a ProxyCommand is used.
- BatchMode changes nothing here; Debian's ssh then asks every 300 s whether a host is alive.
- What is made for a user's own sessions is passed over in files: agents and displays are lent,
  ports forwarded, and connections shared with others, only where a script asks for it.
- Where versions of ssh differ, ssh decides: ProxyJump with quotes or a comment, %C with ProxyJump,
  User with tokens.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from .ssh_config_keywords import Place
from .ssh_config_lines import Block, Reading
from .ssh_config_lookup import Lookup
from .ssh_config_settings import HostSettings, settings_of
from .ssh_config_values import Hop
from .ssh_tokens import LocalNames

__all__ = ["Hop", "HostSettings", "SshConfig"]

USER_FILE = "~/.ssh/config"
SYSTEM_FILE = "/etc/ssh/ssh_config"


class SshConfig:
    """Files that have been read. Nothing changes any more: for any thread, and nothing blocks.

    Made by :meth:`load`, :meth:`load_file` or :meth:`none`.
    """

    def __init__(self, files: Sequence[list[Block]], reading: Reading, local: LocalNames) -> None:
        self._files = tuple(files)
        self._reading = reading
        self._local = local
        self._options: dict[tuple[str, ...], list[Block]] = {}

    @classmethod
    def load(
        cls,
        user_file: str | None = USER_FILE,
        system_file: str | None = SYSTEM_FILE,
        *,
        home: str | None = None,
    ) -> SshConfig:
        """Read what ssh reads. Blocks as files do.

        Either file may be missing. Others than the user and root must not be able to write to the
        user's file, nor to included ones.

        :param user_file: the user's file, None = none
        :param system_file: the system's file, None = none
        :param home: the user's home; None = as ssh: the one that the system knows, and ``$HOME``
          for what is included
        :raises SshConfigError: for what ssh refuses
        """
        local, reading = _begin(home)
        files = []
        if user_file is not None:
            files.append(reading.file(user_file, place=Place.USER, check=True))
        if system_file is not None:
            files.append(reading.file(system_file, place=Place.SYSTEM, check=False))
        return cls(files, reading, local)

    @classmethod
    def load_file(cls, path: str, *, home: str | None = None) -> SshConfig:
        """Read one file alone, as ``ssh -F``. Blocks as files do.

        :param path: the file
        :param home: as for :meth:`load`
        :raises SshConfigError: for what ssh refuses, or if there is no such file
        """
        local, reading = _begin(home)
        return cls([reading.file(path, place=Place.USER, check=False, must=True)], reading, local)

    @classmethod
    def none(cls, *, home: str | None = None) -> SshConfig:
        """No file at all, as ``ssh -F none``.

        :param home: as for :meth:`load`
        """
        local, reading = _begin(home)
        return cls([], reading, local)

    @property
    def changed(self) -> bool:
        """Whether one of the files has changed since. Blocks as files do."""
        return self._reading.changed

    def lookup(
        self,
        host: str,
        *,
        user: str | None = None,
        port: int | None = None,
        options: Sequence[str] = (),
    ) -> HostSettings:
        """What the files say of a host.

        :param host: its name, as ``ssh`` would be given it
        :param user: whom to log in as; None = what the files say
        :param port: the port; None = what the files say
        :param options: ``Key=value``, as for ``ssh -o``: they come before the files. Messages call
          the place ``ssh_options``
        :raises SshConfigError: for what ssh refuses, for example a token that there is not
        """
        files = (self._command_line(tuple(options)), *self._files) if options else self._files
        found = Lookup(self._local, host, user, port)
        found.read(files)
        found.settle_host()
        if self._reading.asks_for_final:
            found.final = True
            found.read(files)
        found.check_unknown(self._reading.unknown)
        return settings_of(found)

    def _command_line(self, options: tuple[str, ...]) -> list[Block]:
        blocks = self._options.get(options)
        if blocks is None:
            reading = Reading(self._reading.home, self._reading.include_home)
            blocks = reading.options(options)
            self._options[options] = blocks
        return blocks


def _begin(home: str | None) -> tuple[LocalNames, Reading]:
    local = LocalNames.of_this_process()
    if home is None:
        return local, Reading(local.home, os.environ.get("HOME") or local.home)
    return LocalNames(local.user, home, local.host), Reading(home, home)
