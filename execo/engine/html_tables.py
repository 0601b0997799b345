"""The tables of a report: their columns, and rows of texts and numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .drawing import level_text, natural, plain_text
from .grouping import Grouped, is_number
from .run import ProcessRow, ResultRow, Run

__all__ = ["Column", "Table", "began", "cell", "groups_table", "hosts_table", "named"]
__all__ += ["processes_table", "results_table"]

LONGEST = 400
"""Characters of a cell: of a longer text, its beginning and its end."""

FIRST = 50
"""Rows that are there without JavaScript."""

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """``kind``: ``text``, ``number``, ``code`` (a command), or ``state``, which has a colour and a
    list to choose from."""

    name: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """``name`` is its id on the page."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    @property
    def first(self) -> Sequence[Sequence[Cell]]:
        """Those that are part of the page itself."""
        return self.rows[:FIRST]

    @property
    def content(self) -> Mapping[str, Any]:
        """What the script of the page is given."""
        kinds = [column.kind for column in self.columns]
        return {"kinds": kinds, "rows": self.rows, "first": FIRST}


def _table(
    name: str, title: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]
) -> Table:
    """Without the columns that have nothing in any row."""
    used = [
        at
        for at, column in enumerate(columns)
        if column.kind == "state" or any(row[at] not in (None, "") for row in rows)
    ]
    if len(used) < len(columns):
        rows = [[row[at] for at in used] for row in rows]
    return Table(name, title, [columns[at] for at in used], rows)


def cell(value: Any) -> Cell:
    """What stands in a table: a number that JavaScript has, or a text that can be shown. Pure."""
    if value is None or isinstance(value, bool):
        return None if value is None else str(value)
    if isinstance(value, int) and abs(value) < 1 << 53:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.6g}")
    return plain_text(value, LONGEST, lines=True)


def named(combination: Mapping[Any, Any] | None) -> str:
    """A combination in one line. Pure."""
    if combination is None:
        return ""
    pairs = (f"{plain_text(name)}={level_text(level)}" for name, level in combination.items())
    return ", ".join(pairs)


def began(run: Run) -> float | None:
    """When the first thing of a run began, a unix time; None if nothing is known of it."""
    times = [row.start for row in run.processes] + [row.start for row in run.results]
    return min((time for time in times if time is not None and math.isfinite(time)), default=None)


def _since(time: float | None, begin: float | None) -> Cell:
    if time is None or begin is None or not math.isfinite(time):
        return None
    return round(time - begin, 3)


def _lasted(row: ProcessRow | ResultRow) -> Cell:
    return None if row.start is None else _since(row.end, row.start)


# -- the tables ----------------------------------------------------------------------------------


def results_table(run: Run) -> Table:
    """Every attempt with its result, then the combinations that have none."""
    factors = list(dict.fromkeys(name for one in run.combinations for name in one))
    numbers = dict.fromkeys(
        str(name) for row in run.results if isinstance(row.result, Mapping) for name in row.result
    )
    plain = any(row.result is not None and not _is_dict(row) for row in run.results)
    names = [*numbers, *(["result"] if plain else [])]
    columns = [
        *(Column(plain_text(factor), _kind(run, factor)) for factor in factors),
        Column("state", "state"),
        *(Column(plain_text(name), "number") for name in names),
        *(Column("start (s)", "number"), Column("duration (s)", "number")),
        *(Column("attempt", "number"), Column("hosts"), Column("reason")),
    ]
    begin = began(run)
    rows: list[list[Cell]] = []
    for row in run.results:
        result = row.result if isinstance(row.result, Mapping) else {"result": row.result}
        by_name = {str(name): value for name, value in result.items()}
        rows.append(
            [
                *_levels(row.combination, factors),
                cell(row.state),
                *(cell(by_name.get(name)) for name in names),
                *(_since(row.start, begin), _lasted(row), row.attempt),
                *(cell(", ".join(map(str, row.hosts))), cell(row.reason)),
            ]
        )
    seen = {row.combination for row in run.results}
    empty: list[Cell] = [None] * (len(names) + 5)
    rows += [
        [*_levels(one, factors), cell(run.states.get(one, "to do")), *empty]
        for one in run.combinations
        if one not in seen
    ]
    return _table("results", "Combinations and results", columns, rows)


def _kind(run: Run, factor: Any) -> str:
    levels = (one[factor] for one in run.combinations if factor in one)
    return "number" if all(map(is_number, levels)) else "text"


def _is_dict(row: ResultRow) -> bool:
    return isinstance(row.result, Mapping)


def _levels(combination: Mapping[Any, Any], factors: Iterable[Any]) -> list[Cell]:
    found: list[Cell] = []
    for factor in factors:
        level = combination.get(factor, "")
        simple = isinstance(level, str | int | float) and not isinstance(level, bool)
        found.append(cell(level) if simple else level_text(level, LONGEST))
    return found


def processes_table(run: Run) -> Table:
    """Every process."""
    actions = {action.number: action.name for action in run.actions}
    begin = began(run)
    columns = [
        *(Column("#", "number"), Column("host"), Column("command", "code")),
        *(Column("outcome", "state"), Column("exit code", "number")),
        *(Column("start (s)", "number"), Column("duration (s)", "number")),
        *(Column("stdout (B)", "number"), Column("stderr (B)", "number")),
        *(Column("combination"), Column("action", "code"), Column("message")),
    ]
    rows = [
        [
            *(row.number, cell(row.host or "(this machine)"), cell(row.cmd), cell(row.outcome)),
            *(row.exit_code, _since(row.start, begin), _lasted(row)),
            *(row.stdout_size, row.stderr_size, named(row.combination)),
            *(cell(actions.get(row.action, "") if row.action is not None else ""), _why(row)),
        ]
        for row in run.processes
    ]
    return _table("processes", "Processes", columns, rows)


def _why(row: ProcessRow) -> Cell:
    """What is known of a failure, with the last words that it has printed."""
    if row.ok:
        return ""
    last = (row.stderr or "").rstrip()[-LONGEST // 2 :]
    return cell("\n".join(part for part in (row.message, last) if part))


def hosts_table(run: Run) -> Table:
    """What each host is, and what ran there."""
    facts = run.manifest.get("hosts")
    facts = facts if isinstance(facts, Mapping) else {}
    counts: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    busy: dict[str, float] = {}
    for row in run.processes:
        name = row.host or "(this machine)"
        counts[name] += 1
        failed[name] += row.outcome not in ("ok", "running")
        lasted = _lasted(row)
        busy[name] = busy.get(name, 0.0) + (lasted if isinstance(lasted, float) else 0.0)
    columns = [
        *(Column("host"), Column("processes", "number"), Column("failed", "number")),
        *(Column("process seconds", "number"), Column("cpu"), Column("cpus", "number")),
        *(Column("memory (GiB)", "number"), Column("NUMA nodes", "number"), Column("kernel")),
        *(Column("system"), Column("governor"), Column("clock ahead (s)", "number")),
    ]
    rows: list[list[Cell]] = []
    for name in sorted({*counts, *map(str, facts)}, key=natural):
        known = facts.get(name)
        rows.append(
            [
                *(cell(name), counts[name], failed[name], round(busy.get(name, 0.0), 3)),
                *_facts(known if isinstance(known, Mapping) else {}),
            ]
        )
    return _table("hosts", "Hosts", columns, rows)


def _facts(known: Mapping[str, Any]) -> list[Cell]:
    memory = known.get("memory")
    numa = known.get("numa")
    return [
        cell(known.get("cpu") or known.get("error")),
        cell(known.get("cpus")),
        round(memory / 2**30, 1) if isinstance(memory, int | float) else None,
        len(numa) if isinstance(numa, Mapping) else None,
        cell(known.get("kernel")),
        cell(known.get("distribution") or known.get("system")),
        cell(known.get("governor")),
        cell(known.get("clock_offset")),
    ]


def groups_table(found: Grouped, name: str, x: Any, by: Any, statistic: str) -> Table:
    """The numbers of a plot."""
    columns = [
        *([] if by is None else [Column(plain_text(by))]),
        *(Column(plain_text(x)), Column("results", "number"), Column(statistic, "number")),
        *(Column("low", "number"), Column("high", "number")),
        *(Column("least", "number"), Column("greatest", "number")),
    ]
    rows = [
        [
            *_levels({0: one.series, 1: one.x}, [1] if by is None else [0, 1]),
            *(one.estimate.count, cell(one.estimate.value)),
            *(cell(one.estimate.low), cell(one.estimate.high)),
            *(cell(min(one.values)), cell(max(one.values))),
        ]
        for one in found.groups
    ]
    return Table(name, "The numbers", columns, rows)
