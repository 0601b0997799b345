"""Actions: trees of processes that are started, waited for, killed and counted as one.

An action ends when all its processes have; its outcome is data, as that of a process. Actions
compose: :class:`ParallelActions` runs others at once, :class:`SequentialActions` one after the
other, also after one that failed.

This module is the door to all kinds of actions, under the name that scripts import from; it holds
no code of theirs.
"""

from __future__ import annotations

from .action_base import Action, ActionLifecycleHandler
from .action_groups import ParallelActions, SequentialActions
from .action_waits import (
    filter_bad_hosts,
    wait_all_actions,
    wait_any_actions,
    wait_multiple_actions,
)
from .factory import (
    ActionFactory,
    default_action_factory,
    get_fileget,
    get_fileput,
    get_remote,
)
from .policy import Retry
from .remote import Local, Remote, RemoteSerial
from .taktuk import TaktukRemote
from .transfer import ChainPut, Get, Put, TaktukGet, TaktukPut
from .tree import TreeRemote

__all__ = [
    "Action",
    "ActionFactory",
    "ActionLifecycleHandler",
    "ChainPut",
    "Get",
    "Local",
    "ParallelActions",
    "Put",
    "Remote",
    "RemoteSerial",
    "Retry",
    "SequentialActions",
    "TaktukGet",
    "TaktukPut",
    "TaktukRemote",
    "TreeRemote",
    "default_action_factory",
    "filter_bad_hosts",
    "get_fileget",
    "get_fileput",
    "get_remote",
    "wait_all_actions",
    "wait_any_actions",
    "wait_multiple_actions",
]
