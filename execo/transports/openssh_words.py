"""The words of the ssh command: who and where, the user's options, ours.

Reference: ssh(1), ssh_config(5).
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .base import ConnectionOptions, Target
from .ssh_messages import FOLLOW, FOLLOW_MASTER

__all__ = [
    "Abilities",
    "abilities",
    "client_words",
    "connection_options",
    "master_words",
    "ssh_words",
    "tells_of_commands",
    "unshared",
]

_PROBE_TIMEOUT = 10.0

# The options of ssh with a value (ssh(1), OpenSSH 9.2).
_WITH_VALUE = frozenset("BbcDEeFIiJLlmOopQRSWw")

_FORWARDINGS = frozenset({"D", "L", "R", "localforward", "remoteforward", "dynamicforward"})
# Those that make something else of an ssh, or send what it writes of itself elsewhere.
_NOT_SHARED = frozenset({"E", "N", "W", "f", "n", "s", "w", "X", "Y", "y", "sessiontype", "tunnel"})

# What the files of configuration may say for the user's own sessions, and would take a command's
# place, its input or its output. Second: what OpenSSH knows from 8.7 on.
_PLAIN_SESSION = {"RemoteCommand": "none", "PermitLocalCommand": "no"}
_PLAIN_SESSION_87 = {"StdinNull": "no", "ForkAfterAuthentication": "no", "SessionType": "default"}


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an ssh can do.

    :param tells: write of a command's start and exit (OpenSSH 8.5)
    :param unforks: be told not to do what the files of configuration say of stdin and of going to
      the background (OpenSSH 8.7)
    """

    tells: bool = False
    unforks: bool = False


def abilities(words: Sequence[str]) -> Abilities:
    """Ask the ssh command. Blocks until it has answered.

    :param words: the ssh command
    """
    tell = {"LogVerbose": FOLLOW}
    if _takes(words, {**_PLAIN_SESSION_87, **tell}):
        return Abilities(tells=True, unforks=True)
    return Abilities(tells=_takes(words, tell))


def _takes(words: Sequence[str], options: dict[str, str]) -> bool:
    try:
        return not subprocess.run(
            [*words, *_as_words(options), "-V"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_TIMEOUT,
            check=False,
        ).returncode
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False


def tells_of_commands(options: ConnectionOptions) -> bool:
    """False if the user's words keep ssh from telling of a command's start and exit: a shared
    connection tells nothing of it, and a LogVerbose of one's own replaces ours."""
    for name, value in _said(options):
        if name in {"M", "S", "O", "logverbose"}:
            return False
        if name == "controlmaster" and value.lower() not in {"no", "false"}:
            return False
        if name == "controlpath" and value.lower() != "none":
            return False
    return True


def _said(options: ConnectionOptions) -> Iterator[tuple[str, str]]:
    """What the words of the user say: a letter, or a keyword in lower case, and its value."""
    words = iter([*options.ssh[1:], *options.ssh_options])
    for word in words:
        if not word.startswith("-"):
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            value = ""
            if letter in _WITH_VALUE:
                value, letters = letters or next(words, ""), ""
            if letter == "o":
                keyword, _, rest = value.replace("=", " ", 1).strip().partition(" ")
                yield keyword.lower(), rest.strip().strip('"')
            else:
                yield letter, value


def ssh_words(
    target: Target, pty: bool, log_file: str, able: Abilities, text: str
) -> tuple[str, ...]:
    """The words of the ssh command that runs ``text`` on ``target``."""
    words = [*target.options.ssh, "-tt" if pty else "-T", *connection_options(target, able)]
    return (*words, "-E", log_file, "--", target.address, text)


def unshared(options: ConnectionOptions) -> str | None:
    """Why these commands cannot share connections of ours; None if they can."""
    if os.path.basename(options.ssh[0]) != "ssh":
        return f"{options.ssh[0]!r} is not known to be an ssh"
    if not tells_of_commands(options):
        return "ssh_options share connections, or say what ssh logs"
    for name, _ in _said(options):
        if name in _FORWARDINGS or name in _NOT_SHARED:
            return f"ssh_options have {name!r}"
    return None


def master_words(target: Target, able: Abilities, socket: str) -> tuple[str, ...]:
    """The words of an ssh that does nothing but share its connection to ``target``."""
    # ssh takes the first value of an option that it sees, so these win.
    ours = ["-M", "-N", "-T", "-S", socket, "-o", "ControlPersist=no"]
    follow = ["-o", f"LogVerbose={FOLLOW_MASTER}"]
    options = connection_options(target, replace(able, tells=False))
    return (*target.options.ssh, *ours, *follow, *options, "--", target.address)


def client_words(
    target: Target, pty: bool, log_file: str, able: Abilities, text: str, socket: str
) -> tuple[str, ...]:
    """The words of the ssh command that runs ``text`` over a master's connection."""
    # Where its master does not take it, ssh connects by itself, and after a master has died it
    # cannot know whether the command was sent. So it gets nowhere: what is to be tried again is
    # decided here.
    ours = ["-S", socket, "-o", "ProxyCommand=false", "-o", "ProxyUseFdpass=no"]
    given = target.options
    options = replace(
        given, ssh=_without_jump(given.ssh), ssh_options=_without_jump(given.ssh_options)
    )
    target = replace(target, options=options)
    words = ssh_words(target, pty, log_file, replace(able, tells=False), text)
    return (*options.ssh, *ours, *words[len(options.ssh) :])


def _without_jump(words: Sequence[str]) -> tuple[str, ...]:
    """``words`` without ``-J host``, which ssh does not take beside a ProxyCommand."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            kept.append(word)
            continue
        for place, letter in enumerate(word[1:], 1):
            if letter in _WITH_VALUE:
                value = [] if word[place + 1 :] else [next(rest, "")]
                if letter != "J":
                    kept += [word, *value]
                elif place > 1:
                    kept.append(word[:place])
                break
        else:
            kept.append(word)
    return tuple(kept)


def connection_options(target: Target, able: Abilities) -> list[str]:
    """The options of ssh that say how to connect to ``target``.

    ssh takes the first value that it sees of an option. So who and where come first, which the
    host and the parameters say; then the user's ``ssh_options``; then our defaults. Files of
    configuration come last.
    """
    options = target.options
    words: list[str] = []
    if target.user is not None:
        words += ["-l", target.user]
    if target.port is not None:
        words += ["-p", str(target.port)]
    if target.keyfile is not None:
        # Not -i, which complains of a missing file on the command's stderr.
        words += ["-o", f"IdentityFile={_quoted(target.keyfile)}", "-o", "IdentitiesOnly=yes"]
    words += options.ssh_options
    ours = {
        "BatchMode": "yes",
        **_host_keys(options),
        # 0: it is never asked. What the files say is in there, see execo.connection.
        "ServerAliveInterval": str(math.ceil(options.keepalive or 0)),
        "ServerAliveCountMax": str(options.keepalive_count),
        # One that is shared by chance would end the others with it.
        "ControlMaster": "no",
        "ControlPath": "none",
        "EscapeChar": "none",  # a terminal's ~. is the user's data
        # From INFO on, the banner of the host is printed on stderr.
        "LogLevel": "ERROR",
        **_PLAIN_SESSION,
    }
    if not any(name in _FORWARDINGS for name, _ in _said(options)):
        # Those of the configuration: the port is taken for all but the first.
        ours["ClearAllForwardings"] = "yes"
    if able.unforks:
        ours |= _PLAIN_SESSION_87
    if options.connect_timeout is not None:
        ours["ConnectTimeout"] = str(max(1, math.ceil(options.connect_timeout)))
    if able.tells:
        ours["LogVerbose"] = FOLLOW
    return [*words, *_as_words(ours)]


def _as_words(options: dict[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def _host_keys(options: ConnectionOptions) -> dict[str, str]:
    files = " ".join(map(_quoted, options.known_hosts))
    if options.host_key_policy == "off":
        if files:
            return {"StrictHostKeyChecking": "no", "UserKnownHostsFile": files}
        none = {"UserKnownHostsFile": os.devnull, "GlobalKnownHostsFile": os.devnull}
        return {"StrictHostKeyChecking": "no", **none}
    checking = "yes" if options.host_key_policy == "strict" else "accept-new"
    known = {"UserKnownHostsFile": files} if files else {}
    return {"StrictHostKeyChecking": checking, **known}


def _quoted(path: str) -> str:
    """A file's name as a value of ssh_config(5)."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
