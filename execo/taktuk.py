"""Commands on many hosts through the ``taktuk`` command: one for all of them."""

from __future__ import annotations

from typing import ClassVar

from .connection import connection_to
from .remote import Remote
from .ssh_process import SshProcess
from .transports.base import Target

__all__ = ["TaktukProcess", "TaktukRemote"]


class TaktukProcess(SshProcess):
    """A command on a host that taktuk reaches: those of a :class:`~execo.taktuk.TaktukRemote`.
    Alone, it has a taktuk for itself. Parameters as for :class:`~execo.process.SshProcess`.

    What differs from it: ``pid`` is the process id on the host. The process ends when nothing there
    holds its output open any more, or a second after a SIGKILL, which is then taken for its exit
    code. There is no terminal. The command runs below ``/bin/sh`` of the
    host, which starts the login shell, and has some variables ``TAKTUK_...`` in its environment.
    """

    def _connection(self) -> tuple[str, Target]:
        return connection_to(self.host, {**self._params, "transport": "taktuk"})


class TaktukRemote(Remote):
    """A command on many hosts at once, as :class:`~execo.remote.Remote`, through one ``taktuk``
    command (Debian's package taktuk), which sends itself to the hosts: they need perl and an SSH
    server. Parameters and results are those of :class:`~execo.remote.Remote`.

    taktuk connects with ``connection_params["taktuk_connector"]``, an ssh. Where a private key file
    is given, it connects to all hosts from here; else hosts connect to others in a tree, as the
    ``-d`` in ``taktuk_options`` says. User, port and key may differ from host to host (execo 2.8.2:
    ValueError).

    A host's command starts as soon as that host is connected. taktuk connects to ten at a time
    (``-w`` in ``taktuk_options``): as many hosts that do not answer hold up those behind them for
    ``connect_timeout``. ``taktuk_options`` cannot add hosts.

    Input and signals wait until all hosts are connected or have failed (``connect_timeout``). A
    signal that is meant to end a command does so three seconds later at the latest where the host
    is connected from here: its connection is ended. Input that a command does not read waits in the
    memory of its host. With ``fanout``, each process has a taktuk of its own.
    """

    _process_class: ClassVar[type[SshProcess]] = TaktukProcess
