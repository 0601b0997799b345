"""From a connected socket to a host that has let us in: keys are agreed on, the host's key is
looked at, and we log in.

::

    KEYS ──> LOGIN ──> in, or failed

How we log in is the affair of ``ssh_methods``; how long all of it may take is looked after here.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from execo._core.runtime import Runtime
from execo.errors import Reason

from .asking import Asker
from .base import Target
from .dial import known_name
from .keys import KeyRing
from .known_hosts import HostKey, KnownHosts, KnownHostsFiles
from .session import Event, Session
from .ssh_methods import Methods

if TYPE_CHECKING:
    from asyncio import TimerHandle

__all__ = ["SshLogin"]

_TOO_MANY = "Too many authentication failures"
_NETWORK = frozenset({
    *(errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN),
})  # fmt: skip


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
        ring: KeyRing,
        asker: Asker,
        known_hosts: KnownHostsFiles,
        *,
        on_trusted: Callable[[], object],
        on_done: Callable[[], object],
        on_failed: Callable[[Reason, str, BaseException | None], object],
    ) -> None:
        self._runtime = runtime
        self._target = target
        self._session = session
        self._ring = ring
        self._asker = asker
        self._known_hosts = known_hosts
        self._on_trusted = on_trusted
        self._on_done = on_done
        self._on_failed = on_failed
        self._over = False
        self._deadline: TimerHandle | None = None
        self._left: float | None = target.options.connect_timeout
        self._paused = False
        self._methods: Methods | None = None

    # -- keys -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        options = self._target.options
        self._resume()
        if options.host_key_policy == "off":
            self._agree(None, [])
        else:
            self._known_hosts.get(options.known_hosts, self._known_as, self._agree)

    def _agree(self, files: KnownHosts | None, known: Sequence[HostKey]) -> None:
        if self._over:
            return
        session = self._session
        if known:
            session.prefer_key_types(key.kind for key in known)
        event = Event(self._runtime.loop, lambda: self._on_keys(files, known))
        session.wire.has_reader = True
        try:
            session.start_client(event=event)
        except RuntimeError as exc:  # no thread can be started
            session.wire.release()
            self._fail(Reason.CONNECT, f"no thread can be started for it: {exc}", exc)

    def _on_keys(self, files: KnownHosts | None, known: Sequence[HostKey]) -> None:
        if self._over or self._methods is not None or not self._session.is_active():
            return  # keys agreed on anew; or lost: that is told apart
        options = self._target.options
        if files is not None:
            shown = self._session.get_remote_server_key()
            key, name = HostKey(shown.get_name(), shown.asbytes()), self._known_as
            problem = files.problem(name, key, known, strict=options.host_key_policy == "strict")
            if problem is not None:
                self._known_hosts.forget(options.known_hosts)
                self._fail(Reason.HOST_KEY, problem, None)
                return
            if not known and files.add(name, key):
                self._runtime.workers.submit(files.write, name, key, options.hash_known_hosts)
        self._on_trusted()
        self._methods = Methods(
            self._target,
            self._session,
            self._ring,
            self._asker,
            on_pause=lambda pause: self._pause() if pause else self._resume(),
            on_done=self._on_login,
            on_failed=lambda why, cause: self._fail(Reason.AUTH, why, cause),
        )
        self._methods.start()

    def _on_login(self) -> None:
        self.stop()
        self._on_done()

    @property
    def _known_as(self) -> str:
        """The name of the host in files of known hosts."""
        alias = self._target.options.host_key_alias
        return alias.lower() if alias else known_name(self._target)

    # -- the end --------------------------------------------------------------------------------

    def lost(self, why: str, cause: BaseException | None) -> None:
        """The session has ended: that is a failure of what was going on.

        Of the login only if it can be the reason: the host has said so, has refused something, is
        looking at what would let us in, or was kept waiting. Else it was lost as at any other time.
        """
        methods, user = self._methods, self._target.user
        if methods is None:
            self._fail(Reason.CONNECT, _no_keys(why), cause)
            return
        said = f": {why}" if why else ""
        if _is_network(cause) or not (_is_said(cause) or methods.judged or self._paused):
            text = f"the connection is lost during the login of {user!r}{said}"
            self._fail(Reason.CONNECT, text, cause)
            return
        tried = f" after {', '.join(methods.tried)}" if methods.tried else ""
        if _TOO_MANY in why:
            text = (
                f"it takes no more tries (MaxAuthTries) of {user!r}{tried}: too many keys; "
                "name the right one (keyfile)"
            )
        else:
            if self._paused:
                tried += f", while we waited for {methods.stage}"
            if methods.banner:
                said += f", with the words {methods.banner!r}"
            text = f"it hung up during the login of {user!r}{tried}{said}"
            if methods.judged and not self._paused:
                text += "; it may be closed to this user (an expired account), its log says why"
        self._fail(Reason.AUTH, text, cause)

    def _pause(self) -> None:
        """A person is asked: the host is not to blame for the time that takes."""
        self._paused = True
        if self._deadline is not None:
            self._left = self._deadline.when() - time.monotonic()
            self._deadline.cancel()
            self._deadline = None

    def _resume(self) -> None:
        self._paused = False
        if self._deadline is None and self._left is not None:
            self._deadline = self._runtime.loop.call_later(max(0, self._left), self._on_timeout)

    def _on_timeout(self) -> None:
        seconds = self._target.options.connect_timeout
        text = f"not connected within {seconds:g} s (connect_timeout): waited for"
        methods = self._methods
        if methods is None:
            self._fail(Reason.CONNECT, f"{text} keys to agree on", None)
            return
        before = [one for one in methods.tried if one not in methods.stage]
        tried = f", after {', '.join(before)}" if before else ""
        silent = methods.waits_for_host and not methods.judged
        reason = Reason.CONNECT if silent else Reason.AUTH
        self._fail(reason, f"{text} {methods.stage}{tried}", None)

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
        if self._methods is not None:
            self._methods.stop()


def _is_said(cause: BaseException | None) -> bool:
    """Whether the host has given a reason, and not just ended the connection."""
    return cause is not None and not isinstance(cause, (EOFError, OSError))


def _is_network(cause: BaseException | None) -> bool:
    """Whether it is the network that was lost. A reset may as well be the host's."""
    return isinstance(cause, OSError) and cause.errno in _NETWORK


def _no_keys(why: str) -> str:
    if "banner" in why or "protocol version" in why:
        return f"what answers there does not speak SSH ({why})"
    if "Incompatible" in why or "no acceptable" in why:
        return f"no common algorithm: {why}; set transport to 'openssh' to reach very old servers"
    return f"it hung up while keys were agreed on{f' ({why})' if why else ''}"
