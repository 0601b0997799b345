"""ParamSweeper: hands out each combination once, to any number of processes, and loses nothing."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo.engine import HashableDict, ParamSweeper, sweep
from execo.engine import holder as holder_module
from execo.engine.journal import Journal, JournalError, refuse_mount

ROOT = Path(__file__).resolve().parent.parent
SWEEP = sweep({"a": [1, 2], "b": ["x", "y"]})
PATIENCE = 60


@pytest.fixture(autouse=True)
def sweepers_end() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name in ("execo-journal", "execo-sweeper"):
            thread.join(PATIENCE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


@pytest.fixture
def sweeper(folder: Path) -> Iterator[ParamSweeper]:
    made = ParamSweeper(folder, SWEEP, lease=0.4)
    yield made
    made.close()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def run(source: str, *arguments: object, kill_at: str | None = None) -> str:
    """A script's stdout; killed by SIGKILL as soon as it prints ``kill_at``."""
    script = subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(source), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert script.stdout is not None
    with script:
        if kill_at is not None:
            assert script.stdout.readline().strip() == kill_at
            script.kill()
        output = script.communicate(timeout=PATIENCE)[0]
    assert script.returncode == (0 if kill_at is None else -signal.SIGKILL)
    return output


HEAD = """
import os, signal, sys, threading, time
from execo.engine import ParamSweeper, sweep
SWEEP = sweep({"a": [1, 2], "b": ["x", "y"]})
folder = sys.argv[1]
"""


# -- handing out ------------------------------------------------------------------------------


def test_each_is_handed_out_once_in_order(sweeper: ParamSweeper) -> None:
    taken = [sweeper.get_next() for _ in SWEEP]
    assert taken == SWEEP
    assert sweeper.get_next() is None
    assert all(isinstance(one, HashableDict) for one in taken)


def test_what_is_done_stays_done(folder: Path, sweeper: ParamSweeper) -> None:
    first, second = sweeper.get_next_batch(2)
    sweeper.done(first)
    sweeper.done(dict(second))
    for again in (sweeper, ParamSweeper(folder, SWEEP)):
        assert again.get_done() == {first, second}
        assert again.get_remaining() == set(SWEEP[2:])
        assert str(again) == "sweep <4 total, 2 done, 0 skipped, 0 in progress, 2 remaining>"
        again.close()


def test_a_filter_orders_and_leaves_out(sweeper: ParamSweeper) -> None:
    last_first = sweeper.get_next(lambda left: sorted(left, key=lambda c: (-c["a"], c["b"])))
    assert last_first == {"a": 2, "b": "x"}
    assert sweeper.get_next(lambda left: [c for c in left if c["b"] == "z"]) is None
    # A set, or what is no longer there, or twice the same: nobody gets one twice.
    batch = sweeper.get_next_batch(9, lambda left: [*SWEEP, *SWEEP, *(left - set())])
    assert batch == [SWEEP[0], SWEEP[1], SWEEP[3]]
    with pytest.raises(ValueError, match="no combination"):
        sweeper.get_next(lambda left: [{"a": 9}])


def test_a_batch_gives_what_there_is(sweeper: ParamSweeper) -> None:
    assert sweeper.get_next_batch(3) == SWEEP[:3]
    assert sweeper.get_next_batch(3) == SWEEP[3:]
    assert sweeper.get_next_batch(3) == []
    assert sweeper.get_next_batch(0) == []
    sweeper.done_batch(SWEEP[:2])
    sweeper.skip_batch(SWEEP[2:3])
    sweeper.cancel_batch(SWEEP[3:])
    assert sweeper.stats() == (set(SWEEP), {SWEEP[3]}, {SWEEP[2]}, set(), set(SWEEP[:2]))
    assert sweeper.stats().done == sweeper.get_done()


def test_cancelled_ones_come_again_skipped_ones_not_until_reset(sweeper: ParamSweeper) -> None:
    first = sweeper.get_next()
    assert first is not None
    sweeper.cancel(first)
    assert sweeper.get_next() == first
    sweeper.skip(first)
    sweeper.skip(SWEEP[1])  # nobody had it
    assert sweeper.get_skipped() == {first, SWEEP[1]}
    assert sweeper.get_next() == SWEEP[2]
    sweeper.reset()
    assert sweeper.get_inprogress() == {SWEEP[2]}
    assert sweeper.get_next() == first
    sweeper.reset(reset_inprogress=True)
    assert sweeper.get_remaining() == set(SWEEP)


def test_who_comes_later_gets_what_was_skipped(folder: Path, sweeper: ParamSweeper) -> None:
    """As with execo 2: a script that skips what fails is run once more, and tries it again."""
    beside = ParamSweeper(folder, SWEEP)
    sweeper.skip(SWEEP[0])
    assert beside.get_skipped() == {SWEEP[0]}
    later = ParamSweeper(folder, SWEEP)
    assert later.get_skipped() == set()
    assert later.get_next() == SWEEP[0]
    assert beside.get_inprogress() == {SWEEP[0]}
    beside.close()
    later.close()


def test_failures_come_again_after_the_others_so_often(folder: Path) -> None:
    sweeper = ParamSweeper(folder, SWEEP[:2], retries=2)
    order = []
    while one := sweeper.get_next():
        order.append(SWEEP.index(one))
        if one == SWEEP[0]:
            sweeper.failed(one, "out of paper")
        else:
            sweeper.done(one)
    assert order == [0, 1, 0, 0]
    assert sweeper.get_failed() == sweeper.get_skipped() == {SWEEP[0]}
    entry = sweeper.entry(SWEEP[0])
    assert (entry.attempts, entry.failures, entry.reason) == (3, 3, "out of paper")
    later = ParamSweeper(folder, SWEEP[:2])
    assert later.get_failed() == {SWEEP[0]}, "it stays failed in the next script"
    later.reset()
    assert later.get_next() == SWEEP[0]
    later.failed(SWEEP[0], retry=True)
    assert later.get_next() == SWEEP[0]
    later.close()
    sweeper.close()


def test_results_are_kept(folder: Path, sweeper: ParamSweeper) -> None:
    sweeper.done(SWEEP[1], result={"speed": 1.5, "lines": ["a", None]})
    sweeper.done(SWEEP[0])
    wanted = {SWEEP[0]: None, SWEEP[1]: {"speed": 1.5, "lines": ["a", None]}}
    assert sweeper.results == wanted
    again = ParamSweeper(folder, SWEEP)
    assert list(again.results.items()) == list(wanted.items())
    again.close()
    with pytest.raises(TypeError, match="a result is what JSON has"):
        sweeper.done(SWEEP[2], result={"x": object()})
    assert SWEEP[2] in sweeper.get_remaining()


def test_what_is_not_in_the_sweep(sweeper: ParamSweeper) -> None:
    for method in (sweeper.done, sweeper.skip, sweeper.cancel, sweeper.failed, sweeper.explain):
        with pytest.raises(ValueError, match=r"sweep has no combination \{'a': 3\}"):
            method({"a": 3})
    with pytest.raises(TypeError, match=r"factor 'a': .* is a list"):
        ParamSweeper(sweeper.folder, [{"a": [1]}])


def test_more_levels_later(folder: Path, sweeper: ParamSweeper) -> None:
    sweeper.done_batch(SWEEP[:2])
    more = sweep({"a": [0, 1, 2], "b": ["x", "y"]})
    sweeper.set_sweeps(more)
    assert sweeper.get_done() == set(SWEEP[:2])
    assert sweeper.get_next() == {"a": 0, "b": "x"}
    sweeper.set_sweeps([SWEEP[0], SWEEP[0]])
    assert str(sweeper) == "sweep <1 total, 1 done, 0 skipped, 0 in progress, 0 remaining>"
    sweeper.set_sweeps(SWEEP)
    assert sweeper.get_done() == set(SWEEP[:2]), "what left the sweep for a while is not forgotten"


def test_saved_sweeps(folder: Path) -> None:
    with pytest.raises(EOFError, match="no combinations were given, and none were saved"):
        ParamSweeper(folder)
    values = [HashableDict({"a": (1, (None, 2.5)), "b": {"c": True}})]
    ParamSweeper(folder, values, save_sweeps=True).close()
    for nothing in (None, ()):
        again = ParamSweeper(folder, nothing)
        assert again.get_sweeps() == set(values)
        again.close()


# -- several at once --------------------------------------------------------------------------


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


class Elsewhere:
    """Another machine, as far as this process can tell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def __enter__(self) -> None:
        holder_module._holder.cache_clear()
        self._patch.setattr(holder_module, "_boot", lambda: "another one")

    def __exit__(self, *exc_info: object) -> None:
        self._patch.undo()
        holder_module._holder.cache_clear()


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
    with Elsewhere(monkeypatch):
        far = ParamSweeper(folder, SWEEP, lease=None)
        assert far.get_next() == SWEEP[0]
        far.close()
    near = ParamSweeper(folder, SWEEP, lease=None)
    assert near.get_next_batch(9) == SWEEP[1:]
    near.close()
    assert not [line for line in lines(folder) if line["do"] in ("beat", "free")]


def test_done_too_late_counts_once_and_is_marked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Elsewhere(monkeypatch):
        far = ParamSweeper(folder, SWEEP[:1], lease=None)
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
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
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
    sweeper.close()
    other.close()


# -- the file ---------------------------------------------------------------------------------


def test_a_torn_line_counts_as_not_written(folder: Path, sweeper: ParamSweeper) -> None:
    sweeper.done(SWEEP[0])
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"do":"done","at":1,"by":0,"n":')
    assert sweeper.get_done() == {SWEEP[0]}
    sweeper.done(SWEEP[1])
    again = ParamSweeper(folder, SWEEP)
    assert again.get_done() == sweeper.get_done() == set(SWEEP[:2])
    assert again.get_next() == SWEEP[2]
    assert again._journal.faults == []
    again.close()


def test_a_corrupt_line_is_named_and_the_rest_is_used(
    folder: Path, sweeper: ParamSweeper, caplog: pytest.LogCaptureFixture
) -> None:
    sweeper.done_batch(SWEEP[:3])
    path = folder / "journal.jsonl"
    text = path.read_text().splitlines(keepends=True)
    text[2] = "\x00\x00 rubbish\n"
    text.insert(3, '{"do":"jump","at":1,"by":0}\n')
    text.insert(4, "[1,2]\n")
    path.write_text("".join(text))
    before = path.read_bytes()
    caplog.set_level(logging.WARNING)
    again = ParamSweeper(folder, SWEEP)
    assert f"{path}, line 3: not a line of a journal" in caplog.text
    assert "'jump'" in caplog.text
    assert again.get_done() >= {SWEEP[0]}
    assert path.read_bytes() == before
    again.close()


def test_cut_at_any_byte(folder: Path, sweeper: ParamSweeper, tmp_path: Path) -> None:
    """What a copy made in the middle, or a lost tail, leaves: what stands there counts."""
    for one in sweeper.get_next_batch(3):
        sweeper.done(one, result={"x": 1})
    whole = (folder / "journal.jsonl").read_bytes()
    for cut in range(len(whole) + 1):
        copy = tmp_path / f"copy{cut}"
        copy.mkdir()
        (copy / "journal.jsonl").write_bytes(whole[:cut])
        with_rest = ParamSweeper(copy, SWEEP)
        done = whole[:cut].count(b'"done"') - (b'"done"' in whole[:cut].rpartition(b"\n")[2])
        assert len(with_rest.get_done()) == done
        left = with_rest.get_next_batch(9)
        with_rest.done_batch(left)
        assert with_rest._journal.faults == []
        with_rest.close()
        again = ParamSweeper(copy, SWEEP)
        assert len(again.get_done()) >= done + len(left)
        again.close()


def test_a_full_disk_is_said_and_nothing_counts(sweeper: ParamSweeper) -> None:
    one = sweeper.get_next()
    assert one is not None
    size = (sweeper.folder / "journal.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
        with pytest.raises(OSError, match=r"journal\.jsonl|too large"):
            sweeper.done(one)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert sweeper.get_done() == set()
    sweeper.done(one)
    again = ParamSweeper(sweeper.folder, SWEEP)
    assert again.get_done() == {one}
    again.close()


def test_closed_or_removed(folder: Path, sweeper: ParamSweeper) -> None:
    (folder / "journal.jsonl").unlink()
    with pytest.raises(JournalError, match=r"removed while in use.*journal\.jsonl"):
        sweeper.get_next()
    sweeper.close()
    with pytest.raises(JournalError, match="has been closed"):
        sweeper.get_next()


def test_what_is_done_is_on_the_disk_within_a_second(
    sweeper: ParamSweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[float] = []
    ready = threading.Event()

    def fsync(number: int) -> None:
        synced.append(time.monotonic())
        ready.set()

    monkeypatch.setattr(os, "fsync", fsync)
    began = time.monotonic()
    for one in sweeper.get_next_batch(4):
        sweeper.done(one)
    assert ready.wait(PATIENCE)
    assert len(synced) == 1, "at most once a second"
    assert synced[0] - began < PATIENCE


@pytest.mark.parametrize(
    ("kind", "options", "refused"),
    [
        ("nfs4", "rw,nolock", "nolock"),
        ("nfs", "rw,local_lock=all,vers=3", "local_lock=all"),
        ("nfs", "rw,local_lock=posix", "local_lock=posix"),
        ("nfs4", "rw,local_lock=none", ""),
        ("nfs", "rw,local_lock=flock", ""),
        ("fuse.sshfs", "rw", "kind fuse.sshfs"),
        ("ext4", "rw,nolock", ""),
    ],
)
def test_mounts_whose_locks_would_not_hold(
    tmp_path: Path, kind: str, options: str, refused: str
) -> None:
    real = os.path.realpath(tmp_path)
    place = real.replace(" ", "\\040")
    mounts = (
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        f"40 22 0:40 / {place} rw shared:3 - {kind} server:/x {options}\n"
        "41 22 0:41 / /elsewhere rw - nfs server:/y nolock\n"
    )
    inside = tmp_path / "deep" / "down"
    if refused:
        with pytest.raises(JournalError, match=f"{refused}: locks would not hold"):
            refuse_mount(inside, mounts)
    else:
        refuse_mount(inside, mounts)


# -- folders of execo 2 -----------------------------------------------------------------------


class Old:
    """Writes pickles as execo 2.8.2 does: the class by its name there."""

    @staticmethod
    def dump(value: Any) -> bytes:
        data = pickle.dumps(value, protocol=3)
        return data.replace(b"execo.engine.combination", b"execo_engine.sweep")


def test_a_folder_of_execo_2_is_taken_over(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.mkdir()
    (folder / "done").write_bytes(b"".join(map(Old.dump, SWEEP[:2])))
    (folder / "inprogress").write_bytes(Old.dump(set(SWEEP[2:3])))
    (folder / "sweeps").write_bytes(Old.dump(set(SWEEP)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    sweeper = ParamSweeper(folder)
    assert sweeper.get_done() == set(SWEEP[:2])
    assert sweeper.get_sweeps() == set(SWEEP)
    assert len(sweeper.get_next_batch(9)) == 2
    sweeper.close()
    again = ParamSweeper(folder, SWEEP)
    assert again.get_done() == set(SWEEP[:2])
    again.close()
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_damaged_one_is_taken_over_as_far_as_it_goes(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    data = b"".join(map(Old.dump, SWEEP[:2]))
    (folder / "done").write_bytes(data[:-5])
    sweeper = ParamSweeper(folder, SWEEP)
    assert sweeper.get_done() == {SWEEP[0]}
    assert f"{folder / 'done'}: " in caplog.text
    assert "is done again" in caplog.text
    assert (folder / "done").read_bytes() == data[:-5]
    sweeper.close()


def test_a_pickle_of_something_else_is_not_run(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "was here"),)

    folder.mkdir()
    (folder / "done").write_bytes(pickle.dumps(Evil()))
    sweeper = ParamSweeper(folder, SWEEP)
    assert sweeper.get_done() == set()
    assert not (tmp_path / "was here").exists()
    sweeper.close()


def test_a_journal_alone(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as one, Journal(tmp_path / "j") as other:
        with one.locked():
            one.append({"x": 1}, {"x": 2})
            assert one.read() == []
        with other.locked():
            assert other.read() == [{"x": 1}, {"x": 2}]
            other.append({"y": 1})
        with one.locked():
            assert one.read() == [{"y": 1}]
