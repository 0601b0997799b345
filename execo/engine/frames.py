"""The rows of a run as pandas frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import ResultRow, Run

__all__ = ["to_frame"]


def to_frame(run: Run, what: str) -> Any:
    """See :meth:`execo.engine.Run.to_frame`."""
    try:
        import pandas  # type: ignore[import-untyped,unused-ignore]
    except ImportError as exc:
        raise ImportError("to_frame() needs pandas: pip install 'execo[data]'") from exc
    if what == "results":
        return pandas.DataFrame(list(_result_rows(run.results)))
    if what not in ("processes", "actions"):
        raise ValueError(f"a frame of results, processes or actions: not {what!r}")
    rows: list[dict[str, Any]] = []
    for row in getattr(run, what):
        found = {field.name: getattr(row, field.name) for field in fields(row)}
        rows.append(found | {"duration": _duration(row)})
    return pandas.DataFrame(rows)


def _result_rows(results: Any) -> Iterator[dict[str, Any]]:
    for row in results:
        found: dict[str, Any] = {str(factor): value for factor, value in row.combination.items()}
        own = {
            "state": row.state,
            "attempt": row.attempt,
            "start": row.start,
            "end": row.end,
            "duration": _duration(row),
            "hosts": row.hosts,
            "reason": row.reason,
        }
        # A factor's name is the user's: what is ours gives way.
        found |= {name if name not in found else f"run.{name}": own[name] for name in own}
        yield found | dict(_result_columns(row, found))


def _result_columns(row: ResultRow, taken: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    result = row.result if isinstance(row.result, dict) else {"result": row.result}
    if row.result is None:
        return
    for name, value in result.items():
        yield (f"result.{name}" if name in taken else str(name)), value


def _duration(row: Any) -> float | None:
    return None if row.start is None or row.end is None else row.end - row.start
