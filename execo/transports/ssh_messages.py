"""What the ssh command writes about itself, and what that means: ssh_config(5), ssh(1), OpenSSH.

ssh exits 255 for every trouble of its own, and also when the command has exited 255 or died of a
signal. Which it was is told by its messages, which are kept apart from the command's stderr.
"""

from __future__ import annotations

import enum
import os
import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from execo.errors import ProcessError, Reason

from .base import Target

__all__ = [
    "FOLLOW",
    "FOLLOW_MASTER",
    "SHARED_SSH",
    "SSH_FAILED",
    "MasterEvent",
    "SshLog",
    "Trouble",
    "diagnose",
    "failure",
    "place",
    "read_event",
    "read_log",
    "signal_name",
]

FOLLOW = (
    ",".join(
        f"clientloop.c:{function}():*"
        for function in ("client_status_confirm", "client_input_channel_req", "server_alive_check")
    )
    + ",channels.c:channel_input_open_failure():*"
    + ",nchan.c:chan_rcvd_ieof():*,nchan.c:chan_rcvd_oclose():*"
)
"""The LogVerbose (OpenSSH 8.5 and later) that makes ssh write when a command is accepted, that it
has exited, that its output is complete, and that the host opens no session. Not the level DEBUG1:
from INFO on ssh prints the host's banner on the command's stderr."""

FOLLOW_MASTER = ",".join(
    [
        FOLLOW,
        "mux.c:muxserver_listen():*",
        "clientloop.c:client_session2_setup():*",
    ]
)
"""The LogVerbose of a master: it also writes when it listens, which command it sends on which
channel, and that the host refuses another session. It writes of a command before it sends it: what
is not in there when it has ended was certainly not sent."""

SHARED_SSH = "the ssh that keeps the shared connection"
"""The word for a master in our own messages."""

SSH_FAILED = 255 << 8
"""The wait status of an ssh that has failed, or whose command has exited 255 or died."""

_FORCED = r"(?:debug\d: )?(?:(?:clientloop|nchan)\.c:\w+\(\):\d+ \([^)]*\): )?"
_ACCEPTED = re.compile(_FORCED + r"exec request accepted on channel")
_EXITED = re.compile(_FORCED + r"client_input_channel_req: channel \d+ rtype exit-(status|signal)")
_COMPLETE = re.compile(_FORCED + r"channel \d+: rcvd (?:eof|close)$")
_PLACE = re.compile(r"^(?:clientloop|channels)\.c:\w+\(\):\d+ \([^)]*\): ")
_EVENTS = re.compile(
    r"(?:debug\d: )?(?:mux|clientloop|channels|nchan)\.c:\w+\(\):\d+ \([^)]*\): (?:"
    r"(?P<listens>mux listener channel )|"
    r"(?P<cannot>.*(?:disabling multiplexing|ControlSocket|mux listener))|"
    r"id (?P<channel>\d{1,10})$|"
    r"Sending command: (?P<command>.*)|"
    r"exec request (?P<accepted>accepted) on channel (?P<on>\d{1,10})|"
    r"client_input_channel_req: channel (?P<of>\d{1,10}) rtype exit-(?P<exit>status|signal)|"
    r"channel (?P<ending>\d{1,10}): rcvd (?:eof|close)$|"
    r"channel \d+: (?P<refused>open failed): )"
)
_CANNOT_LISTEN = re.compile(
    r"ControlSocket|unix_listener|disabling multiplexing|ControlPath|muxserver_listen"
)
# What ssh also writes when all is well, at the levels that users ask for.
_CHATTER = re.compile(
    r"debug\d: |OpenSSH_|Warning: Permanently added|Authenticated to |Transferred: sent|"
    r"Bytes per second|Killed by signal|Connection to \S+ closed\.$|\*\* |@+$|\s*$"
)


@dataclass(frozen=True, slots=True)
class SshLog:
    """What ssh has written so far.

    :param messages: its own lines, without what it also writes when all is well
    :param accepted: the host has taken the command (known with :data:`FOLLOW` alone)
    :param exited: the command has exited (likewise)
    :param by_signal: it has died of a signal; ssh does not say of which (likewise)
    :param complete: its output has come to its end (likewise)
    """

    messages: tuple[str, ...] = ()
    accepted: bool = False
    exited: bool = False
    by_signal: bool = False
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why ssh has failed.

    :param reason: the word for it
    :param cause: in ssh's words
    :param hint: what to do
    """

    reason: Reason
    cause: str
    hint: str


def read_log(text: str) -> SshLog:
    """Understand the text of ``ssh -E``."""
    messages: list[str] = []
    accepted = exited = by_signal = complete = False
    # Not splitlines(): ssh escapes what is not printable, and a line ends with CR LF or LF.
    for line in text.replace("\r", "").split("\n"):
        if _ACCEPTED.match(line):
            accepted = True
        elif found := _EXITED.match(line):
            exited, by_signal = True, found[1] == "signal"
        elif _COMPLETE.match(line):
            complete = True
        else:
            message = _PLACE.sub("", line).strip()
            if not _CHATTER.match(message):
                messages.append(message)
    return SshLog(tuple(messages), accepted, exited, by_signal, complete)


class MasterEvent(enum.Enum):
    """What a master writes of, in the order in which it happens."""

    LISTENS = enum.auto()
    CANNOT_LISTEN = enum.auto()
    SESSION = enum.auto()  # the host has opened a channel
    COMMAND = enum.auto()  # it is about to send the command of that session
    ACCEPTED = enum.auto()
    EXITED = enum.auto()
    DIED = enum.auto()  # of a signal
    COMPLETE = enum.auto()  # its output has come to its end
    REFUSED = enum.auto()  # the host opens no further channel


def read_event(line: str) -> tuple[MasterEvent, int, str] | None:
    """What a line of a master (:data:`FOLLOW_MASTER`) says: the event, the channel (-1 where it is
    none's), and the text of a command."""
    found = _EVENTS.match(line)
    if found is None:
        cannot = _CANNOT_LISTEN.search(line) and not line.startswith("debug")
        return (MasterEvent.CANNOT_LISTEN, -1, "") if cannot else None
    if found["listens"]:
        return MasterEvent.LISTENS, -1, ""
    if found["cannot"]:
        return MasterEvent.CANNOT_LISTEN, -1, ""
    if found["channel"]:
        return MasterEvent.SESSION, int(found["channel"]), ""
    if found["accepted"]:
        return MasterEvent.ACCEPTED, int(found["on"]), ""
    if found["exit"]:
        exited = found["exit"] == "status"
        return MasterEvent.EXITED if exited else MasterEvent.DIED, int(found["of"]), ""
    if found["ending"]:
        return MasterEvent.COMPLETE, int(found["ending"]), ""
    if found["refused"]:
        return MasterEvent.REFUSED, -1, ""
    return MasterEvent.COMMAND, -1, found["command"]


_REMOVE_KEY = "if the host was installed anew, remove its old key: ssh-keygen -R {host}"
_NAME_KEY = (
    "check user and keyfile; a key with a passphrase needs an agent (ssh-add); "
    "a password cannot be given to ssh here"
)
_NO_KEY_FILE = "the key file {keyfile} does not exist on this machine"
_WHAT_RUNS = "is sshd running there, and is the port right?"
_SHARED = "does it offer what this ssh accepts? see HostKeyAlgorithms, KexAlgorithms in ssh_config"
_BUSY = "is the host up, or sshd too busy (MaxStartups in sshd_config)?"
_LOST = "is the host still up? what ran there may go on"
_STOPPED = "was it stopped, or is this machine too busy? what ran there may go on"
_OPTIONS = "mend ssh_options or ~/.ssh/config"

# In order: the first row that any of the messages meets. ssh ends a changed host key or a bad key
# file with a general message, so the special come first.
_TABLE: tuple[tuple[str, Reason, str], ...] = (
    (rf"{SHARED_SSH} does not answer", Reason.CONNECT, _STOPPED),
    (rf"somebody has ended {SHARED_SSH}", Reason.CONNECT, "what ran there may go on"),
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", Reason.HOST_KEY, _REMOVE_KEY),
    (r"no matching host key type found", Reason.HOST_KEY, _SHARED),
    (
        r"No \S+ host key is known for|authenticity of host .* can't be established",
        Reason.HOST_KEY,
        "connect once by hand to accept its key, or set host_key_policy to 'accept-new'",
    ),
    (r"Host key verification failed|host key .*revoked", Reason.HOST_KEY, _REMOVE_KEY),
    (r"Too many authentication failures", Reason.AUTH, "name the key with keyfile"),
    (r"Permission denied|No more authentication methods", Reason.AUTH, _NAME_KEY),
    (r"no matching .* found", Reason.AUTH, _SHARED),
    (
        r"Could not resolve hostname|Name or service not known",
        Reason.CONNECT,
        "check its name; does this machine know it (getent hosts)?",
    ),
    (r"Connection refused", Reason.CONNECT, _WHAT_RUNS),
    (r"No route to host|Network is unreachable|Host is down", Reason.CONNECT, "is the host up?"),
    (r"timed out|Operation timed out", Reason.CONNECT, "is the host up? see connect_timeout"),
    (r"Timeout, server .* not responding", Reason.CONNECT, _LOST),
    (
        r"request failed on channel|Session open refused|channel 0: open failed",
        Reason.CONNECT,
        "the host refuses to run commands: see MaxSessions, ForceCommand in its sshd_config",
    ),
    (r"administratively prohibited|open failed", Reason.CONNECT, "see sshd_config of the host"),
    (r"exchange_identification: (read: )?Connection", Reason.CONNECT, _BUSY),
    ((r"banner exchange|exchange_identification|invalid format|[Bb]ad packet length|Corrupted MAC|"
     r"message authentication code incorrect|Protocol major versions differ"), Reason.CONNECT,
     "is it an SSH server that listens on this port?"),
    ((r"Connection (to .* )?closed|Connection reset|Received disconnect|Disconnected from|"
     r"Read from remote host|Broken pipe|ssh_dispatch_run_fatal|Connection aborted"),
     Reason.CONNECT, _LOST),
    ((r"Bad configuration option|unknown option|[Uu]nsupported option|[Bb]ad (port|number|owner)|"
     r"[Mm]issing argument|usage: ssh|extra arguments|argument .*required|"
     r"Can't open user config|Couldn't open logfile|Bad .* specification|invalid characters"),
     Reason.SPAWN, _OPTIONS),
)  # fmt: skip
_RULES = tuple((re.compile(pattern), reason, hint) for pattern, reason, hint in _TABLE)

# What ssh says of keys that it could not use, before it says that it was not let in.
_OF_KEYS = re.compile(
    r"no such identity|Load key|Permissions \S+ for|sign_and_send_pubkey|agent refused|"
    r"UNPROTECTED PRIVATE KEY"
)


def diagnose(messages: Iterable[str], host: str) -> Trouble | None:
    """The trouble that ``messages`` speak of; None if they speak of none that is known.

    :param messages: lines of ssh
    :param host: as the user knows it, for the hint
    """
    lines = list(messages)
    for rule, reason, hint in _RULES:
        for line in lines:
            if rule.search(line):
                details = [one for one in lines if _OF_KEYS.search(one)]
                if reason is not Reason.AUTH or line in details:
                    details = []
                cause = "; ".join([*dict.fromkeys(details), line])
                return Trouble(reason, cause.strip("@ ."), hint.format(host=host))
    return None


_STARTS = {
    Reason.CONNECT: "cannot connect to {place}",
    Reason.AUTH: "{place} does not let us in",
    Reason.HOST_KEY: "cannot trust {place}",
    Reason.SPAWN: "ssh cannot be used to reach {place}",
}


def failure(
    target: Target, status: int | None, log: SshLog, tail: Sequence[str], *, follows: bool
) -> ProcessError | None:
    """Why a command did not run, or was lost, or some of its output was, after its exit; None if
    ``status`` is its own, and all has come.

    :param status: the wait status of its ssh
    :param tail: the last lines of its stderr: ssh writes there that a host has closed a connection,
      and that an option is wrong
    :param follows: it was run with :data:`FOLLOW`, so that the log says whether it has exited
    """
    if status is not None and os.WIFSIGNALED(status):
        name = signal_name(os.WTERMSIG(status))
        cause = f"somebody has ended the ssh command on this machine ({name})"
        return _error(target, Reason.CONNECT, _lost(target, cause, _LOST))
    cut = follows and log.exited and not log.complete
    if not cut and (status != SSH_FAILED or log.exited):
        return None
    trouble = diagnose(log.messages, target.address)
    if trouble is None:
        trouble = diagnose(tail[-1:] if log.accepted else tail, target.address)
        if trouble is not None and not (follows or trouble.reason is Reason.SPAWN):
            trouble = None  # the command may have printed it, an ssh for one
    if trouble is None:
        if not follows and not log.messages:
            return None
        said = "; ".join(log.messages) or "ssh does not say why"
        trouble = Trouble(Reason.CONNECT, said, "try ssh -v by hand")
    if log.accepted:
        message = _lost(target, trouble.cause, trouble.hint)
    else:
        start = _STARTS[trouble.reason].format(place=place(target))
        hint = trouble.hint
        if hint == _NAME_KEY and _lacks_key_file(target):
            hint = _NO_KEY_FILE.format(keyfile=target.keyfile)
        message = f"{start}: {trouble.cause}; {hint}"
    return _error(target, trouble.reason, message)


def signal_name(number: int) -> str:
    """A signal for messages."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal


def _lacks_key_file(target: Target) -> bool:
    """Whether its key file is not there, of which ssh says nothing: it goes on without. Nor is the
    public half, by which ssh would find the key in the agent.

    Looked at when the login has failed alone: before, ssh may well be let in another way.
    """
    path = target.keyfile
    return path is not None and _is_missing(path) and _is_missing(f"{path}.pub")


def _is_missing(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # it may be there, where we must not look
    return False


def _lost(target: Target, cause: str, hint: str) -> str:
    return f"the connection to {place(target)} was lost: {cause}; {hint}"


def _error(target: Target, reason: Reason, message: str) -> ProcessError:
    return ProcessError(message, reason=reason, host=target.address)


def place(target: Target) -> str:
    """``target`` for messages: the host as the user wrote it, with what else matters."""
    name = target.name or target.address
    details = [
        f"address {target.address}" if target.address != name else "",
        f"user {target.user}" if target.user is not None else "",
        f"port {target.port}" if target.port is not None else "",
    ]
    shown = ", ".join(detail for detail in details if detail)
    return f"{name} ({shown})" if shown else name
