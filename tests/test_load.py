"""Records that are damaged, cut, copied and written under trouble: what load() makes of them."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Local, ParallelActions, Process
from execo.engine import ParamSweeper, Record, Run, load, sweep
from execo.engine.events import SYNC
from execo.engine.line_file import LineFile
from rounds import ROUNDS, chance

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60
QUIET: dict[str, Any] = {"nolog_exit_code": True, "nolog_error": True, "nolog_timeout": True}
LINES = ("events.jsonl", "results.jsonl", "sweep/journal.jsonl", "sweep/sweeps.jsonl")


@pytest.fixture(scope="module")
def pandas() -> None:
    """Imported before the test: its threads stay."""
    importlib.import_module("pandas")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small run with each kind of line."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    combinations = sweep({"size": [1, 2, 3]})
    with Record(folder, environment=[]) as record:
        sweeper = ParamSweeper(folder / "sweep", combinations, save_sweeps=True, lease=None)
        for one in combinations[:2]:
            assert sweeper.get_next() == one
            with record.combination(one):
                ParallelActions(
                    [Local(f"echo {'x' * 300}"), Local(f"seq 1000 1{one['size']}00")], name="pair"
                ).run()
            sweeper.done(one, result={"seconds": one["size"] / 3})
            record.result(one, {"seconds": one["size"] / 3}, hosts=["a", "b"], start=1.0)
        assert sweeper.get_next() is not None
        sweeper.failed(combinations[2], "no luck")
        record.result(combinations[2], state="failed", reason="no luck")
        sweeper.close()
        Process("false", **QUIET).run()
    yield folder
    for thread in threading.enumerate():
        if thread.name == "execo-journal":
            thread.join(PATIENCE)


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    return copy


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def replaced(path: Path, number: int, line: bytes) -> None:
    """Line ``number``, from 1 on."""
    lines = lines_of(path)
    lines[number - 1] = line
    path.write_bytes(b"".join(one + b"\n" for one in lines))


def number_of(path: Path, do: str) -> int:
    """Of the first such line."""
    return next(at for at, line in enumerate(lines_of(path), 1) if json.loads(line)["do"] == do)


# -- damaged ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LINES)
def test_a_damaged_line_is_named_by_file_and_number(folder: Path, name: str) -> None:
    path = folder / name
    for at in range(1, len(lines_of(path)) + 1):
        before = path.read_bytes()
        replaced(path, at, b"\x00\xff{")
        run = load(folder)
        assert f"{name}, line {at}: " in run.faults[0]
        assert all(f"{name}, line " in fault for fault in run.faults)
        assert path.read_bytes().count(b"\n") == before.count(b"\n")
        path.write_bytes(before)
    assert load(folder).faults == []


@pytest.mark.parametrize("do", ["text", "combination", "begin"])
def test_without_a_line_that_others_refer_to_these_are_there(
    folder: Path, finished: Path, do: str
) -> None:
    path = folder / "events.jsonl"
    at = number_of(path, do) + (do == "begin")  # not that of the pair, but of one of them
    replaced(path, at, b'{"do":"text", "n"')
    run, whole = load(folder), load(finished)
    assert run.faults[0].startswith(f"events.jsonl, line {at}: ")
    assert [one.outcome for one in run.processes] == [one.outcome for one in whole.processes]
    assert [run.output(one) for one in run.processes] == [
        whole.output(one) for one in whole.processes
    ]
    changed = [one for one, other in zip(run.processes, whole.processes, strict=True)
               if one != other]  # fmt: skip
    assert changed
    if do == "text":
        assert changed[0].cmd == "(text 0, whose line is lost)"
    elif do == "combination":
        assert changed[0].combination is None
    else:
        known = {action.number for action in run.actions}
        assert all(one.action in known for one in run.processes if one.action is not None)
        assert all(one.parent in known for one in run.actions if one.parent is not None)


ODD: list[Any] = [None, True, -1, 2.5, 10**30, "", "x", [], [1], {}, {"is": 99}, {"a": {"b": []}}]


@pytest.mark.usefixtures("pandas")
def test_whatever_a_line_says_it_is_a_row_or_a_fault(folder: Path) -> None:
    """Lines that are JSON and no sense: values of other types, missing ones, too many."""
    random = chance()
    for name in LINES[:3]:
        path = folder / name
        whole = lines_of(path)
        for _ in range(150 * ROUNDS):
            lines = list(whole)
            for _ in range(random.choice([1, 1, 3])):
                at = random.randrange(len(lines))
                line = json.loads(whole[at])
                key = random.choice(list(line))
                if random.random() < 0.2:
                    del line[key]
                else:
                    line[key] = random.choice(ODD)
                lines[at] = json.dumps(line).encode()
            path.write_bytes(b"".join(line + b"\n" for line in lines))
            run = load(folder)
            for one in run.processes:
                run.output(one)
            assert set(run.combinations) == set(run.states)
            for what in ("results", "processes", "actions"):
                run.to_frame(what)
        path.write_bytes(b"".join(line + b"\n" for line in whole))


@pytest.mark.parametrize("at", range(0, 2600, 130))
def test_a_record_that_was_cut_anywhere_goes_on(folder: Path, at: int) -> None:
    path = folder / "events.jsonl"
    path.write_bytes(path.read_bytes()[:at])
    before = load(folder)
    with Record(folder, name=before.manifest["name"], resume=True) as record:
        with record.combination({"size": 9}):
            Local(f"echo {'y' * 300}").run()
        record.result({"size": 9}, 9)
    run = load(folder)
    assert run.faults == []
    for row, now in zip(before.processes, run.processes, strict=False):
        if row.outcome != "running":
            assert now == row
        else:  # as it was cut, so is its script
            assert (now.outcome, now.start, now.stdout_size) == ("lost", row.start, row.stdout_size)
    last = run.processes[-1]
    assert (run.output(last), last.combination) == (b"y" * 300 + b"\n", {"size": 9})
    assert run.results[-1].result == 9


# -- what counts -----------------------------------------------------------------------------------


def test_the_last_word_on_a_combination_counts(tmp_path: Path) -> None:
    with Record(tmp_path) as record:
        record.result({"n": 1}, state="failed", reason="once")
        record.result({"n": 1}, 1, attempt=2)
        record.result({"n": 2}, 2)
        record.result({"n": 2}, state="failed", attempt=2)
        record.result({"n": 3}, state="failed")
    run = load(tmp_path)
    assert [run.states[one] for one in run.combinations] == ["done", "done", "failed"]


def test_a_record_and_a_sweep_of_which_either_lacks_something(folder: Path) -> None:
    results = folder / "results.jsonl"
    first, second, third = results.read_bytes().splitlines(keepends=True)
    for kept in (b"", first, second, third, first + third):
        results.write_bytes(kept)
        run = load(folder)
        found = {row.combination["size"]: (row.state, row.result) for row in run.results}
        assert len(run.results) == 3
        assert found == {
            1: ("done", {"seconds": 1 / 3}),
            2: ("done", {"seconds": 2 / 3}),
            3: ("failed", None),
        }
    shutil.rmtree(folder / "sweep")
    results.write_bytes(first + second + third)
    assert list(load(folder).states.values()) == ["done", "done", "failed"]


def test_a_sweep_alone_has_no_fault(folder: Path) -> None:
    run = load(folder / "sweep")
    assert run.faults == []
    assert list(run.states.values()) == ["done", "done", "failed"]


# -- elsewhere -------------------------------------------------------------------------------------


@pytest.fixture
def open_folder(finished: Path) -> Iterator[Path]:
    """A copy of it where other users may look: not within that of pytest, which is for its own."""
    with tempfile.TemporaryDirectory(prefix="execo-load-") as parent:
        Path(parent).chmod(0o755)
        copy = Path(parent, "run")
        shutil.copytree(finished, copy)
        yield copy


def test_who_may_only_read_can_load(open_folder: Path) -> None:
    """As another user, where this one is root, whom nothing stops."""
    folder = open_folder
    if os.geteuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    else:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    source = f"""
import os, sys
from execo.engine import load
load  # imported while that may be read
if not os.geteuid():
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
assert not os.access({str(folder)!r}, os.W_OK)
run = load({str(folder)!r})
print(run.faults, len(run.processes), len(run.results), len(run.output(run.processes[0])))
"""
    said = subprocess.run(
        [sys.executable, "-c", source],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    assert said.stdout == "[] 5 3 301\n", said.stderr


def test_a_copy_that_was_taken_while_it_was_written(tmp_path: Path) -> None:
    """As rsync takes it: each file at another moment."""
    before = tmp_path / "run"
    with Record(before) as record:
        for index in range(30):
            Process(["echo", "z" * 400]).run()
            record.result({"n": index}, index)
            copy = tmp_path / str(index)
            copy.mkdir()
            for name in ("manifest.json", "results.jsonl", "events.jsonl"):
                shutil.copy(before / name, copy / name)
            run = load(copy)
            assert run.faults == []
            assert [row.result for row in run.results] == list(range(index + 1))
            assert all(run.output(one) == b"" for one in run.processes)


# -- trouble ---------------------------------------------------------------------------------------


def test_what_a_full_disk_has_cost_is_not_missed_afterwards(tmp_path: Path) -> None:
    """A long command whose text was lost is written again, and so is a combination."""
    folder = tmp_path / "run"
    source = f"""
import resource, sys
from execo import Process
from execo.engine import Record, load
folder = {str(folder)!r}
with Record(folder) as record:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    with record.combination({{"n": 1}}):
        Process(["echo", "x" * 300]).run()
        while not record._open.writer.lost:
            Process("true").run()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        Process(["echo", "x" * 300]).run()
run = load(folder)
last = run.processes[-1]
assert last.cmd == "echo " + "x" * 300, last
assert last.combination == {{"n": 1}}
assert run.output(last) == b"x" * 300 + b"\\n"
"""
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert said.returncode == 0, said.stderr
    assert "the record has gaps from now on" in said.stderr


def test_results_are_on_the_disk_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[str, float] = {}
    whole = threading.Event()
    real = LineFile.sync

    def sync(file: LineFile) -> None:
        dirty = file.dirty
        real(file)
        if dirty and file.path.name == "results.jsonl":
            synced[file.path.name] = time.monotonic()
            whole.set()

    monkeypatch.setattr(LineFile, "sync", sync)
    with Record(tmp_path) as record:
        threading.Event().wait(2 * SYNC)  # nothing happens, and the writer sleeps
        record.result({"n": 1}, 1)
        assert whole.wait(PATIENCE)
    assert isinstance(load(tmp_path), Run)
