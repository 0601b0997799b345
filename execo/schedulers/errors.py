"""What goes wrong with schedulers and with what they give."""

from __future__ import annotations

from typing import Any

from execo.errors import ExecoError

__all__ = ["AllocationError", "AllocationTimeout", "SchedulerError", "SubmissionRefused"]


class SchedulerError(ExecoError):
    """A command of a scheduler has failed, took too long, or has answered what makes no sense.
    It says nothing about the jobs.

    :param message: what is wrong, and what to do; ``message`` is this alone
    :param command: the command line
    :param host: the login host, None on this machine
    :param stderr: what the command has written there
    """

    def __init__(
        self,
        message: str,
        *,
        command: str = "",
        host: str | None = None,
        stderr: str = "",
    ) -> None:
        place = "" if host is None else f" on {host}"
        told = f": {stderr.strip()[-2000:]}" if stderr.strip() else ""
        super().__init__(f"{command}{place}: {message}{told}" if command else message)
        self.message = message
        self.command = command
        self.host = host
        self.stderr = stderr

    def __reduce__(self) -> tuple[Any, ...]:
        return _told, (type(self), str(self), dict(self.__dict__))


class SubmissionRefused(SchedulerError):
    """The scheduler will not have the job as it was asked for: trying again does not help."""


class AllocationError(ExecoError):
    """There are no nodes: the job has ended, or has never had any."""


class AllocationTimeout(AllocationError):
    """The nodes did not come in time. The job has been cancelled."""


def _told(kind: type[SchedulerError], message: str, facts: dict[str, Any]) -> SchedulerError:
    error = kind.__new__(kind, message)
    error.__dict__.update(facts)
    return error
