"""Run commands, experiments and campaigns on many machines.

The daily names; everything else is in the rooms: :mod:`execo.process`, :mod:`execo.action`,
:mod:`execo.host`, ... Importing execo starts no thread and no process, and reads no file but
``~/.execo.conf.py``.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from .action import (
    Action,
    ActionLifecycleHandler,
    ChainPut,
    Get,
    Local,
    ParallelActions,
    Put,
    Remote,
    RemoteSerial,
    Retry,
    SequentialActions,
    TaktukGet,
    TaktukPut,
    TaktukRemote,
    TreeRemote,
    default_action_factory,
    filter_bad_hosts,
    get_fileget,
    get_fileput,
    get_remote,
    wait_all_actions,
    wait_any_actions,
    wait_multiple_actions,
)
from .config import (
    CHAINPUT,
    SCP,
    SSH,
    TAKTUK,
    configuration,
    default_connection_params,
    default_connexion_params,
)
from .errors import (
    ActionsFailed,
    ExecoError,
    ProcessesFailed,
    Reason,
    SubstitutionError,
    TopologyError,
)
from .host import Host, get_hosts_list, get_hosts_set
from .log import logger
from .process import (
    STDERR,
    STDOUT,
    ExpectOutputHandler,
    PortForwarder,
    Process,
    ProcessBase,
    ProcessLifecycleHandler,
    ProcessOutputHandler,
    Serial,
    SerialSsh,
    SshProcess,
    TaktukProcess,
    TreeProcess,
    get_process,
)
from .report import Report
from .substitutions import raw, remote_substitute
from .time_utils import (
    Timer,
    format_date,
    format_duration,
    format_seconds,
    format_unixts,
    get_seconds,
    get_unixts,
    sleep,
)
from .topology import Topology, load_topology

__version__ = "3.0.0a1"

__all__ = [
    "CHAINPUT",
    "SCP",
    "SSH",
    "STDERR",
    "STDOUT",
    "TAKTUK",
    "Action",
    "ActionLifecycleHandler",
    "ActionsFailed",
    "ChainPut",
    "ExecoError",
    "ExpectOutputHandler",
    "Get",
    "Host",
    "Local",
    "ParallelActions",
    "PortForwarder",
    "Process",
    "ProcessBase",
    "ProcessLifecycleHandler",
    "ProcessOutputHandler",
    "ProcessesFailed",
    "Put",
    "Reason",
    "Remote",
    "RemoteSerial",
    "Report",
    "Retry",
    "SequentialActions",
    "Serial",
    "SerialSsh",
    "SshProcess",
    "SubstitutionError",
    "TaktukGet",
    "TaktukProcess",
    "TaktukPut",
    "TaktukRemote",
    "Timer",
    "Topology",
    "TopologyError",
    "TreeProcess",
    "TreeRemote",
    "__version__",
    "configuration",
    "default_action_factory",
    "default_connection_params",
    "default_connexion_params",
    "filter_bad_hosts",
    "format_date",
    "format_duration",
    "format_seconds",
    "format_unixts",
    "get_fileget",
    "get_fileput",
    "get_hosts_list",
    "get_hosts_set",
    "get_process",
    "get_remote",
    "get_seconds",
    "get_unixts",
    "load_topology",
    "logger",
    "raw",
    "remote_substitute",
    "sleep",
    "wait_all_actions",
    "wait_any_actions",
    "wait_multiple_actions",
]

_ROOMS = frozenset({"conductor", "exception", "ssh_utils", "utils"})


# Type checkers would take any name for one of execo.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> ModuleType:
        """Rooms that nothing here loads: ``import execo; execo.utils.do_once(...)``."""
        if name in _ROOMS:
            import importlib

            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
