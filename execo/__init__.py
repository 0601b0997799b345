"""Run commands, experiments and campaigns on many machines.

The daily names; everything else is in the rooms: :mod:`execo.process`, :mod:`execo.action`,
:mod:`execo.host`, ... Importing execo starts no thread and no process, and reads no file but
``~/.execo.conf.py``.
"""

from __future__ import annotations

from .action import (
    Action,
    ActionLifecycleHandler,
    ParallelActions,
    SequentialActions,
    filter_bad_hosts,
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
from .errors import ActionsFailed, ExecoError, ProcessesFailed, Reason, SubstitutionError
from .host import Host, get_hosts_list, get_hosts_set
from .log import logger
from .process import (
    STDERR,
    STDOUT,
    ExpectOutputHandler,
    Process,
    ProcessLifecycleHandler,
    ProcessOutputHandler,
    SshProcess,
)
from .remote import Local, Remote
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
from .transfer import ChainPut, Get, Put

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
    "Process",
    "ProcessLifecycleHandler",
    "ProcessOutputHandler",
    "ProcessesFailed",
    "Put",
    "Reason",
    "Remote",
    "Report",
    "SequentialActions",
    "SshProcess",
    "SubstitutionError",
    "Timer",
    "__version__",
    "configuration",
    "default_connection_params",
    "default_connexion_params",
    "filter_bad_hosts",
    "format_date",
    "format_duration",
    "format_seconds",
    "format_unixts",
    "get_hosts_list",
    "get_hosts_set",
    "get_seconds",
    "get_unixts",
    "logger",
    "raw",
    "remote_substitute",
    "sleep",
    "wait_all_actions",
    "wait_any_actions",
    "wait_multiple_actions",
]
