"""The names of ClusterShell, out of its many modules: the namespace ``cs`` of the programs."""

from __future__ import annotations

import importlib
import types
from typing import Any

__all__ = ["cs"]

MODULES = (
    "Task",
    "Event",
    "Worker.Worker",
    "Worker.Exec",
    "Worker.Popen",
    "Worker.Ssh",
    "Worker.Rsh",
    "Worker.Pdsh",
    "Worker.Tree",
    "Worker.EngineClient",
    "Engine.Engine",
    "Propagation",
    "Topology",
    "NodeSet",
    "RangeSet",
    "MsgTree",
)

ALIASES = {"WorkerBadArgumentError": "Worker.Worker", "RESOLVER_NOGROUP": "NodeSet"}
"""Public names that are not a class or function of their module."""


def load(module: str) -> Any:
    return importlib.import_module(f"ClusterShell.{module}")


def namespace() -> types.SimpleNamespace:
    names = {alias: getattr(load(module), alias) for alias, module in ALIASES.items()}
    for module in map(load, MODULES):
        names |= {
            name: value
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__ and name[0] != "_"
        }
    return types.SimpleNamespace(**names)


cs = namespace()

# A child that was killed and has not ended yet makes the next start fail there (TypeError), as
# chance will have it.
load("Worker.fastsubprocess")._cleanup = lambda: None
