"""Files to and from many hosts through the ``taktuk`` command."""

from __future__ import annotations

from dataclasses import replace

from execo.taktuk import TaktukProcess

from .actions import Get, Put
from .one_line import one_line
from .process import GetProcess, PutProcess
from .request import Transfer

__all__ = ["TaktukGet", "TaktukGetProcess", "TaktukPut", "TaktukPutProcess"]


class TaktukPutProcess(PutProcess, TaktukProcess):
    """Local files on their way to one host that taktuk reaches."""

    may_use_scp = False


class TaktukGetProcess(GetProcess, TaktukProcess):
    """Files of one host that taktuk reaches on their way here."""

    may_use_scp = False

    def _request(self) -> Transfer:
        request = super()._request()
        assert isinstance(request.command, tuple)
        return replace(request, command=one_line(request.command), one_line=True)


class TaktukPut(Put):
    """Copy local files and folders to many hosts, as :class:`~execo.transfer.Put`, through one
    ``taktuk`` command, see :class:`~execo.taktuk.TaktukRemote`. Parameters and results are those of
    :class:`~execo.transfer.Put`, substitutions too (execo 2.8.2: none), but ``scp``, which has no
    effect, and ``tool`` and ``broadcast``: rsync is a ValueError, and so is ``broadcast=True``.

    Hosts that receive the same files receive them in step, and the local taktuk gets them once for
    all, when all hosts are connected or have failed. One that is more than some seconds behind goes
    on by itself, and the others do without it. What a host does not store as fast as it is sent
    waits in the memory of taktuk there.
    """

    _process_class = TaktukPutProcess
    _rsync_class = None
    _broadcast_class = None


class TaktukGet(Get):
    """Copy files and folders from many hosts, as :class:`~execo.transfer.Get`, through one
    ``taktuk`` command, see :class:`~execo.taktuk.TaktukRemote`. Parameters and results are those of
    :class:`~execo.transfer.Get`, substitutions too (execo 2.8.2: none), but ``scp``, which has no
    effect, and ``tool``: rsync is a ValueError.

    While one host's files
    cannot be stored as fast as they come, all hosts of the action are held up.
    """

    _process_class = TaktukGetProcess
    _rsync_class = None
