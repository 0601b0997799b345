"""From a connected socket to a host that has let us in: keys are agreed on, the host's key is
looked at, and we log in.

::

    KEYS ──> LOGIN ──> in, or failed
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import paramiko

from execo._core.runtime import Runtime
from execo.errors import Reason

from .base import Target
from .dial import known_name
from .keys import Identity, KeyRing, Keys
from .known_hosts import KnownHosts, KnownHostsFiles
from .session import Event, Session

if TYPE_CHECKING:
    from asyncio import TimerHandle

__all__ = ["SshLogin"]


class SshLogin:
    """The set-up of one session. All on the I/O thread.

    :param session: not started yet
    :param on_trusted: called when the host has shown the right key
    :param on_done: called when it has let us in
    :param on_failed: given the reason, why, and the exception behind it; called once at the most
    """

    def __init__(
        self,
        runtime: Runtime,
        target: Target,
        session: Session,
        keys: KeyRing,
        known_hosts: KnownHostsFiles,
        *,
        on_trusted: Callable[[], object],
        on_done: Callable[[], object],
        on_failed: Callable[[Reason, str, BaseException | None], object],
    ) -> None:
        self._runtime = runtime
        self._target = target
        self._session = session
        self._keys = keys
        self._known_hosts = known_hosts
        self._on_trusted = on_trusted
        self._on_done = on_done
        self._on_failed = on_failed
        self._over = False
        self._trusted = False
        self._deadline: TimerHandle | None = None
        self._stage = "keys to agree on"
        self._identities: deque[Identity] = deque()
        self._tried: list[str] = []
        self._problems: tuple[str, ...] = ()

    # -- keys -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        options = self._target.options
        if options.connect_timeout is not None:
            self._deadline = self._runtime.loop.call_later(
                options.connect_timeout, self._on_timeout
            )
        if options.host_key_policy == "off":
            self._agree(None, [])
        else:
            self._known_hosts.get(options.known_hosts, known_name(self._target), self._agree)

    def _agree(self, files: KnownHosts | None, known: Sequence[paramiko.PKey]) -> None:
        if self._over:
            return
        session = self._session
        if known:
            session.prefer_key_types(key.get_name() for key in known)
        event = Event(self._runtime.loop, lambda: self._on_keys(files, known))
        session.wire.has_reader = True
        try:
            session.start_client(event=event)
        except RuntimeError as exc:  # no thread can be started
            session.wire.release()
            self._fail(Reason.CONNECT, f"no thread can be started for it: {exc}", exc)

    def _on_keys(self, files: KnownHosts | None, known: Sequence[paramiko.PKey]) -> None:
        if self._over or not self._session.is_active():
            return  # lost: that is told apart
        options = self._target.options
        if files is not None:
            key = self._session.get_remote_server_key()
            name = known_name(self._target)
            problem = files.problem(name, key, known, strict=options.host_key_policy == "strict")
            if problem is not None:
                self._known_hosts.forget(options.known_hosts)
                self._fail(Reason.HOST_KEY, problem, None)
                return
            if not known and files.add(name, key):
                self._runtime.workers.submit(files.write, name, key)
        self._trusted = True
        self._on_trusted()
        self._stage = "our keys (the key file, or the agent)"
        self._keys.get(self._target.keyfile, self._on_identities)

    # -- login ----------------------------------------------------------------------------------

    def _on_identities(self, keys: Keys) -> None:
        self._identities.extend(keys.identities)
        self._problems = keys.problems
        self._try_key()

    def _try_key(self) -> None:
        session = self._session
        if self._over:
            return
        if not self._identities:
            self._refuse()
            return
        identity = self._identities.popleft()
        if identity.source not in self._tried:
            self._tried.append(identity.source)
        self._stage = "its answer"
        try:
            session.auth_publickey(
                self._user, identity.key, Event(self._runtime.loop, self._on_answer)
            )
        except Exception as exc:  # noqa: BLE001 - it signs: keys, agents and hardware fail
            # If it was lost in this moment, that is told apart.
            if session.is_active() and not isinstance(exc, (OSError, EOFError)):
                self._fail(Reason.AUTH, f"{identity.source} cannot be used: {exc}", exc)

    def _on_answer(self) -> None:
        if self._over or not self._session.is_active():
            return
        if self._session.is_authenticated():
            self.stop()
            self._on_done()
        else:
            self._try_key()

    def _refuse(self) -> None:
        tried = f"it refused {', '.join(self._tried)}" if self._tried else "there is no key to try"
        problems = f" ({'; '.join(self._problems)})" if self._problems else ""
        text = f"cannot log in as {self._user!r}: {tried}{problems}; set keyfile or user"
        self._fail(Reason.AUTH, text, None)

    @property
    def _user(self) -> str:
        return self._target.user or ""

    # -- the end --------------------------------------------------------------------------------

    def lost(self, why: str, cause: BaseException | None) -> None:
        """The session has ended: that is a failure of what was going on."""
        if not self._trusted:
            self._fail(Reason.CONNECT, _no_keys(why), cause)
            return
        tried = f" after {', '.join(self._tried)}" if self._tried else ""
        said = f": {why}" if why else ""
        text = f"it hung up during the login of {self._user!r}{tried}{said}; set keyfile"
        self._fail(Reason.AUTH, text, cause)

    def _on_timeout(self) -> None:
        seconds = self._target.options.connect_timeout
        reason = Reason.AUTH if self._trusted else Reason.CONNECT
        text = f"not connected within {seconds:g} s (connect_timeout): waited for {self._stage}"
        self._fail(reason, text, None)

    def _fail(self, reason: Reason, why: str, cause: BaseException | None) -> None:
        if not self._over:
            self.stop()
            self._on_failed(reason, why, cause)

    def stop(self) -> None:
        """It is in, or not wanted any more: nothing is called from now on."""
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _no_keys(why: str) -> str:
    if "banner" in why or "protocol version" in why:
        return f"what answers there does not speak SSH ({why})"
    if "Incompatible" in why or "no acceptable" in why:
        return f"no common algorithm: {why}; set transport to 'openssh' to reach very old servers"
    return f"it hung up while keys were agreed on{f' ({why})' if why else ''}"
