"""What one may log in with: the keys of files and of the agent, and their certificates.

Reading them blocks: on a worker. What was read is kept for the next connections; a thousand hosts
with one key file read it once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from execo._core.pool import Strand
from execo._core.runtime import Runtime

from .asking import Asker, askpass_program
from .base import Login
from .key_files import KeyFile, LoginProblem, PrivateKey, PublicKey, public_file, read_key
from .ssh_agent import AgentKey, ask_signature, list_keys

__all__ = ["Identity", "KeyRing", "Keys"]

USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
"""In ``~/.ssh``, in the order in which they are tried."""

KEPT = 10.0
"""Seconds after which keys are read again: somebody may have added one to the agent, or mended a
file. To look at the file each time would be a system call that may hang, on the I/O thread."""

AGENT_PATIENCE = 10.0
"""Seconds that an agent has to say which keys it holds."""

SIGNING_PATIENCE = 120.0
"""Seconds that an agent has to sign, where connect_timeout sets no limit: it may ask somebody."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key, or a certificate with its key.

    :param source: where it is from, for messages
    :param public: what a host is offered; None = known when the file is unlocked
    :param file: the file whose key signs; None = the agent signs
    :param agent: the agent's socket
    :param signer: which of its keys signs
    """

    source: str
    public: PublicKey | None
    file: KeyFile | None = None
    agent: str = ""
    signer: PublicKey | None = None

    @property
    def asks_first(self) -> bool:
        """A signature may cost somebody's attention: the host has to want it first."""
        return self.file is None or self.file.private is None


@dataclass(frozen=True, slots=True)
class Keys:
    """What there is to log in with, in the order to try, and what cannot be used and why."""

    identities: tuple[Identity, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What decides which keys there are."""

    keyfile: str | None
    identities: tuple[str, ...] | None
    certificates: tuple[str, ...]
    identities_only: bool
    agent: str | None
    socket: str | None  # of the agent, as the environment says it now
    can_unlock: bool


class KeyRing:
    """The keys of this process. Methods belong to the I/O thread, save ``_read`` and ``_sign*``
    (workers)."""

    def __init__(self, runtime: Runtime, asker: Asker) -> None:
        self._runtime = runtime
        self._asker = asker
        self._known: dict[_Wish, tuple[float, Keys]] = {}
        self._waiting: dict[_Wish, list[Callable[[Keys], object]]] = {}
        self._strands: dict[str, Strand] = {}

    def get(self, keyfile: str | None, login: Login, on_keys: Callable[[Keys], object]) -> None:
        """Call ``on_keys`` with what to try.

        First come certificates, then the keys that are named: ``keyfile`` and the login's
        identities. Without ``keyfile`` the agent's others follow, unless ``identities_only``; where
        none is named, so do the usual ones of ``~/.ssh``.
        """
        can_unlock = login.passphrase is not None or askpass_program() is not None
        wish = _Wish(
            keyfile,
            login.identities,
            login.certificates,
            login.identities_only,
            login.agent,
            agent_socket(login.agent),
            can_unlock,
        )
        known = self._known.get(wish)
        if known is not None and time.monotonic() < known[0]:
            on_keys(known[1])
            return
        waiting = self._waiting.setdefault(wish, [])
        waiting.append(on_keys)
        if len(waiting) == 1:
            self._runtime.workers.submit(self._read, wish)

    def _read(self, wish: _Wish) -> None:
        try:
            keys = _Gathering(wish).keys()
        except Exception as exc:  # noqa: BLE001 - whatever it is: those who wait must hear of it
            keys = Keys((), (f"{wish.keyfile or 'the keys'}: {exc}",))
        self._runtime.loop.call_soon(self._have, wish, keys)

    def _have(self, wish: _Wish, keys: Keys) -> None:
        if keys.identities:
            self._known[wish] = (time.monotonic() + KEPT, keys)
        for on_keys in self._waiting.pop(wish, ()):
            on_keys(keys)

    # -- signing --------------------------------------------------------------------------------

    def asks_somebody(self, identity: Identity, login: Login) -> bool:
        """Whether a person has to type a passphrase before it can sign."""
        file = identity.file
        return file is not None and file.private is None and self._asker.asks_for(file, login)

    def unlock(
        self,
        identity: Identity,
        login: Login,
        wanted: Callable[[], bool],
        on_done: Callable[[Identity | LoginProblem], object],
    ) -> None:
        """Call ``on_done`` with the identity of a file that can be used, whatever that takes.

        :param wanted: whether it still is: else nobody is asked for a passphrase
        """
        file = identity.file
        if file is None or file.private is not None:
            on_done(identity)
            return

        def on_key(key: PrivateKey | LoginProblem) -> None:
            if isinstance(key, LoginProblem):
                on_done(key)
            else:
                opened = replace(file, public=key.public, private=key)
                on_done(replace(identity, public=identity.public or key.public, file=opened))

        self._asker.unlock(file, login, wanted, on_key)

    def sign(
        self,
        identity: Identity,
        data: bytes,
        algorithm: str,
        timeout: float | None,
        wanted: Callable[[], bool],
        on_done: Callable[[bytes | LoginProblem], object],
    ) -> None:
        """Call ``on_done`` with the signature by an identity that is unlocked.

        :param wanted: whether the signature still is: an agent that does not answer holds up those
          behind it
        """
        if identity.file is not None:
            self._runtime.workers.submit(self._sign, identity, data, algorithm, on_done)
            return
        strand = self._strands.get(identity.agent)
        if strand is None:
            label = f"the agent {identity.agent}"
            strand = self._strands[identity.agent] = Strand(self._runtime.workers, lambda: label)
        patience = SIGNING_PATIENCE if timeout is None else timeout
        strand.submit(self._sign_by_agent, identity, data, algorithm, patience, wanted, on_done)

    def _sign(
        self,
        identity: Identity,
        data: bytes,
        algorithm: str,
        on_done: Callable[[bytes | LoginProblem], object],
    ) -> None:
        result: bytes | LoginProblem
        try:
            assert identity.file is not None and identity.file.private is not None
            result = identity.file.private.sign(data, algorithm)
        except Exception as exc:  # noqa: BLE001 - cryptography raises a dozen kinds
            result = LoginProblem(f"{identity.source} cannot be used: {exc}")
        self._runtime.loop.call_soon(on_done, result)

    def _sign_by_agent(
        self,
        identity: Identity,
        data: bytes,
        algorithm: str,
        patience: float,
        wanted: Callable[[], bool],
        on_done: Callable[[bytes | LoginProblem], object],
    ) -> None:
        if not wanted():
            return
        result: bytes | LoginProblem
        try:
            assert identity.signer is not None
            result = ask_signature(identity.agent, identity.signer, data, algorithm, patience)
        except LoginProblem as exc:
            result = LoginProblem(f"{identity.source}: {exc}")
        self._runtime.loop.call_soon(on_done, result)


# -- which keys there are -------------------------------------------------------------------------


def agent_socket(agent: str | None) -> str | None:
    """The agent's socket, as IdentityAgent of ssh_config(5) says it; None = no agent."""
    if agent is not None and agent.lower() == "none":
        return None
    if agent is None or agent == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    if agent.startswith("$"):
        return os.environ.get(agent[1:].strip("{}")) or None
    return os.path.expanduser(agent)


@dataclass(slots=True)
class _Gathering:
    """Puts together what a wish means. Blocks."""

    wish: _Wish
    problems: list[str] = field(default_factory=list)
    _held: list[AgentKey] | None = None

    def keys(self) -> Keys:
        wish = self.wish
        named = [*((wish.keyfile,) if wish.keyfile else ()), *(wish.identities or ())]
        usual: list[str] = []
        if wish.keyfile is None and wish.identities is None:
            paths = (os.path.expanduser(f"~/.ssh/{name}") for name in USUAL_KEYS)
            usual = [path for path in paths if os.path.exists(path)]
        others: list[Identity] = []
        if wish.keyfile is None and not wish.identities_only:
            others = [self._of_agent(key, _agent_name(key)) for key in self._agent_keys()]
            if self.wish.socket is None:
                where = "SSH_AUTH_SOCK is not set" if wish.agent is None else wish.agent
                self.problems.append(f"there is no agent ({where})")
            elif not others and not self.problems:
                self.problems.append("the agent holds no key")
        of_names = self._of_files(named)
        of_usual = self._of_files(usual)
        owners = [*of_names, *of_usual, *others]
        certificates = [
            *self._certificates(wish.certificates, owners, beside=False),
            *self._certificates(map(_beside, (*named, *usual)), owners, beside=True),
        ]
        found = _without_doubles([*certificates, *of_names, *others, *of_usual])
        return Keys(tuple(found), tuple(self.problems))

    def _agent_keys(self) -> list[AgentKey]:
        if self._held is None:
            self._held = []
            if self.wish.socket is not None:
                try:
                    self._held = list_keys(self.wish.socket, AGENT_PATIENCE)
                except LoginProblem as exc:
                    self.problems.append(str(exc))
        return self._held

    def _of_agent(self, key: AgentKey, source: str) -> Identity:
        assert self.wish.socket is not None
        return Identity(source, key.public, agent=self.wish.socket, signer=key.public)

    def _of_files(self, paths: Iterable[str]) -> list[Identity]:
        found = []
        for path in paths:
            try:
                found.append(self._of_file(path))
            except LoginProblem as exc:
                self.problems.append(str(exc))
        return found

    def _of_file(self, path: str) -> Identity:
        """What signs for a file: its key, or the agent if that holds it and the file is locked, or
        is the public half alone."""
        file: KeyFile | None = None
        problem = LoginProblem(f"{path}: it needs a passphrase; add it to the agent (ssh-add), or "
                               "set passphrase")  # fmt: skip
        try:
            file = read_key(path)
        except LoginProblem as exc:
            problem = exc
        if file is not None and file.private is not None:
            return Identity(path, file.public, file)
        public = file.public if file is not None else _public_half(path)
        if public is not None:
            for key in self._agent_keys():
                if key.public == public:
                    return self._of_agent(key, f"{path} (by the agent)")
        if file is not None and self.wish.can_unlock:
            return Identity(path, public, file)
        raise problem

    def _certificates(
        self, paths: Iterable[str], owners: list[Identity], *, beside: bool
    ) -> list[Identity]:
        """The certificates of these files, each with what signs for it."""
        found = []
        for path in paths:
            try:
                certificate = public_file(path)
            except LoginProblem as exc:
                self.problems.append(str(exc))
                continue
            if certificate is None:
                if not beside:
                    self.problems.append(f"{path}: No such file or directory")
                continue
            plain = certificate.plain if certificate.is_certificate else None
            owner = next((one for one in owners if one.public and one.public == plain), None)
            if plain is None:
                self.problems.append(f"{path}: it is not a certificate")
            elif owner is not None:
                found.append(replace(owner, source=path, public=certificate))
            else:
                self.problems.append(f"{path}: the key that it belongs to is not there")
        return found


def _public_half(path: str) -> PublicKey | None:
    for place in (path, f"{path}.pub"):
        try:
            public = public_file(place)
        except LoginProblem:
            continue
        if public is not None:
            return public
    return None


def _beside(path: str) -> str:
    """Where the certificate of a key file is found without being named (ssh_config(5))."""
    return f"{path.removesuffix('.pub')}-cert.pub"


def _agent_name(key: AgentKey) -> str:
    return f"the agent's key {key.comment!r}" if key.comment else "a key of the agent"


def _without_doubles(identities: Iterable[Identity]) -> list[Identity]:
    found: list[Identity] = []
    seen: set[PublicKey] = set()
    for identity in identities:
        if identity.public is None or identity.public not in seen:
            found.append(identity)
            if identity.public is not None:
                seen.add(identity.public)
    return found
