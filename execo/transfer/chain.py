"""Copying files from host to host."""

from __future__ import annotations

from .actions import Put

__all__ = ["ChainPut"]


class ChainPut(Put):
    """Copy local files and folders to hosts: the same parameters and the same result as
    :class:`Put`.

    Every host receives the files from this machine, as with :class:`Put`; execo 2.8.2 passed them
    on from host to host with netcat, open to whoever connected first. The ``chainput_*`` and
    ``nc`` connection parameters are accepted and have no effect.
    """
