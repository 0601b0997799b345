"""From a host and its connection parameters to a transport and the target of a connection.

What comes first counts, setting by setting:

1. the host's own user, key file and port;
2. the connection parameters that somebody has given, see :mod:`execo.config`;
3. the words of ``ssh_options``;
4. the files of ssh_config, in their own order;
5. the defaults that are built in.

The ssh command reads its files itself, and is given the first three.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from .config import BuiltIn, make_connection_params, ssh_config_words
from .errors import SshConfigError
from .host import Host
from .log import logger
from .transports.base import ConnectionOptions, Login, Target

if TYPE_CHECKING:
    from .transports.ssh_config import SshConfig
    from .transports.ssh_target import Finder

__all__ = ["connection_to", "seen_from_hosts"]

_NOT_FOR_TAKTUK = (
    *("-m", "--machine", "-f", "--machines-file", "-G", "--gateway"),
    *("-E", "--escape-character"),
)

MOST_HOSTS = 20_000
MOST_WAYS = 64
"""What is kept for the next time: hosts for each set of parameters, sets of parameters."""

BY_SSH = "hosts are reached with the ssh command: %s"

_announced: set[tuple[str, ...]] = set()
_ways: dict[tuple[Any, ...], _Ways] = {}
_values = itemgetter(*make_connection_params({}, {}))


def connection_to(host: Host, params: Mapping[str, Any]) -> tuple[str, Target]:
    """The name of the transport that reaches ``host``, and where it has to connect.

    For the transport ``taktuk`` its connector takes the place of ssh. What was found is kept: it
    is found again in a moment. From any thread; reads files when they have changed.

    :param host: the host
    :param params: complete connection parameters, see
      :func:`~execo.config.make_connection_params`
    :raises SshConfigError: for what ssh would refuse in a file of ssh_config
    :raises ValueError: if the transport ``paramiko`` was asked for and cannot do it
    """
    return _ways_of(params).to(host)


def _ways_of(params: Mapping[str, Any]) -> _Ways:
    """Those of the last time, if they are kept."""
    values = _values(params)
    # A number that was set and the same one that is built in are equal, and mean two things.
    key = (*values, *(type(params[name]) for name in _WEAK))
    try:
        ways = _ways.get(key)
    except TypeError:  # a list among them, which the user has put there
        return _Ways(params)
    if ways is None:
        if len(_ways) >= MOST_WAYS:
            _ways.clear()
        ways = _ways[key] = _Ways(params)
    return ways


def seen_from_hosts(host: Host, params: Mapping[str, Any]) -> Target:
    """Where another host has to connect to reach ``host``: as the parameters say it, with a key of
    its own, not with a file of this machine.

    :raises ValueError: for a name that must not be given to a shell
    """
    ways = _ways_of({**params, "transport": "seen", "topology": None})
    target = replace(ways._plain_target(host, ways.address(host), ways._base), keyfile=None)
    _refuse_for_shells(target)
    return target


_BY_FILES = ("auto", "paramiko", "openssh")
_WEAK = ("connect_timeout", "keepalive")

_Known = dict[tuple[str, str, str | None, str | None, int | None], tuple[str, Target]]


class _Ways:
    """How hosts are reached with one set of connection parameters. For any thread.

    :param params: complete connection parameters
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params = dict(params)
        self._rewrite: Callable[[str], str] | None = params["host_rewrite_func"]
        self._transport: str = params["transport"]
        self._words = tuple(params["ssh_options"])
        self._tree: Tree | None = None
        self._known: tuple[SshConfig | None, Finder | None, _Known] = (None, None, {})
        self._base = _base_options(params, () if self._transport in _BY_FILES else self._words)
        self._by_ssh = self._transport == "openssh" or (
            self._transport == "auto" and params["ssh"] is not None
        )
        self._given = {name for name in _WEAK if not isinstance(params[name], BuiltIn)}
        if self._base.policy_chosen:
            self._given.add("host_key_policy")
        if self._transport not in _BY_FILES:
            return
        # Here, not above: ``import execo`` has no need of them.
        from .transports.ssh_config_files import files_of
        from .transports.ssh_options import read_options

        self._options = read_options(self._words)
        self._files = files_of(self._choice_of_files())
        # Of several -F, ssh takes the last one.
        words = (*self._words, *ssh_config_words(params))
        self._base_for_ssh = _base_options(params, words)

    def _choice_of_files(self) -> str | None:
        chosen: str | os.PathLike[str] | bool | None = self._params["ssh_config"]
        if chosen is None:
            chosen = self._options.file
        if chosen is None:
            return None
        if isinstance(chosen, bool) or chosen == "none":
            return "none"
        return os.path.abspath(os.path.expanduser(os.fspath(chosen)))

    def _rewritten(self, address: str) -> str:
        assert self._rewrite is not None
        given = self._rewrite(address)
        try:
            return Host(given).address
        except (TypeError, ValueError) as exc:
            raise ValueError(
                f"host_rewrite_func made {given!r} of the host {address}: {exc}"
            ) from exc

    def address(self, host: Host) -> str:
        """Where it is to be found."""
        return host.address if self._rewrite is None else self._rewritten(host.address)

    def to(self, host: Host) -> tuple[str, Target]:
        """The transport and the target of one host, see :func:`connection_to`."""
        address = self.address(host)
        if self._transport not in _BY_FILES:
            # One of the user's own knows by itself what ssh_options mean to it.
            if self._transport == "tree":
                return self._by_tree(host, address)
            target = self._plain_target(host, address, self._base)
            if self._transport == "taktuk":
                _refuse_secrets(target, "taktuk")
                _refuse_for_shells(target)
            return self._transport, target
        try:
            current = self._files.current()
        except SshConfigError:
            if not self._by_ssh:
                raise
            return self._with_ssh(self._plain_target(host, address, self._base_for_ssh))
        config, finder, known = self._known
        if current is not config or finder is None or len(known) >= MOST_HOSTS:
            from .transports.ssh_target import Finder

            finder, known = Finder(current, self._base, self._given, self._options.lines), {}
            self._known = current, finder, known
        key = (host.address, address, host.user, host.keyfile, host.port)
        found = known.get(key)
        if found is None:
            plain = self._plain_target(host, address, self._base_for_ssh)
            found = known[key] = self._find(plain, finder)
        return found

    def _by_tree(self, host: Host, address: str) -> tuple[str, Target]:
        """Through gateways, or directly where there are none before it."""
        if self._tree is None or not self._tree.is_current():
            self._tree = Tree(self._params, self._base, self._plain_target)
        if not self._tree.parents(host.address):
            return self._tree.plain.to(host)
        _refuse_secrets(self._plain_target(host, address, self._base), "tree")
        return "tree", self._tree.target(host, address)

    def _plain_target(self, host: Host, address: str, options: ConnectionOptions) -> Target:
        """The target as the host and the parameters say it."""
        params = self._params
        return Target(
            address=_bare(address),
            user=host.user or params["user"],
            port=host.port or params["port"],
            keyfile=_path(host.keyfile or params["keyfile"]),
            options=options,
            name=host.address,
        )

    def _find(self, asked: Target, finder: Finder) -> tuple[str, Target]:
        """What files make of a host, as it is asked for."""
        reasons: tuple[str, ...] = ()
        if self._by_ssh:
            if self._transport == "auto":
                _announce(BY_SSH, f"ssh is set to {self._params['ssh']!r}")
        elif self._options.only_openssh is not None:
            reasons = (f"ssh_options has {self._options.only_openssh!r}, in {self._words!r}",)
        else:
            try:
                found = finder.find(asked)
            except SshConfigError as exc:
                if exc.filename != "ssh_options":
                    raise
                reasons = (str(exc),)
            else:
                for line in found.passed_over:
                    _announce("%s: this is not followed; ssh_options can ask for it", line)
                if not found.only_openssh:
                    return "paramiko", found.target
                reasons = found.only_openssh
        if reasons:
            why = "; ".join(reasons)
            if self._transport == "paramiko":
                raise ValueError(
                    f"the transport 'paramiko' cannot reach {asked.name} as it is asked to: {why}; "
                    "set transport to 'openssh' or 'auto'"
                )
            _announce(BY_SSH, why)
        # What cannot be read ssh refuses, too, and says so; or a newer one understands it.
        with contextlib.suppress(SshConfigError):
            asked = replace(asked, options=finder.options_for_ssh(asked))
        return self._with_ssh(asked, "; ".join(reasons))

    def _with_ssh(self, target: Target, why: str = "") -> tuple[str, Target]:
        _refuse_secrets(target, "openssh", why)
        _refuse_for_shells(target)
        return "openssh", target


class Tree:
    """The gateways of one set of connection parameters. For any thread.

    :param params: complete connection parameters
    :param options: the options of a connection as they say them
    :param target: makes the target of a host from it, its address and options
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        options: ConnectionOptions,
        target: Callable[[Host, str, ConnectionOptions], Target],
    ) -> None:
        from .topology import TopologyFile

        if params["topology"] is None:
            raise ValueError(
                "the transport 'tree' needs a topology: the path of a file, or what "
                "load_topology() gives, as connection_params['topology']"
            )
        self._file = TopologyFile(params["topology"])
        self._topology = self._file.read()
        self._target = target
        self.fanout: int = params["tree_fanout"]
        self.plain = _Ways({**params, "transport": "auto", "topology": None})
        self.options = replace(options, tree=self)

    def is_current(self) -> bool:
        """False if the file has changed since."""
        return self._file.is_current()

    def parents(self, name: str) -> Sequence[str]:
        return self._topology.parents(name)

    def direct(self, name: str) -> tuple[str, Target]:
        return self.plain.to(Host(name))

    def below(self, name: str) -> Target:
        host = Host(name)
        return self.target(host, self.plain.address(host))

    def target(self, host: Host, address: str) -> Target:
        """A host as a gateway is to reach it: with a key of its own, not with one of here."""
        target = replace(self._target(host, address, self.options), keyfile=None)
        _refuse_for_shells(target)
        return target


# -- what the parameters say ---------------------------------------------------------------------


def _base_options(params: Mapping[str, Any], words: tuple[str, ...] = ()) -> ConnectionOptions:
    """The options of a connection as the parameters alone say them.

    :param words: more words for the ssh command, if one is run
    """
    by_taktuk = params["transport"] == "taktuk"
    key = "taktuk_connector" if by_taktuk else "ssh"
    return ConnectionOptions(
        host_key_policy=params["host_key_policy"] or "off",
        policy_chosen=params["host_key_policy"] is not None,
        connect_timeout=_seconds(params["connect_timeout"]),
        keepalive=_seconds(params["keepalive"]),
        idle_limit=_seconds(params["idle_limit"]),
        login=Login(
            password=params["password"],
            passphrase=params["passphrase"],
            answers=params["answers"],
        ),
        guard=params["guard"],
        ssh=_command(key, params[key] or "ssh"),
        ssh_options=tuple(params["taktuk_connector_options"]) if by_taktuk else words,
        taktuk=_taktuk_words(params) if by_taktuk else (),
    )


def _refuse_secrets(target: Target, transport: str, why: str = "") -> None:
    """Raise ValueError for secrets that the transport cannot hand on.

    :param why: why it is this transport
    """
    for key in ("password", "answers"):
        if getattr(target.options.login, key) is not None:
            raise ValueError(
                f"the transport {transport!r}, which {target.name} is reached by"
                f"{f' ({why})' if why else ''}, cannot use {key!r}: ssh would ask on a terminal. "
                "Use a key or the agent there"
            )


def _refuse_for_shells(target: Target) -> None:
    """Raise ValueError for names that an ssh before OpenSSH 9.6 may give to a shell."""
    from .transports.ssh_tokens import refuse_for_shells

    try:
        refuse_for_shells(target.address, target.user)
    except ValueError as exc:
        raise ValueError(
            f"{target.name} cannot be reached with the ssh command: {exc}, which a ProxyCommand "
            "would be given"
        ) from None


def _command(key: str, text: str) -> tuple[str, ...]:
    """The words of a command.

    :param key: the connection parameter that it is
    :raises ValueError: if there is none, or a quote is not closed
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as exc:
        raise ValueError(f"connection parameter {key!r}: {exc}: {text!r}") from exc
    if not words:
        raise ValueError(f"connection parameter {key!r} is empty: name the command")
    return words


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(value)


def _bare(address: str) -> str:
    """Without the brackets of an IPv6 address."""
    return address[1:-1] if address.startswith("[") and address.endswith("]") else address


def _path(keyfile: str | os.PathLike[str] | None) -> str | None:
    return None if keyfile is None else os.path.expanduser(os.fspath(keyfile))


def _taktuk_words(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The taktuk command with the user's options.

    :raises ValueError: if it is empty, or an option is one that changes which hosts there are or
      how our words are read: what one host prints would be taken for another one's
    """
    words, options = _command("taktuk", params["taktuk"]), tuple(params["taktuk_options"])
    for word in options:
        if word.startswith(_NOT_FOR_TAKTUK):
            raise ValueError(
                f"taktuk_options cannot have {word!r}: the hosts, and the escape character, are "
                "those that execo gives"
            )
    return (*words, *options)


def _announce(text: str, *facts: str) -> None:
    """Say something once, however many hosts it is about."""
    key = (text, *facts)
    if key not in _announced:
        if len(_announced) >= MOST_HOSTS:
            _announced.clear()
        _announced.add(key)
        logger.info(text, *facts)
