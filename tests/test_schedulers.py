"""Allocations, and what comes of a scheduler that fails, on commands that play its answers. What a
real one does is in ``test_slurm.py``."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Remote
from execo.errors import HostSetError
from execo.schedulers import (
    Allocation,
    AllocationError,
    AllocationTimeout,
    JobState,
    Oar,
    SchedulerError,
    Slurm,
    SubmissionRefused,
    hosts_of_this_job,
)
from execo.schedulers.lease import Lease, job_script
from execo.testing import Cluster
from scheduler_stub import HEADER, Stub, line, oar_job, says

TIMED_OUT = "slurm_load_jobs error: Socket timed out on send/recv operation\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("execo.schedulers.calls.SPACING", 0.01)
    monkeypatch.setattr("execo.schedulers.following.MISSING", 0.5)


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    """A Slurm that gives n1 and n2 to job 12."""
    made = Stub(tmp_path)
    made.play("sbatch", says("12\n"))
    made.play("squeue", says(jobs=[line()]))
    return made


@pytest.fixture
def slurm(stub: Stub) -> Slurm:
    return Slurm(folder=str(stub.folder), interval=0.1, timeout=10)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "execo")
    return caplog


def ask_until(done: Callable[[], bool], allocation: Allocation) -> None:
    """What its own thread would do in time."""
    nap = threading.Event()
    for _ in range(300):
        if done():
            return
        nap.wait(0.1)
        allocation.check()
    raise AssertionError(repr(allocation))


LIVES = """
import sys
from execo.schedulers import Allocation, Slurm
nodes = Allocation(2, scheduler=Slurm(folder=sys.argv[1])).open()
print(nodes.job_id, flush=True)
if sys.argv[2] == "exit":
    sys.exit()
if sys.argv[2] == "error":
    1 / 0
sys.stdin.read()
"""


# -- as it should be -------------------------------------------------------------------------------


def test_nodes_for_a_block(stub: Stub, slurm: Slurm) -> None:
    stub.play("squeue", says(jobs=[line("PENDING", why="Resources")]), says(jobs=[line()]))
    allocation = Allocation(2, "1:00:00", scheduler=slurm, options=["--partition=gpu"])
    assert repr(allocation) == "<Allocation of 2 nodes for 1h0m0s: not opened>"
    with allocation as nodes:
        assert nodes.job_id == "12"
        assert nodes.hosts == [Host("n1"), Host("n2")] == list(nodes)
        assert len(nodes) == 2
        left = nodes.remaining()
        assert left is not None
        assert 3000 < left < 3600 - 30
        assert re.fullmatch(
            r"<Allocation of 2 nodes for 1h0m0s: job 12, RUNNING, 59m\d+s left>", repr(nodes)
        )
        assert nodes.check()
    (call,) = stub.calls("sbatch")
    name = allocation.name
    assert re.fullmatch("execo-[0-9a-f]{8}", name)
    assert call["words"] == [
        *("--parsable", "--no-requeue", f"--job-name={name}", "--nodes=2", "--time=0-01:00:00"),
        *("--exclusive", "--output=/dev/null", "--chdir=/", "--partition=gpu"),
    ]
    assert call["stdin"].startswith("#!/bin/sh\n")
    assert stub.words("scancel") == ["--batch --signal=USR1 12", f"--me --name={name}"]
    assert allocation.remaining() == 0
    assert repr(allocation) == "<Allocation of 2 nodes for 1h0m0s: job 12, released>"
    with pytest.raises(AllocationError, match="has no nodes: use it in a with block"):
        _ = allocation.hosts
    with pytest.raises(ValueError, match="has been opened before: make another one"):
        allocation.open()


def test_a_node_may_be_reached_by_another_name(slurm: Slurm) -> None:
    with Allocation(2, scheduler=slurm, host=lambda name: Host(f"{name}-ib0", port=2222)) as nodes:
        assert nodes.hosts == [Host("n1-ib0", port=2222), Host("n2-ib0", port=2222)]


def test_the_habits_of_the_user_change_nothing(
    stub: Stub, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SCANCEL_INTERACTIVE", "1")
    monkeypatch.setenv("LC_ALL", "fr_FR.UTF-8")
    slurm.jobs()
    (call,) = stub.calls("squeue")
    assert call["env"]["LC_ALL"] == "C"
    assert not {"SQUEUE_FORMAT", "SCANCEL_INTERACTIVE"} & set(call["env"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": 0}, "at least one node, not 0"),
        ({"walltime": "0:00:20"}, "leaves nothing before its margin"),
        ({"walltime": "soon"}, "soon"),
        ({"lease": 2}, "at least 5 s, not 2"),
        ({"name": "mine,yours"}, "not 'mine,yours'"),
    ],
)
def test_numbers_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Allocation(**arguments)


def test_words_that_cannot_be() -> None:
    with pytest.raises(TypeError, match="options are words"):
        Allocation(options="--partition=gpu")
    with pytest.raises(ValueError, match="the id of a job is a number, not 'mine'"):
        Allocation.adopt("mine")


@pytest.mark.parametrize(
    ("said", "state", "left", "hosts"),
    [
        (line(left="1-02:03:04", nodes="n[1-3,7]"), "RUNNING", 93784, ["n1", "n2", "n3", "n7"]),
        (line(left="2:03", nodes="gpu-[01-02]-ib"), "RUNNING", 123, ["gpu-01-ib", "gpu-02-ib"]),
        (line(left="UNLIMITED", nodes="a1"), "RUNNING", None, ["a1"]),
        (line(left="INVALID", nodes="a1"), "RUNNING", 0, ["a1"]),
        (line(nodes="n1", name="a|b|c"), "RUNNING", 3599, ["n1"]),
        (line("CONFIGURING", nodes="n1"), "WAITING", None, []),
        (line("PENDING", why="(Nodes required | are DOWN)"[1:15]), "WAITING", None, []),
        (line("REQUEUE_HOLD"), "WAITING", None, []),
        (line("COMPLETING"), "ENDED", None, []),
        (line("NODE_FAIL"), "ENDED", None, []),
        (line("DREAMING"), "UNKNOWN", None, []),
    ],
)
def test_what_squeue_says(
    said: str, state: str, left: float | None, hosts: list[str], stub: Stub, slurm: Slurm
) -> None:
    stub.play("squeue", says("Welcome to login1!\n" + HEADER + "\n" + said + "\n"))
    job = slurm.jobs()["12"]
    assert (job.state, job.left, list(job.hosts)) == (JobState[state], left, hosts)


# -- a failed call says nothing of a job -----------------------------------------------------------

NO_ANSWERS = {
    "an error": says(err=TIMED_OUT, exit=1),
    "an error and exit code 0": says("CLUSTER: amarel\n", err=TIMED_OUT),
    "nothing at all": says(),
    "another language": says("JOBID PARTITION\n12 all\n"),
    "a part of a line": says(HEADER + "\nexeco|12|RUN"),
    "nodes that are none": says(jobs=[line(nodes="n[1-")]),
    "no end": says(jobs=[], sleep=60),
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_no_answer_is_no_news(
    answer: dict[str, Any], stub: Stub, told: pytest.LogCaptureFixture
) -> None:
    slurm = Slurm(folder=str(stub.folder), interval=0.1, timeout=1)
    with Allocation(2, scheduler=slurm) as nodes:
        stub.play("squeue", answer)
        ask_until(lambda: "squeue" in told.text, nodes)
        assert nodes.check()
        assert nodes.remaining() != 0
        with pytest.raises(SchedulerError, match=r"^/.*/squeue --me --states=all .*: "):
            slurm.jobs(0)
        stub.play("squeue", says(jobs=[line("TIMEOUT")]))
        ask_until(lambda: nodes.remaining() == 0, nodes)
        assert "has ended: TIMEOUT" in repr(nodes)


def test_an_error_has_the_command_and_what_it_said(stub: Stub, slurm: Slurm) -> None:
    stub.play("squeue", says(err=TIMED_OUT, exit=1))
    with pytest.raises(SchedulerError) as caught:
        slurm.jobs()
    assert caught.value.stderr == TIMED_OUT
    assert "squeue --me" in caught.value.command
    assert str(caught.value).endswith(f"exited with 1: {TIMED_OUT.strip()}")


def test_what_fails_is_asked_less_and_less_often(stub: Stub, slurm: Slurm) -> None:
    stub.play("squeue", says(err=TIMED_OUT, exit=1))
    for _ in range(200):
        with pytest.raises(SchedulerError, match="Socket timed out"):
            slurm.jobs(0)
    assert len(stub.calls("squeue")) < 5


def test_one_answer_serves_all(stub: Stub) -> None:
    stub.play("squeue", says(jobs=[line(), line(job=13)]))
    slurm = Slurm(folder=str(stub.folder), interval=600)
    threads = [threading.Thread(target=slurm.jobs) for _ in range(20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert set(slurm.jobs()) == {"12", "13"}
    assert len(stub.calls("squeue")) == 1


def test_many_that_wait_ask_once(stub: Stub) -> None:
    stub.play("squeue", says(jobs=[line(job=job, name=f"j{job}") for job in range(20)]))
    slurm = Slurm(folder=str(stub.folder), interval=600)
    adopted = [Allocation.adopt(job, scheduler=slurm) for job in range(20)]
    threads = [threading.Thread(target=one.open) for one in adopted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one.is_open and len(one) == 2 for one in adopted)
    assert len(stub.calls("squeue")) <= 2
    for one in adopted:
        one.release()


# -- jobs that end ---------------------------------------------------------------------------------

ENDS = {
    "its time": (line("TIMEOUT", why="TimeLimit"), r"has ended: TIMEOUT \(TimeLimit\)"),
    "a node": (line("NODE_FAIL"), "has ended: NODE_FAIL"),
    "scancel": (line("COMPLETING", nodes="n2"), "has ended: COMPLETING"),
    "a requeue": (line("PENDING", why="BeginTime"), r"has lost its nodes: PENDING \(BeginTime\)"),
    "a requeue that is quick": (line(born="2026-11-21T22:00:00"), "was requeued"),
    "its id is used again": (line(name="other"), "its id is another job's"),
    "it is forgotten": (line(job=11), "is not known to the scheduler any more"),
}


@pytest.mark.parametrize(("said", "why"), ENDS.values(), ids=ENDS)
def test_a_job_that_ends(said: str, why: str, stub: Stub, slurm: Slurm) -> None:
    with Allocation(2, scheduler=slurm) as nodes:
        assert nodes.remaining() != 0
        stub.play("squeue", says(jobs=[said]))
        ask_until(lambda: nodes.remaining() == 0, nodes)
        assert re.search(why, repr(nodes))
        assert len(nodes.hosts) == 2


def test_a_controller_may_forget_for_a_moment(stub: Stub, slurm: Slurm) -> None:
    with Allocation(2, scheduler=slurm) as nodes:
        stub.play("squeue", says(jobs=[]), says(jobs=[line()]))
        for _ in range(3):
            threading.Event().wait(0.6)
            assert nodes.check()
        assert len(stub.calls("squeue")) >= 3


def test_what_is_left_gets_less(stub: Stub, slurm: Slurm) -> None:
    with Allocation(2, scheduler=slurm, margin=10) as nodes:
        before = nodes.remaining()
        stub.play("squeue", says(jobs=[line(left="0:12")]))
        ask_until(lambda: (nodes.remaining() or 99) < 2.5, nodes)
        assert before is not None
        assert before > 3000
        stub.play("squeue", says(err=TIMED_OUT, exit=1))
        ask_until(lambda: nodes.remaining() == 0, nodes)


def test_nodes_that_do_not_come(stub: Stub, slurm: Slurm) -> None:
    stub.play("squeue", says(jobs=[line("PENDING", why="QOSMaxNodePerUserLimit")]))
    allocation = Allocation(2, scheduler=slurm, wait_timeout=0.5)
    with pytest.raises(AllocationTimeout, match=r"job 12 .* PENDING \(QOSMaxNodePerUserLimit\)"):
        allocation.open()
    assert stub.words("scancel") == [f"--me --name={allocation.name}"]


def test_why_one_waits_is_told_once(
    stub: Stub,
    slurm: Slurm,
    told: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("execo.schedulers.waiting.LONG", 0)
    waits = [says(jobs=[line("PENDING", why=why)]) for why in ("Priority", "Resources")]
    stub.play("squeue", waits[0], *waits, says(jobs=[line()]))
    with Allocation(2, scheduler=slurm):
        pass
    said = [one.message for one in told.records if one.levelno == logging.WARNING]
    assert said == [
        f"job 12 waits for its nodes: PENDING ({why})" for why in ("Priority", "Resources")
    ]


def test_no_answer_while_waiting_comes_to_an_end(stub: Stub, slurm: Slurm) -> None:
    stub.play("squeue", says(err=TIMED_OUT, exit=1))
    allocation = Allocation(2, scheduler=slurm, wait_timeout=1.5)
    with pytest.raises(AllocationTimeout, match="Socket timed out"):
        allocation.open()
    assert stub.words("scancel") == [f"--me --name={allocation.name}"]


def test_a_job_that_ends_before_it_has_nodes(stub: Stub, slurm: Slurm) -> None:
    stub.play("squeue", says(jobs=[line("PENDING")]), says(jobs=[line("BOOT_FAIL", nodes="")]))
    with pytest.raises(AllocationError, match="job 12 has ended: BOOT_FAIL"):
        Allocation(2, scheduler=slurm).open()


# -- submitting ------------------------------------------------------------------------------------


def test_a_refusal_is_told_at_once(stub: Stub, slurm: Slurm) -> None:
    stub.play(
        "sbatch",
        says(err="sbatch: error: Batch job submission failed: Invalid partition name\n", exit=1),
    )
    with pytest.raises(SubmissionRefused, match=r"--nodes=1 .* Invalid partition name") as caught:
        Allocation(scheduler=slurm).open()
    assert "Invalid partition name" in caught.value.stderr
    assert len(stub.calls("sbatch")) == 1
    assert stub.calls("scancel") == []


def test_no_scheduler_here(tmp_path: Path) -> None:
    with pytest.raises(SubmissionRefused, match=r"cannot start '.*/sbatch': no such file"):
        Allocation(scheduler=Slurm(folder=str(tmp_path))).open()
    with pytest.raises(SchedulerError, match=r"cannot start '.*/squeue': no such file"):
        Allocation.adopt(12, scheduler=Slurm(folder=str(tmp_path))).open()


def test_what_passes_is_tried_again(stub: Stub, slurm: Slurm) -> None:
    failed = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    stub.play("sbatch", says(err=failed, exit=1), says("13\n"))
    stub.play("squeue", says(jobs=[]), says(jobs=[line(job=13)]))
    with Allocation(2, scheduler=slurm) as nodes:
        assert nodes.job_id == "13"
    assert len(stub.calls("sbatch")) == 2


def test_a_lost_answer_does_not_make_two_jobs(stub: Stub) -> None:
    # It has been submitted, and then the network was gone.
    stub.play("sbatch", says(sleep=60))
    stub.play(
        "squeue", says(jobs=[line(name="other", job=7), line("PENDING")]), says(jobs=[line()])
    )
    with Allocation(2, scheduler=Slurm(folder=str(stub.folder), timeout=1, interval=0.1)) as nodes:
        assert nodes.job_id == "12"
    assert len(stub.calls("sbatch")) == 1


def test_ctrl_c_while_the_answer_is_awaited(stub: Stub) -> None:
    stub.play("sbatch", says(sleep=60))
    script = subprocess.Popen(
        [sys.executable, "-c", LIVES, str(stub.folder), "stay"], stderr=subprocess.PIPE, text=True
    )
    nap = threading.Event()
    while not stub.calls("sbatch"):
        nap.wait(0.05)
    script.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in script.communicate(timeout=60)[1]
    # Nobody knows whether there is a job: if there is, it ends.
    (words,) = stub.words("scancel")
    assert re.fullmatch("--me --name=execo-[0-9a-f]{8}", words)


# -- the end ---------------------------------------------------------------------------------------


def test_an_end_that_comes_too_late_is_as_good(
    stub: Stub, slurm: Slurm, told: pytest.LogCaptureFixture
) -> None:
    with Allocation(2, scheduler=slurm):
        gone = "scancel: error: Kill job error on job id 12: Invalid job id specified\n"
        stub.play("scancel", says(err=gone, exit=1))
    assert "could not be cancelled" not in told.text


def test_what_cannot_be_cancelled_is_told(
    stub: Stub,
    slurm: Slurm,
    told: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("execo.schedulers.allocation.AT_EXIT", 0)
    allocation = Allocation(2, scheduler=slurm, lease=300).open()
    stub.play("scancel", says(err="scancel: error: Unable to contact slurm controller\n", exit=1))
    allocation._release(1.0)
    assert "job 12 could not be cancelled, and ends within 300 s: " in told.text
    assert "Unable to contact slurm controller" in told.text


def test_an_adopted_job_is_left_alone(stub: Stub, slurm: Slurm) -> None:
    stub.play("squeue", says(jobs=[line(name="mine")]))
    with Allocation.adopt(12, scheduler=slurm) as nodes:
        assert nodes.hosts == [Host("n1"), Host("n2")]
        assert (nodes.remaining() or 0) > 3000
    assert stub.calls("scancel") == []
    with Allocation.adopt(12, scheduler=slurm, cancel=True):
        pass
    assert stub.words("scancel") == ["--me --name=mine 12"]


def test_a_job_that_nobody_knows_cannot_be_adopted(slurm: Slurm) -> None:
    with pytest.raises(AllocationError, match="job 99 is not known"):
        Allocation.adopt("99", scheduler=slurm).open()


@pytest.mark.parametrize("how", ["exit", "error", "SIGINT", "SIGTERM", "SIGKILL"])
def test_the_job_ends_with_the_script(how: str, stub: Stub) -> None:
    script = subprocess.Popen(
        [sys.executable, "-c", LIVES, str(stub.folder), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "12\n"
    if how.startswith("SIG"):
        script.send_signal(signal.Signals[how])
    script.communicate()
    nap = threading.Event()
    for _ in range(200):
        ends = [words for words in stub.words("scancel") if words.startswith("--me --name=execo-")]
        if ends:
            return
        nap.wait(0.1)
    raise AssertionError(stub.words("scancel"))


# -- the lease -------------------------------------------------------------------------------------


def test_a_job_ends_itself_when_nobody_renews_it(tmp_path: Path) -> None:
    subprocess.run(["sh"], input=job_script(Lease(2), 60), text=True, check=True, timeout=60)


def test_a_job_lives_while_it_is_renewed_and_ends_soon_when_it_is_told_to() -> None:
    def begin(seconds: float) -> subprocess.Popen[str]:
        one = subprocess.Popen(["sh"], stdin=subprocess.PIPE, text=True, process_group=0)
        assert one.stdin is not None
        one.stdin.write(job_script(Lease(seconds), 3600))
        one.stdin.close()
        nap.wait(1)
        return one

    nap = threading.Event()
    renewed, alone = begin(3), begin(250)
    for _ in range(4):
        renewed.send_signal(signal.SIGUSR1)
        nap.wait(1)
    assert renewed.poll() is None
    alone.send_signal(signal.SIGUSR2)
    alone.send_signal(signal.SIGUSR1)  # the script is there again
    renewed.send_signal(signal.SIGUSR2)
    assert renewed.wait(60) == 0
    assert alone.poll() is None
    os.killpg(alone.pid, signal.SIGKILL)  # its sleep, too
    alone.wait()


def test_a_lease_that_cannot_be_renewed_runs_out(stub: Stub, slurm: Slurm) -> None:
    stub.play("scancel", says(err="scancel: error: Unable to contact slurm controller\n", exit=1))
    allocation = Allocation(2, scheduler=slurm, lease=5).open()
    try:
        ask_until(lambda: allocation.remaining() == 0, allocation)
    finally:
        stub.play("scancel", says())
        allocation.release()


# -- through SSH -----------------------------------------------------------------------------------


def test_commands_on_a_login_host(stub: Stub) -> None:
    with Cluster(3) as cluster:
        login, *others = cluster.hosts
        slurm = Slurm(login, cluster.params, folder=str(stub.folder), interval=0.1)
        names = {"n1": others[0], "n2": others[1]}
        with Allocation(2, scheduler=slurm, host=names.__getitem__) as nodes:
            assert Remote("echo here", nodes, cluster.params).run().ok
            assert Remote(nodes, "echo here", cluster.params).run().ok
        assert stub.calls("sbatch")[0]["stdin"].endswith("done\n")
        assert "SSH_CONNECTION" in stub.calls("sbatch")[0]["env"]
        assert stub.words("scancel")[-1] == f"--me --name={nodes.name}"
        assert repr(slurm) == f"<Slurm on {login.address}>"


def test_a_login_host_that_cannot_be_reached() -> None:
    slurm = Slurm(Host("127.0.0.1", port=1), timeout=5)
    with pytest.raises(SchedulerError, match=r"^squeue .* on 127.0.0.1: ") as caught:
        slurm.jobs()
    assert caught.value.host == "127.0.0.1"


# -- the job that one is in ------------------------------------------------------------------------


def test_the_hosts_of_this_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AllocationError, match="runs in no job"):
        hosts_of_this_job()
    monkeypatch.setenv("OAR_NODE_FILE", str(tmp_path / "nodes"))
    with pytest.raises(AllocationError, match="OAR_NODE_FILE names a file that cannot be read"):
        hosts_of_this_job()
    (tmp_path / "nodes").write_text("")
    with pytest.raises(AllocationError, match="there is no host in"):
        hosts_of_this_job()
    (tmp_path / "nodes").write_text("b.site\nb.site\na.site\n")
    assert hosts_of_this_job() == [Host("b.site"), Host("a.site")]
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[08-10],gpu1")
    assert {one.address for one in hosts_of_this_job()} == {"n08", "n09", "n10", "gpu1"}
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[08-")
    with pytest.raises(HostSetError, match="n\\[08-"):
        hosts_of_this_job()


def test_this_job_as_an_allocation(
    stub: Stub, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AllocationError, match="runs in no job"):
        Allocation.of_this_job()
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    stub.play("squeue", says(jobs=[line(left="10:00")]))
    with Allocation.of_this_job(scheduler=slurm, host=lambda name: f"{name}.local") as nodes:
        assert nodes.hosts == [Host("n1.local"), Host("n2.local")]
        assert 500 < (nodes.remaining() or 0) <= 570
    assert stub.calls("scancel") == []


def test_this_job_of_oar_needs_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nodes").write_text("a\na\nb\n")
    monkeypatch.setenv("OAR_JOB_ID", "7")
    monkeypatch.setenv("OAR_NODE_FILE", str(tmp_path / "nodes"))
    monkeypatch.setenv("OAR_JOB_WALLTIME_SECONDS", "3600")
    with Allocation.of_this_job(scheduler=Oar(folder=str(tmp_path))) as nodes:
        assert nodes.hosts == [Host("a"), Host("b")]
        assert 3000 < (nodes.remaining() or 0) < 3571


# -- OAR -------------------------------------------------------------------------------------------


def oarstat(job: dict[str, Any]) -> dict[str, Any]:
    return says(json.dumps({"36627": job}, indent=3) + "\n")


@pytest.fixture
def oar_stub(tmp_path: Path) -> Stub:
    stub = Stub(tmp_path, "oarsub oarstat oardel")
    stub.play(
        "oarsub",
        says(
            "[ADMISSION RULE] Modify resource description with type constraints\n"
            "Generate a job key...\nOAR_JOB_ID=36627\n"
        ),
    )
    stub.play("oarstat", oarstat(oar_job("Waiting")), oarstat(oar_job()))
    stub.play("oardel", says("Deleting the job = 36627 ...REGISTERED.\n"))
    return stub


def test_nodes_of_oar(oar_stub: Stub) -> None:
    oar = Oar(folder=str(oar_stub.folder), resources="cluster=1/nodes={nodes}", interval=0.1)
    with Allocation(2, 3600, scheduler=oar, options=["-q", "testing"]) as nodes:
        assert nodes.hosts == [Host("gengar-1"), Host("gengar-2")]
        assert 3000 < (nodes.remaining() or 0) < 3571
        oar_stub.play("oarstat", says("DB connection error, exiting.\n", exit=1))
        threading.Event().wait(0.2)
        assert nodes.check()
        oar_stub.play("oarstat", oarstat(oar_job()))
    assert oar_stub.calls("oarsub")[0]["words"] == [
        *("-n", nodes.name, "-l", "cluster=1/nodes=2,walltime=1:00:00"),
        *("-O", "/dev/null", "-E", "/dev/null", "-q", "testing", "sleep 3660"),
    ]
    assert oar_stub.words("oardel") == ["36627"]


def test_a_job_of_oar_that_has_ended(oar_stub: Stub) -> None:
    oar = Oar(folder=str(oar_stub.folder), interval=0.1)
    with Allocation(2, scheduler=oar) as nodes:
        oar_stub.play("oarstat", says())  # it shows those that wait or run alone
        ask_until(lambda: nodes.remaining() == 0, nodes)
        assert "is not known to the scheduler any more" in repr(nodes)
        oar_stub.play("oarstat", oarstat(oar_job("Error")))
    assert oar_stub.calls("oardel") == []


def test_a_job_of_oar_ends_with_its_script(oar_stub: Stub) -> None:
    oar_stub.play("oarstat", oarstat(oar_job()))
    text = LIVES.replace("Slurm", "Oar").replace("12", "36627")
    script = subprocess.Popen(
        [sys.executable, "-c", text, str(oar_stub.folder), "stay"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "36627\n"
    script.kill()
    script.communicate()
    nap = threading.Event()
    while not oar_stub.calls("oardel"):
        nap.wait(0.1)
    assert oar_stub.words("oardel") == ["36627"]


def test_a_refusal_of_oar(oar_stub: Stub) -> None:
    oar_stub.play("oarsub", says(err="# ADMISSION RULE> ERROR : the queue is unknown\n", exit=6))
    with pytest.raises(SubmissionRefused, match="the queue is unknown"):
        Allocation(scheduler=Oar(folder=str(oar_stub.folder))).open()
