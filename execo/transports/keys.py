"""The private keys that one may log in with: of a file, of the agent, the usual ones.

Reading them blocks: on a worker. What was read is kept for the next connections; a thousand hosts
with one key file read it once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paramiko

from execo._core.runtime import Runtime

__all__ = ["Identity", "KeyRing"]

USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
"""In ``~/.ssh``, in the order in which they are tried."""

KEPT = 10.0
"""Seconds after which keys are read again: somebody may have added one to the agent, or mended a
file. To look at the file each time would be a system call that may hang, on the I/O thread."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key, and where it is from, for messages."""

    key: paramiko.PKey
    source: str


@dataclass(frozen=True, slots=True)
class Keys:
    """What there is to log in with, and what could not be used and why."""

    identities: tuple[Identity, ...]
    problems: tuple[str, ...]


class KeyRing:
    """The keys of this process. Methods belong to the I/O thread, save ``_read*`` (workers)."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[str | None, tuple[float, Keys]] = {}
        self._waiting: dict[str | None, list[Callable[[Keys], object]]] = {}
        self._agent: paramiko.Agent | None = None

    def get(self, keyfile: str | None, on_keys: Callable[[Keys], object]) -> None:
        """Call ``on_keys`` with the keys to try: that of ``keyfile``; without one, those of the
        agent and then the usual ones of ``~/.ssh``."""
        known = self._known.get(keyfile)
        if known is not None and time.monotonic() < known[0]:
            on_keys(known[1])
            return
        waiting = self._waiting.setdefault(keyfile, [])
        waiting.append(on_keys)
        if len(waiting) == 1:
            self._runtime.workers.submit(self._read, keyfile)

    def _read(self, keyfile: str | None) -> None:
        try:
            keys = self._read_usual() if keyfile is None else _read_file(keyfile)
        except Exception as exc:  # noqa: BLE001 - whatever it is: those who wait must hear of it
            keys = Keys((), (f"{keyfile or 'the agent'}: {exc}",))
        self._runtime.loop.call_soon(self._have, keyfile, keys)

    def _have(self, keyfile: str | None, keys: Keys) -> None:
        if keys.identities:
            self._known[keyfile] = (time.monotonic() + KEPT, keys)
        for on_keys in self._waiting.pop(keyfile, ()):
            on_keys(keys)

    def _read_usual(self) -> Keys:
        found: list[Identity] = []
        problems: list[str] = []
        if os.environ.get("SSH_AUTH_SOCK"):
            found += self._read_agent(problems)
        else:
            problems.append("there is no agent (SSH_AUTH_SOCK is not set)")
        for name in USUAL_KEYS:
            path = os.path.expanduser(f"~/.ssh/{name}")
            if os.path.exists(path):
                keys = _read_file(path)
                found += keys.identities
                problems += keys.problems
        return Keys(tuple(found), tuple(problems))

    def _read_agent(self, problems: list[str]) -> Sequence[Identity]:
        # Only one worker at a time comes here, see get().
        lock = threading.Lock()
        try:
            agent = paramiko.Agent()
            keys = agent.get_keys()
        except (OSError, paramiko.SSHException) as exc:
            problems.append(f"the agent does not answer: {exc}")
            return ()
        if not keys:
            problems.append("the agent holds no key")
        self._agent = agent  # kept: its keys sign through it
        return [Identity(_one_at_a_time(key, lock), _agent_name(key)) for key in keys]


def _agent_name(key: Any) -> str:
    comment = getattr(key, "comment", "")
    return f"the agent's key {comment!r}" if comment else "a key of the agent"


def _one_at_a_time(key: Any, lock: threading.Lock) -> paramiko.PKey:
    """Have only one thread ask at a time: paramiko would mix up the answers of the agent."""
    sign = key.sign_ssh_data

    def sign_alone(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return sign(*args, **kwargs)

    key.sign_ssh_data = sign_alone
    result: paramiko.PKey = key
    return result


def _read_file(path: str) -> Keys:
    try:
        key = paramiko.PKey.from_path(path)
    except OSError as exc:
        return Keys((), (f"{path}: {exc.strerror or exc}",))
    except Exception as exc:  # noqa: BLE001 - paramiko and cryptography raise a dozen kinds
        text = "it is not a private key that can be read"
        if isinstance(exc, paramiko.PasswordRequiredException) or "assword" in str(exc):
            text = "it needs a passphrase; add it to the agent (ssh-add)"
        return Keys((), (f"{path}: {text}",))
    return Keys((Identity(key, path),), ())
