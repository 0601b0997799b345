"""Every keyword of ssh_config: how its value is read, and what it means to a connection in process.

A keyword is *taken* (it has a field in the settings of a host), or *ignored* because it changes
nothing for a command that is run in process, or *left to ssh*: a value other than the harmless ones
says that only the ssh command can do what is asked for. Some of these are passed over in files,
which are written for a user's own sessions, and left to ssh where a script asks for them.

Reference: ssh_config(5) of OpenSSH 9.2 with the additions of Debian, and what later versions have
added.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from . import ssh_config_values as values
from .ssh_config_values import Reader

__all__ = ["ALIASES", "KEYWORDS", "METHODS", "Keyword", "Place", "Use"]

METHODS = ("publickey", "keyboard-interactive", "password")
"""The methods of login of this process, in the order in which ssh tries them."""


class Place(enum.Enum):
    """Where a line is from."""

    SYSTEM = "the system's file"
    USER = "a user's file"
    OPTIONS = "ssh_options"


class Use(enum.Enum):
    """What becomes of a keyword."""

    TAKEN = "taken"
    ADDED = "taken, each line adds to the others"
    IGNORED = "without effect in process"
    LEFT = "left to the ssh command"
    STRUCTURE = "says which lines are read"
    UNSUPPORTED = "ssh says that it cannot do it, and goes on"


@dataclass(frozen=True, slots=True)
class Keyword:
    """A row of the table.

    :param read: how its value is read; None: by whoever reads the lines
    :param use: what becomes of it
    :param why: why it is without effect, or what only ssh can do
    :param harmless: values of a keyword that is left to ssh which ask for nothing
    :param slot: keywords with the same slot are one setting: the first of them counts
    :param passed_over: places where one that is left to ssh counts for nothing
    :param told: that it was passed over is worth a message: something will be missing
    """

    read: Reader | None
    use: Use
    why: str = ""
    harmless: Callable[[Any], bool] | None = None
    slot: str | None = None
    passed_over: Collection[Place] = ()
    told: bool = False


def _taken(read: Reader, *, slot: str | None = None) -> Keyword:
    return Keyword(read, Use.TAKEN, slot=slot)


def _added(read: Reader) -> Keyword:
    return Keyword(read, Use.ADDED)


def _ignored(read: Reader, why: str) -> Keyword:
    return Keyword(read, Use.IGNORED, why)


def _left(read: Reader, why: str, *harmless: Any) -> Keyword:
    return Keyword(read, Use.LEFT, why, _among(harmless))


def _on_request(read: Reader, why: str, *harmless: Any, told: bool = False) -> Keyword:
    """Left to ssh where a script asks for it, passed over in files."""
    return Keyword(read, Use.LEFT, why, _among(harmless), passed_over=_FILES, told=told)


def _among(harmless: Collection[Any]) -> Callable[[Any], bool]:
    return lambda value: (value.lower() if isinstance(value, str) else value) in harmless


_FILES = (Place.SYSTEM, Place.USER)
_SESSION = "it is for the user's own sessions, not for commands of a script"
_PRINTS = "it changes what ssh prints"
_NO_GSSAPI = "only together with GSSAPIAuthentication, which is left to ssh"
_NOBODY = "nobody is asked anything"
_SHARING = "connections are kept and shared anyway"
_CANONICAL = "only together with CanonicalizeHostname, which is left to ssh"
_OLD = "ssh, too, ignores it"
_LEVELS = "quiet fatal error info verbose debug debug1 debug2 debug3"
_FACILITIES = "daemon user auth authpriv local0 local1 local2 local3 local4 local5 local6 local7"
_STRICT = {**values.FLAGS, "off": "no", "ask": "ask", "accept-new": "accept-new"}
_FAMILIES = {"inet": "inet", "inet6": "inet6", "any": "any"}


def _words(text: str) -> Reader:
    return values.choice({word: word for word in text.split()})


KEYWORDS: dict[str, Keyword] = {
    # Which lines are read.
    "host": Keyword(None, Use.STRUCTURE),
    "match": Keyword(None, Use.STRUCTURE),
    "include": Keyword(None, Use.STRUCTURE),
    "ignoreunknown": _taken(values.string),
    "tag": _taken(values.string),
    # Where to connect, and as whom.
    "hostname": _taken(values.string),
    "port": _taken(values.port),
    "user": _taken(values.string),
    "addressfamily": _taken(values.choice(_FAMILIES)),
    "connecttimeout": _taken(values.times),
    "proxyjump": _taken(values.jumps, slot="proxy"),
    "proxycommand": _taken(values.command, slot="proxy"),
    "serveraliveinterval": _taken(values.times),
    "serveralivecountmax": _taken(values.number),
    # With which keys.
    "identityfile": _added(values.string),
    "certificatefile": _added(values.string),
    "identitiesonly": _taken(values.flag),
    "identityagent": _taken(values.agent),
    "pubkeyauthentication": _taken(values.flag_or("unbound", "host-bound")),
    "preferredauthentications": _taken(values.string),
    # Which keys the host may show.
    "stricthostkeychecking": _taken(values.choice(_STRICT)),
    "userknownhostsfile": _taken(values.files),
    "globalknownhostsfile": _taken(values.files),
    "hostkeyalias": _taken(values.string),
    "hashknownhosts": _taken(values.flag),
    # What is agreed on with it.
    "ciphers": _taken(values.string),
    "macs": _taken(values.string),
    "kexalgorithms": _taken(values.string),
    "hostkeyalgorithms": _taken(values.string),
    "pubkeyacceptedalgorithms": _taken(values.string),
    "requiredrsasize": _taken(values.number),
    # What commands find there.
    "sendenv": _added(values.variables),
    "setenv": _taken(values.environment),
    # What only ssh can do.
    "bindaddress": _left(values.string, "connects from an address"),
    "bindinterface": _left(values.string, "connects from an interface"),
    "canonicalizehostname": _left(values.flag_or("always"), "asks the DNS for names", "no"),
    "canonicalizepermittedcnames": _left(values.any_words, "asks the DNS for names", ("none",)),
    "channeltimeout": _left(values.any_words, "closes channels", ("none",)),
    "checkhostip": _left(values.flag, "looks up addresses among the host keys", "no"),
    "compression": _on_request(values.choice({"yes": "yes", "no": "no"}), "compresses", "no"),
    "connectionattempts": _left(values.number, "tries again", 1),
    "controlpath": _on_request(values.string, "shares connections with other programs", "none"),
    "forwardagent": _on_request(values.agent_flag, "lends the host the agent", "no", told=True),
    "forwardx11": _on_request(values.flag, "lends the host the display", "no", told=True),
    "gssapiauthentication": Keyword(
        values.flag, Use.LEFT, "logs in with Kerberos", _among(["no"]),
        passed_over=(Place.SYSTEM,),  # distributions set it for all hosts
    ),
    "hostbasedauthentication": _left(values.flag, "logs in with the key of this host", "no"),
    "knownhostscommand": _left(values.command, "runs a command for host keys", "none"),
    "nohostauthenticationforlocalhost": _left(values.flag, "checks no keys of this host", "no"),
    "pkcs11provider": _left(values.string, "keys of a PKCS#11 token", "none"),
    "proxyusefdpass": _left(values.flag, "is handed a connection by a command", "no"),
    "refuseconnection": _left(values.string, "refuses the host"),
    "revokedhostkeys": _left(values.string, "looks up revoked host keys", "none"),
    "securitykeyprovider": _left(values.string, "keys of a security key", "internal", "none"),
    "verifyhostkeydns": _left(values.flag_or("ask"), "asks the DNS for host keys", "no"),
    # Without effect.
    "addkeystoagent": _ignored(values.several(1, 2), "no key is unlocked that could be added"),
    "batchmode": _ignored(values.flag, _NOBODY),
    "canonicaldomains": _ignored(values.any_words, _CANONICAL),
    "canonicalizefallbacklocal": _ignored(values.flag, _CANONICAL),
    "canonicalizemaxdots": _ignored(values.number, _CANONICAL),
    "casignaturealgorithms": _ignored(values.string, "certificates of hosts are not looked at"),
    "clearallforwardings": _ignored(values.flag, _SESSION),
    "controlmaster": _ignored(values.flag_or("auto", "ask", "autoask"), _SHARING),
    "controlpersist": _ignored(values.string, _SHARING),
    "dynamicforward": _on_request(values.several(1, 1), _SESSION),
    "enableescapecommandline": _ignored(values.flag, _SESSION),
    "enablesshkeysign": _ignored(values.flag, "only together with HostbasedAuthentication"),
    "escapechar": _ignored(values.string, _SESSION),
    "exitonforwardfailure": _ignored(values.flag, _SESSION),
    "fingerprinthash": _ignored(_words("md5 sha1 sha256 sha384 sha512"), _PRINTS),
    "forkafterauthentication": _on_request(values.flag, _SESSION, "no"),
    "forwardx11timeout": _ignored(values.times, "only together with ForwardX11"),
    "forwardx11trusted": _ignored(values.flag, "only together with ForwardX11"),
    "gatewayports": _ignored(values.flag, _SESSION),
    "gssapiclientidentity": _ignored(values.string, _NO_GSSAPI),
    "gssapidelegatecredentials": _ignored(values.flag, _NO_GSSAPI),
    "gssapikexalgorithms": _ignored(values.string, _NO_GSSAPI),
    "gssapikeyexchange": _ignored(values.flag, _NO_GSSAPI),
    "gssapirenewalforcesrekey": _ignored(values.flag, _NO_GSSAPI),
    "gssapiserveridentity": _ignored(values.string, _NO_GSSAPI),
    "gssapitrustdns": _ignored(values.flag, _NO_GSSAPI),
    "hostbasedacceptedalgorithms": _ignored(
        values.string, "only together with HostbasedAuthentication"
    ),
    "ipqos": _ignored(values.several(1, 2), "the network may do without it"),
    "kbdinteractiveauthentication": _ignored(values.flag, _NOBODY),
    "kbdinteractivedevices": _ignored(values.string, _NOBODY),
    "localcommand": _ignored(values.command, _SESSION),
    "localforward": _on_request(values.several(2, 2), _SESSION),
    "loglevel": _ignored(_words(_LEVELS), _PRINTS),
    "logverbose": _ignored(values.any_words, _PRINTS),
    "numberofpasswordprompts": _ignored(values.number, _NOBODY),
    "obscurekeystroketiming": _ignored(values.string, "nobody types"),
    "passwordauthentication": _ignored(
        values.flag, "a password is tried only if the script gives one"
    ),
    "permitlocalcommand": _on_request(values.flag, _SESSION, "no"),
    "permitremoteopen": _ignored(values.any_words, _SESSION),
    "rekeylimit": _ignored(values.several(1, 2), "keys are renewed after a fixed amount of data"),
    "remotecommand": _on_request(values.command, _SESSION, "none"),
    "remoteforward": _on_request(values.several(1, 2), _SESSION),
    "requesttty": _ignored(values.flag_or("force", "auto"), "the script decides on terminals"),
    "sessiontype": _on_request(_words("none subsystem default"), _SESSION, "default"),
    "stdinnull": _on_request(values.flag, _SESSION, "no"),
    "streamlocalbindmask": _ignored(values.string, _SESSION),
    "streamlocalbindunlink": _ignored(values.flag, _SESSION),
    "syslogfacility": _ignored(_words(_FACILITIES), _PRINTS),
    "tcpkeepalive": _ignored(values.flag, "lost hosts are noticed by other means"),
    "tunnel": _on_request(values.flag_or("ethernet", "point-to-point"), _SESSION, "no"),
    "tunneldevice": _ignored(values.string, _SESSION),
    "updatehostkeys": _ignored(values.flag_or("ask"), "no host keys are learned after the first"),
    "versionaddendum": _ignored(values.command, "hosts do not look at it"),
    "visualhostkey": _ignored(values.flag, _PRINTS),
    "warnweakcrypto": _ignored(values.any_words, _PRINTS),
    "xauthlocation": _ignored(values.string, "only together with ForwardX11"),
}  # fmt: skip

KEYWORDS.update(
    dict.fromkeys(
        "protocol cipher fallbacktorsh globalknownhostsfile2 rhostsauthentication"
        " useblacklistedkeys userknownhostsfile2 useroaming usersh useprivilegedport".split(),
        _ignored(values.any_words, _OLD),
    )
)
KEYWORDS.update(
    dict.fromkeys(
        "afstokenpassing kerberosauthentication kerberostgtpassing rsaauthentication"
        " rhostsrsaauthentication compressionlevel".split(),
        Keyword(values.any_words, Use.UNSUPPORTED),
    )
)
if sys.platform == "darwin":
    KEYWORDS["usekeychain"] = _ignored(values.flag, "no passphrase is asked for")

ALIASES: dict[str, str] = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "dsaauthentication": "pubkeyauthentication",
    "hostbasedkeytypes": "hostbasedacceptedalgorithms",
    "identityfile2": "identityfile",
    "keepalive": "tcpkeepalive",
    "protocolkeepalives": "serveraliveinterval",  # Debian's
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "rsaminsize": "requiredrsasize",  # Red Hat's
    "setuptimeout": "serveraliveinterval",  # Debian's
    "skeyauthentication": "kbdinteractiveauthentication",
    "smartcarddevice": "pkcs11provider",
    "tisauthentication": "kbdinteractiveauthentication",
}
"""Other names that ssh knows of keywords."""
