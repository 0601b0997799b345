"""Who is asked for secrets: the callbacks of :class:`~execo.transports.base.Login`, SSH_ASKPASS.

One question at a time, so that prompts do not mix, on a thread for user code. What was answered is
remembered in memory alone, for as long as the process lives.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from execo._core.pool import Strand
from execo._core.runtime import Runtime

from .base import Login
from .key_files import KeyFile, LoginProblem, PrivateKey, unlock

__all__ = ["Asker", "askpass_program"]

TRIES = 3
"""Times that somebody is asked for a passphrase, as ssh does (NumberOfPasswordPrompts)."""

KEPT = 2.0
"""Seconds in which a question that had no good answer is not asked again: the hosts that are
reached at the same time do not ask one after the other."""

Questions = Sequence[tuple[str, bool]]


def askpass_program() -> str | None:
    """The program that asks for passphrases, as for ssh(1): ``SSH_ASKPASS``, where there is a
    display to ask on, or ``SSH_ASKPASS_REQUIRE`` says so. None if there is none."""
    program = os.environ.get("SSH_ASKPASS") or None
    required = os.environ.get("SSH_ASKPASS_REQUIRE", "").lower()
    if required in ("force", "prefer"):
        return program
    seen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return program if seen and required != "never" else None


class Asker:
    """The questions of this process. Methods belong to the I/O thread, save ``_ask*`` (a thread for
    user code), ``_unlock*`` (any) and ``close``."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._strand = Strand(runtime.pool, lambda: "the questions of logins")
        self._answers: dict[Hashable, Any] = {}
        self._problems: dict[Hashable, tuple[float, LoginProblem]] = {}
        self._waiting: dict[Hashable, list[Callable[[Any], object]]] = {}
        self._program: subprocess.Popen[bytes] | None = None
        runtime.at_exit.append(self.close)

    # -- passphrases ----------------------------------------------------------------------------

    def asks_for(self, file: KeyFile, login: Login) -> bool:
        """Whether somebody has to be asked before ``file`` can be used."""
        return not isinstance(login.passphrase, str) and (file.path, file.data) not in self._answers

    def unlock(
        self, file: KeyFile, login: Login, on_key: Callable[[PrivateKey | LoginProblem], object]
    ) -> None:
        """Call ``on_key`` with the key of a file that needs a passphrase."""
        key = (file.path, file.data)
        passphrase = login.passphrase
        if isinstance(passphrase, str):
            # Not behind the questions: nobody is asked. Deriving the key takes its time.
            self._once((*key, passphrase), self._runtime.workers.submit, on_key, key)(
                self._unlock_with, file, passphrase
            )
        else:
            self._once(key, self._strand.submit, on_key, key)(self._ask_key, file, passphrase)

    def _unlock_with(self, file: KeyFile, passphrase: str) -> PrivateKey:
        private = unlock(file, passphrase)
        if private is None:
            raise LoginProblem(f"{file.path}: the passphrase is wrong")
        return private

    def _ask_key(self, file: KeyFile, ask: Callable[[str], str | None] | None) -> PrivateKey:
        last = None
        for _ in range(TRIES):
            text = (
                self._ask_program(file.path) if ask is None else _call("passphrase", ask, file.path)
            )
            if not text:
                raise LoginProblem(f"{file.path}: its passphrase was not given")
            private = unlock(file, text)
            if private is not None:
                return private
            if text == last:
                break  # no person, it seems
            last = text
        raise LoginProblem(f"{file.path}: the passphrase is wrong")

    def _ask_program(self, path: str) -> str | None:
        program = askpass_program()
        if program is None:
            return None
        prompt = f"Enter passphrase for key '{path}': "
        try:
            with subprocess.Popen(
                [program, prompt],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as process:
                self._program = process
                out, _ = process.communicate()
        except OSError as exc:
            raise LoginProblem(f"{program} (SSH_ASKPASS): {exc.strerror or exc}") from exc
        finally:
            self._program = None
        if process.returncode != 0:
            return None
        return out.decode("utf-8", "surrogateescape").rstrip("\r\n")

    # -- passwords and other questions ----------------------------------------------------------

    def password(
        self, login: Login, host: str, user: str, on_answer: Callable[[str | LoginProblem], object]
    ) -> None:
        """Call ``on_answer`` with the password of ``user`` on ``host``."""
        if login.password is None or isinstance(login.password, str):
            on_answer(login.password or LoginProblem("the password is empty"))
        else:
            key = (login.password, host, user)
            self._once(key, self._strand.submit, on_answer, key)(
                self._ask_password, login.password, host, user
            )

    def _ask_password(self, ask: Callable[[str, str], str | None], host: str, user: str) -> str:
        text = _call("password", ask, host, user)
        if not text:
            raise LoginProblem("no password was given")
        return text

    def refused(self, login: Login, host: str, user: str, password: str) -> None:
        """It was the wrong one: the next connection asks again."""
        key = (login.password, host, user)
        if self._answers.get(key) == password:
            del self._answers[key]

    def questions(
        self,
        login: Login,
        host: str,
        user: str,
        title: str,
        instructions: str,
        questions: Questions,
        wanted: Callable[[], bool],
        on_answers: Callable[[list[str] | LoginProblem], object],
    ) -> None:
        """Call ``on_answers`` with the answers to what a host asks, if they are still ``wanted``
        when it is its turn."""
        ask = login.answers
        assert ask is not None

        def run() -> None:
            if not wanted():
                return
            result: list[str] | LoginProblem
            try:
                given = _guarded("answers", ask, host, user, title, instructions, list(questions))
                result = _checked(given, len(questions))
            except LoginProblem as exc:
                result = exc
            self._runtime.loop.call_soon(on_answers, result)

        self._strand.submit(run)

    # -- once -----------------------------------------------------------------------------------

    def _once(
        self,
        question: Hashable,
        submit: Callable[..., object],
        on_answer: Callable[[Any], object],
        kept_as: Hashable,
    ) -> Callable[..., None]:
        """What calls ``on_answer`` with the result of a function that blocks, or why it has none:
        the function runs once for all who ask at the same time, and not at all if it has."""

        def start(function: Callable[..., Any], *args: Any) -> None:
            if kept_as in self._answers:
                on_answer(self._answers[kept_as])
                return
            until, problem = self._problems.get(question, (0.0, None))
            if problem is not None and time.monotonic() < until:
                self._problems[question] = (time.monotonic() + KEPT, problem)
                on_answer(problem)
                return
            waiting = self._waiting.setdefault(question, [])
            waiting.append(on_answer)
            if len(waiting) == 1:
                submit(self._run, question, kept_as, function, *args)

        return start

    def _run(
        self, question: Hashable, kept_as: Hashable, function: Callable[..., Any], *args: Any
    ) -> None:
        result: Any
        try:
            result = function(*args)
        except LoginProblem as exc:
            result = exc
        except Exception as exc:  # noqa: BLE001 - whatever it is: those who wait must hear of it
            result = LoginProblem(f"{type(exc).__name__}: {exc}")
        self._runtime.loop.call_soon(self._have, question, kept_as, result)

    def _have(self, question: Hashable, kept_as: Hashable, result: Any) -> None:
        if isinstance(result, LoginProblem):
            self._problems[question] = (time.monotonic() + KEPT, result)
        else:
            self._answers[kept_as] = result
            self._problems.pop(question, None)
        for on_answer in self._waiting.pop(question, ()):
            on_answer(result)

    def close(self) -> None:
        """At exit, from the main thread: nobody is asked any more."""
        program = self._program
        if program is not None:
            program.kill()


def _guarded(name: str, ask: Callable[..., Any], *args: Any) -> Any:
    """What the user's function gives.

    :raises LoginProblem: if it raises
    """
    try:
        return ask(*args)
    except BaseException as exc:
        raise LoginProblem(f"the function {name!r} raised {type(exc).__name__}: {exc}") from exc


def _call(name: str, ask: Callable[..., Any], *args: Any) -> str | None:
    text = _guarded(name, ask, *args)
    if text is not None and not isinstance(text, str):
        raise LoginProblem(f"the function {name!r} gave a {type(text).__name__}, not a string")
    return text


def _checked(given: Any, count: int) -> list[str]:
    if given is None:
        raise LoginProblem("the function 'answers' gave no answer")
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise LoginProblem(f"the function 'answers' gave a {type(given).__name__}, not a list")
    if len(given) != count or not all(isinstance(text, str) for text in given):
        raise LoginProblem(f"the function 'answers' has to give {count} strings")
    return list(given)
