"""A real Slurm of four nodes, n1 to n4 with two processors each, for tests.

A test module that needs it says ``pytest_plugins = ["slurm"]``, and its tests take ``slurm``::

    def test_a_job(slurm):
        job = slurm.run("sbatch", "--parsable", "--wrap", "hostname")

``slurm.env`` is what makes a command speak to it, in this process's environment or another's. All
nodes are this machine, each with a daemon of its own, as Slurm's ``NodeName ... Port`` allows for
tests. So their names cannot be looked up, and no sshd answers to them: a test that wants to log in
to nodes says which hosts stand for them, ``Allocation(host=...)``, those of an embedded cluster for
one; commands of ``srun`` and batch scripts reach them as they are. There is no database of past
jobs: ``sacct`` does not work. A job that has ended is forgotten after ten seconds.

As root on Debian, with slurmctld, slurmd, slurm-client and munge.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

__all__ = ["NODES", "RealSlurm", "slurm"]

NODES = ["n1", "n2", "n3", "n4"]

PATIENCE = 30.0
"""Seconds in which a daemon is there, or gone: a hang, not a speed."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTNAME = socket.gethostname().partition(".")[0]  # Slurm's daemons compare with the short one
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")

CONFIG = """
ClusterName=execo
SlurmctldHost={hostname}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=10
KillWait=1
InactiveLimit=0
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=1
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE
PartitionName=down Nodes=ALL State=DOWN
"""

# All are daemons rather than children, without the tests' mark in their environment, so that the
# leak guard does not take them for something that a test has left. The last one tidies up after a
# script that was killed; it has not the variable by which it knows the others.
START = """
folder=$1 owner=$2 tidy=$3
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" \
    --seed-file="$folder/munge/seed" || exit
slurmctld -c || exit
for name in {nodes}; do slurmd -N $name || exit; done
env -u SLURM_CONF /bin/sh -c "$tidy" execo-slurm-tidy "$folder" "$owner" >/dev/null 2>&1 &
"""

TIDY = """
tail --pid="$2" -f /dev/null
[ -d "$1" ] || exit
for round in 1 2; do
    for proc in /proc/[0-9]*; do
        tr '\\0' '\\n' <$proc/environ | grep -qxF "SLURM_CONF=$1/slurm.conf" &&
            kill -KILL "${proc#/proc/}"
    done
done
rm -rf "$1"
"""


class RealSlurm:
    """A Slurm of its own key, ports and folders; ``with RealSlurm() as slurm:`` runs it.

    - ``folder``: all that it writes
    - ``env``: the variables for whoever speaks to it
    """

    def __init__(self) -> None:
        self.env: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # -- what a test asks for -------------------------------------------------------------------

    def run(self, *command: str, stdin: str = "", check: bool = True) -> str:
        """What a command has printed.

        :raises RuntimeError: it has failed; with what it wrote to stderr
        """
        env = {"PATH": SYSTEM_PATH, **self.env}
        # There, jobs put what they print.
        return _run(*command, env=env, stdin=stdin, check=check, cwd=self.folder)

    def jobs(self, states: str = "PENDING,CONFIGURING,RUNNING,COMPLETING") -> dict[str, str]:
        """Those that hold nodes or wait for some, or are in other states: id -> state."""
        lines = self.run("squeue", "-h", "-t", states, "-o", "%A %T").splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}

    def wait_for(self, job: str, *states: str) -> str:
        """Until a job is in one of these states; "" is that it is not known any more."""
        nap = threading.Event()
        deadline = time.monotonic() + PATIENCE
        while (state := self.jobs("all").get(job, "")) not in states:
            assert time.monotonic() < deadline, f"job {job} is {state or 'not known'}, not {states}"
            nap.wait(0.1)
        return state

    def clear(self) -> None:
        """End all jobs, and bring all nodes back."""
        self.run("scancel", "--state=PENDING", check=False)
        self.run("scancel", *self.jobs(), check=False)
        for job in self.jobs():
            self.wait_for(job, "", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL")
        for node in NODES:
            self.run("scontrol", "update", f"node={node}", "state=resume", check=False)
        self._wait_for_nodes()

    # -- start and stop -------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when all nodes are idle.

        :raises FileNotFoundError: a program of it is not installed
        :raises RuntimeError: it does not start; with its logs
        """
        missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
        if missing:
            raise FileNotFoundError(
                f"needs {missing[0]}: apt install slurmctld slurmd slurm-client munge"
            )
        self.folder = Path(tempfile.mkdtemp(prefix="execo-slurm-"))
        self.folder.chmod(0o755)
        for name in ("munge", "state", "spool", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir()
        (self.folder / "munge" / "key").write_bytes(os.urandom(128))
        (self.folder / "munge" / "key").chmod(0o600)
        self.env = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        try:
            self._launch()
            self._wait_for_nodes()
        except BaseException:
            self.stop()
            raise

    def _launch(self) -> None:
        with contextlib.ExitStack() as reserved:
            ports = [_reserved(reserved) for _ in range(1 + len(NODES))]
        lines = [
            f"NodeName={name} NodeHostname={HOSTNAME} NodeAddr=127.0.0.1"
            f" Port={port} CPUs=2 RealMemory=100"
            for name, port in zip(NODES, ports[1:], strict=True)
        ]
        (self.folder / "slurm.conf").write_text(
            CONFIG.format(
                hostname=HOSTNAME,
                ctld=ports[0],
                folder=self.folder,
                nodes="\n".join(lines),
            )
        )
        script = START.replace("{nodes}", " ".join(NODES))
        _run(
            *("/bin/sh", "-c", script, "execo-slurm", str(self.folder), str(os.getpid()), TIDY),
            env={"PATH": SYSTEM_PATH, **self.env},
            output=self.folder / "start.log",
        )

    def _wait_for_nodes(self) -> None:
        nap = threading.Event()
        deadline = time.monotonic() + PATIENCE
        while True:
            lines = self.run("sinfo", "-hN", "-p", "all", "-o", "%N %t", check=False).split("\n")
            if sum(line.endswith(" idle") for line in lines) == len(NODES):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"Slurm's nodes are not there: {lines}\n{self.log}")
            nap.wait(0.1)

    @property
    def log(self) -> str:
        """The ends of all logs."""
        paths = sorted([*self.folder.glob("*.log"), *self.folder.glob("munge/log")])
        return "\n".join(f"{one.name}:\n{one.read_text(errors='replace')[-2000:]}" for one in paths)

    def stop(self) -> None:
        """End the daemons and all jobs, and remove all files."""
        folder = self.folder
        mark = f"SLURM_CONF={folder}/slurm.conf"
        deadline = time.monotonic() + PATIENCE
        nap = threading.Event()
        while (found := _marked(mark)) and time.monotonic() < deadline:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            nap.wait(0.05)
        shutil.rmtree(folder)
        self.env = {}


def _reserved(stack: contextlib.ExitStack) -> int:
    """A port that was free; all of them at once, so that they differ. None that the system gives to
    whoever asks for any: it would be taken before a daemon listens."""
    one = stack.enter_context(socket.socket())
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


def _run(
    *command: str,
    env: dict[str, str],
    stdin: str = "",
    check: bool = True,
    output: Path | None = None,
    cwd: Path | None = None,
) -> str:
    """:param output: a file for what it writes: daemons that it leaves would keep a pipe open"""
    with contextlib.ExitStack() as stack:
        file: Any = subprocess.PIPE if output is None else stack.enter_context(output.open("w"))
        done = subprocess.run(
            command,
            env=env,
            cwd=cwd,
            input=stdin,
            stdout=file,
            stderr=subprocess.PIPE if output is None else subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE * 2,
        )
    if check and done.returncode != 0:
        told = done.stderr if output is None else output.read_text()
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}: {told}")
    return done.stdout or ""


def _marked(mark: str) -> list[int]:
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (proc / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            if state != "Z" and mark.encode() in (proc / "environ").read_bytes().split(b"\0"):
                found.append(int(proc.name))
    return [pid for pid in found if pid != os.getpid()]


# -- the plugin -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def real_slurm() -> Iterator[RealSlurm]:
    """The daemons, started by the first test that needs them."""
    if os.geteuid() != 0:
        pytest.skip("only root can start the Slurm that this test needs")
    server = RealSlurm()
    try:
        server.start()
    except FileNotFoundError as exc:
        pytest.skip(str(exc))
    yield server
    server.stop()


@pytest.fixture
def slurm(real_slurm: RealSlurm) -> Iterator[RealSlurm]:
    """A real Slurm of four idle nodes; what the test leaves there is ended."""
    yield real_slurm
    real_slurm.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, RealSlurm) and value.env:
                report.sections.append(("slurm", value.log))
    return report
