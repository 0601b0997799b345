"""Programs for ClusterShell, in ``clustershell_programs/``: the same happens on both libraries.

Over real local commands and a real sshd, in processes of their own; the traps and defects of the
original have programs that run on ours alone.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshd import RealSshd

FOLDER = Path(__file__).parent / "clustershell_programs"
ROOT = Path(__file__).parent.parent

pytest_plugins = ["sshd"]

Ended = dict[str, list[str]]


def names() -> tuple[list[str], Ended]:
    """The programs that run on both, and those of ours with what happens in them."""
    command = [sys.executable, str(FOLDER / "run_programs.py"), "list"]
    both, ours = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return both, ours


BOTH, OURS = names()


@pytest.fixture(scope="module")
def place(sshd: RealSshd) -> Iterator[dict[str, object]]:
    # Not pytest's folder, which is for its user alone: the commands of the nodes are another's.
    with tempfile.TemporaryDirectory(prefix="execo-programs-") as folder:
        Path(folder).chmod(0o755)
        yield describe(sshd, folder)


def describe(sshd: RealSshd, folder: str) -> dict[str, object]:
    hosts = sshd.hosts(5)
    return {
        "nodes": [host.address for host in hosts],
        "user": hosts[0].user,
        "keyfile": str(sshd.keyfile),
        "port": sshd.port,
        "folder": folder,
    }


def run(library: str, place: dict[str, object], chosen: list[str]) -> Ended:
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        command = [sys.executable, str(FOLDER / "run_programs.py"), library]
        known = json.dumps({**place, "refused": nobody.getsockname()[1]})
        done = subprocess.run(
            [*command, known, *chosen], capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stderr
    ended: Ended = json.loads(done.stdout)
    return ended


@pytest.fixture(scope="module")
def chosen(request: pytest.FixtureRequest) -> list[str]:
    """The programs of the tests that were selected."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    names = [call.params.get("name") for call in calls if call is not None]
    return [name for name in [*BOTH, *OURS] if name in names]


@pytest.fixture(scope="module")
def original(place: dict[str, object], chosen: list[str]) -> Ended:
    return run("original", place, [name for name in chosen if name in BOTH])


@pytest.fixture(scope="module")
def ours(place: dict[str, object], chosen: list[str]) -> Ended:
    return run("ours", place, chosen)


def test_each_program_runs_on_the_original(original: Ended) -> None:
    # A comparison of two failures would say nothing.
    bad = {name: ended for name, ended in original.items() if ended[:1] == ["failed"]}
    assert bad == {}
    assert original


@pytest.mark.parametrize("name", BOTH)
def test_the_same_happens(name: str, original: Ended, ours: Ended) -> None:
    assert ours[name] == original[name]


@pytest.mark.parametrize("name", OURS)
def test_a_trap_of_the_original(name: str, ours: Ended) -> None:
    assert ours[name] == OURS[name]
