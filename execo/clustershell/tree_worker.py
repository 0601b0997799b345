"""Workers through gateways."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .defaults import config_paths
from .errors import TaskError
from .ssh_worker import WorkerSsh

if TYPE_CHECKING:
    from .task import Task

__all__ = ["WORKER_CLASS", "TreeWorker", "topology_of"]


class TreeWorker(WorkerSsh):
    """Commands on nodes, through the gateways of the task's topology; see :class:`WorkerSsh`. Nodes
    that are in no route are reached directly. On gateways nothing is installed but Python. What a
    lost gateway has left is told by :meth:`DistantWorker.node_reason`.

    :raises TaskError: in ``resume()``, if the task has no topology
    """

    def _params(self, task: Task, tool: str) -> dict[str, Any]:
        topology = topology_of(task)
        if topology is None:
            raise TaskError(NO_TOPOLOGY)
        return {**super()._params(task, tool), "transport": "tree", "topology": topology}


NO_TOPOLOGY = (
    "a tree needs a topology, and the task has none: call load_topology() with the path of a file "
    "topology.conf"
)


def topology_of(task: Task) -> Any:
    """That of a task: what was loaded; else, if its default ``auto_tree`` is set, that of the file
    ``topology.conf`` where ClusterShell looks for it. None if there is none.

    :raises TopologyError: if that file is wrong
    """
    if task.topology is None and task.default("auto_tree"):
        found = [path for path in config_paths("topology.conf") if os.path.isfile(path)]
        if found:
            task.load_topology(found[-1])
    return task.topology


WORKER_CLASS = TreeWorker
