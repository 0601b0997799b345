"""The lines of ssh_config files: read once, as blocks with a condition and what they set.

What ssh refuses is an error that names the file and the line, whatever host it is for: ssh reads
the lines of other hosts too. Reference: ssh_config(5), and ssh of OpenSSH 9.2 where the manual
leaves it open.
"""

from __future__ import annotations

import errno
import glob
import grp
import os
import pwd
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from execo.errors import SshConfigError
from execo.log import logger

from .ssh_config_keywords import ALIASES, KEYWORDS, Keyword, Place, Use
from .ssh_config_match import Condition, HostCondition, MatchCondition, PatternList, next_word
from .ssh_tokens import expand_home

__all__ = ["Block", "Line", "Reading", "Setting", "Unknown"]

SYSTEM_FOLDER = "/etc/ssh"
USER_FOLDER = ".ssh"

DEEPEST = 16
"""Files that include one another, as ssh counts."""

_SPACE = " \t\r\n"
_NO_ROOM = (errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True, slots=True)
class Line:
    """Where something is from.

    :param filename: the file
    :param lineno: the number of the line, from 1
    :param text: the line without the blanks around it
    :param place: whose file it is
    """

    filename: str
    lineno: int
    text: str
    place: Place = Place.USER

    def error(self, message: str) -> SshConfigError:
        return SshConfigError(message, filename=self.filename, lineno=self.lineno, text=self.text)

    def __str__(self) -> str:
        return f"{self.text!r} in {self.filename}:{self.lineno}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One line that sets something.

    :param name: the keyword, in small letters and without aliases
    :param slot: settings of one slot exclude one another
    :param keyword: its row of the table
    :param value: what its reader made of it
    :param line: where it is from
    """

    name: str
    slot: str
    keyword: Keyword
    value: Any
    line: Line


@dataclass(frozen=True, slots=True)
class Unknown:
    """A line whose keyword ssh refuses, unless the IgnoreUnknown of the host has it."""

    name: str
    line: Line


@dataclass(slots=True)
class Block:
    """Lines with one condition.

    :param condition: the Host or Match line; None = at the head of a file: for whom the file is
    :param line: that line
    :param content: settings, and the blocks of each included file
    """

    condition: Condition | None = None
    line: Line | None = None
    content: list[Setting | list[Block]] = field(default_factory=list)


class Reading:
    """What is gathered while files are read, one after the other.

    :param home: the user's home, for ``~``
    :param include_home: the home in which the files are that a user's file includes
    """

    def __init__(self, home: str, include_home: str) -> None:
        self.home = home
        self.include_home = include_home
        self.unknown: list[Unknown] = []
        self.asks_for_final = False
        self._seen: dict[str, _State] = {}
        self._listed: dict[str, list[str]] = {}
        self._ignored: list[PatternList] = []

    # -- files -----------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """Whether a file is another one than when it was read, or was not there."""
        return any(_state(path) != state for path, state in self._seen.items()) or any(
            glob.glob(pattern) != paths for pattern, paths in self._listed.items()
        )

    def file(self, path: str, *, place: Place, check: bool, must: bool = False) -> list[Block]:
        """The blocks of a file. One that is not there, or may not be read, has none: as for ssh.

        :param path: the file; ``~`` is the user's home
        :param place: whose file it is
        :param check: refuse it if others may write to it
        :param must: it has to be there
        :raises SshConfigError: for what ssh refuses
        :raises OSError: for want of a descriptor: to pass over the file would be to reach another
          host, as another user, than it says
        """
        try:
            path = expand_home(path, self.home)
            os.fsencode(path)
            if "\0" in path:
                raise ValueError("a file cannot have this name")
        except ValueError as exc:
            raise SshConfigError(str(exc), filename=path) from exc
        try:
            return self._file(path, place=place, check=check, depth=0)
        except OSError as exc:
            if exc.errno in _NO_ROOM:
                raise
            if must:
                raise SshConfigError(f"it cannot be read: {exc.strerror}", filename=path) from exc
            return []

    def _file(self, path: str, *, place: Place, check: bool, depth: int) -> list[Block]:
        if depth > DEEPEST:
            raise SshConfigError("too many files include one another", filename=path)
        self._seen[path] = _state(path)  # first: a change while it is read must not be missed
        try:
            with open(path, "rb") as file:
                if check:
                    _check_owner(path, os.fstat(file.fileno()))
                data = file.read()
        except IsADirectoryError:
            return []  # to ssh it is an empty file
        text = data.decode("utf-8", "surrogateescape")
        return self.blocks(path, text.split("\n"), place=place, depth=depth)

    def blocks(
        self, filename: str, lines: Iterable[str], *, place: Place, depth: int = 0
    ) -> list[Block]:
        """The blocks of some lines; ``filename`` is what messages call the place."""
        blocks = [Block()]
        for number, text in enumerate(lines, 1):
            line = Line(filename, number, text.strip(), place)
            try:
                found = split_line(text)
                if found is not None:
                    self._line(line, *found, blocks, place=place, depth=depth)
            except ValueError as exc:
                raise line.error(str(exc)) from exc
        # Where nothing is set, it does not matter for whom.
        return [block for block in blocks if block.content]

    def options(self, options: Sequence[str]) -> list[Block]:
        """The settings that ``ssh -o`` is given.

        :raises SshConfigError: for what ssh refuses
        """
        name = "ssh_options"
        for number, option in enumerate(options, 1):
            line = Line(name, number, option)
            try:
                found = split_line(option)
            except ValueError as exc:
                raise line.error(str(exc)) from exc
            if found is None or found[0] in ("host", "match", "include"):
                raise line.error("this cannot be an option")
        return self.blocks(name, options, place=Place.OPTIONS)

    # -- lines -----------------------------------------------------------------------------------

    def _line(
        self, line: Line, name: str, text: str, blocks: list[Block], *, place: Place, depth: int
    ) -> None:
        name = ALIASES.get(name, name)
        keyword = KEYWORDS.get(name)
        words = list(split_words(text))
        if keyword is None:
            self._note_unknown(Unknown(name, line))
        elif name == "host":
            blocks.append(Block(HostCondition(words), line))
        elif name == "match":
            condition = MatchCondition(text)
            self.asks_for_final = self.asks_for_final or condition.asks_for_final
            blocks.append(Block(condition, line))
        elif name == "include":
            for path in self._included(words, place=place):
                included = self._include(line, path, place=place, depth=depth)
                if included:
                    blocks[-1].content.append(included)
        else:
            self._set(line, name, keyword, words, text, blocks[-1])

    def _set(
        self,
        line: Line,
        name: str,
        keyword: Keyword,
        words: Sequence[str],
        text: str,
        block: Block,
    ) -> None:
        assert keyword.read is not None
        value = keyword.read(words, text)
        if keyword.use is Use.UNSUPPORTED:
            logger.warning("%s: no ssh supports this any more; it is passed over", line)
        elif keyword.use is not Use.IGNORED and value is not None:
            block.content.append(Setting(name, keyword.slot or name, keyword, value, line))
            if name == "ignoreunknown":
                self._ignored.append(PatternList(value.lower().split(",")))

    def _note_unknown(self, unknown: Unknown) -> None:
        if not any(patterns.matches(unknown.name) for patterns in self._ignored):
            raise ValueError(
                f"ssh knows no {unknown.name!r} (IgnoreUnknown before it would pass it over)"
            )
        self.unknown.append(unknown)

    # -- Include ---------------------------------------------------------------------------------

    def _included(self, words: Sequence[str], *, place: Place) -> Iterator[str]:
        for word in words:
            if not word:
                raise ValueError("Include with an empty name")
            if word.startswith("~") and place is Place.SYSTEM:
                raise ValueError("a system's file cannot include a file of a user's home")
            if word.startswith("~"):
                pattern = expand_home(word, self.include_home)
            elif word.startswith("/"):
                pattern = word
            elif place is not Place.SYSTEM:
                pattern = f"{self.include_home}/{USER_FOLDER}/{word}"
            else:
                pattern = f"{SYSTEM_FOLDER}/{word}"
            paths = self._listed[pattern] = glob.glob(pattern)
            yield from sorted(paths, key=os.fsencode)

    def _include(self, line: Line, path: str, *, place: Place, depth: int) -> list[Block]:
        try:
            return self._file(path, place=place, check=True, depth=depth + 1)
        except FileNotFoundError:
            return []  # a link that leads nowhere
        except OSError as exc:
            if exc.errno in _NO_ROOM:
                raise
            raise line.error(f"{path} cannot be read: {exc.strerror}") from exc


_State = tuple[int, int, int] | None


def _state(path: str) -> _State:
    """What changes with a file; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


# -- one line -------------------------------------------------------------------------------------


def split_line(text: str) -> tuple[str, str] | None:
    """The keyword of a line in small letters and what follows it; None for a comment.

    :raises ValueError: if nothing follows it
    """
    text = text[:1] + text[1:].rstrip(_SPACE + "\f")
    keyword, rest = next_word(text)
    if keyword == "":
        keyword, rest = next_word(rest)
    if not keyword or keyword.startswith("#"):
        return None
    rest = (rest or "").lstrip(_SPACE)
    if not rest:
        raise ValueError(f"nothing follows {keyword!r}")
    return keyword.lower(), rest


def split_words(text: str) -> Iterator[str]:
    """The words of a line, up to a comment. Single and double quotes keep blanks together; a
    backslash keeps quotes, backslashes and, outside of quotes, blanks.

    :raises ValueError: for a quote that is not closed
    """
    if not any(c in text for c in "'\"\\"):
        for word in text.replace("\t", " ").split(" "):
            if word.startswith("#"):
                return
            if word:
                yield word
        return
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
        elif text[at] == "#":
            return
        else:
            word, at = _quoted_word(text, at)
            yield word


def _quoted_word(text: str, at: int) -> tuple[str, int]:
    word, quote = "", ""
    while at < len(text):
        char, after = text[at], text[at + 1 : at + 2]
        if char == "\\" and after and (after in "'\"\\" or (after == " " and not quote)):
            word += after
            at += 1
        elif not quote and char in " \t":
            break
        elif not quote and char in "'\"":
            quote = char
        elif char == quote:
            quote = ""
        else:
            word += char
        at += 1
    if quote:
        raise ValueError("a quote is not closed")
    return word, at


# -- who may write to a file ----------------------------------------------------------------------


def _check_owner(path: str, found: os.stat_result) -> None:
    uid = os.getuid()
    bad = found.st_uid not in (0, uid) or found.st_mode & stat.S_IWOTH
    if bad or (found.st_mode & stat.S_IWGRP and not _is_group_of_one(found.st_gid, uid)):
        raise SshConfigError(
            "bad owner or permissions: it must belong to you or root, and nobody else may write "
            f"to it (chmod go-w {path})",
            filename=path,
        )


def _is_group_of_one(gid: int, uid: int) -> bool:
    """Whether this user alone is in a group; Debian's ssh then lets the group write."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(uid)
    except KeyError:
        return False
    others = [one for one in pwd.getpwall() if one.pw_gid == gid and one.pw_uid != uid]
    members = [name for name in group.gr_mem if name != user.pw_name]
    belongs = user.pw_gid == gid or user.pw_name in group.gr_mem
    return belongs and not others and not members
