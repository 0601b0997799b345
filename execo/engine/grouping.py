"""Results by the levels of factors: what a plot and its table are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .combination import HashableDict
from .intervals import Estimate, estimate
from .run import ResultRow, Run
from .sweep import REPETITION, SEED

__all__ = [
    "ABSENT",
    "Group",
    "Grouped",
    "combinations_with",
    "grouped",
    "in_order",
    "is_number",
    "level_of",
    "measured",
    "varying_factors",
]

ABSENT = "(none)"
"""The level of a factor that a combination does not have."""

_BEYOND = 1e100
"""Sums and squares of what is below it are floats still."""

DURATION = "duration"


def varying_factors(combinations: Sequence[Mapping[Any, Any]]) -> dict[Any, list[Any]]:
    """The factors that have more than one level, with their levels: both in the order of the
    sweep. Repetitions and their seeds are none. Pure."""
    found: dict[Any, dict[str, Any]] = {}
    for one in combinations:
        for factor, level in one.items():
            found.setdefault(factor, {}).setdefault(repr(level), level)
    for factor, levels in found.items():
        if any(factor not in one for one in combinations):
            levels.setdefault(repr(ABSENT), ABSENT)
    return {
        factor: list(levels.values())
        for factor, levels in found.items()
        if len(levels) > 1 and factor not in (REPETITION, SEED)
    }


def in_order(levels: list[Any]) -> list[Any]:
    """Numbers go up; others stay in the order of the sweep. Pure."""
    known = [level for level in levels if level != ABSENT]
    if all(map(is_number, known)):
        known.sort()
    return known + [ABSENT] * (len(known) < len(levels))


def level_of(combination: Mapping[Any, Any], factor: Any) -> Any:
    """Its level, or what says that it has none."""
    return combination.get(factor, ABSENT)


@dataclass(frozen=True, slots=True)
class Group:
    """The results of combinations that have these levels.

    - ``x``, ``series``: the levels; ``series`` is None without a second factor
    - ``values``: the results, in the order of the run
    - ``estimate``: what they say
    """

    x: Any
    series: Any
    values: tuple[float, ...]
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Grouped:
    """All groups, in the order of the sweep.

    - ``pooled``: other factors whose levels are mixed within groups
    - ``left_out``: results that are no number
    """

    groups: tuple[Group, ...]
    pooled: tuple[Any, ...]
    left_out: int


def measured(run: Run) -> list[str]:
    """The names of the numbers among the results, in their order; ``duration`` the last. Pure."""
    names: dict[str, None] = {}
    for row in _done(run):
        if isinstance(row.result, Mapping):
            found = (str(name) for name, value in row.result.items() if is_number(value))
            names.update(dict.fromkeys(found))
        elif is_number(row.result):
            names["result"] = None
    if any(is_number(_value(row, DURATION)) for row in _done(run)):
        names[DURATION] = None
    return list(names)


def combinations_with(run: Run, value: str) -> list[HashableDict]:
    """Those that are done and have that number among their results. Pure."""
    return [row.combination for row in _done(run) if is_number(_value(row, value))]


def grouped(
    run: Run,
    value: str,
    x: Any,
    by: Any = None,
    *,
    where: Mapping[Any, Any] | None = None,
    statistic: str = "mean",
    confidence: float = 0.95,
) -> Grouped:
    """The results of the done combinations by one factor, or two. Pure. See
    :func:`~execo.engine.draw_results` for the parameters and errors."""
    fixed = dict(where or {})
    rows = [
        row
        for row in _done(run)
        if all(level_of(row.combination, name) == level for name, level in fixed.items())
    ]
    _check_factors(rows, [x, *([] if by is None else [by])], fixed)
    values: dict[tuple[str, str], tuple[Any, Any, list[float]]] = {}
    kept: list[HashableDict] = []
    for row in rows:
        number = _value(row, value)
        if not is_number(number):
            continue
        levels = level_of(row.combination, x), None if by is None else level_of(row.combination, by)
        key = repr(levels[0]), repr(levels[1])
        values.setdefault(key, (*levels, []))[2].append(float(number))
        kept.append(row.combination)
    if not kept:
        known = ", ".join(measured(run)) or "none"
        raise ValueError(f"no result {value!r} that is a number; those there are: {known}")
    groups = [
        Group(level, series, tuple(found), estimate(found, statistic, confidence))
        for level, series, found in values.values()
    ]
    return Grouped(
        groups=tuple(_in_order(groups, run, x, by)),
        pooled=tuple(one for one in varying_factors(kept) if one not in (x, by)),
        left_out=len(rows) - len(kept),
    )


def _done(run: Run) -> list[ResultRow]:
    """One for each combination: the last, if it was done more than once."""
    return list({row.combination: row for row in run.results if row.state == "done"}.values())


def _value(row: ResultRow, name: str) -> Any:
    if isinstance(row.result, Mapping):
        for key, value in row.result.items():
            if str(key) == name:
                return value
    elif name == "result":
        return row.result
    if name == DURATION and row.start is not None and row.end is not None:
        return row.end - row.start
    return None


def is_number(value: Any) -> bool:
    """One that can be computed with and drawn: no bool, finite, not beyond all measure. Pure."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _BEYOND


def _check_factors(rows: list[ResultRow], named: list[Any], fixed: Mapping[Any, Any]) -> None:
    for factor in (*named, *fixed):
        if rows and not any(factor in row.combination for row in rows):
            known = ", ".join(dict.fromkeys(str(one) for row in rows for one in row.combination))
            raise ValueError(f"no factor {factor!r}: there are {known or 'none'}")


def _in_order(groups: list[Group], run: Run, x: Any, by: Any) -> list[Group]:
    """That of the levels in the sweep, save numbers, which go up."""
    places: list[dict[str, int]] = []
    for factor in (x, by):
        levels = {repr(level_of(one, factor)): level_of(one, factor) for one in run.combinations}
        order = in_order(list(levels.values()))
        places.append({repr(level): place for place, level in enumerate(order)})
    return sorted(
        groups,
        key=lambda one: (
            places[1].get(repr(one.series), len(places[1])),
            places[0].get(repr(one.x), len(places[0])),
        ),
    )
