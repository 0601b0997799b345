"""The event-driven Task and Worker API of ClusterShell, on execo's connections.

All names are here: ``from ClusterShell.Task import task_self`` becomes
``from execo.clustershell import task_self``. What runs, and in which order handlers are told of it,
is as in ClusterShell 1.10; what is otherwise is in the guide.
"""

from __future__ import annotations

from ClusterShell.MsgTree import MODE_DEFER, MODE_SHIFT, MODE_TRACE, MsgTree, MsgTreeElem
from ClusterShell.NodeSet import (
    RESOLVER_NOGROUP,
    NodeSet,
    NodeSetBase,
    NodeSetError,
    NodeSetException,
    NodeSetExternalError,
    NodeSetParseError,
    NodeSetParseRangeError,
    expand,
    fold,
    grouplist,
    set_std_group_resolver,
    std_group_resolver,
)
from ClusterShell.RangeSet import (
    RangeSet,
    RangeSetException,
    RangeSetND,
    RangeSetPaddingError,
    RangeSetParseError,
)

from execo.errors import TopologyError
from execo.topology import Topology, load_topology

from .defaults import Defaults
from .engine import FANOUT_DEFAULT, FANOUT_UNLIMITED
from .errors import (
    AlreadyRunningError,
    EngineAbortException,
    EngineAlreadyRunningError,
    EngineClientEOF,
    EngineClientError,
    EngineClientException,
    EngineClientNotSupportedError,
    EngineException,
    EngineIllegalOperationError,
    EngineNotSupportedError,
    EngineTimeoutException,
    RouteResolvingError,
    TaskError,
    TaskException,
    TaskMsgTreeError,
    TimeoutError,  # noqa: A004 - its name there
    WorkerBadArgumentError,
    WorkerError,
    WorkerException,
)
from .event import EventHandler
from .exec_worker import CopyClient, ExecClient, ExecWorker
from .pdsh_worker import WorkerPdsh
from .port import EnginePort
from .rsh_worker import WorkerRsh
from .ssh_worker import ScpClient, SshClient, WorkerSsh
from .stream_worker import StreamWorker, WorkerPopen, WorkerSimple
from .task import Task, task_cleanup, task_self, task_terminate, task_wait
from .timer import EngineBaseTimer, EngineTimer
from .tree_worker import TreeWorker
from .worker import DistantWorker, Worker

__all__ = [
    "FANOUT_DEFAULT",
    "FANOUT_UNLIMITED",
    "MODE_DEFER",
    "MODE_SHIFT",
    "MODE_TRACE",
    "RESOLVER_NOGROUP",
    "AlreadyRunningError",
    "CopyClient",
    "Defaults",
    "DistantWorker",
    "EngineAbortException",
    "EngineAlreadyRunningError",
    "EngineBaseTimer",
    "EngineClientEOF",
    "EngineClientError",
    "EngineClientException",
    "EngineClientNotSupportedError",
    "EngineException",
    "EngineIllegalOperationError",
    "EngineNotSupportedError",
    "EnginePort",
    "EngineTimeoutException",
    "EngineTimer",
    "EventHandler",
    "ExecClient",
    "ExecWorker",
    "MsgTree",
    "MsgTreeElem",
    "NodeSet",
    "NodeSetBase",
    "NodeSetError",
    "NodeSetException",
    "NodeSetExternalError",
    "NodeSetParseError",
    "NodeSetParseRangeError",
    "RangeSet",
    "RangeSetException",
    "RangeSetND",
    "RangeSetPaddingError",
    "RangeSetParseError",
    "RouteResolvingError",
    "ScpClient",
    "SshClient",
    "StreamWorker",
    "Task",
    "TaskError",
    "TaskException",
    "TaskMsgTreeError",
    "TimeoutError",
    "Topology",
    "TopologyError",
    "TreeWorker",
    "Worker",
    "WorkerBadArgumentError",
    "WorkerError",
    "WorkerException",
    "WorkerPdsh",
    "WorkerPopen",
    "WorkerRsh",
    "WorkerSimple",
    "WorkerSsh",
    "WorkerTree",
    "expand",
    "fold",
    "grouplist",
    "load_topology",
    "set_std_group_resolver",
    "std_group_resolver",
    "task_cleanup",
    "task_self",
    "task_terminate",
    "task_wait",
]

WorkerTree = TreeWorker
