"""Copying files from host to host."""

from __future__ import annotations

from .actions import Put
from .broadcast_process import ChainProcess

__all__ = ["ChainPut"]


class ChainPut(Put):
    """Copy local files and folders to hosts: the same parameters and the same result as
    :class:`Put` with ``broadcast=True``, in a chain: this machine feeds the first host, and each
    host the next one, in chains of at most 64 hosts. With ``tool="rsync"`` all are fed from here.

    execo 2.8.2 did so with netcat, open to whoever connected first; here hosts connect by ssh. The
    ``chainput_*`` and ``nc`` connection parameters are accepted and have no effect: nothing waits
    for a netcat, and a host that is not reached from the one before it is fed from here at once.
    """

    _process_class = ChainProcess
    _broadcast_class = ChainProcess
