"""The client's side of the authentication protocol of SSH: RFC 4252, RFC 4256.

paramiko's own waits for questions in the thread that reads, keeps what a server still allows to
itself, and takes a password that has expired for a broken connection. Here every answer of the
server is one call on the I/O thread, and every request one that does not block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from paramiko import common
from paramiko.message import Message

from .key_files import CERTIFICATE, PublicKey

if TYPE_CHECKING:
    from .session import Session

__all__ = ["AuthListener", "UserAuth", "algorithm_for"]

_SERVICE = "ssh-userauth"
_CONNECTION = "ssh-connection"
_METHOD_SPECIFIC = 60
_CHANGE_REQUEST = _METHOD_SPECIFIC  # of a password
_MOST_PROMPTS = 64
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
_KINDS = frozenset({
    "ssh-rsa",
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
})  # fmt: skip


def algorithm_for(
    key: PublicKey, mine: Sequence[str] | None, servers: Sequence[str]
) -> tuple[str, str] | None:
    """The algorithm to offer ``key`` with, and that of its signature; None if there is none.

    :param mine: those that may be used; None = all
    :param servers: those that the server has named (RFC 8308, server-sig-algs); empty = it has not
    """
    plain = key.kind
    if key.is_certificate:
        plain = key.kind.removesuffix(CERTIFICATE)
        plain += "@openssh.com" if plain.startswith("sk-") else ""
    if plain not in _KINDS:
        return None
    if plain != "ssh-rsa":
        return (key.kind, plain) if mine is None or key.kind in mine else None
    for name in _RSA:
        offered = name + (CERTIFICATE if key.is_certificate else "")
        if (mine is None or offered in mine) and (not servers or name in servers):
            return offered, name
    return None


class AuthListener(Protocol):
    """Is told what the server says. All on the I/O thread, one answer to each request."""

    def auth_ready(self) -> None:
        """Requests may be made."""

    def auth_done(self) -> None:
        """It has let us in."""

    def auth_refused(self, allowed: list[str], partial: bool) -> None:
        """Not so, or not yet: ``allowed`` can go on; ``partial``, this one was right."""

    def auth_key_wanted(self) -> None:
        """A signature of the key that was offered would do."""

    def auth_questions(
        self, title: str, instructions: str, questions: list[tuple[str, bool]]
    ) -> None:
        """It wants answers to so many questions, each with whether to show what is typed."""

    def auth_expired(self, prompt: str) -> None:
        """The password is right, and has to be changed."""


class UserAuth:
    """The authentication of one session, which takes it for paramiko's. Methods belong to the I/O
    thread, save ``_on_*`` and what paramiko calls (the thread that reads).

    :param session: has agreed on keys
    """

    banner: str | None = None

    def __init__(self, session: Session, user: str, listener: AuthListener) -> None:
        self._session = session
        self._user = user
        self._listener: AuthListener | None = listener
        self._method = ""
        self._handler_table = {
            common.MSG_SERVICE_ACCEPT: self._on_service,
            common.MSG_USERAUTH_SUCCESS: self._on_success,
            common.MSG_USERAUTH_FAILURE: self._on_failure,
            common.MSG_USERAUTH_BANNER: self._on_banner,
            _METHOD_SPECIFIC: self._on_specific,
        }
        self._authenticated = False
        session.take_auth(self)

    # -- requests -------------------------------------------------------------------------------

    def start(self) -> None:
        """Ask for the service; ``auth_ready`` follows."""
        message = Message()
        message.add_byte(common.cMSG_SERVICE_REQUEST)
        message.add_string(_SERVICE)
        self._session.post(message)

    def ask_methods(self) -> None:
        """Ask to be let in as one is, to hear what else the server would like."""
        self._session.post(self._request("none"))

    def offer_key(self, key: PublicKey, algorithm: str) -> None:
        """Ask whether the server would take ``key``."""
        message = self._request("publickey")
        message.add_boolean(False)
        message.add_string(algorithm)
        message.add_string(key.blob)
        self._session.post(message)

    def signed_text(self, key: PublicKey, algorithm: str) -> bytes:
        """What has to be signed with ``key`` (RFC 4252, 7)."""
        message = Message()
        message.add_string(self._session.session_id or b"")
        message.add_bytes(self._with_key(key, algorithm).asbytes())
        return message.asbytes()

    def send_signature(self, key: PublicKey, algorithm: str, signature: bytes) -> None:
        """Log in with ``key``."""
        message = self._with_key(key, algorithm)
        message.add_string(signature)
        self._session.post(message)

    def send_password(self, password: str) -> None:
        """Log in with a password."""
        message = self._request("password")
        message.add_boolean(False)
        message.add_string(_encoded(password))
        self._session.post(message)

    def invite_questions(self) -> None:
        """Let the server ask; ``auth_questions`` may follow, several times."""
        message = self._request("keyboard-interactive")
        message.add_string("")
        message.add_string("")
        self._session.post(message)

    def send_answers(self, answers: Sequence[str]) -> None:
        """Answer its questions."""
        message = Message()
        message.add_byte(common.cMSG_USERAUTH_INFO_RESPONSE)
        message.add_int(len(answers))
        for answer in answers:
            message.add_string(_encoded(answer))
        self._session.post(message)

    def _request(self, method: str) -> Message:
        self._method = method  # what the server says next is said of it
        message = Message()
        message.add_byte(common.cMSG_USERAUTH_REQUEST)
        for text in (self._user, _CONNECTION, method):
            message.add_string(text)
        return message

    def _with_key(self, key: PublicKey, algorithm: str) -> Message:
        message = self._request("publickey")
        message.add_boolean(True)
        message.add_string(algorithm)
        message.add_string(key.blob)
        return message

    # -- what paramiko calls --------------------------------------------------------------------

    def is_authenticated(self) -> bool:
        return self._authenticated

    def get_username(self) -> str:
        return self._user

    def abort(self) -> None:
        """Does nothing: that the session is lost is told apart."""

    def _tell(self, function: Callable[[AuthListener], object]) -> None:
        self._session.loop.call_soon(self._told, function)

    def _told(self, function: Callable[[AuthListener], object]) -> None:
        if self._listener is not None:
            function(self._listener)

    def stop(self) -> None:
        """Tell nothing more."""
        self._listener = None

    def _on_service(self, message: Message) -> None:
        if message.get_string() == _SERVICE.encode():
            self._tell(lambda listener: listener.auth_ready())

    def _on_success(self, message: Message) -> None:
        # At once: what the server sends next may be compressed.
        self._authenticated = True
        self._session.let_in()
        self._tell(lambda listener: listener.auth_done())

    def _on_failure(self, message: Message) -> None:
        allowed = message.get_string().decode("utf-8", "replace").split(",")
        partial = message.get_boolean()
        self._tell(lambda listener: listener.auth_refused(allowed, partial))

    def _on_banner(self, message: Message) -> None:
        self.banner = message.get_string().decode("utf-8", "replace")

    def _on_specific(self, message: Message) -> None:
        if self._method == "publickey":
            self._tell(lambda listener: listener.auth_key_wanted())
        elif self._method == "password":
            prompt = message.get_string().decode("utf-8", "replace")
            self._tell(lambda listener: listener.auth_expired(prompt))
        elif self._method == "keyboard-interactive":
            title, instructions, _ = (
                message.get_string().decode("utf-8", "replace") for _ in range(3)
            )
            count = min(message.get_int(), _MOST_PROMPTS)
            questions = [
                (message.get_string().decode("utf-8", "replace"), message.get_boolean())
                for _ in range(count)
            ]
            self._tell(lambda listener: listener.auth_questions(title, instructions, questions))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
