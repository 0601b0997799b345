"""Experiments whose hosts are theirs for some time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Remote
from execo.engine import Experiment, NotEnoughHosts, ParamSweeper, Trial, experiment
from execo.schedulers import Allocation, AllocationError, Slurm
from execo.testing import Cluster
from scheduler_stub import Stub, line, says


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as made:
        yield made


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("execo.schedulers.calls.SPACING", 0.01)


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    (tmp_path / "slurm").mkdir()
    made = Stub(tmp_path / "slurm")
    made.play("sbatch", says("12\n"))
    made.play("squeue", says(jobs=[line()]))
    return made


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "execo")
    return caplog


def nodes(stub: Stub, cluster: Cluster, **more: Any) -> Allocation:
    """Two, which the hosts of the cluster stand for."""
    slurm = Slurm(folder=str(stub.folder), interval=0.2)
    stand_for = dict(zip(("n1", "n2"), cluster.hosts, strict=True))
    return Allocation(2, scheduler=slurm, host=stand_for.__getitem__, **more)


def made(cluster: Cluster, **more: Any) -> Experiment:
    @experiment(
        **{"factors": {"n": [1, 2, 3, 4]}, "lease": None, **more},
        connection_params=cluster.params,
        parse=lambda trial: int(trial.stdout),
    )
    def count(trial: Trial) -> str:
        return f"echo {trial['n']}"

    return count


def states() -> dict[str, int]:
    sweeper = ParamSweeper("r/sweep", lease=None)
    try:
        found = sweeper.stats()
        return {name: len(getattr(found, name)) for name in ("done", "skipped", "remaining")}
    finally:
        sweeper.close()


# -- an allocation is what takes hosts -------------------------------------------------------------


def test_one_is_opened_and_released(stub: Stub, cluster: Cluster) -> None:
    one = made(cluster)
    assert list(one.main(["-c", "r"], hosts=nodes(stub, cluster)).values()) == [1, 2, 3, 4]
    assert len(stub.calls("sbatch")) == 1
    assert stub.words("scancel")[-1].startswith("--me --name=execo-")


def test_one_that_is_open_stays_so(stub: Stub, cluster: Cluster) -> None:
    with nodes(stub, cluster) as allocation:
        made(cluster).main(["-c", "r"], hosts=allocation)
        assert allocation.is_open
        assert Remote("true", allocation, cluster.params).run().ok


def test_nobody_asks_for_nodes_that_nothing_needs(stub: Stub, cluster: Cluster) -> None:
    made(cluster).main(["-c", "r"], hosts=cluster.hosts)
    results = made(cluster).main(["-c", "r"], hosts=nodes(stub, cluster))
    assert list(results.values()) == [1, 2, 3, 4]
    assert stub.calls("sbatch") == []


def test_a_plan_asks_for_none(
    stub: Stub, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    made(cluster).main(["-c", "r", "--dry-run"], hosts=nodes(stub, cluster))
    shown = capsys.readouterr().out
    assert "hosts: none yet\n" in shown
    assert "host1: cd execo-count-" in shown
    assert stub.calls("sbatch") == []


def test_hosts_of_the_command_line_come_first(stub: Stub, cluster: Cluster) -> None:
    given = f"--hosts={cluster.hosts[0].address}"
    one = made(cluster, hosts=0)
    one.main(["-c", "r", given], hosts=nodes(stub, cluster))
    assert stub.calls("sbatch") == []


def test_too_few_nodes_are_told_before_one_waits_for_them(stub: Stub, cluster: Cluster) -> None:
    with pytest.raises(NotEnoughHosts, match="needs 3 hosts, and there are 2"):
        made(cluster, hosts=3).main(["-c", "r"], hosts=nodes(stub, cluster))
    assert stub.calls("sbatch") == []


def test_an_allocation_without_nodes_says_so(stub: Stub, cluster: Cluster) -> None:
    with pytest.raises(AllocationError, match="use it in a with block"):
        Remote("true", nodes(stub, cluster))


# -- the end of the time ---------------------------------------------------------------------------


def test_what_takes_too_long_is_not_begun(
    stub: Stub, cluster: Cluster, told: pytest.LogCaptureFixture
) -> None:
    stub.play("squeue", says(jobs=[line(left="20:00")]))
    one = made(cluster, duration=lambda combination: "0:09:00" if combination["n"] % 2 else 9999)
    assert list(one.main(["-c", "r"], hosts=nodes(stub, cluster)).values()) == [1, 3]
    assert states() == {"done": 2, "skipped": 0, "remaining": 2}
    assert "left, all that remain take longer: nothing more is begun" in told.text


def test_as_long_as_the_longest_so_far(cluster: Cluster, told: pytest.LogCaptureFixture) -> None:
    begin: list[float] = []

    def measure(trial: Trial) -> int:
        begin.append(time.monotonic())
        threading.Event().wait(0.8)
        return 1

    one = made(cluster, factors={"n": list(range(99))})
    one.measure = measure  # type: ignore[method-assign]
    results = one.main(
        ["-c", "r"],
        hosts=cluster.hosts[:1],
        remaining=lambda: begin[0] + 4 - time.monotonic() if begin else 4,
    )
    assert 1 <= len(results) <= 5
    assert states()["skipped"] == 0
    assert "the longest took" in told.text


def test_what_runs_at_the_end_is_cancelled_and_stays_to_be_done(
    stub: Stub, cluster: Cluster, told: pytest.LogCaptureFixture
) -> None:
    def begun() -> list[Path]:
        return [path for host in cluster.hosts for path in cluster.home(host).glob("*/begun")]

    def end_comes() -> None:
        while len(begun()) < 2:
            threading.Event().wait(0.05)
        stub.play("squeue", says(jobs=[line(left="0:31")]))

    one = made(cluster)
    one.run = "touch begun; sleep 1000"
    thread = threading.Thread(target=end_comes)
    thread.start()
    # Such a lease makes it look each second.
    assert one.main(["-c", "r"], hosts=nodes(stub, cluster, lease=5)) == {}
    thread.join()
    assert "the time is over: 2 that run are cancelled" in told.text
    assert states() == {"done": 0, "skipped": 0, "remaining": 4}
    assert [path.name for host in cluster.hosts for path in cluster.home(host).iterdir()] == []
    stub.play("squeue", says(jobs=[line()]))
    assert len(made(cluster).main(["-c", "r"], hosts=nodes(stub, cluster))) == 4


def test_a_failure_on_lost_nodes_is_none(
    stub: Stub, cluster: Cluster, told: pytest.LogCaptureFixture
) -> None:
    def measure(trial: Trial) -> None:
        # The nodes are somebody else's, and all that ran there was killed.
        stub.play("squeue", says(jobs=[line("PREEMPTED")]))
        threading.Event().wait(0.7)
        raise RuntimeError("killed")

    one = made(cluster, retries=0)
    one.measure = measure  # type: ignore[method-assign]
    assert one.main(["-c", "r"], hosts=nodes(stub, cluster)) == {}
    assert states() == {"done": 0, "skipped": 0, "remaining": 4}
    assert "job 12 has ended: PREEMPTED" in told.text


def test_a_failure_is_one_where_the_nodes_are_still_ours(stub: Stub, cluster: Cluster) -> None:
    one = made(cluster, retries=0)
    one.run = "false"
    assert one.main(["-c", "r"], hosts=nodes(stub, cluster)) == {}
    assert states() == {"done": 0, "skipped": 4, "remaining": 0}


@pytest.mark.parametrize("wrong", ["soon", [1]])
def test_a_duration_that_is_none(wrong: Any, stub: Stub, cluster: Cluster) -> None:
    with pytest.raises((ValueError, TypeError)):
        made(cluster, duration=wrong).main(["-c", "r"], hosts=nodes(stub, cluster))
    assert stub.calls("sbatch") == []
