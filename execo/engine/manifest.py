"""What a run was made of: how it was called, from which sources, with which versions, on what."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from execo.local_process import Process

from .host_facts import facts_of, local_asking
from .masks import Masks, is_secret_name, masked_arguments

__all__ = [
    "ENVIRONMENT",
    "FORMAT",
    "MANIFEST",
    "checked_names",
    "describe",
    "write_manifest",
]

MANIFEST = "manifest.json"

FORMAT = 1
"""Of the folder. One that an older version cannot read has a greater number."""

ENVIRONMENT = (
    *("LANG", "LC_ALL", "TZ", "PATH", "PYTHONHASHSEED", "PYTHONPATH", "VIRTUAL_ENV"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
    *("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "OAR_JOB_ID", "OAR_NODE_FILE"),
)
"""Names of variables whose values are recorded; no others are."""

PACKAGES = ("paramiko", "ClusterShell", "python-dateutil", "numpy", "scipy", "pandas", "matplotlib")

MOST_DIFF = 1 << 20
"""Bytes of changes to the sources that are kept."""

_MOST_UNTRACKED = 200
_GIT_TIME = 10.0


def checked_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of variables.

    :raises TypeError: for a single text
    :raises ValueError: for one that holds a secret, by its name
    """
    if isinstance(names, str):
        raise TypeError(f"environment is a list of names, not {names!r}")
    found = tuple(dict.fromkeys(names))
    for name in found:
        if is_secret_name(name):
            raise ValueError(f"environment: {name} is a secret by its name, and is not recorded")
    return found


def describe(
    folder: Path,
    session: int,
    environment: Iterable[str],
    masks: Masks,
    argv: Iterable[str] | None = None,
) -> dict[str, Any]:
    """All that is known of this start of the script. Blocks for some tens of milliseconds.

    :param folder: where the changes to the sources go, in a file
    :param session: the number of the start, from 1 on
    :param masks: what must not be in it
    :param argv: the command line; default: that of the interpreter
    """
    machine = local_asking().start()
    where = _script_folder()
    git = _git(where, folder, session, masks) if shutil.which("git") else None
    names = [name for name in environment if name in os.environ]
    found = {
        "argv": masked_arguments(sys.argv if argv is None else argv, masks),
        "cwd": os.getcwd(),
        "started": round(time.time(), 6),
        "pid": os.getpid(),
        "user": _user(),
        "git": git,
        "versions": _versions(),
        "environment": {name: masks.text(os.environ[name]) for name in names},
    }
    machine.wait(_GIT_TIME)
    machine.kill()
    facts = facts_of(machine)
    return found | {"machine": {k: v for k, v in facts.items() if not k.startswith("clock_")}}


def _script_folder() -> str:
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    return os.path.dirname(file) or "." if file and os.path.isfile(file) else "."


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _versions() -> dict[str, str]:
    execo = getattr(sys.modules["execo"], "__version__", None)
    found = {"execo": str(execo), "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


# -- the sources -------------------------------------------------------------------------------


def _git(where: str, folder: Path, session: int, masks: Masks) -> dict[str, Any] | None:
    """The commit and what differs from it; None outside of a repository."""
    head = _ask_git(where, "rev-parse", "--show-toplevel", "HEAD")
    if not head.ok:
        if "not a git repository" in head.stderr:
            return None
        return {"error": masks.text(head.stderr.strip()[:500] or head.message)}
    commit = head.stdout.split("\n")[1:2]
    status = _ask_git(where, "status", "--porcelain", "-z")
    diff = _ask_git(where, "diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD")
    entries = [entry for entry in status.stdout.split("\0") if entry]
    untracked = [masks.text(entry[3:]) for entry in entries if entry.startswith("??")]
    found: dict[str, Any] = {
        "commit": commit[0] if commit else None,
        "changed": bool(entries) if status.ok else None,
    }
    if untracked:
        found["untracked"] = untracked[:_MOST_UNTRACKED]
    if diff.stdout_bytes:
        found["diff"] = "source.diff" if session == 1 else f"source-{session}.diff"
        (folder / found["diff"]).write_bytes(masks.data(diff.stdout_bytes))
        if diff.truncated:
            found["diff_cut"] = diff.truncated
    for process in (status, diff):
        if not process.ok:
            found["error"] = masks.text(process.message or process.stderr.strip()[:500])
    return found


def _ask_git(where: str, *words: str) -> Process:
    # Nothing that the configuration of the repository names is run, and nothing is written there.
    return Process(
        ["git", "-C", where, "-c", "core.fsmonitor=false", *words],
        env={"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        timeout=_GIT_TIME,
        max_output=MOST_DIFF,
        nolog_exit_code=True,
        nolog_error=True,
        nolog_timeout=True,
    ).run()


# -- the file ----------------------------------------------------------------------------------


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write it as a whole: there is the old one or the new one, at any time.

    :raises OSError: it cannot be written
    """
    path = folder / MANIFEST
    new = path.with_suffix(".new")
    try:
        with new.open("w", encoding="ascii") as file:
            json.dump(manifest, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
