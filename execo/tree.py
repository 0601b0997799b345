"""Commands on many hosts through gateways."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Unpack

from .action_base import ActionLifecycleHandler
from .config import given_params, make_connection_params
from .connection import connection_to
from .host import MISSING, Hosts
from .policy import PolicyArgs
from .remote import Remote
from .ssh_process import SshProcess
from .time_utils import Duration
from .topology import Topology, TopologyFile
from .transports.base import Target

__all__ = ["TreeProcess", "TreeRemote"]


class TreeProcess(SshProcess):
    """A command on a host that is reached through gateways: those of a
    :class:`~execo.tree.TreeRemote`. Parameters as for :class:`~execo.process.SshProcess`, with
    ``connection_params["topology"]``. There is no terminal.
    """

    def _connection(self) -> tuple[str, Target]:
        return connection_to(self.host, {**self._params, "transport": "tree"})


class TreeRemote(Remote):
    """A command on many hosts at once, as :class:`~execo.remote.Remote`, through gateways, which
    need an SSH server, an ``ssh`` with keys for the hosts behind them, and Python 3.6 or later; the
    hosts need an SSH server alone. Parameters and results are those of
    :class:`~execo.remote.Remote`.

    A host that is in no route of the topology, or next to its root, is reached directly. Of several
    gateways the one at work for the fewest commands is taken. Gateways, and their connections to
    hosts, are kept for the commands to come (``idle_limit``).

    ``user``, ``port``, ``ssh`` and ``ssh_options`` hold on each stage: for the gateways as seen
    from here, for hosts as seen from their gateways. ``keyfile`` is a file of this machine: a
    gateway logs in with its own keys, as its ``~/.ssh/config`` says. A gateway connects to
    ``connection_params["tree_fanout"]`` hosts at a time.

    A gateway that is lost: commands that it was told to start end with the reason ``connect``, and
    its name; none is started a second time. Those that it was not are given to another gateway, if
    there is one.

    :param topology: the path of a file, or what :func:`~execo.topology.load_topology` gives; None =
      that of the connection parameters
    :raises TopologyError: for a file that cannot be read, or is wrong
    """

    _process_class: ClassVar[type[SshProcess]] = TreeProcess

    def __init__(
        self,
        first: Any = MISSING,
        second: Any = MISSING,
        connection_params: Mapping[str, Any] | None = None,
        process_args: Mapping[str, Any] | None = None,
        lifecycle_handlers: Iterable[ActionLifecycleHandler] | None = None,
        name: str | None = None,
        default_expect_timeout: Duration | None = None,
        *,
        topology: str | os.PathLike[str] | Topology | None = None,
        cmd: str | Sequence[str] = MISSING,
        hosts: Hosts = MISSING,
        fanout: int | None = None,
        substitute: bool = True,
        connexion_params: Mapping[str, Any] | None = None,
        become: str | None = None,
        secret_env: Mapping[str, str] | None = None,
        **policy: Unpack[PolicyArgs],
    ) -> None:
        params = make_connection_params(given_params(connection_params, connexion_params))
        if topology is None:
            topology = params["topology"]
        if topology is None:
            raise ValueError(
                "TreeRemote needs a topology: topology=, the path of a file or what "
                "load_topology() gives, or connection_params['topology']"
            )
        # Once for all processes: no two of them see different files.
        params.update(transport="tree", topology=TopologyFile(topology).read())
        super().__init__(
            first,
            second,
            params,
            process_args,
            lifecycle_handlers,
            name,
            default_expect_timeout,
            cmd=cmd,
            hosts=hosts,
            fanout=fanout,
            substitute=substitute,
            become=become,
            secret_env=secret_env,
            **policy,
        )
