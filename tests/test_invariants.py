"""The watch, tried on runs that break what it watches."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

import invariants
from execo import Process
from execo.testing import Cluster
from invariants import PATIENCE, Watch


def test_a_run_that_keeps_them() -> None:
    with Cluster(2) as cluster, Watch() as watch:
        processes = [
            Process(f"sleep {watch.word}", lifecycle_handlers=[watch.ends]) for _ in range(3)
        ]
        for process in processes:
            process.start().kill().wait(PATIENCE)
        watch.check(*processes)
        assert cluster.hosts


def test_one_that_has_not_ended() -> None:
    with Watch() as watch:
        process = Process(f"sleep {watch.word}", lifecycle_handlers=[watch.ends]).start()
        with pytest.raises(AssertionError, match="has not ended"):
            watch.check(process)
        process.kill().wait(PATIENCE)
        watch.check(process)


def test_one_whose_end_nobody_was_told() -> None:
    with Watch() as watch, pytest.raises(AssertionError, match="ended 0 times"):
        watch.check(Process("true").run(PATIENCE))


def test_a_process_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "PATIENCE", 0.3)
    with Watch() as watch:
        left = subprocess.Popen(["sleep", watch.word], start_new_session=True)
        with pytest.raises(AssertionError, match=f"process {left.pid} of the run"):
            watch.check_nothing_left()
    assert left.wait(PATIENCE) == -9


def test_a_file_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with Watch() as watch:
        with tempfile.NamedTemporaryFile(prefix="execo-") as file:
            assert not invariants.wait_until(
                lambda: Path(file.name) not in invariants.temporary_files(), 0.2
            )
        watch.check_nothing_left()


def test_a_thread_that_spins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another name, since the real one does not."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    thread = threading.Thread(target=spin, name="execo-io")
    monkeypatch.setattr(threading, "enumerate", lambda: [thread])
    thread.start()
    try:
        before = invariants.io_thread_cpu()
        assert invariants.wait_until(lambda: invariants.io_thread_cpu() > before + 0.1)
    finally:
        stop.set()
        thread.join()
