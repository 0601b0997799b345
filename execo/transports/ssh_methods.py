"""The methods of login, tried in turn as ssh does: keys, the questions of the host, a password.

The host says what it still allows, and may want several, one after the other. Nothing blocks here:
files, the agent, signatures and whoever knows a passphrase or a password are asked elsewhere
(``keys``, ``asking``), and the host in between (``ssh_auth``).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from execo.log import escape_controls

from .asking import Asker
from .base import Target
from .key_files import LoginProblem, PublicKey, rsa_bits
from .keys import Identity, KeyRing, Keys
from .session import Session
from .ssh_auth import UserAuth, algorithm_for

__all__ = ["Methods"]

_HOSTS_TURN = ("its answer", "its questions", "what it lets in with")
"""Stages in which the host is waited for."""

MOST_WORDS = 200
"""Characters of what a host says on its own that are shown."""

MOST_STEPS = 8
"""Methods that a host may want one after the other (AuthenticationMethods of sshd_config(5))."""

_EXPIRED = re.compile(r"(?i)expired|chang|new password|current password")


class Methods:
    """The login on one session. All on the I/O thread.

    - ``stage``: what is waited for, for messages
    - ``tried``: what the host has refused, or may yet take
    - ``judged``: the host has refused something, or has before it what is to let us in: it may have
      hung up for that

    :param session: has agreed on keys, with a host that is trusted
    :param on_pause: called with True when a person is asked, and with False after that
    :param on_done: called when the host has let us in
    :param on_failed: given why it has not, and the exception behind it
    """

    def __init__(
        self,
        target: Target,
        session: Session,
        ring: KeyRing,
        asker: Asker,
        *,
        on_pause: Callable[[bool], object],
        on_done: Callable[[], object],
        on_failed: Callable[[str, BaseException | None], object],
    ) -> None:
        self.stage = "our keys (the key file, or the agent)"
        self._target = target
        self._session = session
        self._ring = ring
        self._asker = asker
        self._on_pause = on_pause
        self._on_done = on_done
        self._on_failed = on_failed
        self._over = False
        self._login = target.options.login
        self._auth = UserAuth(session, self._user, self)
        self._ready = self._read = False
        self._identities: deque[Identity] = deque()
        self._identity: Identity | None = None  # the one that is being tried
        self._offered = self._signed = ""
        self._method = ""
        self._password: str | None = None  # the one that is being tried
        self._answered = False
        self._allowed: list[str] | None = None  # methods, as far as the host has said
        self._done_with: set[str] = set()
        self.tried: list[str] = []
        self.judged = False
        self._taken: list[str] = []
        self._problems: list[str] = []
        self._cause: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._auth.start()
        if "publickey" not in self._login.methods:
            self._on_keys_read(Keys((), ()))
            return
        self._ring.get(self._target.keyfile, self._login, self._on_keys_read)

    def stop(self) -> None:
        """It is in, or not wanted any more: nothing is called from now on."""
        self._over = True
        self._password = None
        self._auth.stop()

    def _is_wanted(self) -> bool:
        """Whether answers still are. From any thread."""
        return not self._over

    @property
    def waits_for_host(self) -> bool:
        """It is the host's turn, and nobody else's."""
        return self.stage in _HOSTS_TURN

    @property
    def banner(self) -> str:
        """What the host has last said on its own, shortened to one line."""
        words = " ".join((self._auth.banner or "").split())
        return escape_controls(words[-MOST_WORDS:])

    @property
    def _user(self) -> str:
        return self._target.user or ""

    @property
    def _name(self) -> str:
        return self._target.name or self._target.address

    def auth_ready(self) -> None:
        self._ready = True
        self._begin()

    def _on_keys_read(self, keys: Keys) -> None:
        self._identities = deque(keys.identities)
        self._problems.extend(keys.problems)
        self._read = True
        self.stage = "its answer"
        self._begin()

    def _begin(self) -> None:
        if self._ready and self._read:
            self._go_on()

    def _go_on(self) -> None:
        """Try what may succeed next: of the methods in their order, the first that may."""
        if self._over:
            return
        for method in self._login.methods:
            if method == "publickey":
                ready = bool(self._identities)
            elif self._allowed is None:
                break  # what it lets in with is asked before a secret is
            elif method == "password":
                ready = self._login.password is not None
            else:
                ready = self._has_secrets
            if ready and self._may(method):
                self._try(method)
                return
        if self._allowed is None:
            self.stage = "what it lets in with"
            self._method = "none"
            self._auth.ask_methods()
        else:
            self._refuse()

    def _try(self, method: str) -> None:
        if method == "publickey":
            self._try_key(self._identities.popleft())
        elif not self._may_tell(method):
            self._go_on()
        elif method == "password":
            self._method = method
            self._with_password(self._send_password)
        else:
            self._method = method
            self._answered = False
            self.stage = "its questions"
            self._auth.invite_questions()

    def _may(self, method: str) -> bool:
        if self._allowed is None:
            return method == "publickey"
        return method in self._allowed and method not in self._done_with

    def _may_tell(self, method: str) -> bool:
        """Whether secrets may go to this host; goes on without if they may not."""
        if self._target.options.trust_decided or self._is_here():
            return True
        self._done_with.add(method)
        self._note(
            "no password goes to a host whose key nobody has looked at: set host_key_policy "
            "(to 'accept-new' or 'strict', or 'off' if that is meant)"
        )
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
        if identity.source not in self.tried:
            self.tried.append(identity.source)
        if identity.asks_first:
            self.stage = "its answer"
            self._auth.offer_key(identity.public, self._offered)
        else:
            self._sign(identity)

    def auth_key_wanted(self) -> None:
        if not self._over and self._identity is not None:
            self._unlock(self._identity, self._sign)

    def _unlock(self, identity: Identity, then: Callable[[Identity], object]) -> None:
        """Go on with an identity that can sign."""
        if self._ring.asks_somebody(identity, self._login):
            self._on_pause(True)
        self.stage = f"the key {identity.source}"

        def on_done(result: Identity | LoginProblem) -> None:
            if self._over:
                return
            self._on_pause(False)
            if isinstance(result, LoginProblem):
                if identity.source in self.tried:
                    self.tried.remove(identity.source)
                self._note_problem(result)
                self._go_on()
            else:
                then(result)

        self._ring.unlock(identity, self._login, self._is_wanted, on_done)

    def _sign(self, identity: Identity) -> None:
        key = identity.public
        assert key is not None
        self._identity = identity
        self.stage = f"a signature by {identity.source}"
        text = self._auth.signed_text(key, self._offered)
        timeout = self._target.options.connect_timeout

        def wanted() -> bool:
            # The host may have refused it meanwhile, although it should wait.
            return not self._over and self._identity is identity

        def on_done(signature: bytes | LoginProblem) -> None:
            if wanted():
                self._on_signature(key, signature)

        self._ring.sign(identity, text, self._signed, timeout, wanted, on_done)

    def _on_signature(self, key: PublicKey, signature: bytes | LoginProblem) -> None:
        if isinstance(signature, LoginProblem):
            assert self._identity is not None
            self.tried.remove(self._identity.source)
            self._note_problem(signature)
            self._go_on()
        else:
            self.stage = "its answer"
            self.judged = True
            self._auth.send_signature(key, self._offered, signature)

    # -- passwords and questions ----------------------------------------------------------------

    def _with_password(self, then: Callable[[str], object]) -> None:
        """Go on with the password."""
        if callable(self._login.password):
            self._on_pause(True)
        self.stage = "the password"

        def on_answer(result: str | LoginProblem) -> None:
            if self._over:
                return
            self._on_pause(False)
            if isinstance(result, LoginProblem):
                # There is no other one for another method.
                self._done_with |= {"password", "keyboard-interactive"}
                self._note_problem(result)
                self._go_on()
            else:
                self._password = result
                self.stage = "its answer"
                then(result)

        self._asker.password(self._login, self._name, self._user, self._is_wanted, on_answer)

    def _send_password(self, password: str) -> None:
        self._done_with.add("password")
        self.tried.append("the password")
        self.judged = True
        self._auth.send_password(password)

    def auth_questions(
        self, title: str, instructions: str, questions: list[tuple[str, bool]]
    ) -> None:
        if self._over:
            return
        if not questions:
            self._auth.send_answers([])  # it only had something to say
        elif self._login.answers is not None:
            self._on_pause(True)
            self.stage = "the answers to its questions"
            self._asker.questions(
                self._login,
                self._name,
                self._user,
                title,
                instructions,
                questions,
                self._is_wanted,
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
        self.tried.append("the password")
        self.judged = True
        self._auth.send_answers([password])

    def _on_answers(self, answers: list[str] | LoginProblem) -> None:
        if self._over:
            return
        self._on_pause(False)
        if isinstance(answers, LoginProblem):
            self._done_with.add("keyboard-interactive")
            self._note_problem(answers)
            self._go_on()
            return
        if "the answers to its questions" not in self.tried:
            self.tried.append("the answers to its questions")
        self.stage = "its answer"
        self.judged = True
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
            self._on_failed(_expired(self._user, said), None)

    # -- what the host decides ------------------------------------------------------------------

    def auth_refused(self, allowed: list[str], partial: bool) -> None:
        if self._over:
            return
        self._allowed = allowed
        method, self._method = self._method, ""
        self.judged = self.judged or method != "none"
        identity, self._identity = self._identity, None
        if partial and len(self._taken) < MOST_STEPS:
            # Right, and not enough: whatever it wants next, it may want again.
            self._done_with.clear()
            if self.tried:
                self._taken.append(self.tried.pop())
        elif method == "publickey" and identity is not None and method not in allowed:
            # Refused as such, before it was looked at: its time may come.
            self.tried.remove(identity.source)
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
        if self.tried:
            text = f"it refused {', '.join(self.tried)}"
        elif self._taken:
            text = "it wants more"
        elif self._identities:
            text = "it takes no keys"
        elif "publickey" not in self._login.methods:
            text = "no key is to be tried (PreferredAuthentications, PubkeyAuthentication)"
        else:
            text = "there is no key to try"
        taken = f" after it took {', '.join(self._taken)}" if self._taken else ""
        problems = f" ({'; '.join(dict.fromkeys(self._problems))})" if self._problems else ""
        allowed = set(self._allowed or ())
        hint = "set keyfile or user"
        if allowed & {"password", "keyboard-interactive"} and not self._has_secrets:
            hint = "set keyfile, user or password"
        elif "the password" in self.tried:
            hint = "check user and password"
        if any(name.startswith("gssapi") for name in allowed):
            hint += ", or transport to 'openssh' for Kerberos"
        whole = f"cannot log in as {self._user!r}: {text}{taken}{problems}; {hint}"
        self._on_failed(whole, self._cause)

    @property
    def _has_secrets(self) -> bool:
        return self._login.password is not None or self._login.answers is not None

    def _note(self, problem: str) -> None:
        self._problems.append(problem)

    def _note_problem(self, problem: LoginProblem) -> None:
        self._problems.append(str(problem))
        self._cause = problem.__cause__ or self._cause


def _expired(user: str, said: str) -> str:
    return (
        f"the password of {user!r} has expired, it has to be changed: {said!r}; log in by hand "
        "(ssh) to do that"
    )
