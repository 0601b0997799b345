"""What survives a script, and what ends with it: a few rounds of each kind.

``benchmarks/rounds_survival.py`` runs the same rounds many times.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sshd import RealSshd
from survival import TRANSPORTS, WHO, World, rounds, ways_of, world

pytest_plugins = ["sshd"]

ROUNDS = 4


@pytest.fixture(scope="module")
def place(sshd: RealSshd) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("only root can make the users that this test needs")
    for program in ("sudo", "setpriv"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}, see tests/install-servers")
    with world(sshd) as one:
        yield one


@pytest.mark.parametrize(
    ("transport", "way"), [(name, way) for name in TRANSPORTS for way in ways_of(name)]
)
def test_what_survives_and_what_ends(place: World, transport: str, way: str) -> None:
    # At once, since each of them waits most of the time; but who kills connections kills all.
    with ThreadPoolExecutor(1 if way == "connection killed" else len(WHO)) as at_once:
        started = {who: at_once.submit(rounds, place, who, transport, way, ROUNDS) for who in WHO}
    for who, future in started.items():
        outcome = future.result()
        assert outcome.good == dict.fromkeys(outcome.good, ROUNDS), (who, outcome.errors)
        # The end says nothing of what was left alone, nor of what it has ended itself.
        assert "failed" not in outcome.errors, who


@pytest.mark.parametrize("way", ["normal exit", "kill -9"])
def test_the_same_through_taktuk(place: World, way: str) -> None:
    if shutil.which("taktuk") is None:
        pytest.skip("needs taktuk, see tests/install-servers")
    outcome = rounds(place, "user", "taktuk", way, ROUNDS)
    assert outcome.good == dict.fromkeys(outcome.good, ROUNDS), outcome.errors
