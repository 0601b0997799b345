"""What a host prints before a command of another user has begun, taken apart.

It knows no channel and no time: it is given what comes, and says what that means.
"""

from __future__ import annotations

import enum
import re

from execo.transports.base import Become

from .texts import Marks, find_prompt

__all__ = ["LONGEST", "Dialogue", "Said"]

LONGEST = 1024 * 1024
"""Bytes that a host may print before the command begins."""

LONGEST_MARK = 256
"""Bytes of a mark, or of the prompt of sudo, at the most."""

_SAYS_NOTHING = r"|Password:|doas \(.*\) password:|sudo: no password was provided"
"""Lines that do not tell why: prompts, and what follows when we give no second password."""


class Said(enum.Enum):
    """What has happened, each at most once, but for the prompt."""

    HELLO = enum.auto()
    PROMPT = enum.auto()
    BEGUN = enum.auto()
    TOO_MUCH = enum.auto()


class Dialogue:
    """One command's.

    - ``early``: what came before hello, by stream: of the start-up files, and the user's
    - ``rest``: what came behind begun: the command's own
    - ``echo``: the terminal had echoed what it was sent

    :param become: None: there is no program in between
    """

    def __init__(self, become: Become | None, marks: Marks) -> None:
        self.early = {1: b"", 2: b""}
        self.rest = {1: b"", 2: b""}
        self.echo = False
        self._become = become
        self._marks = marks
        self._heard = {1: bytearray(), 2: bytearray()}
        self._looked = {1: 0, 2: 0}  # bytes of it in which the next mark does not begin
        self._words = b""  # of the program, and answered prompts
        self._greeted: set[int] = set()
        self._begun: set[int] = set()
        # What was told. A stream that closes may be what was waited for.
        self._told_hello = False
        self._told_begun = False
        self._merged = False
        self._closed: set[int] = set()

    def take(self, stream: int, data: bytes) -> list[Said]:
        """What ``data`` means."""
        self._heard[stream] += data
        return self._look()

    def close(self, stream: int) -> list[Said]:
        """Nothing more comes on ``stream``."""
        self._closed.add(stream)
        return self._look()

    def answered(self) -> None:
        """The prompt was answered: another one is another one."""
        for stream in (1, 2):
            if stream not in self._begun:
                self._words += self._take_heard(stream) + b"\n"

    def _take_heard(self, stream: int, after: int = 0) -> bytes:
        """What was heard, which is looked at no more, save what comes ``after`` so many bytes."""
        heard = bytes(self._heard[stream])
        self._heard[stream] = bytearray(heard[after:] if after else b"")
        self._looked[stream] = 0
        return heard

    @property
    def words(self) -> str:
        """What the program has said, on one line."""
        said = self._words + bytes(self._heard[1]) + b"\n" + bytes(self._heard[2])
        text = said.decode("utf-8", "replace")
        text = re.sub(r"execo-[0-9a-f]+-(hello-[am]e?|begun)\.", "", text)
        lines = [line.strip() for line in text.replace(self._marks.prompt, "\n").splitlines()]
        return "; ".join([line for line in lines if not re.fullmatch(_SAYS_NOTHING, line)][-3:])

    # -- the marks ------------------------------------------------------------------------------

    def _look(self) -> list[Said]:
        found: list[Said] = []
        if not self._told_hello and self._look_hello():
            self._told_hello = True
            found.append(Said.HELLO)
        if self._told_hello and not self._told_begun:
            if self._look_begun():
                self._told_begun = True
                found.append(Said.BEGUN)
            elif self._look_prompt():
                found.append(Said.PROMPT)
            self._note_looked(self._begun)
        if not self._told_begun and sum(map(len, self._heard.values())) > LONGEST:
            found.append(Said.TOO_MUCH)
        elif self._told_begun:
            for stream in (1, 2):
                self.rest[stream] += self._take_heard(stream)
        return found

    def _note_looked(self, done: set[int]) -> None:
        """A host may say it in a million pieces: each byte is looked at once for a mark, and again
        only where one may have been cut."""
        for stream in {1, 2} - done:
            self._looked[stream] = max(0, len(self._heard[stream]) - LONGEST_MARK)

    def _all_in(self, seen: set[int]) -> bool:
        """Whether all streams that will have the mark have had it."""
        return 1 in seen and (self._merged or bool({2} & (seen | self._closed)))

    def _look_hello(self) -> bool:
        for stream in (1, 2):
            if stream in self._greeted:
                continue
            match = self._marks.hello.search(self._heard[stream], self._looked[stream])
            if match is not None:
                self._greeted.add(stream)
                self.early[stream] = self._take_heard(stream, match.end())[: match.start()]
                self._merged = match[1] == b"m"
                self.echo = bool(match[2])
        self._note_looked(self._greeted)
        return self._all_in(self._greeted)

    def _look_begun(self) -> bool:
        for stream in (1, 2):
            if stream in self._begun:
                continue
            mark = self._marks.begun
            begin = self._heard[stream].find(mark, self._looked[stream])
            if begin >= 0:
                self._begun.add(stream)
                self._words += self._take_heard(stream, begin + len(mark))[:begin]
        return self._all_in(self._begun)

    def _look_prompt(self) -> bool:
        return self._become is not None and any(
            find_prompt(self._become, self._marks, self._heard[stream], self._looked[stream])
            for stream in (1, 2)
            if stream in self._greeted and stream not in self._begun
        )
