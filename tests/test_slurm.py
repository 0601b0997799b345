"""Allocations of a real Slurm of four nodes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Process
from execo.engine import ParamSweeper, Trial, experiment
from execo.schedulers import (
    Allocation,
    AllocationError,
    AllocationTimeout,
    SchedulerError,
    Slurm,
    SubmissionRefused,
)
from execo.testing import Cluster
from slurm import NODES, RealSlurm
from sshd import RealSshd

pytest_plugins = ["slurm", "sshd"]
pytestmark = pytest.mark.slurm

ENDED = ("", "COMPLETED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
ROOT = str(Path(__file__).resolve().parent.parent)


@pytest.fixture
def queue(slurm: RealSlurm) -> Slurm:
    return Slurm(env=slurm.env, interval=0.5)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(4) as made:
        yield made


def holds(slurm: RealSlurm) -> list[str]:
    return [job for job, state in slurm.jobs().items() if state != "COMPLETING"]


def until(done: Callable[[], Any], what: str) -> None:
    nap = threading.Event()
    for _ in range(300):
        if done():
            return
        nap.wait(0.1)
    raise AssertionError(what)


# -- nodes -----------------------------------------------------------------------------------------


def test_nodes_for_a_block(slurm: RealSlurm, queue: Slurm) -> None:
    with Allocation(2, "0:02:00", scheduler=queue) as nodes:
        assert [host.address for host in nodes] == ["n1", "n2"]
        assert 30 < (nodes.remaining() or 0) <= 90
        assert slurm.jobs() == {nodes.job_id: "RUNNING"}
        where = [
            "srun",
            f"--jobid={nodes.job_id}",
            "--overlap",
            "-N2",
            "printenv",
            "SLURMD_NODENAME",
        ]
        assert sorted(slurm.run(*where).split()) == ["n1", "n2"]
        assert nodes.check()
    assert holds(slurm) == []


def test_one_waits_for_the_nodes_of_another(slurm: RealSlurm, queue: Slurm) -> None:
    with Allocation(3, scheduler=queue) as first:
        with pytest.raises(AllocationTimeout, match=r"PENDING \(Resources\)"):
            Allocation(2, scheduler=queue, wait_timeout=3).open()
        second = Allocation(2, scheduler=queue)
        thread = threading.Thread(target=second.open)
        thread.start()
        until(lambda: "PENDING" in slurm.jobs().values(), "it is submitted")
        first.release()
        thread.join(60)
    assert len(second.hosts) == 2
    second.release()
    assert holds(slurm) == []


def test_a_refusal(queue: Slurm) -> None:
    with pytest.raises(SubmissionRefused, match="Invalid partition name specified"):
        Allocation(scheduler=queue, options=["--partition=nowhere"]).open()


def test_a_job_that_is_there_is_adopted(slurm: RealSlurm, queue: Slurm) -> None:
    job = slurm.run("sbatch", "--parsable", "-N3", "--wrap", "sleep 600").strip()
    with Allocation.adopt(job, scheduler=queue) as nodes:
        assert len(nodes) == 3
        assert nodes.remaining() is None
    assert slurm.jobs() == {job: "RUNNING"}
    with Allocation.adopt(job, scheduler=queue) as nodes:
        slurm.run("scontrol", "requeue", job)
        until(lambda: nodes.check() is False, "it is over")
        assert ", over: " in repr(nodes)
    slurm.run("scancel", job)


def test_a_script_in_a_job(slurm: RealSlurm, tmp_path: Path) -> None:
    script = (
        "from execo.schedulers import *\n"
        "print(*hosts_of_this_job())\n"
        "with Allocation.of_this_job() as nodes:\n"
        "    print(len(nodes), 0 < nodes.remaining() < 600)\n"
    )
    (tmp_path / "script.py").write_text(script)
    out = tmp_path / "out"
    words = [f"PYTHONPATH={ROOT}", sys.executable, f"{tmp_path}/script.py"]
    command = shlex.join(["env", *words])
    slurm.run("sbatch", "--wait", "-N3", "--time=10", f"--output={out}", "--wrap", command)
    assert out.read_text() == "n1 n2 n3\n3 True\n"


def test_through_a_login_host(slurm: RealSlurm, cluster: Cluster) -> None:
    queue = Slurm(cluster.hosts[0], cluster.params, env=slurm.env, interval=0.5)
    with Allocation(2, scheduler=queue) as nodes:
        assert [host.address for host in nodes] == ["n1", "n2"]
        assert nodes.check()
    assert holds(slurm) == []
    with pytest.raises(SchedulerError, match=f"on {cluster.hosts[0]}: exited with 1: .*nowhere"):
        Allocation(scheduler=queue, options=["-p", "nowhere"]).open()


@pytest.mark.sshd
def test_an_ordinary_user_through_a_real_sshd(slurm: RealSlurm, sshd: RealSshd) -> None:
    queue = Slurm(sshd.hosts(1)[0], env=slurm.env, interval=0.5)
    with Allocation(2, scheduler=queue, lease=5) as nodes:
        assert slurm.run("squeue", "-h", "-o", "%u").strip() == sshd.user()
        threading.Event().wait(7)
        assert nodes.check()
        assert slurm.jobs() == {nodes.job_id: "RUNNING"}
    assert holds(slurm) == []


# -- what ends it ----------------------------------------------------------------------------------


def test_a_job_that_somebody_cancels(slurm: RealSlurm, queue: Slurm) -> None:
    with Allocation(2, scheduler=queue) as nodes:
        slurm.run("scancel", str(nodes.job_id))
        until(lambda: nodes.check() is False, "it is over")
        assert nodes.remaining() == 0
        assert "has ended: " in repr(nodes)


def test_a_node_that_fails(slurm: RealSlurm, queue: Slurm) -> None:
    with Allocation(2, scheduler=queue) as nodes:
        slurm.run("scontrol", "update", "node=n2", "state=down", "reason=test")
        until(lambda: nodes.check() is False, "it is over")
        assert "has ended: " in repr(nodes)


def test_a_controller_that_does_not_answer(slurm: RealSlurm) -> None:
    queue = Slurm(env=slurm.env, interval=0.1, timeout=1)
    controller = int((slurm.folder / "slurmctld.pid").read_text())
    with Allocation(2, scheduler=queue) as nodes:
        os.kill(controller, signal.SIGSTOP)
        try:
            with pytest.raises(SchedulerError, match=r"squeue .*: no answer within 1 s"):
                queue.jobs(0)
            assert nodes.check()
        finally:
            os.kill(controller, signal.SIGCONT)

        def answers() -> bool:
            try:
                return bool(queue.jobs(0))
            except SchedulerError:
                return False

        until(answers, "it answers again")
        assert nodes.check()
    assert holds(slurm) == []


HOLDS = """
import sys
from execo import Host
from execo.schedulers import Allocation, Slurm
lease, *login = sys.argv[1:]
params = {"host_key_policy": "off", "ssh_config": False}
slurm = Slurm(Host(*login) if login else None, params, env=ENV, interval=0.5)
print(Allocation(2, scheduler=slurm, lease=float(lease)).open().job_id, flush=True)
sys.stdin.read()
"""


def begin(slurm: RealSlurm, login: Host | None, lease: float) -> tuple[subprocess.Popen[str], str]:
    place = [] if login is None else [login.address, login.user, login.keyfile, login.port]
    script = subprocess.Popen(
        [sys.executable, "-c", HOLDS.replace("ENV", repr(slurm.env)), str(lease), *map(str, place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert script.stdout is not None
    job = script.stdout.readline().strip()
    assert slurm.jobs() == {job: "RUNNING"}
    return script, job


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT", "exit"])
def test_the_job_of_a_script_that_ends(how: str, slurm: RealSlurm) -> None:
    script, job = begin(slurm, None, 600)
    if how != "exit":
        script.send_signal(signal.Signals[how])
    script.communicate()
    slurm.wait_for(job, *ENDED)


def test_the_job_of_a_script_that_is_killed_far_away(slurm: RealSlurm, cluster: Cluster) -> None:
    script, job = begin(slurm, cluster.hosts[0], 8)
    script.kill()
    script.communicate()
    assert slurm.wait_for(job, *ENDED) == "COMPLETED"


def test_the_job_of_a_script_that_is_killed_while_it_waits(slurm: RealSlurm) -> None:
    script = subprocess.Popen(
        [sys.executable, "-c", HOLDS.replace("2, ", "9, ").replace("ENV", repr(slurm.env)), "600"],
        stdin=subprocess.PIPE,
    )
    until(lambda: "PENDING" in slurm.jobs().values(), "it is submitted")
    threading.Event().wait(1)
    script.kill()
    script.communicate()
    until(lambda: slurm.jobs() == {}, "its job ends")


def test_a_lost_connection_is_not_the_end(slurm: RealSlurm, cluster: Cluster) -> None:
    login = cluster.hosts[0]
    queue = Slurm(login, cluster.params, env=slurm.env, interval=0.5)
    with Allocation(2, scheduler=queue, lease=12) as nodes:
        # Its keeper takes this for the end of the script, and cuts the job short, to 6 s.
        cluster.fault(login, "close")
        cluster.heal()
        threading.Event().wait(12)
        assert nodes.check()
        assert slurm.jobs() == {nodes.job_id: "RUNNING"}
    assert holds(slurm) == []


def test_the_job_of_a_script_that_hangs(slurm: RealSlurm) -> None:
    script, job = begin(slurm, None, 5)
    script.send_signal(signal.SIGSTOP)
    assert slurm.wait_for(job, *ENDED) == "COMPLETED"
    script.kill()
    script.communicate()


def test_the_job_of_a_script_that_lives(slurm: RealSlurm, queue: Slurm) -> None:
    with Allocation(1, scheduler=queue, lease=5) as nodes:
        threading.Event().wait(8)
        assert nodes.check()
        assert slurm.jobs() == {nodes.job_id: "RUNNING"}


# -- experiments -----------------------------------------------------------------------------------


def test_an_experiment_on_an_allocation(
    slurm: RealSlurm, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stands_for = dict(zip(NODES, cluster.hosts, strict=True))
    seen: list[dict[str, str]] = []

    def four(wall: float = 3600, margin: float = 30) -> Allocation:
        queue = Slurm(env=slurm.env, interval=0.5)
        host = stands_for.__getitem__
        return Allocation(4, wall, scheduler=queue, host=host, margin=margin)

    def parse(trial: Trial) -> int:
        seen.append(slurm.jobs())
        return int(trial.stdout.split()[0])

    @experiment(
        factors={"n": list(range(8))},
        hosts=2,
        lease=None,
        duration=lambda combination: 2000 if combination["n"] > 4 else 1,
        connection_params=cluster.params,
        parse=parse,
    )
    def count(trial: Trial) -> str:
        return f"echo {trial['n']}"

    # Not what takes longer than the nodes are there.
    results = count.main(["-c", "r"], hosts=four(600))
    assert sorted(results.values()) == [0, 1, 2, 3, 4]
    assert all(list(jobs.values()) == ["RUNNING"] for jobs in seen)
    assert holds(slurm) == []
    assert sorted(count.main(["-c", "r"], hosts=four()).values()) == list(range(8))
    # Nothing is left to do: nobody asks for nodes.
    before = len(slurm.jobs("all"))
    assert len(count.main(["-c", "r"], hosts=four())) == 8
    assert len(slurm.jobs("all")) <= before


CAMPAIGN = """
from execo import Host
from execo.engine import experiment
from execo.schedulers import Allocation, Slurm

HOSTS = dict(zip(["n1", "n2", "n3", "n4"], ADDRESSES))

@experiment(
    factors={"n": list(range(12))},
    connection_params=PARAMS,
    parse=lambda trial: int(trial.stdout),
)
def count(trial):
    return f"sleep 0.5; echo {trial['n']}"

results = count.main(
    ["-c", "results"],
    hosts=Allocation(2, 3600, scheduler=Slurm(env=ENV, interval=0.5), host=HOSTS.__getitem__),
)
print(sorted(results.values()), flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_a_campaign_that_is_stopped_goes_on_in_the_next_allocation(
    how: signal.Signals, slurm: RealSlurm, cluster: Cluster, tmp_path: Path
) -> None:
    text = CAMPAIGN.replace("ADDRESSES", repr(cluster.hosts)).replace("ENV", repr(slurm.env))
    (tmp_path / "campaign.py").write_text(text.replace("PARAMS", repr(cluster.params)))

    def campaign() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "campaign.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": ROOT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def one_is_done() -> bool:
        if not (tmp_path / "results" / "sweep" / "journal.jsonl").exists():
            return False
        sweeper = ParamSweeper(tmp_path / "results" / "sweep", lease=None)
        done = sweeper.stats().done
        sweeper.close()
        return bool(done)

    first = campaign()
    until(one_is_done, "one is done")
    first.send_signal(how)
    told = first.communicate(timeout=60)[1]
    assert first.returncode == (130 if how == signal.SIGINT else -how), told
    until(lambda: not holds(slurm), "its job ends")
    second = campaign()
    out, told = second.communicate(timeout=60)
    assert out == f"{list(range(12))}\n", told
    assert holds(slurm) == []


def test_the_sample_of_the_guide(slurm: RealSlurm, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", f"{ROOT}/examples/doc_schedulers.py"],
        env={**os.environ, **slurm.env, "PYTHONPATH": ROOT, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "2 nodes, ok: True"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        *("gzip -1", "gzip -9", "bzip2 -1", "bzip2 -9")
    ]
    assert holds(slurm) == []


def test_nothing_of_it_is_left(slurm: RealSlurm) -> None:
    """The fixture, as other tests find it."""
    job = slurm.run("sbatch", "--parsable", "--wrap", "sleep 600").strip()
    slurm.wait_for(job, "RUNNING")
    slurm.clear()
    assert slurm.jobs() == {}
    assert "slurm_load_jobs" not in slurm.log
    with RealSlurm() as another:
        folder = another.folder
        assert another.jobs() == {}
    assert not folder.exists()
    assert str(folder) not in Process("ps -ef", max_output=None).run().stdout
    # And when the tests are killed.
    text = "from slurm import *; one = RealSlurm(); one.start(); print(one.folder); input()"
    tests = subprocess.Popen(
        [sys.executable, "-uc", text],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tests.stdout is not None
    folder = Path(tests.stdout.readline().strip())
    assert folder.exists()
    tests.kill()
    tests.communicate()
    until(lambda: not folder.exists(), "its files are removed")
    assert str(folder) not in Process("ps -ef", max_output=None).run().stdout
    with pytest.raises(AllocationError):
        Allocation.adopt(job + "00", scheduler=Slurm(env=slurm.env)).open()
