"""From what ssh_config says of a host to the target of a connection in process, and the hosts on
the way to it.

Reference: ssh_config(5). What connection parameters say comes before what files say, see
:mod:`execo.connection`.
"""

from __future__ import annotations

import functools
import os
import pwd
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .base import ConnectionOptions, Login, Target
from .dial import known_name
from .known_hosts import has_authority
from .ssh_algorithms import algorithms_of
from .ssh_config import Hop, HostSettings, SshConfig
from .ssh_config_match import fits

__all__ = ["SYSTEM_KNOWN_HOSTS", "USER_KNOWN_HOSTS", "Finder", "Found"]

USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_POLICIES = {"no": "off", "accept-new": "accept-new", "yes": "strict", "ask": "strict"}

MOST_HOPS = 16
"""Hosts that are reached through one another, before it is taken for a circle."""


_Variables = tuple[tuple[str, str], ...]
_Sent = tuple[tuple[str, ...], _Variables]
"""The names of SendEnv, and what SetEnv gives."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where to connect.

    :param target: the target
    :param only_openssh: why only the ssh command can connect there; empty if this process can
    :param passed_over: lines that are not followed
    """

    target: Target
    only_openssh: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


class Finder:
    """What files say, for one set of connection parameters. For any thread; nothing blocks.

    :param config: the files
    :param base: the options that the parameters give
    :param given: the names of those that come before what files say: ``host_key_policy``,
      ``connect_timeout``, ``keepalive``
    :param lines: what ``ssh_options`` say; as with ssh, nothing of the hosts on the way
    """

    def __init__(
        self,
        config: SshConfig,
        base: ConnectionOptions,
        given: Collection[str] = (),
        lines: Sequence[str] = (),
    ) -> None:
        self._config = config
        self._base = base
        # A password that is a text is for one host: those on the way must not see it.
        password = base.login.password
        on_the_way = None if isinstance(password, str) else password
        self._hop_base = replace(base, login=replace(base.login, password=on_the_way))
        self._given = frozenset(given)
        self._lines = tuple(lines)
        self._shared: dict[ConnectionOptions, ConnectionOptions] = {}
        self._gateways: dict[tuple[Hop, ...], Found] = {}
        self._environments: dict[_Sent, _Variables] = {}

    def find(self, asked: Target) -> Found:
        """Where to connect for a host.

        :param asked: the host as ``ssh`` would be given it, with what comes before what files say;
          of its options nothing is read
        :raises SshConfigError: for what ssh refuses
        :raises ValueError: if this process has no user name, or hosts are reached in a circle
        """
        settings = self._look_up(asked, self._lines)
        return self._found(asked, settings, self._base, settings.proxy_jump, 0)

    def options_for_ssh(self, asked: Target) -> ConnectionOptions:
        """Its options for the ssh command, which reads the files itself: ours must not hide from it
        what they say.

        :param asked: as for :meth:`find`; its options are those that the parameters give
        :raises SshConfigError: for what ssh refuses
        """
        settings = self._look_up(asked, self._lines)
        return self._share(replace(asked.options, **self._limits(settings)))

    def _look_up(self, asked: Target, lines: Sequence[str]) -> HostSettings:
        return self._config.lookup(asked.address, user=asked.user, port=asked.port, options=lines)

    # -- the target -------------------------------------------------------------------------------

    def _found(
        self,
        asked: Target,
        settings: HostSettings,
        base: ConnectionOptions,
        hops: tuple[Hop, ...],
        depth: int,
    ) -> Found:
        algorithms, reasons = algorithms_of(settings)
        only_openssh = [*settings.only_openssh, *reasons]
        if settings.no_keys and base.login.password is None and base.login.answers is None:
            only_openssh.append(f"{settings.no_keys}: logs in without a key, nor with a password")
        passed_over = list(settings.passed_over)
        via = None
        if hops:
            gateway = self._gateway(asked, hops, depth + 1)
            via = gateway.target
            only_openssh += (f"{via.name}, on the way: {why}" for why in gateway.only_openssh)
            passed_over += gateway.passed_over
        options = replace(
            base,
            **self._limits(settings),
            known_hosts=_known_hosts(settings),
            hash_known_hosts=bool(settings.hash_known_hosts),
            host_key_alias=settings.host_key_alias,
            login=_login(base.login, settings, asked.keyfile),
            algorithms=algorithms,
            env=self._environment((settings.send_env, settings.set_env)),
        )
        family = settings.address_family
        target = Target(
            address=settings.hostname,
            user=settings.user or _local_user(),
            port=settings.port,
            keyfile=asked.keyfile,
            options=self._share(options),
            family=None if family == "any" else family,
            via=via,
            proxy_command=settings.proxy_command if via is None else None,
            name=asked.name or asked.address,
        )
        if options.host_key_policy != "off" and has_authority(
            options.known_hosts, (options.host_key_alias or known_name(target)).lower()
        ):
            only_openssh.append(f"an authority answers for the key of {target.name} (known_hosts)")
        return Found(target, tuple(only_openssh), tuple(passed_over))

    def _gateway(self, asked: Target, hops: tuple[Hop, ...], depth: int) -> Found:
        """The last of the hosts on the way, which is reached through those before it."""
        known = self._gateways.get(hops)
        if known is not None:
            return known
        if depth > MOST_HOPS:
            raise ValueError(
                f"{asked.name or asked.address} is reached through more than {MOST_HOPS} hosts: "
                "does ProxyJump lead in a circle?"
            )
        before, last = hops[:-1], hops[-1]
        hop = Target(last.host, last.user, last.port)
        settings = self._look_up(hop, ())
        if before:
            # As with ssh: what it says of the ways to these hosts counts for the first one only.
            settings = replace(settings, proxy_command=None)
        else:
            before = settings.proxy_jump
        found = self._gateways[hops] = self._found(hop, settings, self._hop_base, before, depth)
        return found

    def _limits(self, settings: HostSettings) -> dict[str, Any]:
        """What files say of host keys and time, where the parameters say nothing."""
        said: dict[str, Any] = {}
        if settings.strict_host_key_checking and "host_key_policy" not in self._given:
            said["host_key_policy"] = _POLICIES[settings.strict_host_key_checking]
            said["policy_chosen"] = True
        if settings.connect_timeout is not None and "connect_timeout" not in self._given:
            said["connect_timeout"] = float(settings.connect_timeout) or None
        if settings.server_alive_interval is not None and "keepalive" not in self._given:
            said["keepalive"] = float(settings.server_alive_interval) or None
        if settings.server_alive_count_max is not None:
            said["keepalive_count"] = max(1, settings.server_alive_count_max)
        return said

    def _environment(self, sent: _Sent) -> _Variables:
        """The variables to send. When those of this process change, the files are read anew."""
        found = self._environments.get(sent)
        if found is None:
            names, values = sent
            taken = {name: value for pattern in names for name, value in _variables(pattern)}
            found = self._environments[sent] = tuple((taken | dict(values)).items())
        return found

    def _share(self, options: ConnectionOptions) -> ConnectionOptions:
        """The same object for equal options: thousands of hosts have the same."""
        return self._shared.setdefault(options, options)


def _known_hosts(settings: HostSettings) -> tuple[str, ...]:
    users, systems = settings.user_known_hosts_files, settings.global_known_hosts_files
    if users is None and systems is None:
        return ()
    if users is None:
        users = tuple(map(os.path.expanduser, USER_KNOWN_HOSTS))
    # New keys go into the first one, and never into the system's.
    return (*(users or (os.devnull,)), *(SYSTEM_KNOWN_HOSTS if systems is None else systems))


def _login(base: Login, settings: HostSettings, keyfile: str | None) -> Login:
    identities = settings.identity_files
    if identities is None and keyfile is not None:
        identities = ()  # as ssh does: the usual ones are tried where none is named
    return replace(
        base,
        identities=identities,
        certificates=settings.certificate_files,
        identities_only=bool(settings.identities_only) or keyfile is not None,
        agent=settings.identity_agent,
        methods=base.methods if settings.methods is None else settings.methods,
    )


def _variables(pattern: str) -> list[tuple[str, str]]:
    if "*" not in pattern and "?" not in pattern:
        value = os.environ.get(pattern)
        return [] if value is None else [(pattern, value)]
    return [one for one in os.environ.items() if fits(pattern, one[0])]


def _local_user() -> str:
    try:
        return _name_of(os.getuid())
    except (KeyError, OSError) as exc:  # a number without a name, in a container for one
        raise ValueError(f"this process has no user name ({exc}); set user") from exc


@functools.cache
def _name_of(uid: int) -> str:
    # The system may ask a server for it.
    return pwd.getpwuid(uid).pw_name
