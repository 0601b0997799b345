"""Which hosts a block of ssh_config is for: the patterns of Host, the criteria of Match.

Reference: ssh_config(5), PATTERNS and Match. What the manual leaves open is as ssh of OpenSSH 9.2
does it, which the tests compare with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "Condition",
    "HostCondition",
    "MatchCondition",
    "PatternList",
    "Subject",
    "fits",
    "next_word",
    "wildcards",
]

_SPACE = " \t\r\n"
_END_OF_WORD = re.compile(r'[ \t\r\n"=]')


class Subject(Protocol):
    """What conditions ask about: a connection, as far as its settings are known so far."""

    @property
    def host(self) -> str:
        """The host as ``Host`` lines see it."""

    @property
    def original_host(self) -> str: ...

    @property
    def final(self) -> bool:
        """Whether the files are read for the second time."""

    @property
    def local_user(self) -> str: ...

    def target_host(self) -> str:
        """The host with what HostName has made of it."""

    def target_user(self) -> str: ...
    def tag(self) -> str: ...


def fits(pattern: str, text: str) -> bool:
    """Whether ``text`` is what ``pattern`` means, with ``*`` and ``?``."""
    return _regex(pattern).fullmatch(text) is not None


def wildcards(pattern: str) -> str:
    """A pattern with ``*`` and ``?`` as a regular expression. Not fnmatch: brackets mean
    themselves."""
    first, *others = (re.escape(one).replace(r"\?", ".") for one in re.split(r"\*+", pattern))
    if not others:
        return first
    # What follows a star is taken where it comes first, and for good (?>): tried at every place,
    # several stars would take for ever.
    between = "".join(f"(?>.*?{one})" for one in others[:-1])
    return f"{first}{between}.*{others[-1]}"


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(wildcards(pattern), re.DOTALL)


class _Patterns:
    """Some patterns, those without wildcards in a set: that is what most of them are."""

    __slots__ = ("_names", "_others")

    def __init__(self, patterns: Sequence[str]) -> None:
        self._names = frozenset(one for one in patterns if not ("*" in one or "?" in one))
        self._others = tuple(_regex(one) for one in patterns if "*" in one or "?" in one)

    def matches(self, text: str) -> bool:
        if text in self._names:
            return True
        for regex in self._others:  # noqa: SIM110 - any() costs as much as all the rest here
            if regex.fullmatch(text):
                return True
        return False


class PatternList:
    """Patterns, some of them negated: one that is negated and matches decides, wherever it is.

    :param patterns: each may begin with ``!``
    """

    __slots__ = ("_negated", "_patterns")

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = _Patterns([one for one in patterns if not one.startswith("!")])
        negated = [one[1:] for one in patterns if one.startswith("!")]
        self._negated = _Patterns(negated) if negated else None

    def matches(self, text: str) -> bool:
        return self._patterns.matches(text) and not (
            self._negated is not None and self._negated.matches(text)
        )


class Condition(Protocol):
    """A line that begins a block."""

    def matches(self, subject: Subject) -> bool | None:
        """Whether the block is for this subject; None: only ssh itself can tell."""


class HostCondition:
    """``Host``: the words are patterns.

    :param patterns: the words; none of them = for no host
    :raises ValueError: for a word that is empty
    """

    __slots__ = ("_list",)

    def __init__(self, patterns: Sequence[str]) -> None:
        if not all(patterns):
            raise ValueError("an empty pattern")
        self._list = PatternList(patterns)

    def matches(self, subject: Subject) -> bool:
        return self._list.matches(subject.host)


@dataclass(frozen=True, slots=True)
class _Criterion:
    kind: str
    negated: bool
    patterns: PatternList | None = None

    def holds(self, subject: Subject) -> bool | None:
        held = self._meets(subject)
        return None if held is None else held != self.negated

    def _meets(self, subject: Subject) -> bool | None:
        if self.kind == "all":
            return True
        if self.kind in _PASSES:
            return subject.final
        if self.patterns is None:
            return None
        return self.patterns.matches(_asked(self.kind, subject))


def _asked(kind: str, subject: Subject) -> str:
    """What a criterion looks at."""
    if kind == "host":
        return subject.target_host().lower()
    if kind == "originalhost":
        return subject.original_host.lower()
    if kind == "user":
        return subject.target_user()
    if kind == "localuser":
        return subject.local_user
    return subject.tag()


# "canonical" holds in the second reading too, whatever was the reason for it.
_PASSES = ("canonical", "final")
_HOSTS = ("host", "originalhost")
_NAMES = ("user", "localuser", "tagged")
# They ask the system, the network, the version or the way in which ssh was called.
_UNKNOWN = ("exec", "localnetwork", "command", "sessiontype", "version")


class MatchCondition:
    """``Match``: all criteria of the line must hold.

    :param text: what follows the keyword
    :raises ValueError: if ssh would refuse it
    """

    __slots__ = ("_criteria", "asks_for_final")

    def __init__(self, text: str) -> None:
        self._criteria = tuple(_read_criteria(text))
        self.asks_for_final = any(one.kind == "final" for one in self._criteria)

    def matches(self, subject: Subject) -> bool | None:
        known = True
        for criterion in self._criteria:
            holds = criterion.holds(subject)
            if holds is False:
                return False
            known = known and holds is not None
        return True if known else None


def _read_criteria(text: str) -> list[_Criterion]:
    found: list[_Criterion] = []
    rest: str | None = text
    while True:
        word, rest = next_word(rest)
        if not word or word.startswith("#"):
            break
        negated = word.startswith("!")
        kind = word.lower().removeprefix("!")
        if kind == "all":
            # "final all" and "canonical all" are what the manual knows; ssh takes "host x all" too.
            after, rest = next_word(rest)
            if len(found) > 1 or (after and not after.startswith("#")):
                raise ValueError(f"{word!r} cannot be combined with other criteria")
            return [*found, _Criterion(kind, negated)]
        if kind in _PASSES:
            found.append(_Criterion(kind, negated))
            continue
        if kind not in (*_HOSTS, *_NAMES, *_UNKNOWN):
            raise ValueError(f"Match knows no {word!r}")
        value, rest = next_word(rest)
        if not value or value.startswith("#"):
            raise ValueError(f"Match needs a value for {word!r}")
        found.append(_Criterion(kind, negated, _patterns(kind, value)))
    if not found:
        raise ValueError("Match needs criteria")
    if rest and not (word or "").startswith("#"):
        raise ValueError("Match has more words than it can use")
    return found


def _patterns(kind: str, value: str) -> PatternList | None:
    if kind in _UNKNOWN:
        return None
    return PatternList((value.lower() if kind in _HOSTS else value).split(","))


def next_word(text: str | None) -> tuple[str | None, str | None]:
    """The first word of a text and what follows it, as ssh splits a keyword from its values.

    Words end at white space, which may have one ``=`` in it. Double quotes keep both together. The
    word is None at the end, and where a quote is not closed; what follows is None at the end.
    """
    if text is None:
        return None, None
    found = _END_OF_WORD.search(text)
    if found is None:
        return text, None
    at = found.start()
    if text[at] == '"':
        end = text.find('"', at + 1)
        if end < 0:
            return None, None
        return text[:at] + text[at + 1 : end], text[end + 1 :].lstrip(_SPACE)
    rest = text[at + 1 :].lstrip(_SPACE)
    if text[at] != "=" and rest.startswith("="):
        rest = rest[1:].lstrip(_SPACE)
    return text[:at], rest
