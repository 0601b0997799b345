"""The job that this script runs in, by what its scheduler has put into the environment."""

from __future__ import annotations

import os

from execo.host import Host
from execo.hostset import hostset

from .errors import AllocationError

__all__ = ["end_of_this_job", "hosts_of_this_job", "job_of_this_script"]

SLURM_NODES = ("SLURM_JOB_NODELIST", "SLURM_NODELIST")
OAR_NODES = ("OAR_NODE_FILE", "OAR_NODEFILE", "OAR_FILE_NODES")


def hosts_of_this_job() -> list[Host]:
    """The nodes of the job that this script runs in: those of ``SLURM_JOB_NODELIST`` (Slurm), or of
    the file that ``OAR_NODE_FILE`` names (OAR), each once. Asks no scheduler.

    :raises AllocationError: it runs in no job, or in one without nodes
    """
    for name in SLURM_NODES:
        if os.environ.get(name):
            # A ValueError that names the text, where it names no host.
            return [Host(one) for one in hostset(os.environ[name])]
    for name in OAR_NODES:
        if path := os.environ.get(name):
            try:
                with open(path, encoding="utf-8") as file:
                    # A line for each core.
                    names = dict.fromkeys(line.strip() for line in file if line.strip())
            except OSError as exc:
                raise AllocationError(f"{name} names a file that cannot be read: {exc}") from exc
            if not names:
                raise AllocationError(f"{name}: there is no host in {path}")
            return [Host(one) for one in names]
    raise AllocationError(
        "this script runs in no job: neither SLURM_JOB_NODELIST nor OAR_NODE_FILE is set"
    )


def job_of_this_script() -> tuple[str, str]:
    """``slurm`` or ``oar``, and the id.

    :raises AllocationError: it runs in no job
    """
    for kind, name in (("slurm", "SLURM_JOB_ID"), ("slurm", "SLURM_JOBID"), ("oar", "OAR_JOB_ID")):
        if os.environ.get(name):
            return kind, os.environ[name]
    raise AllocationError("this script runs in no job: neither SLURM_JOB_ID nor OAR_JOB_ID is set")


def end_of_this_job() -> float | None:
    """When the time of the job is over, as unix time by the clock of this node; None where the
    environment does not tell."""
    try:
        if end := os.environ.get("SLURM_JOB_END_TIME"):  # of newer versions
            return float(end)
        if walltime := os.environ.get("OAR_JOB_WALLTIME_SECONDS"):
            path = next(os.environ[name] for name in OAR_NODES if os.environ.get(name))
            # Written when the job was started.
            return os.stat(path).st_mtime + float(walltime)
    except (ValueError, OSError, StopIteration):
        pass
    return None
