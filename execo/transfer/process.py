"""The processes of Put and Get: one script for each host, and the files on their way."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, NoReturn

from execo._core.locks import new_lock
from execo.errors import ProcessError, Reason
from execo.log import escape_controls
from execo.ssh_process import SshProcess

from .progress import NO_METER, Measured, Meter
from .request import Transfer, cause
from .send import Package
from .texts import get_command, put_file_command, put_tree_command, too_long

__all__ = ["FilesProcess", "GetProcess", "NotStarted", "Packages", "PutProcess"]

_SAYS_NOTHING = r"^\s*$|^tar: (Exiting with failure|Error is not recoverable|error exit delayed)"
"""Lines on stderr that follow the one with the cause."""


class FilesProcess(Measured, SshProcess):
    """A script on a host that takes or gives files. Made by the actions, see there."""

    verb: ClassVar[str] = ""
    may_use_scp: ClassVar[bool] = True
    names: tuple[str, ...] = ()
    location = ""

    def write(self, data: str | bytes) -> NoReturn:
        """Not for this one: its input is made of files.

        :raises TypeError: always
        """
        raise TypeError(f"{self!r}: nothing can be written to it, its input is made of files")

    def close_stdin(self) -> NoReturn:
        """Not for this one.

        :raises TypeError: always
        """
        raise TypeError(f"{self!r}: its input is made of files, which end by themselves")

    @property
    def message(self) -> str:
        """What went wrong, in a sentence that names the files, the host and the cause."""
        text = super().message
        error = self._outcome.error
        if not text or (error is not None and error.host is not None):
            return text
        if isinstance(error, ProcessError):
            # What kept it from being started is told once, not in front of itself.
            own = error.__cause__ if isinstance(error.__cause__, NotStarted) else error
            text = str(own)
        else:
            if self.reason is Reason.EXIT_CODE:
                # That its input was not all taken says nothing more.
                text = self._exit_text()
            said = self._told(self.stderr.splitlines())
            text = ": ".join([text, *(escape_controls(line) for line in said[-2:])])
        return text if text.startswith(self._label()) else f"{self._label()}: {text}"

    def _exit_text(self) -> str:
        return f"exited {self.exit_code}"

    def _told(self, lines: list[str]) -> list[str]:
        """Those of ``lines``, from stderr, that say something."""
        return [line for line in lines if not re.search(_SAYS_NOTHING, line)]

    def _label(self) -> str:
        raise NotImplementedError

    def _transfer(
        self, words: tuple[str, ...], *, total: int | None = None, **what: Any
    ) -> Transfer:
        self._meter = Meter(total)
        self.cmd, told = words, self.cmd
        try:
            request = super()._request()
        finally:
            self.cmd = told
        if request.relay:
            raise ValueError("a transfer cannot be detached: its files pass through this script")
        transport, self.transport = self.transport, "transfer"
        return Transfer(
            request.command,
            cwd=request.cwd,
            env=request.env,
            pty=False,  # a terminal changes what passes through it
            group=request.group,
            kill_timeout=request.kill_timeout,
            detach=request.detach,
            target=request.target,
            become=request.become,
            secret_env=request.secret_env,
            through=request.through,
            transport=transport,
            label=self._label(),
            meter=self._meter,
            **what,
        )


class NotStarted(Exception):
    """Why it cannot be started, in words for the user."""


class PutProcess(FilesProcess):
    """Local files on their way to one host."""

    verb = "put"
    packages: Packages

    def _label(self) -> str:
        return f"cannot put {_listed(self.names)} on {self.host.address}"

    @property
    def total(self) -> int | None:
        """Bytes that there are in all; None while that is not known (new)."""
        if self._meter is not NO_METER:
            return self._meter.total
        package = self.packages.look(self.names)
        return None if package is None else self._size_of(package)

    @property
    def received_from(self) -> str | None:
        """The host that has passed it on, in a broadcast; None = this machine, or not known yet
        (new)."""
        return self._meter.source

    def _size_of(self, package: Package) -> int:
        return package.total

    def _package(self) -> Package:
        try:
            return self.packages.get(self.names)
        except (OSError, ValueError) as exc:
            raise NotStarted(cause(exc)) from exc

    def _request(self) -> Transfer:
        package = self._package()
        return self._transfer(
            self._words(package),
            total=package.total,
            package=package,
            on_end=partial(self.packages.release, self.names),
        )

    def _words(self, package: Package) -> tuple[str, ...]:
        if not package.single:
            return put_tree_command(self.location)
        return put_file_command(
            self.location, package.name, size=package.size, mode=package.mode, mtime=package.mtime
        )


class GetProcess(FilesProcess):
    """Files of one host on their way here."""

    verb = "get"

    def _label(self) -> str:
        return f"cannot get {_listed(self.names)} from {self.host.address}"

    def _request(self) -> Transfer:
        words = get_command(self.names)
        if too_long(words):
            raise NotStarted("too many names for one command: use patterns, or fetch a folder")
        return self._transfer(words, location=self._local_location())

    def _local_location(self) -> str:
        location = os.path.expanduser(self.location)
        # The slash at the end says that it is a folder.
        return os.path.abspath(location) + ("/" if location.endswith("/") else "")


class Packages:
    """What the hosts of a Put receive, found at its start, once for all that receive the same. From
    any thread but the I/O thread.

    :param wanted: the names that each host's process asks for
    """

    def __init__(self, wanted: Iterable[tuple[str, ...]]) -> None:
        self._lock = new_lock()
        self._left = Counter(wanted)
        self._known: dict[tuple[str, ...], Package | Exception] = {}

    def get(self, names: tuple[str, ...]) -> Package:
        """What ``names`` stand for. Blocks as long as the file system takes.

        :raises OSError: see :class:`~execo.transfer.send.Package`; the same for all that ask
        :raises ValueError: likewise
        """
        with self._lock:
            if names not in self._known:
                try:
                    self._known[names] = Package(names)
                except (OSError, ValueError) as exc:
                    self._known[names] = exc
            found = self._known[names]
        if isinstance(found, Exception):
            raise found
        return found

    def look(self, names: tuple[str, ...]) -> Package | None:
        """What ``names`` stand for, if somebody has asked before."""
        found = self._known.get(names)
        return found if isinstance(found, Package) else None

    def release(self, names: tuple[str, ...]) -> None:
        """One process needs them no more: what nobody needs is dropped. Hosts that each receive
        files of their own would keep all of these in memory."""
        with self._lock:
            self._left[names] -= 1
            if self._left[names] <= 0:
                self._known.pop(names, None)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(name) for name in names[:3]) + more
