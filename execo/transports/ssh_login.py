"""From a connected socket to a host that has let us in: keys are agreed on, the host's key is
looked at, and we log in, in the order of ssh: keys, its questions, a password.

::

    KEYS ──> LOGIN ──> in, or failed

Nothing blocks here: files, the agent, signatures and whoever knows a passphrase or a password are
asked elsewhere (``keys``, ``asking``), and the host in between (``ssh_auth``).
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from execo._core.runtime import Runtime
from execo.errors import Reason
from execo.log import escape_controls

from .asking import Asker
from .base import Target
from .dial import known_name
from .key_files import LoginProblem, rsa_bits
from .keys import Identity, KeyRing, Keys
from .known_hosts import HostKey, KnownHosts, KnownHostsFiles
from .session import Event, Session
from .ssh_auth import UserAuth, algorithm_for

if TYPE_CHECKING:
    from asyncio import TimerHandle

__all__ = ["SshLogin"]

MOST_STEPS = 8
"""Methods that a host may want one after the other (AuthenticationMethods of sshd_config(5))."""

_EXPIRED = re.compile(r"(?i)expired|chang|new password|current password")
_TOO_MANY = "Too many authentication failures"


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
        self._trusted = False
        self._deadline: TimerHandle | None = None
        self._left: float | None = target.options.connect_timeout
        self._stage = "keys to agree on"
        # The login.
        self._login = target.options.login
        self._auth: UserAuth
        self._ready = self._read = False
        self._identities: deque[Identity] = deque()
        self._identity: Identity | None = None  # the one that is being tried
        self._offered = self._signed = ""
        self._method = ""
        self._password: str | None = None  # the one that is being tried
        self._answered = False
        self._allowed: list[str] | None = None  # methods, as far as the host has said
        self._done_with: set[str] = set()
        self._tried: list[str] = []
        self._taken: list[str] = []
        self._problems: list[str] = []
        self._cause: BaseException | None = None

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
        if self._over or not self._session.is_active():
            return  # lost: that is told apart
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
        self._trusted = True
        self._on_trusted()
        self._stage = "our keys (the key file, or the agent)"
        self._auth = UserAuth(self._session, self._user, self)
        self._auth.start()
        self._ring.get(self._target.keyfile, self._login, self._on_keys_read)

    @property
    def _known_as(self) -> str:
        """The name of the host in files of known hosts."""
        alias = self._target.options.host_key_alias
        return alias.lower() if alias else known_name(self._target)

    # -- login ----------------------------------------------------------------------------------

    def auth_ready(self) -> None:
        self._ready = True
        self._begin()

    def _on_keys_read(self, keys: Keys) -> None:
        self._identities = deque(keys.identities)
        self._problems.extend(keys.problems)
        self._read = True
        self._begin()

    def _begin(self) -> None:
        if self._ready and self._read:
            self._go_on()

    def _go_on(self) -> None:
        """Try what may succeed next, in ssh's order: keys, questions, the password."""
        if self._over:
            return
        login = self._login
        if self._identities and self._may("publickey"):
            self._try_key(self._identities.popleft())
        elif self._allowed is None:
            self._stage = "what it lets in with"
            self._method = "none"
            self._auth.ask_methods()
        elif self._may("keyboard-interactive") and self._has_secrets:
            if self._may_tell("keyboard-interactive"):
                self._method = "keyboard-interactive"
                self._answered = False
                self._stage = "its questions"
                self._auth.invite_questions()
        elif self._may("password") and login.password is not None:
            if self._may_tell("password"):
                self._method = "password"
                self._with_password(self._send_password)
        else:
            self._refuse()

    def _may(self, method: str) -> bool:
        if self._allowed is None:
            return method == "publickey"
        return method in self._allowed and method not in self._done_with

    def _may_tell(self, method: str) -> bool:
        """Whether secrets may go to this host; goes on without if they may not."""
        options = self._target.options
        if options.host_key_policy != "off" or options.policy_chosen or self._is_here():
            return True
        self._done_with.add(method)
        self._note(
            "no password goes to a host whose key nobody has looked at: set host_key_policy "
            "(to 'accept-new' or 'strict', or 'off' if that is meant)"
        )
        self._go_on()
        return False

    def _is_here(self) -> bool:
        return self._session.wire.is_loopback

    # -- keys -----------------------------------------------------------------------------------

    def _try_key(self, identity: Identity) -> None:
        self._method = "publickey"
        if identity.public is None:
            # What it is, is known only when it is unlocked.
            self._unlock(identity, self._try_key)
            return
        options = self._target.options.algorithms
        bits = rsa_bits(identity.public)
        if bits is not None and bits < options.least_rsa_bits:
            self._note(f"{identity.source}: {bits} bits are too few (RequiredRSASize)")
            self._go_on()
            return
        named = self._session.server_extensions.get("server-sig-algs", b"")
        algorithms = algorithm_for(
            identity.public,
            options.signatures,
            [name.decode() for name in named.split(b",") if name],
        )
        if algorithms is None:
            self._note(f"{identity.source}: it is of a type that may not be used")
            self._go_on()
            return
        self._identity = identity
        self._offered, self._signed = algorithms
        if identity.source not in self._tried:
            self._tried.append(identity.source)
        if identity.asks_first:
            self._stage = "its answer"
            self._auth.offer_key(identity.public, self._offered)
        else:
            self._sign(identity)

    def auth_key_wanted(self) -> None:
        if not self._over and self._identity is not None:
            self._unlock(self._identity, self._sign)

    def _unlock(self, identity: Identity, then: Callable[[Identity], object]) -> None:
        """Go on with an identity that can sign."""
        if self._ring.asks_somebody(identity, self._login):
            self._pause()
        self._stage = f"the key {identity.source}"

        def on_done(result: Identity | LoginProblem) -> None:
            if self._over:
                return
            self._resume()
            if isinstance(result, LoginProblem):
                if identity.source in self._tried:
                    self._tried.remove(identity.source)
                self._note_problem(result)
                self._go_on()
            else:
                then(result)

        self._ring.unlock(identity, self._login, on_done)

    def _sign(self, identity: Identity) -> None:
        key = identity.public
        assert key is not None
        self._identity = identity
        self._stage = f"a signature by {identity.source}"
        text = self._auth.signed_text(key, self._offered)
        timeout = self._target.options.connect_timeout
        self._ring.sign(
            identity, text, self._signed, timeout, lambda: not self._over, self._on_signature
        )

    def _on_signature(self, signature: bytes | LoginProblem) -> None:
        if self._over:
            return
        assert self._identity is not None and self._identity.public is not None
        if isinstance(signature, LoginProblem):
            self._tried.remove(self._identity.source)
            self._note_problem(signature)
            self._go_on()
        else:
            self._stage = "its answer"
            self._auth.send_signature(self._identity.public, self._offered, signature)

    # -- passwords and questions ----------------------------------------------------------------

    def _with_password(self, then: Callable[[str], object]) -> None:
        """Go on with the password."""
        if callable(self._login.password):
            self._pause()
        self._stage = "the password"

        def on_answer(result: str | LoginProblem) -> None:
            if self._over:
                return
            self._resume()
            if isinstance(result, LoginProblem):
                # There is no other one for another method.
                self._done_with |= {"password", "keyboard-interactive"}
                self._note_problem(result)
                self._go_on()
            else:
                self._password = result
                self._stage = "its answer"
                then(result)

        self._asker.password(self._login, self._name, self._user, on_answer)

    def _send_password(self, password: str) -> None:
        self._done_with.add("password")
        self._tried.append("the password")
        self._auth.send_password(password)

    def auth_questions(
        self, title: str, instructions: str, questions: list[tuple[str, bool]]
    ) -> None:
        if self._over:
            return
        if not questions:
            self._auth.send_answers([])  # it only had something to say
        elif self._login.answers is not None:
            self._pause()
            self._stage = "the answers to its questions"
            self._asker.questions(
                self._login,
                self._name,
                self._user,
                title,
                instructions,
                questions,
                lambda: not self._over,
                self._on_answers,
            )
        elif len(questions) == 1 and not questions[0][1] and not self._answered:
            self._answered = True
            self._with_password(self._answer_with_password)
        else:
            self._cannot_answer(instructions, questions)

    def _answer_with_password(self, password: str) -> None:
        # The same password is not tried twice: hosts lock users out.
        self._done_with.add("password")
        self._tried.append("the password")
        self._auth.send_answers([password])

    def _on_answers(self, answers: list[str] | LoginProblem) -> None:
        if self._over:
            return
        self._resume()
        if isinstance(answers, LoginProblem):
            self._done_with.add("keyboard-interactive")
            self._note_problem(answers)
            self._go_on()
            return
        if "the answers to its questions" not in self._tried:
            self._tried.append("the answers to its questions")
        self._stage = "its answer"
        self._auth.send_answers(answers)

    def _cannot_answer(self, instructions: str, questions: list[tuple[str, bool]]) -> None:
        asked = " ".join(f"{instructions} {' '.join(text for text, _ in questions)}".split())
        if self._answered and _EXPIRED.search(asked):
            self.auth_expired(asked)
            return
        self._done_with.add("keyboard-interactive")
        self._note(f"it asks {escape_controls(asked)!r}: set answers")
        self._go_on()

    def auth_expired(self, prompt: str) -> None:
        if not self._over:
            said = escape_controls(" ".join(prompt.split()))
            self._fail(Reason.AUTH, _expired(self._user, said), None)

    # -- what the host decides ------------------------------------------------------------------

    def auth_refused(self, allowed: list[str], partial: bool) -> None:
        if self._over:
            return
        self._allowed = allowed
        method, self._method = self._method, ""
        identity, self._identity = self._identity, None
        if partial and len(self._taken) < MOST_STEPS:
            # Right, and not enough: whatever it wants next, it may want again.
            self._done_with.clear()
            if self._tried:
                self._taken.append(self._tried.pop())
        elif method == "publickey" and identity is not None and method not in allowed:
            # Refused as such, before it was looked at: its time may come.
            self._tried.remove(identity.source)
            self._identities.appendleft(identity)
        elif method in ("password", "keyboard-interactive"):
            self._done_with.add(method)
            if self._password is not None:
                self._asker.refused(self._login, self._name, self._user, self._password)
        self._password = None
        self._go_on()

    def auth_done(self) -> None:
        if not self._over:
            self.stop()
            self._on_done()

    def _refuse(self) -> None:
        """Nothing is left to try."""
        if self._tried:
            text = f"it refused {', '.join(self._tried)}"
        elif self._taken:
            text = "it wants more"
        elif self._identities:
            text = "it takes no keys"
        else:
            text = "there is no key to try"
        taken = f" after it took {', '.join(self._taken)}" if self._taken else ""
        problems = f" ({'; '.join(dict.fromkeys(self._problems))})" if self._problems else ""
        allowed = set(self._allowed or ())
        hint = "set keyfile or user"
        if allowed & {"password", "keyboard-interactive"} and not self._has_secrets:
            hint = "set keyfile, user or password"
        elif "the password" in self._tried:
            hint = "check user and password"
        if any(name.startswith("gssapi") for name in allowed):
            hint += ", or transport to 'openssh' for Kerberos"
        whole = f"cannot log in as {self._user!r}: {text}{taken}{problems}; {hint}"
        self._fail(Reason.AUTH, whole, self._cause)

    @property
    def _has_secrets(self) -> bool:
        return self._login.password is not None or self._login.answers is not None

    def _note(self, problem: str) -> None:
        self._problems.append(problem)

    def _note_problem(self, problem: LoginProblem) -> None:
        self._problems.append(str(problem))
        self._cause = problem.__cause__ or self._cause

    # -- the end --------------------------------------------------------------------------------

    @property
    def _user(self) -> str:
        return self._target.user or ""

    @property
    def _name(self) -> str:
        return self._target.name or self._target.address

    def lost(self, why: str, cause: BaseException | None) -> None:
        """The session has ended: that is a failure of what was going on."""
        if not self._trusted:
            self._fail(Reason.CONNECT, _no_keys(why), cause)
            return
        tried = f" after {', '.join(self._tried)}" if self._tried else ""
        if _TOO_MANY in why:
            text = (
                f"it takes no more tries (MaxAuthTries) of {self._user!r}{tried}: too many keys; "
                "name the right one (keyfile)"
            )
        else:
            if self._deadline is None and self._left is not None:
                tried += f", while we waited for {self._stage}"
            said = f": {why}" if why else ""
            text = f"it hung up during the login of {self._user!r}{tried}{said}; set keyfile"
        self._fail(Reason.AUTH, text, cause)

    def _pause(self) -> None:
        """A person is asked: the host is not to blame for the time that takes."""
        if self._deadline is not None:
            self._left = self._deadline.when() - time.monotonic()
            self._deadline.cancel()
            self._deadline = None

    def _resume(self) -> None:
        if self._deadline is None and self._left is not None:
            self._deadline = self._runtime.loop.call_later(max(0, self._left), self._on_timeout)

    def _on_timeout(self) -> None:
        seconds = self._target.options.connect_timeout
        reason = Reason.AUTH if self._trusted else Reason.CONNECT
        before = [one for one in self._tried if one not in self._stage]
        tried = f", after {', '.join(before)}" if before else ""
        text = f"not connected within {seconds:g} s (connect_timeout): waited for {self._stage}"
        self._fail(reason, text + tried, None)

    def _fail(self, reason: Reason, why: str, cause: BaseException | None) -> None:
        if not self._over:
            self.stop()
            self._on_failed(reason, why, cause)

    def stop(self) -> None:
        """It is in, or not wanted any more: nothing is called from now on."""
        self._over = True
        self._password = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._trusted:
            self._auth.stop()


def _expired(user: str, said: str) -> str:
    return (
        f"the password of {user!r} has expired, it has to be changed: {said!r}; log in by hand "
        "(ssh) to do that"
    )


def _no_keys(why: str) -> str:
    if "banner" in why or "protocol version" in why:
        return f"what answers there does not speak SSH ({why})"
    if "Incompatible" in why or "no acceptable" in why:
        return f"no common algorithm: {why}; set transport to 'openssh' to reach very old servers"
    return f"it hung up while keys were agreed on{f' ({why})' if why else ''}"
