"""Whether what Get fetches from several hosts would get the same local names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from execo.host import Host

from .texts import is_folder_name

__all__ = ["check_targets"]


def check_targets(plans: Sequence[tuple[Host, Sequence[str], str]]) -> None:
    """Refuse plans whose files would overwrite one another.

    :param plans: for each process its host, the names of the remote files, and the location
    :raises ValueError: two processes would write the same file, or might: what a pattern gives is
      known by what stands before its first wildcard; or one process would, by names without
      wildcards
    """
    for host, names, _ in plans:
        _check_names(host, names)
    if len(plans) < 2:
        return
    # Where a file may be found in the end -> (it, whether more may follow, which process).
    targets: list[tuple[str, bool, int]] = []
    for index, (_, names, location) in enumerate(plans):
        path = os.path.expanduser(location)
        folder = len(names) > 1 or is_folder_name(path) or os.path.isdir(path)
        place = os.path.realpath(path)
        for name in names:
            last = name.rstrip("/").rpartition("/")[2]
            literal = re.split(r"[*?[]", last, maxsplit=1)[0]
            pattern = literal != last or last in (".", "..", "")
            if folder:
                targets.append((f"{place}/{literal}", pattern, index))
            else:
                # One file gets this name; more than one, or a folder, are stored in it.
                targets.append((place, False, index))
    targets.sort()
    above: list[tuple[str, bool, int]] = []
    for target in targets:
        while above and not _meets(above[-1], target):
            above.pop()
        for other in above:
            if other[2] != target[2]:
                raise ValueError(_message(plans[other[2]], plans[target[2]]))
        above.append(target)


def _check_names(host: Host, names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in dict.fromkeys(name.rstrip("/") for name in names):
        last = name.rpartition("/")[2]
        if last in ("", ".", "..", "~") or re.search(r"[*?[]", last):
            continue
        if (other := seen.setdefault(last, name)) != name:
            raise ValueError(
                f"{other!r} and {name!r} of {host.address} would both be stored as {last!r}: fetch "
                "them one by one, to places of their own"
            )


def _meets(first: tuple[str, bool, int], second: tuple[str, bool, int]) -> bool:
    """Whether ``second``, which comes later in order, may be the same file as ``first``."""
    return second[0].startswith(first[0]) if first[1] else first[0] == second[0]


def _message(one: tuple[Host, Sequence[str], str], other: tuple[Host, Sequence[str], str]) -> str:
    location = one[2].rstrip("/") or one[2]
    own = "{{{host}}}/" if location == "." else f"{location}/{{{{{{host}}}}}}/"
    hosts = f"{one[0].address} and {other[0].address}"
    if one[0] == other[0]:
        hosts = f"{one[0].address}, which is given twice,"
    return (
        f"files from {hosts} would get the same name in {one[2]!r}: give each host a place of its "
        f"own, {own!r} for one"
    )
