"""Past one machine: nodes that a scheduler gives, and how long they can be used."""

from __future__ import annotations

from .allocation import Allocation
from .errors import AllocationError, AllocationTimeout, SchedulerError, SubmissionRefused
from .job import Job, JobState, Request
from .oar import Oar
from .scheduler import Scheduler
from .slurm import Slurm
from .this_job import hosts_of_this_job

__all__ = [
    "Allocation",
    "AllocationError",
    "AllocationTimeout",
    "Job",
    "JobState",
    "Oar",
    "Request",
    "Scheduler",
    "SchedulerError",
    "Slurm",
    "SubmissionRefused",
    "hosts_of_this_job",
]
