"""The passwords of programs that make somebody another user: each is asked for once, and tried once
before others use it.

A wrong password that fifty commands try at a time locks the account. So the first one tries it, and
the others wait for what comes of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from execo._core.pool import Strand
from execo._core.runtime import Runtime

from .texts import check_password

__all__ = ["Asker", "Passwords", "Question", "Source"]

_REFUSED = "it was refused to another command that tried it first"

Source = str | Callable[[str, str], str | None]
"""A password, or who is asked for it."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which password.

    :param host: where
    :param user: the user to become
    :param method: the program that asks
    :param source: who knows it
    """

    host: str
    user: str
    method: str
    source: Source = field(repr=False)


class Asker(Protocol):
    """Waits for an answer."""

    def take_password(self, password: str) -> None:
        """Try this one, and say with :meth:`Passwords.settle` what came of it."""

    def no_password(self, why: str) -> None:
        """There is none."""


@dataclass(slots=True)
class _Entry:
    password: str | None = field(default=None, repr=False)
    asked: bool = False
    proven: bool = False
    holder: Asker | None = None  # tries it
    waiting: list[Asker] = field(default_factory=list)


class Passwords:
    """What is known of passwords, in memory alone. All on the I/O thread, save the callbacks."""

    def __init__(self, runtime: Runtime) -> None:
        self._loop = runtime.loop
        self._entries: dict[Question, _Entry] = {}
        self._refused: dict[Question, float] = {}
        # One at a time: a human has one keyboard.
        self._strand = Strand(runtime.workers, lambda: "become_password")

    def ask(self, question: Question, asker: Asker, since: float) -> None:
        """Have ``asker`` given the password, or told that there is none; now or later.

        :param since: when its command was started, by the monotonic clock: one that was refused
          after that is not asked for anew, so that of many commands one alone fails with it
        """
        if self._refused.get(question, 0.0) > since:
            asker.no_password(_REFUSED)
            return
        entry = self._entries.setdefault(question, _Entry())
        entry.waiting.append(asker)
        if not entry.asked:
            entry.asked = True
            if isinstance(question.source, str):
                self._take(question, entry, question.source)
            else:
                self._strand.submit(self._call, question, entry, question.source)
        else:
            self._hand_out(entry)

    def settle(self, question: Question, asker: Asker, accepted: bool | None) -> None:
        """What came of the password that ``asker`` had or waited for; None = it was not tried to
        the end."""
        entry = self._entries.get(question)
        if entry is None:
            return
        if asker in entry.waiting:
            entry.waiting.remove(asker)
        if entry.holder is asker:
            entry.holder = None
        elif not entry.proven:
            return
        if accepted is False:
            self._refused[question] = time.monotonic()
            self._drop(question, entry, _REFUSED)
            return
        entry.proven = entry.proven or bool(accepted)
        self._hand_out(entry)

    def _call(self, question: Question, entry: _Entry, source: Callable[..., object]) -> None:
        """On a worker."""
        try:
            answer = source(question.host, question.user)
        except BaseException as exc:  # noqa: BLE001 - the user's code, sys.exit() too
            why = f"become_password failed: {type(exc).__name__}: {exc}"
            self._loop.call_soon(self._drop, question, entry, why)
            return
        self._loop.call_soon(self._take, question, entry, answer)

    def _take(self, question: Question, entry: _Entry, answer: object) -> None:
        if answer is None:
            self._drop(question, entry, "become_password gave none")
            return
        try:
            entry.password = check_password(answer)
        except ValueError as exc:
            self._drop(question, entry, f"become_password: {exc}")
            return
        self._hand_out(entry)

    def _hand_out(self, entry: _Entry) -> None:
        while entry.password is not None and entry.waiting:
            if not entry.proven:
                if entry.holder is None:
                    entry.holder = entry.waiting.pop(0)
                    entry.holder.take_password(entry.password)
                return
            entry.waiting.pop(0).take_password(entry.password)

    def _drop(self, question: Question, entry: _Entry, why: str) -> None:
        """Forget it: who comes later asks anew."""
        if self._entries.get(question) is entry:
            del self._entries[question]
        waiting, entry.waiting = entry.waiting, []
        for asker in waiting:
            asker.no_password(why)
