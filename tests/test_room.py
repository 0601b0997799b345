"""Waiting for a descriptor."""

from __future__ import annotations

import errno
import os

import pytest

from execo._core import room


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE", 0.2)
    monkeypatch.setattr(room, "_INTERVAL", 0.02)
    monkeypatch.setattr(room, "_vain_until", 0.0)


class Door:
    """Opens at a try, or never."""

    def __init__(self, at: int = 0, number: int = errno.EMFILE) -> None:
        self.tries = 0
        self._at, self._number = at, number

    def __call__(self) -> str:
        self.tries += 1
        if self.tries == self._at:
            return "in"
        raise OSError(self._number, os.strerror(self._number))


def test_it_is_tried_again_until_there_is_one() -> None:
    assert room.with_room(Door(3)) == "in"


def test_other_errors_are_not_waited_for() -> None:
    door = Door(2, errno.ENOENT)
    with pytest.raises(FileNotFoundError):
        room.with_room(door)
    assert door.tries == 1


def test_those_that_come_later_do_not_wait_in_turn() -> None:
    first, *others = [Door() for _ in range(50)]
    with pytest.raises(OSError, match="Too many open files"):
        room.with_room(first)
    assert first.tries > 1
    assert room._vain_until
    room._vain_until += 3600  # whatever this machine does meanwhile
    for door in others:
        with pytest.raises(OSError, match="Too many open files"):
            room.with_room(door)
    assert [door.tries for door in others] == [1] * 49
