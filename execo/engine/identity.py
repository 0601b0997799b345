"""Whose a result folder is: results of two experiments, or of two versions of one, do not mix."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from execo.errors import ExecoError

__all__ = ["ResultFolderError", "claim_folder"]

FILE = "engine.json"
FORMAT = 1


class ResultFolderError(ExecoError):
    """A result folder belongs to another experiment, or to another version of it.

    :param folder: the folder
    :param differences: what differs: name -> (there, here)
    """

    def __init__(self, folder: Path, differences: dict[str, tuple[Any, Any]]) -> None:
        told = "; ".join(
            f"{name} is {there!r} there and {here!r} here"
            for name, (there, here) in differences.items()
        )
        super().__init__(f"{folder} has results of something else: {told}. Use another folder")
        self.folder = folder
        self.differences = differences

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.differences)


def claim_folder(folder: Path, name: str, version: str | None, *, look: bool = False) -> None:
    """Make sure that the folder is of this engine, and say so in it, in ``engine.json``. One that
    says nothing (new, or of execo 2) becomes its own.

    :param look: only look, write nothing
    :raises ResultFolderError: it is not
    """
    mine = {"format": FORMAT, "engine": name, "version": version}
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if look:
            return
        # Whole or not at all: the next run must be able to read it.
        new = folder / f"{FILE}.{os.getpid()}.new"
        new.write_text(json.dumps(mine) + "\n", encoding="utf-8")
        new.replace(path)
        return
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise ResultFolderError(folder, {FILE: (text[:80], mine)}) from exc
    theirs = found if isinstance(found, dict) else {}
    differences = {
        key: (theirs.get(key), value) for key, value in mine.items() if theirs.get(key) != value
    }
    if differences:
        raise ResultFolderError(folder, differences)
