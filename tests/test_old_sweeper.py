"""Folders of execo 2's ParamSweeper: what was done there stays done."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from execo.engine import HashableDict, ParamSweeper
from sweeping import SWEEP

pytest_plugins = ["sweeping"]
pytestmark = pytest.mark.usefixtures("sweepers_end")


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


def test_what_makes_no_sense_hides_nothing_else(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    bad = Old.dump(HashableDict(a=frozenset([1])))
    worse = pickle.dumps({"a": Path("/")})
    parts = [Old.dump(SWEEP[0]), bad, Old.dump(SWEEP[1]), worse, Old.dump(SWEEP[2])]
    (folder / "done").write_bytes(b"".join(parts))
    sweeper = ParamSweeper(folder, SWEEP)
    assert sweeper.get_done() == set(SWEEP[:3])
    assert caplog.text.count("is done again") == 2
    assert "factor 'a'" in caplog.text
    assert "pathlib.PosixPath" in caplog.text
    sweeper.close()


def test_broken_off_it_goes_on(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (folder / "done").write_bytes(b"".join(map(Old.dump, SWEEP[:3])))
    ParamSweeper(folder, SWEEP).close()
    journal = (folder / "journal.jsonl").read_bytes()
    assert journal.count(b"\n") == 5
    for cut in range(0, len(journal), 5):
        copy = tmp_path / f"copy{cut}"
        copy.mkdir()
        (copy / "done").write_bytes((folder / "done").read_bytes())
        (copy / "journal.jsonl").write_bytes(journal[:cut])
        sweeper = ParamSweeper(copy, SWEEP)
        assert sweeper.get_done() == set(SWEEP[:3])
        sweeper.close()
        assert (copy / "journal.jsonl").read_bytes().count(b'"old":true}\n') == 3


def test_taken_over_once(folder: Path) -> None:
    """Also when the journal was there first; what is written there later is not looked at."""
    sweeper = ParamSweeper(folder, SWEEP)
    sweeper.done(SWEEP[3])
    sweeper.close()
    for count in (1, 2):
        (folder / "done").write_bytes(b"".join(map(Old.dump, SWEEP[:count])))
        again = ParamSweeper(folder, SWEEP)
        assert again.get_done() == {SWEEP[3], SWEEP[0]}
        again.close()
