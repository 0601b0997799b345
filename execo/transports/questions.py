"""The functions that a user gives in place of a secret: how they are called, and what is kept.

One at a time in the whole process, so that prompts do not mix, on a thread for user code. What was
answered is remembered in memory alone, for as long as the process lives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from execo._core.runtime import Runtime
from execo.config import Secret, can_be_sent

__all__ = ["NoAnswer", "Questions", "call", "call_for_text"]

KEPT = 2.0
"""Seconds in which a question that had no good answer is not asked again: the hosts that are
reached at the same time do not ask one after the other."""


class NoAnswer(Exception):
    """Why a question has no answer. For messages: it names no secret."""


def call(name: str, ask: Callable[..., Any], *args: Any) -> Any:
    """What the user's function gives.

    :param name: how the user knows it
    :raises NoAnswer: if it raises, whatever it is: sys.exit() must not take a thread along
    """
    try:
        return ask(*args)
    except BaseException as exc:
        raise NoAnswer(f"the function {name!r} raised {type(exc).__name__}: {exc}") from exc


def call_for_text(name: str, ask: Callable[..., Any], *args: Any) -> str | None:
    """The same, for what gives a text or None.

    :raises NoAnswer: if it raises, or gives something else, which is not shown
    """
    text = call(name, ask, *args)
    if text is None:
        return None
    if not isinstance(text, str):
        raise NoAnswer(f"the function {name!r} gave a {type(text).__name__}, not a string")
    if not can_be_sent(text):
        raise NoAnswer(f"the function {name!r} gave half a character (a surrogate)")
    return Secret(text)


@dataclass(slots=True)
class _Open:
    """A question that has no answer yet.

    :param run: finds it
    :param submit: has that done on a thread where it may block
    :param key: what the answer is kept as
    :param waiting: those who are told, and whether they still want it
    """

    run: Callable[[], Any]
    submit: Callable[..., None]
    key: Hashable
    waiting: list[tuple[Callable[[Any], object], Callable[[], bool]]] = field(default_factory=list)


class Questions:
    """Asks each question once, and keeps the answer. All on the I/O thread, save ``is_wanted`` and
    ``_run``.

    :param problem: what those who ask are given where there is no answer
    """

    def __init__(self, runtime: Runtime, problem: type[NoAnswer] = NoAnswer) -> None:
        self._runtime = runtime
        self._problem = problem
        self._answers: dict[Hashable, Any] = {}
        self._problems: dict[Hashable, tuple[float, NoAnswer]] = {}
        self._open: dict[Hashable, _Open] = {}

    def submit(self, function: Callable[[], object], wanted: Callable[[], bool]) -> None:
        """Call it when it is its turn, if it is still ``wanted`` then (called on that thread), and
        the script does not end; what comes of it is its own business."""

        def run() -> None:
            if wanted() and not self._runtime.exiting:
                function()

        self._runtime.questions.submit(run)

    def has(self, key: Hashable) -> bool:
        """Whether the answer that is kept as ``key`` is known."""
        return key in self._answers

    def forget(self, key: Hashable, answer: object) -> None:
        """This answer was wrong: who comes later asks anew."""
        if key in self._answers and self._answers[key] == answer:
            del self._answers[key]

    def is_wanted(self, question: Hashable) -> bool:
        """Whether somebody still waits for its answer, and the script does not end. From any
        thread."""
        known = self._open.get(question)
        # A copy: others may join on the I/O thread.
        waiting = [] if known is None else list(known.waiting)
        return not self._runtime.exiting and any(wanted() for _, wanted in waiting)

    def ask(
        self,
        question: Hashable,
        wanted: Callable[[], bool],
        on_answer: Callable[[Any], object],
        function: Callable[..., Any],
        *args: Any,
        kept_as: Hashable = None,
        nobody: bool = False,
    ) -> None:
        """Call ``on_answer`` with what ``function(*args)`` gives, or with the problem if it raises.
        It may block. It is called once for all who ask at the same time, and not at all if
        the answer is known. Nor is it where none of them wants the answer any more when it is its
        turn: they are given a problem.

        :param wanted: whether the answer still is; called on any thread
        :param kept_as: the key of the answer; None = the question
        :param nobody: no human is asked: it need not wait for other questions
        """
        key = question if kept_as is None else kept_as
        if key in self._answers:
            on_answer(self._answers[key])
            return
        until, problem = self._problems.get(question, (0.0, None))
        if problem is not None and time.monotonic() < until:
            self._problems[question] = (time.monotonic() + KEPT, problem)
            on_answer(problem)
            return
        known = self._open.get(question)
        if known is not None:
            known.waiting.append((on_answer, wanted))
            return
        submit = self._runtime.workers.submit if nobody else self._runtime.questions.submit
        known = _Open(partial(function, *args), submit, key, [(on_answer, wanted)])
        self._open[question] = known
        submit(self._run, question, known)

    def _run(self, question: Hashable, known: _Open) -> None:
        result: Any
        if not self.is_wanted(question):
            self._runtime.loop.call_soon(self._skip, question, known)
            return
        try:
            result = known.run()
        except NoAnswer as exc:
            result = exc if isinstance(exc, self._problem) else self._problem(str(exc))
        except Exception as exc:  # noqa: BLE001 - whatever it is: those who wait must hear of it
            result = self._problem(f"{type(exc).__name__}: {exc}")
        self._runtime.loop.call_soon(self._have, question, known, result)

    def _skip(self, question: Hashable, known: _Open) -> None:
        if self._runtime.exiting:
            return  # all who wait are ended, and not to fail before
        if self.is_wanted(question):
            known.submit(self._run, question, known)  # somebody has joined meanwhile
            return
        del self._open[question]
        problem = self._problem("nobody has waited for the answer")
        for on_answer, _ in known.waiting:
            on_answer(problem)

    def _have(self, question: Hashable, known: _Open, result: Any) -> None:
        if isinstance(result, NoAnswer):
            if self.is_wanted(question):  # else nobody hears of it
                self._problems[question] = (time.monotonic() + KEPT, result)
        else:
            self._answers[known.key] = result
            self._problems.pop(question, None)
        del self._open[question]
        for on_answer, _ in known.waiting:
            on_answer(result)
