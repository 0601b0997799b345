"""OAR, by oarsub, oarstat and oardel. Written after version 2.5 and answers of it; the tests play
these answers, since there is no OAR to test on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from execo.host import Host
from execo.time_utils import Duration

from .calls import CallFailed
from .job import Job, JobState, Request
from .scheduler import Scheduler

__all__ = ["Oar"]

STATES = {
    **dict.fromkeys("Waiting Hold toLaunch toAckReservation Launching".split(), JobState.WAITING),
    **dict.fromkeys("Running Suspended Resuming".split(), JobState.RUNNING),
    **dict.fromkeys("Finishing Terminated Error toError".split(), JobState.ENDED),
}

# The clock of its server tells what is left; and it is the end of an answer that is whole, without
# which no jobs at all and a failure would look alike.
ASK = '"$0" -u -J && echo && echo "execo-now $(date +%s)"'
NOW = re.compile(r"^execo-now ([0-9]+)$", re.MULTILINE)

PASSING = re.compile("timed out|connect|database|temporarily|try again", re.IGNORECASE)
GONE = re.compile("already killed|not a valid job|not running", re.IGNORECASE)


class Oar(Scheduler):
    """OAR's queue, of a cluster such as those of Grid'5000. See
    :class:`~execo.schedulers.Scheduler` for the other parameters.

    Signals reach a job by ways that depend on how the site has set it up. So a job of OAR has no
    lease: when the script is killed, it is a command on the login host that ends the job.

    :param resources: the ``-l`` of oarsub without its walltime; ``{nodes}`` is the number of nodes
    """

    leases = False

    def __init__(
        self,
        login: str | Host | None = None,
        connection_params: Mapping[str, Any] | None = None,
        *,
        resources: str = "nodes={nodes}",
        folder: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: Duration = 30.0,
        interval: Duration = 15.0,
    ) -> None:
        super().__init__(
            login, connection_params, folder=folder, env=env, timeout=timeout, interval=interval
        )
        self.resources = resources

    def _unset(self) -> Mapping[str, str | None]:
        return {}

    def _submit(self, request: Request) -> str:
        wanted = self.resources.replace("{nodes}", str(request.nodes))
        answer = self._call(
            *("oarsub", "-n", request.name),
            *("-l", f"{wanted},walltime={_time(request.walltime)}"),
            *("-O", "/dev/null", "-E", "/dev/null"),
            *request.options,
            request.script,
        )
        found = re.findall(r"^OAR_JOB_ID=([0-9]+)$", answer, re.MULTILINE)
        if not found:
            raise self._unreadable(["oarsub"], answer)
        return str(found[-1])

    def _ask(self) -> dict[str, Job]:
        command = ["/bin/sh", "-c", ASK, *self._caller.words("oarstat")]
        answer = self._call(*command)
        told = NOW.search(answer)
        text = answer[answer.find("{") : told.start()].strip() if told and "{" in answer else ""
        try:
            jobs = json.loads(text or "{}")
            if told is None or (not text and answer[: told.start()].strip()):
                raise ValueError
            return {
                str(number): _job(str(number), one, int(told[1])) for number, one in jobs.items()
            }
        except (ValueError, TypeError, AttributeError):
            raise self._unreadable(["oarstat", "-u", "-J"], answer) from None

    def cancel_command(self, name: str, job: str | None) -> list[str]:
        """See there."""
        if job is None:
            raise NotImplementedError
        return ["oardel", job]

    def _cancel(self, name: str, job: str | None) -> None:
        for one in list(self.jobs(0.0).values()):
            if one.name == name and job in (None, one.id) and one.state is not JobState.ENDED:
                super()._cancel(name, one.id)

    def signal_command(self, job: str, signal: str, name: str | None = None) -> list[str]:
        """See there."""
        return ["oardel", "-s", signal, job]

    def _gone(self, error: CallFailed) -> bool:
        return error.exit_code is not None and bool(GONE.search(error.stderr))

    def _refused(self, error: CallFailed) -> bool:
        return error.exit_code is not None and not PASSING.search(error.stderr)


def _job(number: str, told: dict[str, Any], now: int) -> Job:
    """Numbers are texts in some versions.

    :raises ValueError, TypeError, AttributeError: that is no job
    """
    said = str(told["state"]) if "state" in told else ""
    state = STATES.get(said, JobState.UNKNOWN)
    runs = state is JobState.RUNNING
    start, walltime = int(told.get("startTime") or 0), int(told.get("walltime") or 0)
    left = float(max(0, start + walltime - now)) if runs and start and walltime else None
    return Job(
        number,
        state,
        said,
        name=str(told.get("name") or ""),
        hosts=tuple(map(str, told.get("assigned_network_address") or ())) if runs else (),
        left=left,
        why="" if runs else str(told.get("message") or ""),
        born=str(told.get("submissionTime") or ""),
    )


def _time(seconds: float) -> str:
    minutes, rest = divmod(max(1, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
