"""Reads the folder of a ParamSweeper of execo 2: pickles, of which only combinations are taken."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .combination import HashableDict, checked

__all__ = ["OldFolder", "old_folder"]


@dataclass
class OldFolder:
    """What was in it. ``faults``: files of which a part could not be read, and why."""

    done: list[HashableDict] = field(default_factory=list)
    sweeps: list[HashableDict] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def old_folder(folder: Path) -> OldFolder | None:
    """What execo 2 has left in a folder, which stays as it is; None if it has left nothing.

    What was in progress is to be done again: those who did it are gone.
    """
    if not (folder / "done").is_file() and not (folder / "sweeps").is_file():
        return None
    old = OldFolder()
    for name, found in (("done", old.done), ("sweeps", old.sweeps)):
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                for fault in _read(file, found):
                    old.faults.append(f"{path}: {fault}")
    return old


def _read(file: io.BufferedReader, found: list[HashableDict]) -> Iterator[str]:
    """``done`` has a pickle for each, ``sweeps`` one of them all. Gives what is wrong."""
    while file.peek(1):
        start = file.tell()
        try:
            content = _OnlyCombinations(file, encoding="utf-8").load()
            found.extend(map(checked, content if isinstance(content, set) else [content]))
        except Exception as exc:  # noqa: BLE001 a damaged pickle may raise anything
            yield f"{type(exc).__name__}: {exc}, after {len(found)} of it"
            file.seek(start)
            try:
                for _ in pickletools.genops(file):
                    pass  # to the end of this one
            except Exception:  # noqa: BLE001
                return


class _OnlyCombinations(pickle.Unpickler):
    """A pickle may call anything: this one makes combinations, and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "HashableDict" and module.startswith("execo_engine"):
            return HashableDict
        if (module, name) in {
            ("builtins", "set"),
            ("builtins", "frozenset"),
            ("__builtin__", "set"),
        }:
            return set
        raise pickle.UnpicklingError(
            f"it holds a {module}.{name}, which is no part of a combination"
        )
