"""What ssh_config says of one host, as values that are ready to be used.

Reference: ssh_config(5).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .ssh_config_keywords import METHODS, Use
from .ssh_config_lines import Setting
from .ssh_config_lookup import Lookup
from .ssh_config_match import fits
from .ssh_config_values import Hop
from .ssh_tokens import PROXY, Tokens, expand_home, refuse_for_shells

__all__ = ["HostSettings", "settings_of"]

DEFAULT_PORT = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """What ssh_config says of one host. What it does not say is None, or empty.

    :param hostname: where to connect: the host, or what HostName makes of it, in small letters
    :param port: the port
    :param user: the user
    :param address_family: ``inet``, ``inet6`` or ``any``
    :param identity_files: the private keys to try, in this order; none of them = ``none``
    :param certificate_files: the certificates that go with them
    :param identities_only: only these keys of all that the agent has
    :param identity_agent: the agent's socket, or ``none``
    :param methods: the methods of login to try, in this order
    :param no_keys: where it says that no key is tried; empty = some are
    :param strict_host_key_checking: ``yes``, ``no``, ``ask`` or ``accept-new``
    :param user_known_hosts_files: none of them = ``none``
    :param global_known_hosts_files: none of them = ``none``
    :param host_key_alias: the name to look for in them, in small letters
    :param hash_known_hosts: names are hashed in what is added to them
    :param send_env: names of variables of this process to set there, with wildcards
    :param set_env: variables to set there, and their values
    :param proxy_jump: the hosts on the way, the first to be visited first. What ssh_config says of
      the ways to these hosts counts for the first one only
    :param proxy_command: the command to connect through, for ``sh -c``, with its tokens replaced
    :param connect_timeout: seconds; 0 = the system's limit
    :param server_alive_interval: seconds; 0 = never ask
    :param server_alive_count_max: questions without an answer until a host is lost
    :param ciphers: as written, thus with ``+``, ``-`` or ``^`` before a change to the usual ones
    :param macs: likewise
    :param kex_algorithms: likewise
    :param host_key_algorithms: likewise
    :param pubkey_accepted_algorithms: likewise
    :param required_rsa_size: RSA keys with fewer bits are refused
    :param only_openssh: why only the ssh command can do what is asked for, for messages; empty if
      this process can
    :param passed_over: lines that would have an effect with ssh, and are not followed here
    """

    hostname: str
    port: int | None = None
    user: str | None = None
    address_family: str | None = None
    identity_files: tuple[str, ...] | None = None
    certificate_files: tuple[str, ...] = ()
    identities_only: bool | None = None
    identity_agent: str | None = None
    methods: tuple[str, ...] | None = None
    no_keys: str = ""
    strict_host_key_checking: str | None = None
    user_known_hosts_files: tuple[str, ...] | None = None
    global_known_hosts_files: tuple[str, ...] | None = None
    host_key_alias: str | None = None
    hash_known_hosts: bool | None = None
    send_env: tuple[str, ...] = ()
    set_env: tuple[tuple[str, str], ...] = ()
    proxy_jump: tuple[Hop, ...] = ()
    proxy_command: str | None = None
    connect_timeout: int | None = None
    server_alive_interval: int | None = None
    server_alive_count_max: int | None = None
    ciphers: str | None = None
    macs: str | None = None
    kex_algorithms: str | None = None
    host_key_algorithms: str | None = None
    pubkey_accepted_algorithms: str | None = None
    required_rsa_size: int | None = None
    only_openssh: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


def settings_of(lookup: Lookup) -> HostSettings:
    """The settings of a host whose lines have been gone through.

    :raises SshConfigError: for a value that ssh refuses
    """
    return _Result(lookup).settings()


# Slot -> field, where the value is taken as it was read.
_AS_READ = {
    "addressfamily": "address_family",
    "ciphers": "ciphers",
    "connecttimeout": "connect_timeout",
    "hostkeyalgorithms": "host_key_algorithms",
    "kexalgorithms": "kex_algorithms",
    "macs": "macs",
    "pubkeyacceptedalgorithms": "pubkey_accepted_algorithms",
    "requiredrsasize": "required_rsa_size",
    "serveralivecountmax": "server_alive_count_max",
    "serveraliveinterval": "server_alive_interval",
    "setenv": "set_env",
    "stricthostkeychecking": "strict_host_key_checking",
}
_FLAGS = {"hashknownhosts": "hash_known_hosts", "identitiesonly": "identities_only"}


class _Result:
    """The settings of one host in the making."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._fields: dict[str, Any] = {}
        self._reasons = lookup.reasons
        self._passed_over: list[str] = []
        self._tokens: Tokens | None = None

    def settings(self) -> HostSettings:
        lookup = self._lookup
        proxy = lookup.found.get("proxy")
        if proxy is not None:  # first: tokens name the jump host
            self._use(proxy, _Result._proxy)
        for slot, setting in lookup.found.items():
            if setting.keyword.use is Use.LEFT:
                self._check(setting)
            elif slot in _AS_READ:
                self._fields[_AS_READ[slot]] = setting.value
            elif slot in _FLAGS:
                self._fields[_FLAGS[slot]] = setting.value == "yes"
            elif slot in _PREPARED:
                self._use(setting, _PREPARED[slot])
        if lookup.added:
            self._add(lookup.added)
        return HostSettings(
            hostname=lookup.host,
            user=lookup.user,
            port=lookup.port,
            only_openssh=tuple(self._reasons),
            passed_over=tuple(self._passed_over),
            **self._fields,
        )

    def _use(self, setting: Setting, prepare: Callable[[_Result, Setting], None]) -> None:
        try:
            prepare(self, setting)
        except ValueError as exc:
            raise setting.line.error(str(exc)) from exc

    def _check(self, setting: Setting) -> None:
        keyword = setting.keyword
        if keyword.harmless is not None and keyword.harmless(setting.value):
            return
        if setting.line.place not in keyword.passed_over:
            self._leave(setting, keyword.why)
        elif keyword.told:
            self._passed_over.append(f"{setting.line}: {keyword.why}")

    def _leave(self, setting: Setting, why: str) -> None:
        self._reasons.append(f"{setting.line}: {why}")

    # -- tokens -----------------------------------------------------------------------------------

    @property
    def tokens(self) -> Tokens:
        if self._tokens is None:
            lookup = self._lookup
            jump = lookup.value("proxy")
            self._tokens = Tokens(
                local=lookup.local,
                host=lookup.host,
                original_host=lookup.original_host,
                port=lookup.port or DEFAULT_PORT,
                user=lookup.target_user(),
                key_alias=lookup.host_key_alias or lookup.original_host,
                jump_host=jump[-1].host if isinstance(jump, tuple) and jump else "",
            )
        return self._tokens

    def _path(self, setting: Setting, text: str) -> str:
        if not text.startswith("~") and "%" not in text and "${" not in text:
            return text
        if "%C" in text and self.tokens.jump_host:
            self._leave(setting, "what %C means with ProxyJump depends on the version of ssh")
        return self.tokens.path(text)

    # -- what needs to be prepared ----------------------------------------------------------------

    def _user(self, setting: Setting) -> None:
        if self._lookup.asked_user is None and ("%" in setting.value or "${" in setting.value):
            self._leave(setting, "what this means depends on the version of ssh")

    def _key_alias(self, setting: Setting) -> None:
        self._fields["host_key_alias"] = self._lookup.host_key_alias

    def _agent(self, setting: Setting) -> None:
        value = self._path(setting, setting.value)
        if value.startswith("$") and not value.startswith("${"):
            value = os.environ.get(value[1:]) or "none"
        if value != "SSH_AUTH_SOCK":
            self._fields["identity_agent"] = value

    def _user_files(self, setting: Setting) -> None:
        names = () if setting.value[0].lower() == "none" else setting.value
        self._fields["user_known_hosts_files"] = tuple(self._path(setting, one) for one in names)

    def _global_files(self, setting: Setting) -> None:
        home = self._lookup.local.home
        names = () if setting.value[0].lower() == "none" else setting.value
        self._fields["global_known_hosts_files"] = tuple(expand_home(one, home) for one in names)

    def _proxy(self, setting: Setting) -> None:
        value = setting.value
        if setting.name == "proxyjump":
            self._jump(setting, value)
        elif value == "-":
            self._leave(setting, "speaks through the stdin and stdout of ssh")
        elif value.lower() != "none":
            refuse_for_shells(self._lookup.original_host, self._lookup.asked_user)
            self._fields["proxy_command"] = self.tokens.expand(value, PROXY)

    def _jump(self, setting: Setting, hops: tuple[Hop, ...] | str) -> None:
        if isinstance(hops, str):
            self._leave(setting, "what this means depends on the version of ssh")
            return
        if not hops:
            return
        expanded = tuple(self._expand_hop(hop) for hop in hops)
        tokens, last = self.tokens, hops[-1]
        if (last.host, last.port or DEFAULT_PORT, last.user or tokens.user) == (
            tokens.host,
            tokens.port,
            tokens.user,
        ):
            raise ValueError(f"{tokens.host} would be reached through itself")
        self._fields["proxy_jump"] = expanded

    def _expand_hop(self, hop: Hop) -> Hop:
        user = None if hop.user is None else self.tokens.expand(hop.user, PROXY)
        return Hop(self.tokens.expand(hop.host, PROXY), user, hop.port)

    def _preferred(self, setting: Setting) -> None:
        ours = tuple(dict.fromkeys(one for one in setting.value.split(",") if one in METHODS))
        if not ours:
            self._leave(setting, "logs in in another way")
        elif METHODS[0] not in ours:
            self._fields["no_keys"] = str(setting.line)
        self._fields["methods"] = self._without_keys(ours)

    def _public_keys(self, setting: Setting) -> None:
        if setting.value == "no":
            self._fields["no_keys"] = str(setting.line)
            self._fields["methods"] = self._without_keys(self._fields.get("methods", METHODS))

    def _without_keys(self, methods: tuple[str, ...]) -> tuple[str, ...]:
        """The methods, with keys only if these are to be tried."""
        asked = self._lookup.value("pubkeyauthentication")
        return tuple(one for one in methods if one != METHODS[0]) if asked == "no" else methods

    # -- what adds up -----------------------------------------------------------------------------

    def _add(self, settings: Iterable[Setting]) -> None:
        names: dict[str, dict[str, Setting]] = {}
        for setting in settings:
            known = names.setdefault(setting.name, {})
            if setting.name == "sendenv":
                _add_variables(known, setting)
            else:
                known.setdefault(setting.value, setting)
        for name, field in (
            ("identityfile", "identity_files"),
            ("certificatefile", "certificate_files"),
        ):
            if name in names:
                self._fields[field] = self._paths(names[name])
        self._fields["send_env"] = tuple(names.get("sendenv", ()))

    def _paths(self, names: dict[str, Setting]) -> tuple[str, ...]:
        found: list[str] = []
        for name, setting in names.items():
            if name.lower() != "none":
                try:
                    found.append(self._path(setting, name))
                except ValueError as exc:
                    raise setting.line.error(str(exc)) from exc
        return tuple(found)


def _add_variables(known: dict[str, Setting], setting: Setting) -> None:
    for word in setting.value:
        if word.startswith("-"):
            for name in [name for name in known if fits(word[1:], name)]:
                del known[name]
        else:
            known.setdefault(word, setting)


_PREPARED: dict[str, Callable[[_Result, Setting], None]] = {
    "globalknownhostsfile": _Result._global_files,
    "hostkeyalias": _Result._key_alias,
    "identityagent": _Result._agent,
    "preferredauthentications": _Result._preferred,
    "pubkeyauthentication": _Result._public_keys,
    "user": _Result._user,
    "userknownhostsfile": _Result._user_files,
}
