"""What became of processes and actions, in numbers: :class:`Stats`, and :class:`Report` to show it.

Both are data: a :class:`Stats` never changes, can be read from any thread, pickled, copied, added
to others. The names of its fields are the keys of execo 2.8.2's statistics, and ours.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .time_utils import format_seconds, unixts_to_datetime

if TYPE_CHECKING:
    from .gathering import Groups

__all__ = ["Report", "Stats"]


class _Counts(Mapping[str, int]):
    """Words and how often. Nobody changes it, and unlike MappingProxyType it can be pickled."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = {str(word): count for word, count in counts.items()}

    def __getitem__(self, word: str) -> int:
        return self._counts[word]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __hash__(self) -> int:  # dataclasses take an object without it for a mutable default
        return hash(frozenset(self._counts.items()))

    def __repr__(self) -> str:
        return repr(self._counts)


_NO_COUNTS = _Counts({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Stats(Mapping[str, Any]):
    """What became of some processes. Frozen; also a mapping, ``stats["num_ok"]`` as in execo 2.8.2.

    Equal to any mapping with the same items. To change one: ``dataclasses.replace()``, or
    ``dict(stats)`` for a dict of one's own.

    :param name: what is counted, None if it has no name
    :param start_date: when the first one started, a unix timestamp, None if none did
    :param end_date: when the last one ended, None while anything is unfinished
    :param num_processes: how many processes there are
    :param num_started: that have started
    :param num_ended: that have ended
    :param num_errors: that could not be run (no such command, no connection, ...)
    :param num_timeouts: that were ended by their timeout
    :param num_forced_kills: that had to be ended by SIGKILL after SIGTERM
    :param num_non_zero_exit_codes: that ended with an exit code other than 0, or without one
    :param num_expect_fail: that did not print what was expected
    :param num_write_error: whose stdin could not be written
    :param num_ok: without failure so far; those that have not ended count
    :param num_finished_ok: that have ended without failure
    :param num_cancelled: that were given up before they started
    :param num_truncated: whose kept output was cut at its limit
    :param num_undrained: that ended while something still held their output open
    :param num_waited: that waited over 5 s for a free slot to start
    :param num_retries: how often processes were started again, see
      :class:`~execo.action.Retry`: these count attempts, not processes
    :param reasons: failure reason (see :class:`execo.errors.Reason`) to number of processes
    :param sub_stats: the parts that this one is made of
    """

    name: str | None = None
    start_date: float | None = None
    end_date: float | None = None
    num_processes: int = 0
    num_started: int = 0
    num_ended: int = 0
    num_errors: int = 0
    num_timeouts: int = 0
    num_forced_kills: int = 0
    num_non_zero_exit_codes: int = 0
    num_expect_fail: int = 0
    num_write_error: int = 0
    num_ok: int = 0
    num_finished_ok: int = 0
    num_cancelled: int = 0
    num_truncated: int = 0
    num_undrained: int = 0
    num_waited: int = 0
    num_retries: int = 0
    reasons: Mapping[str, int] = _NO_COUNTS
    sub_stats: tuple[Stats, ...] = ()

    def __post_init__(self) -> None:
        # Copies of what the caller could still change.
        if type(self.reasons) is not _Counts:
            object.__setattr__(self, "reasons", _Counts(self.reasons))
        if type(self.sub_stats) is not tuple:
            object.__setattr__(self, "sub_stats", tuple(self.sub_stats))

    @classmethod
    def merge(
        cls, parts: Iterable[Stats], *, name: str | None = None, keep_parts: bool = False
    ) -> Stats:
        """The statistics of several ones together.

        :param parts: what to add up; none gives empty statistics
        :param name: the name of the result
        :param keep_parts: keep the parts in ``sub_stats`` (which is empty otherwise)
        :returns: counts and reasons added up, the earliest start date, the latest end date. The
          end date is None while any process of a part, started or not, has not ended, or a part
          has started and has no end date.
        """
        parts = tuple(parts)
        reasons: dict[str, int] = {}
        for part in parts:
            for reason, count in part.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + count
        unfinished = any(part._is_unfinished() for part in parts)
        ends = [part.end_date for part in parts if part.end_date is not None]
        return cls(
            name=name,
            start_date=min((p.start_date for p in parts if p.start_date is not None), default=None),
            end_date=None if unfinished else max(ends, default=None),
            reasons=reasons or _NO_COUNTS,
            sub_stats=parts if keep_parts else (),
            **{count: sum([getattr(part, count) for part in parts]) for count in _COUNTS},
        )

    def _is_unfinished(self) -> bool:
        return self.num_ended < self.num_processes or (
            self.start_date is not None and self.end_date is None
        )

    @classmethod
    def from_dict(cls, items: Mapping[str, Any]) -> Stats:
        """The statistics that a mapping holds: a :meth:`to_dict`, or one of execo 2.8.2's.

        :param items: field to value; what is missing is 0, None or empty
        :raises TypeError: a key that is not a field
        """
        if isinstance(items, cls):
            return items
        parts = tuple(cls.from_dict(part) for part in items.get("sub_stats", ()))
        return cls(**{**items, "sub_stats": parts})

    def to_dict(self) -> dict[str, Any]:
        """A new dict of plain JSON types, with ``sub_stats`` as a list of dicts."""
        items = dict(self)
        items["reasons"] = dict(self.reasons)
        items["sub_stats"] = [part.to_dict() for part in self.sub_stats]
        return items

    def __getitem__(self, field: str) -> Any:
        if field not in _FIELDS:
            raise KeyError(field)
        return getattr(self, field)

    def __iter__(self) -> Iterator[str]:
        return iter(_FIELDS)

    def __len__(self) -> int:
        return len(_FIELDS)

    def __repr__(self) -> str:
        return (
            f"<Stats {self.name!r}: {self.num_processes} processes, {self.num_started} started, "
            f"{self.num_ended} ended, {self.num_finished_ok} ok>"
        )


_FIELDS = tuple(Stats.__dataclass_fields__)
_COUNTS = tuple(field for field in _FIELDS if field.startswith("num_"))


class Report:
    """A table of the outcome of processes and actions.

    :param stats_objects: what to report on, see :meth:`add`
    :param name: the name of the whole, in the first row of the table

    The report is a snapshot: it holds what was true when each object was added. It can be printed
    (``str(report)`` is :meth:`to_string`), read and pickled from any thread. For :meth:`gather` it
    keeps the objects, too, with their outputs; what is pickled is without them.
    """

    def __init__(self, stats_objects: Iterable[Any] | None = None, name: str = "Report") -> None:
        #: The name of the report; may be set.
        self.name = name
        self._parts: list[Stats] = []
        self._objects: list[Any] = []
        if stats_objects is not None:
            self.add(stats_objects)

    def add(self, stats_objects: Iterable[Any]) -> None:
        """Add what ``stats()`` of each object says now.

        :param stats_objects: an iterable of objects with a ``stats()`` method (processes, actions,
          reports), or of :class:`Stats`; a single one of them is taken as well
        :raises TypeError: something else is in it; nothing is added then
        """
        if isinstance(stats_objects, Mapping) or hasattr(stats_objects, "stats"):
            stats_objects = [stats_objects]
        objects = list(stats_objects)
        # One extend(), which no other thread sees half done.
        self._parts.extend([_stats_of(one) for one in objects])
        self._objects.extend(one for one in objects if not isinstance(one, Mapping))

    def gather(self, stream: int = 1) -> Groups:
        """The processes of what was added by what they have printed so far (not: when they were
        added), the equal ones together, see :func:`execo.gathering.gather`. Each process counts
        once; there are none in a report that was pickled, or is of :class:`Stats`. (new)

        :param stream: STDOUT, STDERR, or ``STDOUT | STDERR``: one after the other
        """
        from .gathering import gather

        return gather(dict.fromkeys(_processes_of(self._objects)), stream)

    def stats(self) -> Stats:
        """The totals, with what was added in ``sub_stats``."""
        return Stats.merge(list(self._parts), name=self.name, keep_parts=True)

    @staticmethod
    def empty_stats() -> Stats:
        """Statistics of nothing; frozen, unlike the dict that execo 2.8.2 gave."""
        return Stats()

    @staticmethod
    def aggregate_stats(stats: Iterable[Mapping[str, Any]]) -> Stats:
        """The totals of several statistics, without name or parts: see :meth:`Stats.merge`.

        :param stats: :class:`Stats`, or mappings with its fields
        """
        return Stats.merge(Stats.from_dict(one) for one in stats)

    def to_dict(self) -> dict[str, Any]:
        """The totals and their parts, in plain JSON types: see :meth:`Stats.to_dict`."""
        return self.stats().to_dict()

    def to_json(self, indent: int | None = None) -> str:
        """:meth:`to_dict` as JSON text.

        :param indent: spaces per level, None for everything on one line
        """
        import json

        return json.dumps(self.to_dict(), indent=indent)

    def to_string(self, wide: bool = False, brief: bool = False) -> str:
        """The report as a table, without final newline.

        :param wide: one line of at most 157 columns per row, instead of two lines of at most 80
        :param brief: only the totals, without the parts

        Parts are indented below what they are part of; a name that is too long is cut with
        ``...``, a number that is too long is given in thousands (k), millions (M), ...
        ``-`` stands for a date that is not known, most often since it is not over yet.
        Columns: ``forced`` are those that needed SIGKILL; ``ok`` are those that have ended without
        failure. What has no column (cancelled before start, output truncated, output undrained at
        the end, waited for a slot, retries, reasons of failure) stands below the table if there is
        any.
        """
        return _table(self.stats(), wide=wide, brief=brief)

    def __str__(self) -> str:
        return self.to_string()

    def __repr__(self) -> str:
        return f"<Report {self.name!r}: {len(self._parts)} parts>"

    def __getstate__(self) -> dict[str, Any]:
        # What has run belongs to this program.
        return {**self.__dict__, "_parts": list(self._parts), "_objects": []}

    def __copy__(self) -> Report:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        # Else what is added to one would be in both.
        twin._parts, twin._objects = list(self._parts), list(self._objects)
        return twin


def _processes_of(objects: Iterable[Any]) -> Iterator[Any]:
    for one in objects:
        if isinstance(one, Report):
            yield from _processes_of(list(one._objects))
        elif hasattr(one, "processes"):
            yield from one.processes
        elif hasattr(one, "stdout_bytes"):
            yield one


def _stats_of(one: Any) -> Stats:
    if isinstance(one, Mapping):
        return Stats.from_dict(one)
    if not callable(getattr(one, "stats", None)):
        raise TypeError(
            f"cannot report on {one!r}: a {type(one).__name__} has no stats() method; "
            "give processes, actions, reports or Stats"
        )
    return Stats.from_dict(one.stats())


# The table. Widths add up, with one blank in between, to 80 (two lines) or 157 (one line).
_DATE = 19
_LENGTH = 11
_COLUMNS = (
    ("total", 5, "num_processes"),
    ("started", 7, "num_started"),
    ("ended", 5, "num_ended"),
    ("errors", 6, "num_errors"),
    ("timeout", 7, "num_timeouts"),
    ("forced", 6, "num_forced_kills"),
    ("nonzero", 7, "num_non_zero_exit_codes"),
    ("expect", 6, "num_expect_fail"),
    ("write", 5, "num_write_error"),
    ("ok", 5, "num_finished_ok"),
)
_BELOW = (
    ("cancelled", "num_cancelled"),
    ("truncated", "num_truncated"),
    ("undrained", "num_undrained"),
    ("waited", "num_waited"),
    ("retries", "num_retries"),
)


def _table(total: Stats, *, wide: bool, brief: bool) -> str:
    width, name_width = (157, 36) if wide else (80, 40)
    rows = [(0, total)] if brief else list(_tree(total))
    # All dates in one zone, which the title tells: shorter than an offset in each.
    dates = [date for _, stats in rows for date in (stats.start_date, stats.end_date)]
    first = next((unixts_to_datetime(date) for date in dates if date is not None), None)
    zone = None if first is None else first.tzinfo
    zone_name = "" if first is None else f" ({first.isoformat()[-6:]})"

    def row(name: str, start: str, end: str, length: str, counts: Iterable[str]) -> str:
        numbers = [f"{count:>{size}}" for count, (_, size, _) in zip(counts, _COLUMNS, strict=True)]
        what = f"{name} {start:<{_DATE}} {end:<{_DATE}}"
        figures = " ".join([f"{length:>{_LENGTH}}", *numbers])
        return f"{what} {figures}" if wide else f"{what.rstrip()}\n{figures}"

    titles = [title for title, _, _ in _COLUMNS]
    head = row(_name("name", 0, name_width), f"start{zone_name}", "end", "length", titles)
    lines = [head, "-" * width]
    for depth, stats in rows:
        lines.append(
            row(
                _name(stats.name, depth, name_width),
                _date(stats.start_date, zone),
                _date(stats.end_date, zone),
                _length(stats.start_date, stats.end_date),
                [_count(stats[field], size) for _, size, field in _COLUMNS],
            )
        )
    return "\n".join([*lines, "-" * width, *_below(total, width)])


def _tree(total: Stats) -> Iterator[tuple[int, Stats]]:
    """Each one before its parts, with its depth."""
    rest = [(0, total)]
    while rest:
        depth, stats = rest.pop()
        yield depth, stats
        rest.extend((depth + 1, part) for part in reversed(stats.sub_stats))


def _below(total: Stats, width: int) -> list[str]:
    """What has no column, only if there is any."""
    facts = [f"{word} {total[field]}" for word, field in _BELOW if total[field]]
    found = sorted(total.reasons.items(), key=lambda item: (-item[1], item[0]))
    reasons = [f"{_printable(word)} {count}" for word, count in found if count]
    texts = []
    if facts:
        texts.append("also: " + ", ".join(facts))
    if reasons:
        texts.append("reasons: " + ", ".join(reasons))
    if not texts:
        return []

    import textwrap

    return textwrap.wrap("; ".join(texts), width)


def _date(unixts: float | None, zone: datetime.tzinfo | None) -> str:
    if unixts is None:
        return "-"
    return unixts_to_datetime(unixts).astimezone(zone).isoformat(" ", "seconds")[:_DATE]


def _length(start: float | None, end: float | None) -> str:
    if start is None or end is None:
        return "-"
    text = format_seconds(end - start)
    while len(text) > _LENGTH and not text.endswith("d"):
        text = text.rstrip("hms").rstrip("0123456789")  # without the smallest unit
    return text


def _count(number: int, width: int) -> str:
    """A count in ``width`` columns; cut to thousands, millions, ... when it is longer."""
    text = str(number)
    units = iter("kMGTPE")
    while len(text) > width and (unit := next(units, None)):
        number //= 1000
        text = f"{number}{unit}"
    return text


def _printable(text: str) -> str:
    """One line without anything that a terminal would obey or could not show."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _name(name: str | None, depth: int, width: int) -> str:
    """A name that takes exactly ``width`` columns, indented; at least 10 columns remain for it."""
    indent = " " * min(2 * depth, width - 10)
    text = "-" if name is None else _printable(name)
    room = width - len(indent)
    if text.isascii():
        text = text if len(text) <= room else text[: room - 3] + "..."
        return indent + text.ljust(room)

    import unicodedata

    # Chinese, Japanese, Korean characters and emoji take two columns of a terminal.
    text = unicodedata.normalize("NFC", text)
    sizes = [2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text]
    if sum(sizes) > room:
        end, used = 0, 0
        while used + sizes[end] <= room - 3:
            used += sizes[end]
            end += 1
        text, sizes = text[:end] + "...", [*sizes[:end], 3]
    return indent + text + " " * (room - sum(sizes))
