"""Signals that a server is asked to send: when, and again if it could not."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from execo.transports.signal_requests import YOUNG, SignalRequests

TERM, KILL, STOP, CONT = 15, 9, 19, 18


class Clock:
    """A loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._timers: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), callback, args))

    def run(self) -> None:
        while self._timers:
            self.now, _, callback, args = heapq.heappop(self._timers)
            callback(*args)


class Place:
    """A command, and what its server is asked and answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, age: float, *answers: bool) -> None:
        self.clock = Clock()
        monkeypatch.setattr("execo.transports.signal_requests.time.monotonic", self.time)
        self.started = self.clock.now - age
        self.runs = True
        self.posted: list[tuple[int, bool]] = []  # signals, and whether it was young still
        self._answers = list(answers)
        self.requests = SignalRequests(
            cast(Any, self.clock), self.started, self.post, lambda: self.runs
        )

    def time(self) -> float:
        return self.clock.now

    def post(self, number: int) -> None:
        self.posted.append((number, self.clock.now < self.started + YOUNG))
        if self._answers:
            answer = self._answers.pop(0)
            self.clock.call_later(0.001, self.requests.answered, answer)


def test_one_that_has_run_for_a_while_is_signalled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch, 2.0, True, True)
    place.requests.ask(STOP)
    place.requests.ask(CONT)
    assert place.posted == [(STOP, False), (CONT, False)]
    place.clock.run()
    assert len(place.posted) == 2


def test_a_young_one_is_signalled_later_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch, 0.1, True, True, True)
    for number in (TERM, STOP, KILL):
        place.requests.ask(number)
    assert place.posted == []
    place.clock.run()
    assert place.posted == [(TERM, False), (STOP, False), (KILL, False)]


def test_what_could_not_be_sent_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch, 0.0, False, False, True)
    place.requests.ask(TERM)
    place.clock.run()
    assert [number for number, _ in place.posted] == [TERM] * 3


def test_a_server_that_signals_nothing_is_not_asked_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place(monkeypatch, 2.0, *[False] * 50)
    place.requests.ask(TERM)
    place.clock.run()
    assert 1 < len(place.posted) < 10


def test_what_has_ended_is_not_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch, 0.0)
    place.requests.ask(TERM)
    place.runs = False
    place.clock.run()
    assert place.posted == []


def test_answers_to_nothing_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch, 2.0)
    place.requests.answered(False)
    place.clock.run()
    assert place.posted == []
