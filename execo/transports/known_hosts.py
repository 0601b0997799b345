"""Known host keys: read once, looked up quickly, written under a lock.

Under ``accept-new`` the first key that a host shows is recorded and any other one refused later;
``strict`` refuses unknown hosts too; ``off`` looks at nothing. The files are those of OpenSSH.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import time
from collections.abc import Callable, Sequence

import paramiko
from paramiko.hostkeys import HostKeyEntry, HostKeys

from execo._core.pool import Strand
from execo._core.runtime import Runtime
from execo.log import logger

__all__ = ["KnownHosts", "KnownHostsFiles"]

USER_FILE = "~/.ssh/known_hosts"
SYSTEM_FILE = "/etc/ssh/ssh_known_hosts"

KEPT = 10.0
"""Seconds after which the files are read again: somebody may have removed a changed key."""


class KnownHosts:
    """What some files say. Reading them blocks; the rest belongs to the I/O thread.

    :param paths: the files; new keys are written into the first one
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._paths = paths
        self._plain: dict[str, list[paramiko.PKey]] = {}
        self._others: list[HostKeyEntry] = []  # hashed names and patterns
        self._revoked: list[HostKeyEntry] = []
        for path in paths:
            # None of them needs to exist.
            with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as f:
                for number, line in enumerate(f, 1):
                    self._read(line.strip(), number)

    def _read(self, line: str, number: int) -> None:
        if not line or line.startswith("#"):
            return
        marker, rest = "", line
        if line.startswith("@"):
            marker, _, rest = line.partition(" ")
        try:
            entry = HostKeyEntry.from_line(rest, number)
        except Exception:  # noqa: BLE001 - a line that is none is passed over, as by ssh
            return
        if entry is None or marker == "@cert-authority":
            return
        if marker == "@revoked":
            self._revoked.append(entry)
            return
        if any(c in name for name in entry.hostnames for c in "|*?!"):
            self._others.append(entry)
            return
        for name in entry.hostnames:
            self._plain.setdefault(name, []).append(entry.key)

    @property
    def is_slow(self) -> bool:
        """Whether a look-up may take milliseconds: each hashed name has to be tried."""
        return len(self._others) > 20

    def keys_of(self, name: str) -> list[paramiko.PKey]:
        """The known keys of a host."""
        others = [entry.key for entry in self._others if _matches(entry, name)]
        return others + self._plain.get(name, [])

    def problem(
        self, name: str, key: paramiko.PKey, known: Sequence[paramiko.PKey], *, strict: bool
    ) -> str | None:
        """Why ``key`` cannot be that of the host; None if it is, or is the first one.

        :param known: what :meth:`keys_of` the host has given
        """
        same = key.asbytes()
        if any(entry.key.asbytes() == same and _matches(entry, name) for entry in self._revoked):
            return "its host key is marked as revoked"
        if any(one.asbytes() == same for one in known):
            return None
        shown = f"{key.get_name()} {key.fingerprint}"
        if any(one.get_name() == key.get_name() for one in known):
            remedy = shlex.join(["ssh-keygen", "-f", self._paths[0], "-R", name])
            return (
                f"its host key has changed: it shows {shown}, not the known one. If it was "
                f"reinstalled, remove the old key: {remedy}"
            )
        if known:
            return f"its host key is of another type than the known one: it shows {shown}"
        if name.startswith("[") and self._is_bare(name, same):
            return None
        if strict:
            return (
                f"its host key is not known: it shows {shown}. Add it to "
                f"{self._paths[0]}, or set host_key_policy to 'accept-new'"
            )
        return None

    def _is_bare(self, name: str, key: bytes) -> bool:
        """As ssh does: an entry without the port will do, if it is the same key."""
        return any(one.asbytes() == key for one in self.keys_of(name[1:].partition("]")[0]))

    def add(self, name: str, key: paramiko.PKey) -> bool:
        """Remember a key that is new; False if another connection was quicker."""
        keys = self._plain.setdefault(name, [])
        if any(one.asbytes() == key.asbytes() for one in keys):
            return False
        keys.append(key)
        return True

    def write(self, name: str, key: paramiko.PKey) -> None:
        """Append a key to the first file. Blocks: on a worker."""
        path = self._paths[0]
        line = f"{name} {key.get_name()} {key.get_base64()}\n"
        try:
            os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
            with open(path, "a+b") as file:
                # Other processes do the same at the same time.
                fcntl.lockf(file, fcntl.LOCK_EX)
                file.seek(0, os.SEEK_END)
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        line = "\n" + line
                file.write(line.encode())
        except OSError as exc:
            logger.warning("cannot record the key of %s in %s: %s", name, path, exc.strerror)


def _matches(entry: HostKeyEntry, name: str) -> bool:
    """Whether the names of ``entry`` mean the host (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    matched = False
    for pattern in entry.hostnames:
        if pattern.startswith("|1|"):
            matched = matched or HostKeys.hash_host(name, pattern) == pattern
        elif pattern.startswith("!"):
            if _fits(pattern[1:], name):
                return False
        else:
            matched = matched or _fits(pattern, name)
    return matched


def _fits(pattern: str, name: str) -> bool:
    # Not fnmatch: "[address]:port" is a name and no class of characters.
    text = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(text, name, re.IGNORECASE) is not None


class KnownHostsFiles:
    """The files in use by this process. Methods belong to the I/O thread, save ``_read``."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[tuple[str, ...], tuple[float, KnownHosts | None]] = {}
        self._strands: dict[tuple[str, ...], Strand] = {}

    def get(
        self,
        paths: tuple[str, ...],
        name: str,
        on_known: Callable[[KnownHosts, list[paramiko.PKey]], object],
    ) -> None:
        """Call ``on_known`` with what the files say, and the keys of ``name`` among it.

        :param paths: the files; none = the user's and the system's
        """
        paths = paths or (os.path.expanduser(USER_FILE), SYSTEM_FILE)
        until, known = self._known.get(paths, (0.0, None))
        if known is not None and time.monotonic() < until and not known.is_slow:
            on_known(known, known.keys_of(name))
        else:
            strand = self._strands.setdefault(paths, Strand(self._runtime.workers, lambda: name))
            strand.submit(self._read, paths, name, on_known)

    def forget(self, paths: tuple[str, ...]) -> None:
        """Have the files read again: what they say was a problem, which may be mended."""
        self._known.pop(paths or (os.path.expanduser(USER_FILE), SYSTEM_FILE), None)

    def _read(
        self,
        paths: tuple[str, ...],
        name: str,
        on_known: Callable[[KnownHosts, list[paramiko.PKey]], object],
    ) -> None:
        # One at a time for each set of files: a thousand hosts read them once.
        until, known = self._known.get(paths, (0.0, None))
        if known is None or time.monotonic() >= until:
            known = KnownHosts(paths)
            self._known[paths] = (time.monotonic() + KEPT, known)
        self._runtime.loop.call_soon(on_known, known, known.keys_of(name))
