"""Put and Get by rsync: what is there already is not sent again.

The rsync here and the one of the host talk over the connection of the process, which any transport
makes: :mod:`~execo.transfer.rsync_relay` stands between them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import partial

from .process import GetProcess, NotStarted, PutProcess
from .receive import checked_name
from .request import Found, Transfer
from .send import Package
from .texts import is_folder_name, rsync_get_command, rsync_put_command, too_long
from .unpack import followed, is_special

__all__ = ["RsyncGetProcess", "RsyncPutProcess"]

# Times are compared to the nanosecond: rsync takes files of one size and one second for the same,
# and would leave those out that an experiment has written again. --no-whole-file: a delta, also
# where the settings of somebody say otherwise. What rsync takes for ssh gets a stdout that does
# not block, unless --blocking-io: cat cannot write to such a one. --no-protect-args: some systems
# hide the options of the host's rsync in the data, where the relay does not find them.
_OPTIONS = ("-rLpt", "--modify-window=-1", "--no-whole-file", "--blocking-io", "--no-protect-args")

_NO_PRIVILEGES = "--chmod=ug-s,-t"
"""Hosts are not trusted with set-user-id bits."""

# What rsync runs instead of ssh. It has no connection of its own: rsync's stdin and stdout, which
# are 8 and 9 here, lead to the relay, which is told first what to run on the host. When the host
# has ended, 8 does, and with it all of this. No quotes: rsync splits it itself.
_SHELL = (
    'exec 7<&0; printf "%s\\0" "$#" "$@" >&9; cat <&7 >&9 & cat <&8; kill $! 2>/dev/null; exit 0'
)
# What somebody has set for an rsync of theirs would change what is sent to the host, and names.
_LOCAL = (
    'unset RSYNC_ICONV RSYNC_OLD_ARGS RSYNC_PROTECT_ARGS; exec 8<&0 9>&1 </dev/null >&2; exec "$@"'
)

_EXIT_CODES = {
    1: "syntax or usage error",
    2: "protocol incompatibility",
    3: "errors selecting input or output files",
    4: "requested action not supported",
    10: "error in socket I/O",
    11: "error in file I/O",
    12: "error in rsync protocol data stream",
    13: "errors with program diagnostics",
    14: "error in IPC code",
    20: "received a signal",
    21: "some error returned by waitpid()",
    22: "error allocating core memory buffers",
    23: "partial transfer due to error",
    24: "partial transfer due to vanished source files",
    25: "too many deletions",
    30: "timeout in data send or receive",
    126: "rsync cannot be run",
}
"""The words of its manual (rsync(1), exit values); 126 is the shell's."""

_SAYS_NOTHING = re.compile(
    r"^rsync (error|warning): .* \(code \d+\)|^rsync: connection unexpectedly closed|"
    r"^\*\*\* Skipping any contents"
)
"""Lines of rsync that follow the one with the cause, or repeat the exit code."""


class RsyncPutProcess(PutProcess):
    """Local files on their way to one host by rsync."""

    may_use_scp = False

    def _request(self) -> Transfer:
        _check_program()
        package = self._package()
        words = rsync_put_command(self.location, package.name if package.single else None)
        sources = [f"--exclude={_literal('/' + name)}" for name in package.left_out]
        # The place is known to the host alone.
        sources += ["--", *package.paths, "host:place"]
        return self._transfer(
            words,
            total=package.content,
            rsync=lambda found: _local_words(*sources),
            on_end=partial(self.packages.release, self.names),
        )

    def _size_of(self, package: Package) -> int:
        return package.content

    def _exit_text(self) -> str:
        return _exit_text(self.exit_code, self.stderr)

    def _told(self, lines: list[str]) -> list[str]:
        return _causes(super()._told(lines))


class RsyncGetProcess(GetProcess):
    """Files of one host on their way here by rsync."""

    may_use_scp = False

    def _request(self) -> Transfer:
        _check_program()
        words = rsync_get_command(self.names)
        if too_long(words):
            raise NotStarted("too many names for one command: use patterns, or fetch a folder")
        location = self._local_location()
        return self._transfer(words, location=location, rsync=partial(_get_words, location))

    def _exit_text(self) -> str:
        return _exit_text(self.exit_code, self.stderr)

    def _told(self, lines: list[str]) -> list[str]:
        return _causes(super()._told(lines))


def _check_program() -> None:
    if shutil.which("rsync") is None:
        raise NotStarted("rsync is missing on this machine: apt install rsync")


def _local_words(*words: str) -> tuple[str, ...]:
    return ("sh", "-c", _LOCAL, "sh", "rsync", *_OPTIONS, "-e", f"sh -c '{_SHELL}' sh", *words)


def _get_words(location: str, found: list[Found]) -> tuple[str, ...]:
    """The words that fetch what a host has. Makes folders that are missing.

    :raises OSError: they cannot be made; the destination is not for these files
    :raises ValueError: the host has sent names that lead elsewhere, or one twice
    """
    names = [checked_name(each.name) for each in found]
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(
                f"{name!r} is there twice: two of the names stand for it, or for files of the same "
                "name; fetch them one by one, to places of their own"
            )
    if not names:
        raise ValueError("it sent nothing that could be understood")
    place = location
    many = len(found) > 1 or found[0].size is None
    if many or is_folder_name(place) or os.path.isdir(place):
        os.makedirs(place, exist_ok=True)
        if not many:
            place = os.path.join(place, names[0])
    if many:
        place = place.rstrip("/") + "/"
    else:
        if os.path.isdir(place):
            raise IsADirectoryError(21, "it is a folder", place)
        place = followed(place)
        if is_special(place):
            raise OSError(f"{place}: it is no regular file, and rsync would replace it")
        os.makedirs(os.path.dirname(place), exist_ok=True)
    # rsync takes nothing from the host but what has these names, or is below them.
    sources = [f"host:./{_requested(name)}" for name in names]
    return _local_words(_NO_PRIVILEGES, "--", *sources, place)


def _requested(name: str) -> str:
    """A name on the host, which rsync takes for a pattern."""
    if not re.search(r"[*?[]", name):
        return name
    # Versions differ in what an escaped backslash stands for here, and none in the question mark.
    return re.sub(r"([*?\[])", r"\\\1", name.replace("\\", "\0")).replace("\0", "?")


def _literal(name: str) -> str:
    """A name where rsync expects a pattern of what to leave out."""
    # Without wildcards a backslash is one like any other.
    if not re.search(r"[*?[]", name):
        return name
    return re.sub(r"([*?\[\\])", r"\\\1", name)


def _exit_text(code: int | None, stderr: str) -> str:
    # What the script on the host says before it becomes an rsync (mkdir, ls) has exit codes, too.
    words = _EXIT_CODES.get(code or 0) if "rsync" in stderr else None
    return f"exited {code}" if words is None else f"exited {code} ({words})"


def _causes(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not _SAYS_NOTHING.search(line)] or list(lines)
