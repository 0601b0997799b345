"""Slurm, by sbatch, squeue and scancel. Written for 20.11 and later, tested on 22.05; there is no
need of a database of past jobs (sacct)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from execo.errors import HostSetError
from execo.hostset import hostset

from .calls import CallFailed
from .job import Job, JobState, Request
from .scheduler import Scheduler

__all__ = ["Slurm", "slurm_here"]

# What squeue prints for each job. The name is last, since it may hold anything; the first word
# tells our lines from those of login scripts.
FIELDS = "execo|%A|%T|%L|%N|%V|%r|%j"
HEADER = "execo|JOBID|"

WAITING = frozenset(
    "PENDING CONFIGURING REQUEUED REQUEUE_HOLD REQUEUE_FED RESV_DEL_HOLD SPECIAL_EXIT".split()
)
RUNNING = frozenset("RUNNING SUSPENDED RESIZING SIGNALING STOPPED".split())
ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED COMPLETING DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED"
    " REVOKED STAGE_OUT TIMEOUT LAUNCH_FAILED RECONFIG_FAIL".split()
)

# Where users keep their own habits with these commands.
HABITS = {
    "SQUEUE": "ACCOUNT ALL ARRAY ARRAY_UNIQUE EXPAND_PATTERNS FEDERATION FORMAT FORMAT2 LICENSES"
    " LOCAL NAMES PARTITION PRIORITY QOS SIBLING SORT STATES USERS",
    "SCANCEL": "ACCOUNT BATCH CTLD FULL HURRY INTERACTIVE NAME PARTITION QOS STATE USER VERBOSE"
    " WCKEY",
}

# What sbatch says when the controller, not the request, is to blame.
PASSING = re.compile(
    "timed out|unable to contact|connection|temporarily|try again|not responding"
    "|communication|authentication|munge|configuration file|zero bytes were transmitted"
    "|socket|backup|standby|database|internal error",
    re.IGNORECASE,
)
GONE = re.compile("invalid job id|already completing or completed|job not found", re.IGNORECASE)


class Slurm(Scheduler):
    """Slurm's queue. See :class:`~execo.schedulers.Scheduler`; ``Slurm()`` where its commands are
    here, ``Slurm("login1")`` where they are on a login host.
    """

    leases = True

    def _unset(self) -> Mapping[str, str | None]:
        return {f"{of}_{word}": None for of, words in HABITS.items() for word in words.split()}

    def _submit(self, request: Request) -> str:
        answer = self._call(
            "sbatch",
            "--parsable",
            "--no-requeue",
            f"--job-name={request.name}",
            f"--nodes={request.nodes}",
            f"--time={_time(request.walltime)}",
            *(["--exclusive"] if request.exclusive else []),
            "--output=/dev/null",
            "--chdir=/",
            *request.options,
            stdin=request.script,
        )
        # "12", or "12;cluster"; a login script may have printed before.
        found = re.findall(r"^([0-9]+)(?:;.*)?$", answer, re.MULTILINE)
        if not found:
            raise self._unreadable(["sbatch"], answer)
        return str(found[-1])

    def _ask(self) -> dict[str, Job]:
        command = ["squeue", "--me", "--states=all", f"--format={FIELDS}"]
        answer = self._call(*command)
        lines = [line for line in answer.splitlines() if line.startswith("execo|")]
        # Without its header it is no answer: squeue has been seen to exit with 0 after a failure.
        if not any(line.startswith(HEADER) for line in lines):
            raise self._unreadable(command, answer)
        found = {}
        for line in lines:
            if line.startswith(HEADER):
                continue
            job = _job(line)
            if job is None:
                raise self._unreadable(command, line)
            found[job.id] = job
        return found

    def cancel_command(self, name: str, job: str | None) -> list[str]:
        """See there."""
        return ["scancel", "--me", f"--name={name}", *([] if job is None else [job])]

    def signal_command(self, job: str, signal: str, name: str | None = None) -> list[str]:
        """See there. A name costs the controller more: scancel then loads all jobs."""
        only = [] if name is None else [f"--name={name}"]
        return ["scancel", "--batch", f"--signal={signal}", *only, job]

    def _gone(self, error: CallFailed) -> bool:
        return error.exit_code is not None and bool(GONE.search(error.stderr))

    def _refused(self, error: CallFailed) -> bool:
        return error.exit_code is not None and not PASSING.search(error.stderr)


def _job(line: str) -> Job | None:
    parts = line.split("|", 7)
    if len(parts) != 8 or not parts[1].isdigit():
        return None
    _, number, said, left, nodes, born, why, name = parts
    # Several at once, while it is being requeued for one.
    word = said.split(",")[0].split("+")[0]
    state = JobState.UNKNOWN
    for words, meaning in (
        (WAITING, JobState.WAITING),
        (RUNNING, JobState.RUNNING),
        (ENDED, JobState.ENDED),
    ):
        if word in words:
            state = meaning
    runs = state is JobState.RUNNING
    try:
        hosts = hostset(nodes) if runs and nodes else []
    except HostSetError:
        return None
    return Job(
        number,
        state,
        said,
        name=name,
        hosts=tuple(hosts),
        left=_seconds(left) if runs else None,
        why="" if why == "None" else why,
        born=born,
    )


def _seconds(text: str) -> float | None:
    """``1-02:03:04``, ``2:03:04``, ``3:04``; INVALID is that its time is over."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if found is None:
        return 0.0 if text.strip() == "INVALID" else None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _time(seconds: float) -> str:
    minutes, rest = divmod(max(1, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24}-{hours % 24:02}:{minutes:02}:{rest:02}"


def slurm_here() -> Slurm:
    """The one of this process that is used where none is given: it asks for all at once."""
    # Of this process: in a forked child, a lock of its parent's may stay taken for ever.
    found = _here.get(os.getpid())
    if found is None:
        found = _here.setdefault(os.getpid(), Slurm())
    return found


_here: dict[int, Slurm] = {}
