r"""What is said between us and the shells of a command that becomes another user.

The login shell runs two small scripts, neither of which holds anything of the user's::

    the host                                        we
    ------------------------------------------------------------------------------------------
    (what start-up files of the login shell print)
    hello                     -->
                              the program (sudo, su, doas) begins, as the user who logs in
    its prompt, if it asks    -->
                              <--  the password
    begun                     -->
                              a shell waits, as the other user, and bears the mark
                              <--  what it is to do: the *order*
                              it becomes the user's command

*hello* and *begun* hold a nonce of this one command. Where stderr is apart, they come on both
streams, so that it is known on each what is whose. A password is an answer to a prompt between the
two, and to nothing else. The order is a script (variables, folder, command), as lines of ASCII that
a terminal leaves alone, which ``read`` takes byte by byte: what follows is the command's stdin.
Without another user there is no program in between, and the rest is the same.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from execo.config import can_be_sent
from execo.transports.base import Become, Exec
from execo.transports.remote_shell import MARK, Mark, script_text

__all__ = [
    "Marks",
    "check_password",
    "find_prompt",
    "hint",
    "opening",
    "order",
]

_LINE = 800
"""Bytes of one line of an order: a terminal takes up to 4095 at a time."""

_LONGEST_PROMPT = 4096
"""Bytes with which su and doas may ask."""

# All but what a shell, printf, a terminal or the end of the order could take for something else.
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_/=:, -")
_CODED = [bytes([byte]) if byte in _PLAIN else b"\\0%03o" % byte for byte in range(256)]


@dataclass(frozen=True, slots=True)
class Marks:
    """The words by which one command's dialogue is known.

    :param nonce: hex digits
    """

    nonce: str

    @property
    def hello(self) -> re.Pattern[bytes]:
        """With two groups: whether stderr is apart (``a``) or merged into stdout (``m``), and
        ``e`` if the terminal had echoed what it is sent."""
        return re.compile(rb"execo-%b-hello-([am])(e?)\." % self.nonce.encode())

    @property
    def begun(self) -> bytes:
        """What the shell of the other user says."""
        return b"execo-%b-begun." % self.nonce.encode()

    @property
    def prompt(self) -> str:
        """The prompt that sudo is given."""
        return f"execo-{self.nonce}-password:"


# -- what the host runs -------------------------------------------------------------------------

# $1: how stderr is, see Marks.hello. The name of a variable may be that of one of the user's.
_HELLO = """
set -- a; [ -t 1 ] && [ -t 2 ] && set -- m;
if [ -t 0 ]; then case $(stty -a) in *"-echo "*) ;; *) stty -echo || exit 126; set -- "$1e";;
esac; fi;
printf "execo-%s-hello-%s." NONCE "$1";
[ -t 1 ] && [ -t 2 ] || printf "execo-%s-hello-%s." NONCE "$1" >&2;
"""

# An external printf would show its words, which are the secrets, to all users of the host.
_NEEDS_PRINTF = """
( PATH=/; printf %b x ) >/dev/null 2>&1 ||
{ echo "execo: /bin/sh has no printf of its own there, as secret_env needs" >&2; exit 126; };
"""

_BEGUN = """
printf "execo-%s-begun." NONCE;
[ -t 1 ] && [ -t 2 ] || printf "execo-%s-begun." NONCE >&2;
execo_c=;
while IFS= read -r execo_l; do
if [ "$execo_l" = . ]; then eval "$(printf %b "$execo_c")"; exit; fi;
execo_c=$execo_c$execo_l;
done;
exit 126
"""

# su alone has no prompt that could be chosen, and translates its own.
_SU_OUTER = 'export EXECO_LC_ALL="${LC_ALL-}"; export LC_ALL=C; '
_SU_INNER = (
    "LC_ALL=${EXECO_LC_ALL-}; unset EXECO_LC_ALL; "
    'if [ "$LC_ALL" ]; then export LC_ALL; else unset LC_ALL; fi; '
)


def _one_line(script: str, marks: Marks) -> str:
    return " ".join(script.split("\n")).replace("NONCE", marks.nonce).strip() + " "


def opening(request: Exec, marks: Marks, mark: Mark | None) -> tuple[str, ...]:
    """The words that the host is to run in place of the command of ``request``.

    :param mark: what the command is found by, where it becomes another user
    """
    hello, begun = _one_line(_HELLO, marks), _one_line(_BEGUN, marks)
    if request.secret_env:
        begun = _one_line(_NEEDS_PRINTF, marks) + begun
    become = request.become
    if become is None:
        return "/bin/sh", "-c", hello + begun
    if become.method == "su":
        hello, begun = hello + _SU_OUTER, _SU_INNER + begun
    shell = f"{_bear(mark)}exec /bin/sh -c {shlex.quote(begun)}"
    return "/bin/sh", "-c", f"{hello}exec {shlex.join(_program(become, marks, shell))}"


def _bear(mark: Mark | None) -> str:
    """The script that has what comes bear ``mark`` from its start on.

    In pieces: whole, it would be in the words of the program itself, and in the SUDO_COMMAND of all
    that the command leaves behind, and the guard would take these for the command.
    """
    if mark is None:
        return ""
    end = ".d" if mark.detach else ""
    return f"set -- {mark.nonce}.{mark.number}; export {MARK}=$1.$${end}; "


def _program(become: Become, marks: Marks, script: str) -> list[str]:
    asks = become.password is not None
    shell = ["/bin/sh", "-c", script]
    if become.method == "sudo":
        how = ["-S", "-p", marks.prompt] if asks else ["-n"]
        return ["sudo", "-H", *how, "-u", become.user, "--", *shell]
    if become.method == "doas":
        return ["doas", *([] if asks else ["-n"]), "-u", become.user, "--", *shell]
    return ["su", "-s", *shell, "--", become.user]


def find_prompt(become: Become, marks: Marks, said: bytes | bytearray, looked: int = 0) -> bool:
    """Whether the program waits for a password, after it has ``said`` this since hello or since
    the last answer.

    :param looked: bytes of it in which the prompt of sudo does not begin
    """
    if become.method == "sudo":
        return said.find(marks.prompt.encode(), looked) >= 0
    if len(said) > _LONGEST_PROMPT:
        return False  # looking at all of it again with each byte would take for ever
    if become.method == "doas":
        return bool(re.fullmatch(rb"\s*doas \([^()\r\n]*\) password: ?", said))
    return bool(re.fullmatch(rb"\s*Password: ?", said))


def hint(become: Become, words: str, *, pty: bool) -> str:
    """What to do about what the program has said when it failed, as the end of a message."""
    if "not found" in words:
        return f"; install {become.method} on the host, or choose another become_method"
    if become.method == "doas" and become.password is not None and not pty:
        return "; doas asks for a password on a terminal only: pty=True"
    if " tty " in f" {words} ":
        return "; give it a terminal: pty=True"
    if become.password is None and re.search("(?i)password|authentication", words):
        return "; give become_password"
    return ""


def order(request: Exec, *, echo: bool) -> bytes:
    """What the waiting shell is sent: to become the command of ``request``.

    :param echo: the terminal is to echo again what it is sent
    :raises ValueError: for what no command can be, see
      :func:`~execo.transports.remote_shell.command_text`, or no variable
    """
    secrets = {name: value for name, value in (request.secret_env or {}).items() if name != MARK}
    env = {name: value for name, value in (request.env or {}).items() if name not in secrets}
    # Users that nobody logs in as have a shell that says so.
    script = "unset execo_c execo_l; case ${SHELL##*/} in nologin|false) SHELL=/bin/sh;; esac; "
    # What can fail comes before the secrets do: an error keeps what was known where it was raised.
    rest = "stty echo; " if echo else ""
    rest += script_text(request.command, cwd=request.cwd, env=env, relay=request.relay)
    end = rest.encode("utf-8", "surrogateescape")
    script += "".join(_export(name, value) for name, value in secrets.items())
    begin = script.encode("utf-8", "surrogateescape")
    code = b"".join(map(_CODED.__getitem__, begin + end))
    lines = [code[start : start + _LINE] for start in range(0, len(code), _LINE)]
    return b"\n".join([*lines, b".", b""])


def _export(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}; "


# -- what the user gives ------------------------------------------------------------------------


def check_password(password: object) -> str:
    """:raises ValueError: for what is no password; the message does not show it"""
    if not isinstance(password, str):
        raise ValueError(f"the password is no text, but of type {type(password).__name__}")
    if "\n" in password or "\r" in password or "\0" in password:
        raise ValueError("the password holds a line feed or a NUL, which none can")
    if not can_be_sent(password):
        raise ValueError("the password holds half a character (a surrogate), which none can")
    return password
