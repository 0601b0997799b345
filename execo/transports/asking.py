"""Who is asked for the secrets of a login: the callbacks of
:class:`~execo.transports.base.Login`, SSH_ASKPASS."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from execo._core.runtime import Runtime
from execo.config import Secret, can_be_sent

from .base import Login
from .key_files import KeyFile, LoginProblem, PrivateKey, unlock
from .questions import NoAnswer, Questions, call, call_for_text

__all__ = ["Asker", "askpass_program"]

TRIES = 3
"""Times that somebody is asked for a passphrase, as ssh does (NumberOfPasswordPrompts)."""

Prompts = Sequence[tuple[str, bool]]


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
        self._questions = Questions(runtime, LoginProblem)
        self._program: subprocess.Popen[bytes] | None = None
        self._closed = False
        # Held while the program starts: one that runs, but is not known yet, would outlive us.
        self._starting = threading.Lock()
        runtime.at_exit.append(self.close)

    # -- passphrases ----------------------------------------------------------------------------

    def asks_for(self, file: KeyFile, login: Login) -> bool:
        """Whether somebody has to be asked before ``file`` can be used."""
        return not isinstance(login.passphrase, str) and not self._questions.has(
            (file.path, file.data)
        )

    def unlock(
        self,
        file: KeyFile,
        login: Login,
        wanted: Callable[[], bool],
        on_key: Callable[[PrivateKey | LoginProblem], object],
    ) -> None:
        """Call ``on_key`` with the key of a file that needs a passphrase.

        :param wanted: whether it still is, when it is its turn; called on any thread
        """
        key = (file.path, file.data)
        passphrase = login.passphrase
        if isinstance(passphrase, str):
            # Not behind the questions: nobody is asked. Deriving the key takes its time.
            self._questions.ask(
                (*key, passphrase),
                wanted,
                on_key,
                *(self._unlock_with, file, passphrase),
                kept_as=key,
                nobody=True,
            )
        else:
            self._questions.ask(key, wanted, on_key, self._ask_key, file, passphrase)

    def _unlock_with(self, file: KeyFile, passphrase: str) -> PrivateKey:
        private = unlock(file, passphrase)
        if private is None:
            raise LoginProblem(f"{file.path}: the passphrase is wrong")
        return private

    def _ask_key(self, file: KeyFile, ask: Callable[[str], str | None] | None) -> PrivateKey:
        last = None
        for _ in range(TRIES):
            if ask is None:
                text = self._ask_program(file.path)
            else:
                text = call_for_text("passphrase", ask, file.path)
            if not text:
                raise LoginProblem(f"{file.path}: its passphrase was not given")
            private = unlock(file, text)
            if private is not None:
                return private
            if text == last or not self._questions.is_wanted((file.path, file.data)):
                break  # no person, it seems; or nobody waits any more
            last = text
        raise LoginProblem(f"{file.path}: the passphrase is wrong")

    def _ask_program(self, path: str) -> str | None:
        program = askpass_program()
        if program is None:
            return None
        prompt = f"Enter passphrase for key '{path}': "
        try:
            with self._starting:
                if self._closed:
                    return None
                self._program = subprocess.Popen(
                    [program, prompt],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            with self._program as process:
                out, _ = process.communicate()
        except OSError as exc:
            raise LoginProblem(f"{program} (SSH_ASKPASS): {exc.strerror or exc}") from exc
        finally:
            self._program = None
        if process.returncode != 0:
            return None
        return Secret(out.decode("utf-8", "surrogateescape").rstrip("\r\n"))

    # -- passwords and other questions ----------------------------------------------------------

    def password(
        self,
        login: Login,
        host: str,
        user: str,
        wanted: Callable[[], bool],
        on_answer: Callable[[str | LoginProblem], object],
    ) -> None:
        """Call ``on_answer`` with the password of ``user`` on ``host``.

        :param wanted: whether it still is, when it is its turn; called on any thread
        """
        if login.password is None or isinstance(login.password, str):
            on_answer(login.password or LoginProblem("the password is empty"))
        else:
            key = (login.password, host, user)
            ask = partial(self._ask_password, login.password, host, user)
            self._questions.ask(key, wanted, on_answer, ask)

    def _ask_password(self, ask: Callable[[str, str], str | None], host: str, user: str) -> str:
        text = call_for_text("password", ask, host, user)
        if not text:
            raise LoginProblem("no password was given")
        return text

    def refused(self, login: Login, host: str, user: str, password: str) -> None:
        """It was the wrong one: the next connection asks again."""
        self._questions.forget((login.password, host, user), password)

    def questions(
        self,
        login: Login,
        host: str,
        user: str,
        title: str,
        instructions: str,
        questions: Prompts,
        wanted: Callable[[], bool],
        on_answers: Callable[[list[str] | LoginProblem], object],
    ) -> None:
        """Call ``on_answers`` with the answers to what a host asks, if they are still ``wanted``
        when it is its turn."""
        ask = login.answers
        assert ask is not None

        def run() -> None:
            result: list[str] | LoginProblem
            try:
                given = call("answers", ask, host, user, title, instructions, list(questions))
                result = _checked(given, len(questions))
            except NoAnswer as exc:
                result = LoginProblem(str(exc))
            self._runtime.loop.call_soon(on_answers, result)

        self._questions.submit(run, wanted)

    def close(self) -> None:
        """At exit, from the main thread: nobody is asked any more."""
        with self._starting:
            self._closed = True
        program = self._program
        if program is not None:
            program.kill()


def _checked(given: Any, count: int) -> list[str]:
    if given is None:
        raise LoginProblem("the function 'answers' gave no answer")
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise LoginProblem(f"the function 'answers' gave a {type(given).__name__}, not a list")
    if len(given) != count or not all(isinstance(text, str) for text in given):
        raise LoginProblem(f"the function 'answers' has to give {count} strings")
    if not all(map(can_be_sent, given)):
        raise LoginProblem("the function 'answers' gave half a character (a surrogate)")
    return [Secret(text) for text in given]
