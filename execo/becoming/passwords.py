"""The passwords of programs that make somebody another user: each is asked for once, and tried once
before others use it.

A wrong password that fifty commands try at a time locks the account. So the first one tries it, and
the others wait for what comes of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from execo._core.runtime import Runtime
from execo.transports.questions import NoAnswer, Questions, call_for_text

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
class _Trial:
    """What becomes of one password."""

    password: str | None = field(default=None, repr=False)  # None: not known yet
    proven: bool = False
    holder: Asker | None = None  # tries it
    waiting: list[Asker] = field(default_factory=list)


class Passwords:
    """What is known of passwords, in memory alone. All on the I/O thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._questions = Questions(runtime)
        self._trials: dict[Question, _Trial] = {}
        self._refused: dict[Question, float] = {}

    def ask(self, question: Question, asker: Asker, since: float) -> None:
        """Have ``asker`` given the password, or told that there is none; now or later.

        :param since: when its command was started, by the monotonic clock: one that was refused
          after that is not asked for anew, so that of many commands one alone fails with it
        """
        if self._refused.get(question, 0.0) > since:
            asker.no_password(_REFUSED)
            return
        trial = self._trials.get(question)
        if trial is not None:
            trial.waiting.append(asker)
            self._hand_out(trial)
            return
        trial = self._trials[question] = _Trial(waiting=[asker])
        have = partial(self._have, question, trial)
        if isinstance(question.source, str):
            have(question.source)
        else:
            self._questions.ask(question, lambda: bool(trial.waiting), have, _call, question)

    def settle(self, question: Question, asker: Asker, accepted: bool | None) -> None:
        """What came of the password that ``asker`` had or waited for; None = it was not tried to
        the end."""
        trial = self._trials.get(question)
        if trial is None:
            return
        if asker in trial.waiting:
            trial.waiting.remove(asker)
        if trial.holder is asker:
            trial.holder = None
        elif not trial.proven:
            return
        if accepted is False:
            self._refused[question] = time.monotonic()
            self._questions.forget(question, trial.password)
            self._drop(question, trial, _REFUSED)
            return
        trial.proven = trial.proven or bool(accepted)
        self._hand_out(trial)

    def _have(self, question: Question, trial: _Trial, answer: str | NoAnswer) -> None:
        if isinstance(answer, NoAnswer):
            self._drop(question, trial, str(answer))
            return
        try:
            trial.password = check_password(answer)
        except ValueError as exc:
            self._drop(question, trial, f"become_password: {exc}")
            return
        self._hand_out(trial)

    def _hand_out(self, trial: _Trial) -> None:
        while trial.password is not None and trial.waiting:
            if not trial.proven:
                if trial.holder is None:
                    trial.holder = trial.waiting.pop(0)
                    trial.holder.take_password(trial.password)
                return
            trial.waiting.pop(0).take_password(trial.password)

    def _drop(self, question: Question, trial: _Trial, why: str) -> None:
        """Forget it: who comes later asks anew."""
        if self._trials.get(question) is trial:
            del self._trials[question]
        waiting, trial.waiting = trial.waiting, []
        for asker in waiting:
            asker.no_password(why)


def _call(question: Question) -> str:
    """On a thread for user code."""
    assert not isinstance(question.source, str)
    text = call_for_text("become_password", question.source, question.host, question.user)
    if text is None:
        raise NoAnswer("the function 'become_password' gave none")
    try:
        return check_password(text)
    except ValueError as exc:
        raise NoAnswer(f"become_password: {exc}") from exc
