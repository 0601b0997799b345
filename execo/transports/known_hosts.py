"""Known host keys: read once, looked up quickly, written under a lock.

Under ``accept-new`` the first key that a host shows is recorded and any other one refused later;
``strict`` refuses unknown hosts too; ``off`` looks at nothing. The files are those of OpenSSH.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import functools
import hashlib
import hmac
import os
import re
import secrets
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from execo._core.locks import new_lock
from execo._core.pool import Strand
from execo._core.room import NO_ROOM, with_room
from execo._core.runtime import Runtime
from execo.log import logger

from .ssh_config_match import wildcards

__all__ = ["HostKey", "KnownHosts", "KnownHostsFiles", "has_authority"]

USER_FILE = "~/.ssh/known_hosts"
SYSTEM_FILE = "/etc/ssh/ssh_known_hosts"

KEPT = 10.0
"""Seconds after which the files are read again: somebody may have removed a changed key."""


_KINDS = frozenset({
    "ssh-rsa",
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostKey:
    """The public key of a host: its type, and its form on the wire."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As ssh shows it."""
        digest = hashlib.sha256(self.blob).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


@dataclass(frozen=True, slots=True)
class _Entry:
    names: tuple[str, ...]
    key: HostKey


def _entry(words: Sequence[str]) -> _Entry | None:
    """What the names, the type and the key of a line say; None for what is none, or of a type that
    we cannot use: ssh, too, passes over these."""
    if len(words) < 3 or words[1] not in _KINDS:
        return None
    try:
        blob = base64.b64decode(words[2], validate=True)
    except (ValueError, binascii.Error):
        return None
    kind = words[1].encode()
    if not blob.startswith(len(kind).to_bytes(4, "big") + kind):
        return None
    return _Entry(tuple(words[0].split(",")), HostKey(words[1], blob))


class KnownHosts:
    """What some files say. Reading them blocks; the rest belongs to the I/O thread.

    :param paths: the files; new keys are written into the first one
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._paths = paths
        self._plain: dict[str, list[HostKey]] = {}
        self._others: list[_Entry] = []  # hashed names and patterns
        self._revoked: list[_Entry] = []
        self._authorities: list[_Entry] = []
        self._unread = ""
        try:
            for path in paths:
                for line in _lines(path):
                    self._read(line.split())
        except OSError as exc:
            self._unread = f"{exc.filename} cannot be read: {exc.strerror}"

    def _read(self, words: list[str]) -> None:
        if not words or words[0].startswith("#"):
            return
        marker = words.pop(0) if words[0].startswith("@") else ""
        entry = _entry(words)
        if entry is None:
            return
        if marker == "@cert-authority":
            self._authorities.append(entry)
        elif marker == "@revoked":
            self._revoked.append(entry)
        elif marker:
            return
        elif any(c in name for name in entry.names for c in "|*?!"):
            self._others.append(entry)
        else:
            for name in entry.names:
                # Names are looked for in small letters, as ssh does.
                self._plain.setdefault(name.lower(), []).append(entry.key)

    @property
    def is_slow(self) -> bool:
        """Whether a look-up may take milliseconds: each hashed name has to be tried."""
        return len(self._others) > 20

    def keys_of(self, name: str) -> list[HostKey]:
        """The known keys of a host."""
        others = [entry.key for entry in self._others if _matches(entry.names, name)]
        return others + self._plain.get(name, [])

    def problem(
        self, name: str, key: HostKey, known: Sequence[HostKey], *, strict: bool
    ) -> str | None:
        """Why ``key`` cannot be that of the host; None if it is, or is the first one.

        :param known: what :meth:`keys_of` the host has given
        """
        if self._unread:
            return f"its host key cannot be looked up: {self._unread}; see ulimit -n"
        if any(entry.key == key and _matches(entry.names, name) for entry in self._revoked):
            return "its host key is marked as revoked"
        if key in known:
            return None
        shown = f"{key.kind} {key.fingerprint}"
        if any(_matches(entry.names, name) for entry in self._authorities):
            return (
                f"an authority answers for its host key (@cert-authority in "
                f"{' or '.join(self._paths)}), which only ssh can check: set transport to 'openssh'"
            )
        if any(one.kind == key.kind for one in known):
            remedy = shlex.join(["ssh-keygen", "-f", self._paths[0], "-R", name])
            return (
                f"its host key has changed: it shows {shown}, not the known one. If it was "
                f"reinstalled, remove the old key: {remedy}"
            )
        if known:
            return f"its host key is of another type than the known one: it shows {shown}"
        if name.startswith("[") and self._is_bare(name, key):
            return None
        if strict:
            return (
                f"its host key is not known: it shows {shown}. Add it to "
                f"{self._paths[0]}, or set host_key_policy to 'accept-new'"
            )
        return None

    def _is_bare(self, name: str, key: HostKey) -> bool:
        """As ssh does: an entry without the port will do, if it is the same key."""
        return key in self.keys_of(name[1:].partition("]")[0])

    def add(self, name: str, key: HostKey) -> bool:
        """Remember a key that is new; False if another connection was quicker."""
        keys = self._plain.setdefault(name, [])
        if key in keys:
            return False
        keys.append(key)
        return True

    def write(self, name: str, key: HostKey, hashed: bool = False) -> None:
        """Append a key to the first file, the name as it is or hashed. Blocks: on a worker."""
        path = self._paths[0]
        text = base64.b64encode(key.blob).decode()
        line = f"{_hashed(name) if hashed else name} {key.kind} {text}\n"
        try:
            os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
            with open(path, "a+b", opener=_ours) as file:
                # Other processes do the same at the same time.
                fcntl.lockf(file, fcntl.LOCK_EX)
                file.seek(0, os.SEEK_END)
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        line = "\n" + line
                file.write(line.encode("utf-8", "surrogateescape"))
        except (OSError, ValueError) as exc:
            why = getattr(exc, "strerror", None) or exc
            logger.warning("cannot record the key of %s in %s: %s", name, path, why)


def _ours(path: str, flags: int) -> int:
    # Whatever the umask of the script: who writes there says which hosts are trusted.
    return os.open(path, flags, 0o600)


def _matches(names: Sequence[str], name: str) -> bool:
    """Whether these names mean the host (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    matched = False
    for pattern in names:
        if pattern.startswith("|1|"):
            matched = matched or _is_hash_of(pattern, name)
        elif pattern.startswith("!"):
            if _fits(pattern[1:], name):
                return False
        else:
            matched = matched or _fits(pattern, name)
    return matched


def _hash(salt: bytes, name: str) -> bytes:
    return hmac.digest(salt, name.encode("utf-8", "surrogateescape"), "sha1")


def _hashed(name: str) -> str:
    """As ``ssh-keygen -H`` writes it: ``|1|salt|hash``."""
    salt = secrets.token_bytes(20)
    return "|1|" + "|".join(base64.b64encode(part).decode() for part in (salt, _hash(salt, name)))


def _is_hash_of(pattern: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in pattern[3:].split("|"))
    except ValueError:
        return False
    return _hash(salt, name) == digest


def _fits(pattern: str, name: str) -> bool:
    return _compiled(pattern).fullmatch(name) is not None


@functools.lru_cache(1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(wildcards(pattern), re.IGNORECASE)


def _lines(path: str) -> list[str]:
    try:
        with with_room(partial(open, path, encoding="utf-8", errors="replace")) as file:
            return file.readlines()
    except OSError as exc:
        # None of the files needs to exist. But every key would be taken for the first one of its
        # host where a file is not read for want of a descriptor.
        if exc.errno in NO_ROOM:
            raise
        return []
    except ValueError:  # a name that cannot be one
        return []


def _default(paths: tuple[str, ...]) -> tuple[str, ...]:
    return paths or (os.path.expanduser(USER_FILE), SYSTEM_FILE)


def _stamp(paths: Sequence[str]) -> tuple[tuple[int, int, int] | None, ...]:
    """Changes when one of the files does."""
    stamps: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            stamps.append(None)
        else:
            stamps.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(stamps)


_authorities: dict[str, tuple[float, object, tuple[tuple[str, ...], ...]]] = {}
_authorities_lock = new_lock()


def has_authority(paths: tuple[str, ...], name: str) -> bool:
    """Whether an authority answers for the host's key (``@cert-authority``), which only the ssh
    command can check. From any thread; reads the files when they have changed, and looks at most
    every :data:`KEPT` seconds whether they have.

    :param paths: the files; none = the user's and the system's
    :param name: the host's name in them
    """
    return any(_matches(names, name) for path in _default(paths) for names in _authorities_of(path))


def _authorities_of(path: str) -> tuple[tuple[str, ...], ...]:
    now = time.monotonic()
    known = _authorities.get(path)
    if known is not None and now < known[0]:
        return known[2]
    with _authorities_lock:
        stamp = _stamp((path,))
        if known is None or known[1] != stamp:
            lines = (line.split() for line in _lines(path) if "@cert-authority" in line)
            found = tuple(
                tuple(words[1].split(","))
                for words in lines
                if len(words) > 3 and words[0] == "@cert-authority"
            )
        else:
            found = known[2]
        _authorities[path] = (now + KEPT, stamp, found)
        return found


class KnownHostsFiles:
    """The files in use by this process. Methods belong to the I/O thread, save ``_read``."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[tuple[str, ...], tuple[float, KnownHosts, object]] = {}
        self._strands: dict[tuple[str, ...], Strand] = {}

    def get(
        self,
        paths: tuple[str, ...],
        name: str,
        on_known: Callable[[KnownHosts, list[HostKey]], object],
    ) -> None:
        """Call ``on_known`` with what the files say, and the keys of ``name`` among it.

        :param paths: the files; none = the user's and the system's
        """
        paths = _default(paths)
        found = self._known.get(paths)
        if found is not None and time.monotonic() < found[0] and not found[1].is_slow:
            on_known(found[1], found[1].keys_of(name))
        else:
            strand = self._strands.setdefault(paths, Strand(self._runtime.workers, lambda: name))
            strand.submit(self._read, paths, name, on_known)

    def forget(self, paths: tuple[str, ...]) -> None:
        """Have the files read again: what they say was a problem, which may be mended."""
        self._known.pop(_default(paths), None)

    def _read(
        self,
        paths: tuple[str, ...],
        name: str,
        on_known: Callable[[KnownHosts, list[HostKey]], object],
    ) -> None:
        # One at a time for each set of files: a thousand hosts read them once.
        found = self._known.get(paths)
        if found is None or time.monotonic() >= found[0]:
            stamp = _stamp(paths)  # before they are read: what is written meanwhile counts as new
            known = found[1] if found is not None and found[2] == stamp else KnownHosts(paths)
            found = self._known[paths] = (time.monotonic() + KEPT, known, stamp)
        self._runtime.loop.call_soon(on_known, found[1], found[1].keys_of(name))
