"""The combinations of a sweep in a file of their own, for who opens its folder without."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .combination import HashableDict, decode, encode

__all__ = ["SWEEPS", "save_sweep", "saved_sweep"]

SWEEPS = "sweeps.jsonl"


def save_sweep(folder: Path, combinations: Iterable[HashableDict]) -> None:
    """Whole or not at all. Blocks until it is on the disk."""
    path = folder / SWEEPS
    new = path.with_suffix(f".{os.getpid()}.new")
    with new.open("w", encoding="ascii") as file:
        file.writelines(encode(one) + "\n" for one in combinations)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def saved_sweep(folder: Path, faults: list[str]) -> list[HashableDict] | None:
    """What was saved in a folder; None if nothing was.

    :param faults: is told of lines that are none, by file and line; they are passed over
    """
    path = folder / SWEEPS
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    found = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            one = decode(line)
            if type(one) is not HashableDict:
                raise ValueError("not a combination")
            found.append(one)
        except (ValueError, TypeError, RecursionError) as exc:
            faults.append(f"{path}, line {number}: {exc}; it is passed over")
    return found
