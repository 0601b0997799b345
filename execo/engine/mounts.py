"""Whether the locks of a folder hold between the machines that share it."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["why_lockless"]

_NFS = ("nolock", "local_lock=all", "local_lock=posix")

_OPTIONS = {
    "nfs": _NFS,
    "nfs4": _NFS,
    "lustre": ("localflock",),
    "cifs": ("nobrl",),
    "smb3": ("nobrl",),
    "gfs2": ("localflocks",),
}
"""Kind of file system -> options with which locks hold on one machine alone."""

_NEVER = ("fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse")
"""Kinds of file systems whose locks hold on one machine alone, always."""


def why_lockless(folder: str, mounts: str | None = None) -> str | None:
    """Where a folder is mounted and what makes its locks hold on one machine alone; None if they
    hold, or if this machine is not Linux and does not tell.

    :param mounts: for tests: the text of ``/proc/self/mountinfo``
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
        except OSError:
            return None
    found = _mount_of(os.path.realpath(folder), mounts)
    if found is None:
        return None
    point, kind, options = found
    bad = [option for option in _OPTIONS.get(kind, ()) if option in options]
    if not bad and kind not in _NEVER:
        return None
    why = f"the option {bad[0]}" if bad else f"a file system of kind {kind}"
    return f"{point} is mounted with {why}"


def _mount_of(folder: str, mounts: str) -> tuple[str, str, list[str]] | None:
    """Where the file system of a folder is mounted, its kind and its options."""
    best: tuple[str, str, list[str]] | None = None
    for line in mounts.split("\n"):
        before, _, after = line.partition(" - ")
        fields, about = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(about) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        # The last of equal ones lies on top.
        if inside and (best is None or len(point) >= len(best[0])):
            best = point, about[0], [*fields[5].split(","), *about[2].split(",")]
    return best
