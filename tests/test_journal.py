"""The journal of a sweep: what is damaged, torn, cut, full, removed, or cannot be written."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from execo.engine import ParamSweeper
from execo.engine import journal as journal_module
from execo.engine.journal import TORN, Journal, JournalError
from execo.engine.mounts import why_lockless
from sweeping import PATIENCE, SWEEP, fork, lines

pytest_plugins = ["sweeping"]
pytestmark = pytest.mark.usefixtures("sweepers_end")


def test_a_torn_line_counts_as_not_written(
    folder: Path, sweeper: ParamSweeper, caplog: pytest.LogCaptureFixture
) -> None:
    sweeper.done(SWEEP[0])
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"do":"done","at":1,"by":0,"n":')
    assert sweeper.get_done() == {SWEEP[0]}
    sweeper.done(SWEEP[1])
    again = ParamSweeper(folder, SWEEP)
    assert again.get_done() == sweeper.get_done() == set(SWEEP[:2])
    assert again.get_next() == SWEEP[2]
    again.close()
    assert caplog.text == ""


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


def test_cut_at_any_byte(
    folder: Path, sweeper: ParamSweeper, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
        with_rest_stats = with_rest.stats()
        with_rest.close()
        again = ParamSweeper(copy, SWEEP)
        assert again.stats() == with_rest_stats
        assert len(again.get_done()) == done + len(left)
        again.close()
    assert caplog.text == ""


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
        ("lustre", "rw,localflock", "localflock"),
        ("lustre", "rw,flock", ""),
        ("cifs", "rw,nobrl", "nobrl"),
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
    found = why_lockless(str(inside), mounts)
    assert (found or "").endswith(refused)
    assert bool(found) == bool(refused)


def test_a_journal_alone(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as one, Journal(tmp_path / "j") as other:
        assert one.run(one.read) == []
        for number in (1, 2):
            one.append({"x": number})
        assert one.run(one.read) == []
        assert other.run(other.read) == [{"x": 1}, {"x": 2}]
        other.append({"y": 1})
        assert one.run(one.read) == [{"y": 1}]


def test_read_piece_by_piece(
    folder: Path, sweeper: ParamSweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "CHUNK", 100)
    for at, one in enumerate(sweeper.get_next_batch(4)):
        sweeper.done(one, result="x" * 10_000 * at)
    again = ParamSweeper(folder, SWEEP)
    assert again.results == sweeper.results
    assert [len(again.results[one] or "") for one in SWEEP] == [0, 10_000, 20_000, 30_000]
    again.close()


# -- killed in the middle of a line -----------------------------------------------------------


def test_a_part_of_a_line_was_written(folder: Path, tmp_path: Path) -> None:
    """Whatever part it is: a line that lacks nothing but its end does not count either, nor does
    it for some readers only, and what comes behind it is understood by all."""
    sweeper = ParamSweeper(folder, SWEEP)
    sweeper.done(SWEEP[0])
    whole = (folder / "journal.jsonl").read_bytes()
    sweeper.get_next()
    line = (folder / "journal.jsonl").read_bytes()[len(whole) :]
    sweeper.close()
    for length in range(1, len(line)):
        copy = tmp_path / f"copy{length}"
        copy.mkdir()
        (copy / "journal.jsonl").write_bytes(whole + line[:length])
        one, other = ParamSweeper(copy, SWEEP), ParamSweeper(copy, SWEEP)
        assert one.get_next() == SWEEP[1]
        other.done(SWEEP[2])
        one.done(SWEEP[1])
        later = ParamSweeper(copy, SWEEP)
        assert one.stats() == other.stats() == later.stats()
        assert later.get_done() == set(SWEEP[:3])
        assert later.entry(SWEEP[1]).attempts == 1
        for opened in (one, other, later):
            opened.close()


@pytest.mark.parametrize("length", range(len(TORN) + 2))
def test_killed_while_it_ends_a_torn_line(
    folder: Path, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    sweeper = ParamSweeper(folder, SWEEP)
    sweeper.done(SWEEP[0])
    sweeper.close()
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"do":"done","at":1,"by":0,"n":1,"c":{"a":1,"b":"y"}}')
        file.write((TORN + b"\n")[:length])
    one, other = ParamSweeper(folder, SWEEP), ParamSweeper(folder, SWEEP)
    assert one.get_next() == SWEEP[1]
    other.done(SWEEP[2])
    assert one.stats() == other.stats()
    assert one.get_done() == {SWEEP[0], SWEEP[2]}
    assert caplog.text == ""
    one.close()
    other.close()


def test_killed_while_it_writes(folder: Path) -> None:
    """The child writes a part of each of its lines, and dies."""
    sweeper = ParamSweeper(folder, SWEEP)

    class Part:
        def __init__(self, file: Any, length: int) -> None:
            self._file, self._length = file, length

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def write(self, data: bytes) -> int:
            self._file.write(data[: self._length])
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    for length in range(0, 400, 25):

        def child(length: int = length) -> None:
            sweeper.get_remaining()  # opens it for this process
            sweeper._shared._journal._file = Part(sweeper._shared._journal._file, length)  # type: ignore[assignment]
            sweeper.get_next()

        assert fork(child) == signal.SIGKILL
        assert sweeper.get_next_batch(9) == SWEEP
        assert ParamSweeper(folder, SWEEP).stats() == sweeper.stats()
        sweeper.cancel_batch(SWEEP)
    sweeper.close()


# -- any line may be damaged ------------------------------------------------------------------


def test_each_line_damaged_in_its_turn(
    folder: Path, sweeper: ParamSweeper, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Lost is no more than what that line alone had said."""
    for one in sweeper.get_next_batch(3):
        sweeper.done(one, result={"of": dict(one)})
    other = ParamSweeper(folder, SWEEP)
    other.get_next()
    texts = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    for at, text in enumerate(texts):
        for damage in ("", "rubbish", text[:-9], "[" * 100_000, "{}", "null", "7"):
            copy = tmp_path / f"copy{at}-{damage[:5]}"
            copy.mkdir()
            path = copy / "journal.jsonl"
            path.write_text("".join([*texts[:at], damage + "\n", *texts[at + 1 :]]))
            before = path.read_bytes()
            caplog.clear()
            found = ParamSweeper(copy, SWEEP)
            assert f"{path}, line {at + 1}: " in caplog.text
            done = json.loads(text)["n"] if json.loads(text)["do"] == "done" else None
            wanted = {one for number, one in enumerate(SWEEP[:3]) if number != done}
            assert found.get_done() == wanted
            assert all(found.results[one] == {"of": one} for one in wanted)
            found.done(SWEEP[3], result=4)
            found.close()
            assert path.read_bytes().startswith(before)
            again = ParamSweeper(copy, SWEEP)
            assert again.get_done() == {*wanted, SWEEP[3]}
            again.close()
            shutil.rmtree(copy)
    other.close()


def test_another_journal_added_behind_this_one(tmp_path: Path) -> None:
    """Numbers of both mean what they meant."""
    texts = []
    for name, combinations in (("one", SWEEP), ("other", SWEEP[::-1])):
        sweeper = ParamSweeper(tmp_path / name, combinations)
        taken = sweeper.get_next_batch(2)
        sweeper.done(taken[1], result=name)
        sweeper.cancel(taken[0])
        sweeper.close()
        texts.append((tmp_path / name / "journal.jsonl").read_text())
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "journal.jsonl").write_text("".join(texts))
    both = ParamSweeper(tmp_path / "both", SWEEP)
    assert both.results == {SWEEP[1]: "one", SWEEP[2]: "other"}
    both.done_batch([SWEEP[0], SWEEP[3]])
    again = ParamSweeper(tmp_path / "both", SWEEP)
    assert again.stats() == both.stats()
    assert again.get_done() == set(SWEEP)
    again.close()
    both.close()


# -- the folder is changed meanwhile ------------------------------------------------------------


def test_replaced_or_cut(folder: Path, sweeper: ParamSweeper) -> None:
    sweeper.done(SWEEP[0])
    path = folder / "journal.jsonl"
    os.truncate(path, 5)
    with pytest.raises(JournalError, match=r"it was cut while in use.*journal\.jsonl"):
        sweeper.done(SWEEP[1])
    path.rename(folder / "old")
    shutil.copy(folder / "old", path)
    with pytest.raises(JournalError, match="it was replaced by another one while in use"):
        sweeper.done(SWEEP[1])
    assert (folder / "old").stat().st_size == 5, "nothing is written where nobody would look"


def test_a_script_goes_to_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweeper = ParamSweeper("sweep", SWEEP)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    sweeper.done(SWEEP[0])
    assert fork(lambda: sweeper.done(SWEEP[1])) == 0
    assert sweeper.get_done() == set(SWEEP[:2])
    sweeper.set_sweeps(SWEEP, save_sweeps=True)
    assert os.listdir() == []
    sweeper.close()


# -- it cannot be written ---------------------------------------------------------------------


class Limit:
    """Files may not grow beyond this."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self._before[1]))

    def __exit__(self, *exc_info: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
        signal.signal(signal.SIGXFSZ, self._handler)


def test_the_disk_is_full_at_each_byte(folder: Path) -> None:
    """Also before this process has said who it is: it must not take the name of another one."""
    first = ParamSweeper(folder, SWEEP)
    assert first.get_next() == SWEEP[0]
    before = (folder / "journal.jsonl").stat().st_size
    sweeper = ParamSweeper(folder, SWEEP)
    failed = 0
    for room in range(0, 500, 7):
        with Limit(before + room):
            try:
                taken = sweeper.get_next()
            except OSError:
                failed += 1
                continue
        assert taken == SWEEP[1]
        break
    assert failed > 10
    assert first.stats() == sweeper.stats()
    assert first.entry(SWEEP[1]).holder == 1
    assert first.get_inprogress() == set(SWEEP[:2])
    again = ParamSweeper(folder, SWEEP)
    assert again.stats() == first.stats()
    for opened in (first, sweeper, again):
        opened.close()


def test_who_may_only_read_can_look(caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's is its user's alone
    try:
        folder.chmod(0o755)
        sweeper = ParamSweeper(folder / "sweep", SWEEP, save_sweeps=True)
        sweeper.done(SWEEP[0], result=5)
        assert sweeper.get_next() == SWEEP[1]
        (folder / "sweep").chmod(0o555)
        (folder / "sweep" / "journal.jsonl").chmod(0o444)

        def child() -> None:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            looker = ParamSweeper(folder / "sweep")
            for name in ("get_next", "reset"):
                with pytest.raises(JournalError, match="it can only be looked at: Permission"):
                    getattr(looker, name)()
            looker.update()
            assert looker.results == {SWEEP[0]: 5}
            assert looker.get_inprogress() == {SWEEP[1]}
            assert "handed out" in looker.explain(SWEEP[1])
            looker.close()

        before = (folder / "sweep" / "journal.jsonl").read_bytes()
        assert fork(child) == 0
        assert (folder / "sweep" / "journal.jsonl").read_bytes() == before
        sweeper.close()
    finally:
        (folder / "sweep").chmod(0o755)
        shutil.rmtree(folder)


def test_a_disk_that_fails_is_told_of(
    sweeper: ParamSweeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fsync(number: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    sweeper.done(SWEEP[0])
    sweeper.close()
    assert "a power cut may lose what was written last: [Errno 5]" in caplog.text


def test_without_another_thread(sweeper: ParamSweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the interpreter, or at a limit: what is done is on the disk, and holds."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("no more")))
    first, _ = sweeper.get_next_batch(2)
    sweeper.done(first)
    monkeypatch.undo()
    assert len(synced) == len(lines(sweeper.folder))
    assert sweeper.get_next() == SWEEP[2]
    assert "execo-sweeper" in [thread.name for thread in threading.enumerate()]


def test_a_mount_of_any_name_does_not_matter(tmp_path: Path) -> None:
    mounts = "22 1 254:0 / / rw - ext4 /dev/vda1 rw\n23 22 0:4 / /\u6587\\040x rw - nfs a nolock\n"
    assert why_lockless(str(tmp_path), mounts) is None
    assert why_lockless("/\u6587 x/y", mounts) == "/\u6587 x is mounted with the option nolock"
