"""What is known of one run of a process, as data."""

from __future__ import annotations

import enum

from .errors import ProcessError, Reason
from .output import Capture

__all__ = ["NOTHING", "Outcome", "State"]


class State(enum.Enum):
    """Where a run is, see :mod:`execo.lifecycle`."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    ENDED = "ended"


class Outcome:
    """What has happened to one start of a process so far.

    The I/O thread writes it; any thread may read it. The defaults are those of the class, so they
    cost a run nothing until they change.
    """

    state = State.NEW
    requested = False
    """Somebody called start(); not so if its action was killed before."""
    attempts = 0
    """How often its start was tried."""
    may_have_run = False
    """It was to be started again, but for this."""
    pid: int | None = None
    start_date: float | None = None
    end_date: float | None = None
    exit_status_raw: int | None = None
    exit_code: int | None = None
    error: ProcessError | None = None
    timeouted = False
    killed = False
    forced_kill = False
    write_error = False
    expect_fail = False
    expect_failure = ""
    """What it did not print, in words."""
    waited = False
    """It waited long for a slot to start in."""
    drained = True
    late_bytes = 0
    """Output that came after the end and was dropped."""
    stdout: Capture | None = None
    stderr: Capture | None = None
    stdout_ioerror = False
    stderr_ioerror = False

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self.state is State.ENDED

    @property
    def reason(self) -> Reason | None:
        """Why it failed, whatever the user chose to ignore; None if it did not, or goes on."""
        if self.error is not None:
            return self.error.reason
        if self.timeouted:
            return Reason.TIMEOUT
        if self.expect_fail:
            return Reason.EXPECT
        if self.exit_code:
            return Reason.SIGNAL if self.exit_code < 0 else Reason.EXIT_CODE
        return Reason.WRITE if self.write_error else None

    @property
    def truncated(self) -> int:
        """Bytes of output that were not kept."""
        captures = (self.stdout, self.stderr)
        return self.late_bytes + sum(c.dropped for c in captures if c is not None)


NOTHING = Outcome()
"""The outcome of a process that was not started."""
