"""Whose a folder is: results of two experiments, or of two versions of one, do not mix.

It is the manifest of the record there that says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from execo.errors import ExecoError
from execo.time_utils import format_date

from .manifest import FORMAT, MANIFEST

__all__ = ["RecordError", "ResultFolderError", "earlier_manifest", "identity", "who_works_there"]


class RecordError(ExecoError):
    """A folder cannot take this run's record: says which, and why."""


class ResultFolderError(RecordError):
    """A result folder belongs to another experiment, or to another version of it.

    :param folder: the folder
    :param differences: what differs: name -> (there, here)
    """

    def __init__(self, folder: Path, differences: dict[str, tuple[Any, Any]]) -> None:
        told = "; ".join(
            f"{name} is {there!r:.200} there and {here!r:.200} here"
            for name, (there, here) in differences.items()
        )
        super().__init__(f"{folder} has results of something else: {told}. Use another folder")
        self.folder = folder
        self.differences = differences

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.differences)


def identity(name: str, version: str | int | None) -> dict[str, Any]:
    """What a manifest says of whose it is."""
    return {"format": FORMAT, "name": name, "version": version}


def earlier_manifest(folder: Path, mine: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the record that is there; None if there is none. Writes nothing.

    :param mine: the :func:`identity` of who would go on there
    :raises ResultFolderError: it is of something else
    :raises RecordError: it cannot be read
    """
    path = folder / MANIFEST
    try:
        there = json.loads(path.read_bytes())
        if not isinstance(there, dict):
            raise ValueError("not an object")
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as exc:
        raise RecordError(
            f"{path} cannot be read, and says whose the folder is: {exc}. Use another folder"
        ) from exc
    different = {
        name: (there.get(name), value) for name, value in mine.items() if there.get(name) != value
    }
    if different:
        raise ResultFolderError(folder, different)
    return there


def who_works_there(folder: Path) -> str:
    """Of a folder whose record is being written now, as far as it says by whom."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
        since = format_date(float(found["started"]))
        return f"process {int(found['pid'])} on {found['machine']['name']}, since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
