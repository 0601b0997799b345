"""How far a sweep has come, by factor and level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

__all__ = ["sweep_stats"]

_Counts = dict[Any, Counter[Any]]


def sweep_stats(
    stats: Sequence[Collection[Mapping[Any, Any]]],
) -> dict[str, dict[Any, dict[Any, float]]]:
    """Count the combinations by factor and level. (execo 2.8.2) Pure.

    :param stats: of :meth:`ParamSweeper.stats() <execo.engine.ParamSweeper.stats>`
    :returns: ``total``, ``remaining``, ``skipped``, ``inprogress`` and ``done``: factor -> level
      -> number of combinations that have it, where there are any; ``remaining_ratio`` and so on:
      factor -> level -> that number as a part of the total, for all levels
    """
    sweeps, remaining, skipped, inprogress, done = stats
    total = _counted(sweeps)
    found: dict[str, dict[Any, dict[Any, float]]] = {"total": _plain(total)}
    for name, combinations in (
        ("remaining", remaining),
        ("skipped", skipped),
        ("inprogress", inprogress),
        ("done", done),
    ):
        counts = _counted(combinations)
        found[name] = _plain(counts)
        found[f"{name}_ratio"] = {
            factor: {
                level: counts.get(factor, Counter())[level] / number
                for level, number in levels.items()
            }
            for factor, levels in total.items()
        }
    return found


def _counted(combinations: Collection[Mapping[Any, Any]]) -> _Counts:
    counts: _Counts = {}
    for combination in combinations:
        for factor, level in combination.items():
            counts.setdefault(factor, Counter())[level] += 1
    return counts


def _plain(counts: _Counts) -> dict[Any, dict[Any, float]]:
    return {factor: dict(levels) for factor, levels in counts.items()}
