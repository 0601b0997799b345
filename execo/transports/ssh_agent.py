"""The agent: which keys it holds, and signatures of these (draft-ietf-sshm-ssh-agent).

Each question has a connection of its own: an agent that was restarted, or has lost one, is met
again at the next. Everything here blocks, for as long as the caller says.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

from .key_files import LoginProblem, PublicKey

__all__ = ["AgentKey", "ask_signature", "list_keys"]

_REQUEST_IDENTITIES, _IDENTITIES = 11, 12
_SIGN_REQUEST, _SIGNATURE = 13, 14
_FLAGS = {"rsa-sha2-256": 2, "rsa-sha2-512": 4}
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class AgentKey:
    """A key, or a certificate with its key, that the agent holds."""

    public: PublicKey
    comment: str


def list_keys(path: str, timeout: float) -> list[AgentKey]:
    """The keys of the agent at the socket ``path``.

    :raises LoginProblem: if it does not answer
    """
    kind, rest = _ask(path, bytes([_REQUEST_IDENTITIES]), timeout)
    if kind != _IDENTITIES:
        raise LoginProblem("the agent does not tell its keys")
    fields = _Fields(rest)
    keys = []
    try:
        for _ in range(fields.number()):
            blob, comment = fields.string(), fields.string()
            name = _Fields(blob).string().decode("ascii")
            keys.append(AgentKey(PublicKey(name, blob), comment.decode("utf-8", "replace")))
    except ValueError as exc:
        raise LoginProblem("the agent's answer cannot be understood") from exc
    return keys


def ask_signature(path: str, key: PublicKey, data: bytes, algorithm: str, timeout: float) -> bytes:
    """Have the agent sign ``data``: the signature on the wire.

    :raises LoginProblem: if it does not
    """
    flags = _FLAGS.get(algorithm, 0).to_bytes(4, "big")
    request = bytes([_SIGN_REQUEST]) + _string(key.blob) + _string(data) + flags
    kind, rest = _ask(path, request, timeout)
    if kind != _SIGNATURE:
        raise LoginProblem("the agent refused to sign with it")
    try:
        return _Fields(rest).string()
    except ValueError as exc:
        raise LoginProblem("the agent's answer cannot be understood") from exc


def _ask(path: str, request: bytes, timeout: float) -> tuple[int, bytes]:
    deadline = time.monotonic() + timeout
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout)
            sock.connect(path)
            sock.sendall(_string(request))
            size = int.from_bytes(_receive(sock, 4, deadline), "big")
            if not 0 < size <= _MOST_BYTES:
                raise LoginProblem("what answers at the agent's socket is no agent")
            answer = _receive(sock, size, deadline)
    except TimeoutError as exc:
        raise LoginProblem(f"the agent has not answered for {timeout:g} s") from exc
    except OSError as exc:
        raise LoginProblem(f"the agent does not answer: {exc.strerror or exc} ({path})") from exc
    return answer[0], answer[1:]


def _receive(sock: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        got = sock.recv(size - len(data))
        if not got:
            raise LoginProblem("the agent hung up")
        data += got
    return data


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class _Fields:
    """The fields of a message, one after the other; ValueError where it is cut short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def _take(self, size: int) -> bytes:
        data = self._data[self._place : self._place + size]
        if len(data) < size:
            raise ValueError("cut short")
        self._place += size
        return data

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def string(self) -> bytes:
        return self._take(self.number())
