"""What survives a script, and what ends with it: a few rounds of each kind.

``benchmarks/rounds_survival.py`` runs the same rounds many times.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

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


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(
    ("transport", "way"), [(name, way) for name in TRANSPORTS for way in ways_of(name)]
)
def test_what_survives_and_what_ends(place: World, who: str, transport: str, way: str) -> None:
    outcome = rounds(place, who, transport, way, ROUNDS)
    assert outcome.good == dict.fromkeys(outcome.good, ROUNDS), outcome.errors
    # The end says nothing of what was left alone, nor of what it has ended itself.
    assert "failed" not in outcome.errors


@pytest.mark.parametrize("way", ["normal exit", "kill -9"])
def test_the_same_through_taktuk(place: World, way: str) -> None:
    if shutil.which("taktuk") is None:
        pytest.skip("needs taktuk, see tests/install-servers")
    outcome = rounds(place, "user", "taktuk", way, ROUNDS)
    assert outcome.good == dict.fromkeys(outcome.good, ROUNDS), outcome.errors
