"""Runs made by hand, for pictures and pages."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# It starts threads that stay: before the guard against leaks looks for the first time.
import numpy  # noqa: F401

from execo.engine import HashableDict, ProcessRow, ResultRow, Run, sweep

__all__ = ["BEGIN", "HOSTILE", "busy_run", "process", "run_of", "swept_run"]

BEGIN = 1795000000.0

HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "</script><script>window.hacked = 1</script>",
    "</style></svg><b class=hacked>",
    "<!-- ]]> --> &lt; &amp;",
    "' onmouseover='window.hacked=1",
    "javascript:window.hacked=1",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "$x^2$ $\\frac{1}{0$ \\N{DEGREE SIGN}",
    "line\nline\r\n\ttab\x00\x1b[31m\x07\x7f",
    "\u202egnp.exe \u2028 \u2029 \ud800",
    "=HYPERLINK(1)",
)
"""Texts that are something else for whoever takes them for markup, a formula or a terminal's."""


def process(
    number: int, host: str | None, start: float | None, end: float | None, **facts: Any
) -> ProcessRow:
    """Times in seconds since BEGIN."""
    return ProcessRow(
        number,
        **{"cmd": f"command {number}", "outcome": "ok", **facts},
        host=host,
        start=None if start is None else BEGIN + start,
        end=None if end is None else BEGIN + end,
    )


def run_of(*processes: ProcessRow, **facts: Any) -> Run:
    return Run(Path("nowhere"), processes=processes, **facts)


def busy_run(count: int, hosts: int = 10, **facts: Any) -> Run:
    """Processes one after the other on each host, three at a time; some fail."""
    chance = random.Random(count)
    outcomes = ["ok"] * 95 + ["exit code", "exit code", "timeout", "signal", "connect"]
    free = [0.0] * (3 * hosts)
    found = []
    for number in range(count):
        seat = number % len(free)
        start = free[seat] + chance.random()
        free[seat] = start + chance.expovariate(0.1)
        outcome = chance.choice(outcomes)
        found.append(
            process(
                number,
                f"node-{seat // 3 + 1}.example.org",
                *(start, free[seat]),
                outcome=outcome,
                exit_code={"ok": 0, "exit code": 3}.get(outcome),
                message="" if outcome == "ok" else f"it has ended by: {outcome}",
                stdout_size=chance.randrange(10**6),
            )
        )
    return run_of(*found, **facts)


def swept_run(
    factors: Mapping[Any, Any],
    results: Mapping[tuple[Any, ...], Sequence[Any]],
    *,
    states: Mapping[tuple[Any, ...], str] | None = None,
    **facts: Any,
) -> Run:
    """A sweep, repeated as often as there are results of its combinations: by levels in order."""
    most = max((len(values) for values in results.values()), default=1)
    combinations = sweep(factors, repeat=most)
    rows: list[ResultRow] = []
    known: dict[HashableDict, str] = {}
    for at, one in enumerate(combinations):
        levels = tuple(one[factor] for factor in factors)
        values = results.get(levels, ())
        if one["repetition"] < len(values):
            known[one] = "done"
            value = values[one["repetition"]]
            begin = BEGIN + at
            rows.append(ResultRow(one, "done", value, begin, begin + 2, hosts=("node-1",)))
        else:
            known[one] = (states or {}).get(levels, "to do")
            if known[one] in ("failed", "skipped"):
                rows.append(ResultRow(one, known[one], reason="exit code"))
    whole = {"combinations": combinations, "states": known, "results": rows}
    return Run(Path("nowhere"), **{**whole, **facts})
