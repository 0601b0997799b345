"""ParamSweeper, used by several threads and processes at once, some of which are killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from execo.engine import HashableDict, ParamSweeper, sweep
from execo.engine import holder as holder_module
from sweeping import PATIENCE, ROOT, SWEEP, Elsewhere, fork, lines, run

pytest_plugins = ["sweeping"]
pytestmark = pytest.mark.usefixtures("sweepers_end")


def test_threads_share_one(sweeper: ParamSweeper) -> None:
    combinations = sweep({"n": range(400)})
    sweeper.set_sweeps(combinations)
    taken: list[HashableDict] = []

    def work() -> None:
        while one := sweeper.get_next():
            taken.append(one)
            sweeper.done(one)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(one["n"] for one in taken) == list(range(400))
    assert len(sweeper.get_done()) == 400


def test_two_of_one_process_exclude_each_other(folder: Path, sweeper: ParamSweeper) -> None:
    other = ParamSweeper(folder, SWEEP)
    assert [sweeper.get_next(), other.get_next(), sweeper.get_next()] == SWEEP[:3]
    sweeper.cancel(SWEEP[0])
    assert SWEEP[0] in other.get_remaining()
    other.close()  # gives back the file, and not the lock of the other one
    assert sweeper.get_next() == SWEEP[0]


def test_processes_share_a_folder(folder: Path) -> None:
    source = """
        sweeper = ParamSweeper(folder, sweep({"n": range(300)}))
        while one := sweeper.get_next():
            print(one["n"])
            sweeper.done(one)
    """
    outputs: list[str] = []
    threads = [
        threading.Thread(target=lambda: outputs.append(run(source, folder))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(map(int, "".join(outputs).split())) == list(range(300))


def test_a_forked_child_is_somebody_else(folder: Path, sweeper: ParamSweeper) -> None:
    assert sweeper.get_next() == SWEEP[0]

    def child() -> None:
        assert sweeper.get_next() == SWEEP[1]
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    assert sweeper.get_inprogress() == {SWEEP[0], SWEEP[1]}
    sweeper.update()
    assert sweeper.get_inprogress() == {SWEEP[0]}, "what the dead child held is free, ours is not"


# -- those that are gone ----------------------------------------------------------------------


def test_what_the_killed_held_is_handed_out_again(folder: Path, sweeper: ParamSweeper) -> None:
    source = """
        sweeper = ParamSweeper(folder, SWEEP)
        sweeper.done(sweeper.get_next())
        sweeper.get_next()
        print("ready", flush=True)
        time.sleep(100)
    """
    run(source, folder, kill_at="ready")
    assert sweeper.get_done() == {SWEEP[0]}
    assert list(sweeper.holders()) == [SWEEP[1]]
    assert sweeper.get_next_batch(4) == SWEEP[1:]
    assert "taken back: process" in sweeper.explain(SWEEP[1])


def test_a_living_one_keeps_what_it_holds(folder: Path, sweeper: ParamSweeper) -> None:
    assert sweeper.get_next() == SWEEP[0]
    source = """
        sweeper = ParamSweeper(folder, SWEEP)
        print(len(sweeper.get_next_batch(9)), len(sweeper.get_inprogress()))
    """
    assert run(source, folder).split() == ["3", "4"]


def test_another_machine_keeps_it_as_long_as_it_gives_signs_of_life(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Elsewhere(monkeypatch):
        far = ParamSweeper(folder, SWEEP, lease=0.4)
        assert far.get_next() == SWEEP[0]
    near = ParamSweeper(folder, SWEEP, lease=3.0)
    nap = threading.Event()
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:  # its thread says so more often than that
        assert near.get_next_batch(9) == [] or near.get_inprogress() == set(SWEEP)
        nap.wait(0.2)
    assert any(line["do"] == "beat" for line in lines(folder))
    far.close()
    deadline = time.monotonic() + PATIENCE
    while (taken := near.get_next()) is None and time.monotonic() < deadline:
        nap.wait(0.1)
    assert taken == SWEEP[0]
    assert "no sign of life for" in near.explain(SWEEP[0])
    near.close()


def test_without_a_lease_nothing_is_taken_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither from who gives no signs of life, nor by who does not wait for any."""
    with Elsewhere(monkeypatch):
        silent = ParamSweeper(folder, SWEEP, lease=None)
        assert silent.get_next() == SWEEP[0]
        silent.close()
        far = ParamSweeper(folder, SWEEP, lease=0.01)
        assert far.get_next() == SWEEP[1]
        far.close()
    assert not [line for line in lines(folder) if line["do"] in ("beat", "free")]
    patient = ParamSweeper(folder, SWEEP, lease=None)
    threading.Event().wait(0.1)
    assert patient.get_next_batch(9) == SWEEP[2:]
    near = ParamSweeper(folder, SWEEP, lease=0.01)
    threading.Event().wait(0.1)
    assert near.get_next_batch(9) == SWEEP[1:2]
    near.close()
    patient.close()


def test_who_promises_signs_of_life_more_rarely_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Elsewhere(monkeypatch):
        far = ParamSweeper(folder, SWEEP, lease=600)
        assert far.get_next() == SWEEP[0]
    near = ParamSweeper(folder, SWEEP, lease=0.01)
    threading.Event().wait(0.1)
    assert near.get_next_batch(9) == SWEEP[1:]
    far.close()
    near.close()


def test_silence_of_before_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of the file system. A script that ends within the lease would never see it
    expire, and neither would the next one."""
    with Elsewhere(monkeypatch):
        far = ParamSweeper(folder, SWEEP[:1], lease=60)
        assert far.get_next() == SWEEP[0]
        far.close()
    near = ParamSweeper(folder, SWEEP[:1], lease=60)
    assert near.get_next() is None, "it may live"
    near.close()
    an_hour_ago = time.time() - 3600
    os.utime(folder / "journal.jsonl", (an_hour_ago, an_hour_ago))
    near = ParamSweeper(folder, SWEEP[:1], lease=60)
    assert near.get_next() == SWEEP[0]
    assert "no sign of life for " in near.explain(SWEEP[0])
    near.close()


def test_done_too_late_counts_once_and_is_marked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Elsewhere(monkeypatch):
        far = ParamSweeper(folder, SWEEP[:1], lease=0.04)
        far._shared._beat_once = lambda: False  # type: ignore[method-assign] # a long call into C
        assert far.get_next() == SWEEP[0]
    near = ParamSweeper(folder, SWEEP[:1], lease=0.01)
    deadline = time.monotonic() + PATIENCE
    while near.get_next() is None:
        assert time.monotonic() < deadline
    far.done(SWEEP[0], result=1)
    near.done(SWEEP[0], result=2)
    entry = near.entry(SWEEP[0])
    assert (entry.result, entry.late) == (1, True)
    assert "done (late)" in near.explain(SWEEP[0])
    assert "done (again)" in near.explain(SWEEP[0])
    assert str(near) == "sweep <1 total, 1 done, 0 skipped, 0 in progress, 0 remaining>"
    far.close()
    near.close()


def test_what_was_taken_back_is_not_ours_to_cancel(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweeper = ParamSweeper(folder, SWEEP[:1])
    other = ParamSweeper(folder, SWEEP[:1])
    assert sweeper.get_next() == SWEEP[0]
    other.reset(reset_inprogress=True)
    assert other.get_next() == SWEEP[0]
    sweeper.cancel(SWEEP[0])
    sweeper.skip(SWEEP[0])
    sweeper.failed(SWEEP[0], "x")
    assert other.get_inprogress() == {SWEEP[0]}
    assert "is held by process" in caplog.text
    sweeper.done(SWEEP[0])
    assert other.entry(SWEEP[0]).late
    sweeper.close()
    other.close()


def test_a_process_that_its_user_hides_is_not_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc may be mounted with hidepid: there is nothing to be seen of those of other users."""
    script = ParamSweeper(folder, SWEEP[:1], lease=600)
    assert script.get_next() == SWEEP[0]
    monkeypatch.setattr(holder_module, "_start_of", lambda pid: None)
    other = ParamSweeper(folder, SWEEP[:1], lease=600)
    assert other.get_next() is None
    monkeypatch.setattr(holder_module, "_exists", lambda pid: False)
    assert other.get_next() == SWEEP[0]
    script.close()
    other.close()


def test_a_filter_is_offered_what_the_dead_held(folder: Path, sweeper: ParamSweeper) -> None:
    def child() -> None:
        other = ParamSweeper(folder, SWEEP)
        assert other.get_next(lambda left: [SWEEP[3]]) == SWEEP[3]

    assert sweeper.get_next() == SWEEP[0]  # it has just looked for who is gone
    assert fork(child) == 0
    assert sweeper.get_next(lambda left: [c for c in left if c == SWEEP[3]]) == SWEEP[3]


def test_ten_thousand_short_scripts_were_there(folder: Path, sweeper: ParamSweeper) -> None:
    me = sweeper.get_next()
    who = next(line for line in lines(folder) if line["do"] == "open")
    written = []
    for number in range(1, 10_001):
        take = {"do": "take", "at": 1.0, "by": number, "n": 1, "c": dict(SWEEP[1])}
        cancel = {"do": "cancel", "at": 1.0, "by": number, "n": 1}
        written += [{**who, "by": number, "pid": 2**22 + number}, take, cancel]
    text = "".join(json.dumps(one) + "\n" for one in written).encode()
    # In one go: nobody holds the lock here, and half a line is one that was torn.
    with (folder / "journal.jsonl").open("ab", buffering=0) as file:
        assert file.write(text) == len(text)
    assert sweeper.get_next() == SWEEP[1]
    assert sweeper.entry(SWEEP[1]).attempts == 10_001
    assert list(sweeper._shared.ledger.held) == [0], "nobody looks at those who hold nothing"
    assert sweeper.holders().keys() == {me, SWEEP[1]}


# -- parents and children -----------------------------------------------------------------------


POOL = """
import multiprocessing, sys
from execo.engine import ParamSweeper, sweep

def work_on(folder):
    sweeper = ParamSweeper(folder)
    found = []
    while one := sweeper.get_next():
        found.append(one["n"])
        sweeper.done(one)
    return found

if __name__ == "__main__":
    method, folder = sys.argv[1:]
    sweeper = ParamSweeper(folder, sweep({"n": range(60)}), save_sweeps=True)
    with multiprocessing.get_context(method).Pool(3) as pool:
        found = pool.map(work_on, [folder] * 3)
    assert sorted(n for numbers in found for n in numbers) == list(range(60))
    print(sweeper)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_workers(folder: Path, tmp_path: Path, method: str) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    done = subprocess.run(
        [sys.executable, str(script), method, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "sweep <60 total, 60 done, 0 skipped, 0 in progress, 0 remaining>\n"


def test_a_child_says_what_became_of_what_its_parent_holds(sweeper: ParamSweeper) -> None:
    """It was not taken back from anybody: it counts, and it is not late."""
    done, cancelled, skipped, failed = sweeper.get_next_batch(4)

    def child() -> None:
        sweeper.done(done)
        sweeper.cancel(cancelled)
        sweeper.skip(skipped)
        sweeper.failed(failed, "by a child")

    assert fork(child) == 0
    assert sweeper.stats()[1:] == ({cancelled}, {skipped, failed}, set(), {done})
    assert not sweeper.entry(done).late
    assert sweeper.entry(failed).reason == "by a child"


def test_a_child_of_a_script_that_is_killed_in_the_middle_keeps_nobody_out(
    folder: Path, sweeper: ParamSweeper
) -> None:
    """It has a copy of the open file that its parent has locked."""
    source = """
        sweeper = ParamSweeper(folder, SWEEP)
        def child(left):
            if os.fork() == 0:
                os.close(1)
                os.read(int(sys.argv[2]), 1)
                os._exit(0)
            print("ready", flush=True)
            time.sleep(100)
        sweeper.get_next(child)
    """
    reading, writing = os.pipe()  # the child ends with it, not with the script
    try:
        run(source, folder, reading, kill_at="ready", pass_fds=(reading,))
        asking = threading.Thread(target=sweeper.get_next, daemon=True)
        asking.start()
        asking.join(PATIENCE)
        assert not asking.is_alive()
        assert sweeper.get_inprogress() == {SWEEP[0]}
    finally:
        os.close(writing)
        os.close(reading)


def test_forked_while_another_thread_is_at_work(folder: Path) -> None:
    """What the child has of that thread is half done, and locked for ever."""
    sweeper = ParamSweeper(folder, sweep({"n": range(10_000)}), lease=None)
    stop = threading.Event()

    def one_more() -> None:
        if one := sweeper.get_next():
            sweeper.done(one)

    def work() -> None:
        while not stop.is_set():
            one_more()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            assert fork(one_more) == 0
    finally:
        stop.set()
        thread.join(PATIENCE)
    fresh = ParamSweeper(folder, sweep({"n": range(10_000)}))
    assert fresh.stats() == sweeper.stats()
    assert fresh.get_inprogress() == set()
    done = [line["n"] for line in lines(folder) if line["do"] == "done"]
    assert len(done) == len(set(done)) == len(fresh.get_done())
    fresh.close()
    sweeper.close()
