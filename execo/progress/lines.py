"""One line for each thing: what it says, and how it fits into a terminal of some width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from execo.log import escape_controls

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["Line", "fitted"]

GAP = 2
LEAST = {"name": 12, "failed": 10, "bar": 10}
LEAST_NAME = 6
MOST_NAME = 30
MOST_BAR = 40


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of a thing, in texts.

    :param name: what it is called
    :param count: how much of it is done
    :param parts: for the bar: the part from 0 to 1 that went well, and the one that failed; None =
      it cannot be said
    :param now: what goes on
    :param failed: what went wrong
    :param time: how long it took or will take
    """

    name: str
    count: str
    parts: tuple[float, float] | None = None
    now: str = ""
    failed: str = ""
    time: str = ""


def fitted(lines: Sequence[Line], width: int, most: int, *, plain: bool = False) -> list[Text]:
    """The lines one below the other, in columns: each narrower than ``width``. What is least
    important is left out first.

    :param most: how many lines at the most
    :param plain: with ASCII characters only
    """
    from rich.text import Text

    left_out = 0 if len(lines) <= max(1, most) else len(lines) - max(1, most) + 1
    lines = lines[: len(lines) - left_out]
    cells = [_cells(line) for line in lines]
    # The last column of a terminal stays free: some go to the next line at once.
    widths = _widths(cells, width - 1) if cells else {}
    texts = [_joined(line, row, widths, plain) for line, row in zip(lines, cells, strict=True)]
    if left_out:
        more = Text(f"and {left_out} more", style="dim")
        more.truncate(width - 1)
        texts.append(more)
    return texts


def _cells(line: Line) -> dict[str, Text]:
    from rich.text import Text

    return {
        "name": Text(_on_one_line(line.name), style="bold"),
        "count": Text(line.count),
        "now": Text(line.now, style="dim"),
        "failed": Text(_on_one_line(line.failed), style="red"),
        "time": Text(line.time, style="cyan"),
    }


def _on_one_line(text: str) -> str:
    return " ".join(escape_controls(text).split())


def _widths(rows: Sequence[dict[str, Text]], width: int) -> dict[str, int]:
    """How wide each column is; those without room are missing."""
    # Times change their width all the time, and the others would move to and fro.
    wished = {"bar": MOST_BAR, "time": 9 if any(row["time"] for row in rows) else 0}
    for row in rows:
        for column, text in row.items():
            wished[column] = max(wished.get(column, 0), text.cell_len)
    wished["name"] = min(wished["name"], MOST_NAME)
    wished = {column: cells for column, cells in wished.items() if cells}
    widths = {column: min(cells, LEAST.get(column, cells)) for column, cells in wished.items()}

    def room() -> int:
        return width - sum(cells + GAP for cells in widths.values()) + GAP

    for column in ("now", "bar"):
        if room() < 0:
            widths.pop(column, None)
    if room() < 0:
        widths["name"] = min(widths["name"], LEAST_NAME)
    for column in ("time", "failed", "name"):
        if room() < 0:
            widths.pop(column, None)
    if room() < 0:
        widths["count"] = max(1, width)
    for column in ("name", "failed", "bar"):
        if column in widths:
            widths[column] += min(room(), wished[column] - widths[column])
    return widths


def _joined(line: Line, row: dict[str, Text], widths: dict[str, int], plain: bool) -> Text:
    from rich.text import Text

    joined = Text()
    for column in ("name", "bar", "count", "now", "failed", "time"):
        if column not in widths:
            continue
        cells = widths[column]
        text = _bar(line.parts, cells, plain) if column == "bar" else row[column]
        if column == "count" and text.cell_len < cells:
            text.pad_left(cells - text.cell_len)
        text.truncate(cells, overflow="crop" if plain else "ellipsis", pad=True)
        if joined:
            joined.append(" " * GAP)
        joined.append_text(text)
    joined.rstrip()
    return joined


def _bar(parts: tuple[float, float] | None, width: int, plain: bool) -> Text:
    from rich.text import Text

    if parts is None:
        return Text(" " * width)
    well, failed = parts
    full, rest = ("#", "-") if plain else ("━", "─")
    # Full only when all is done, and never empty where something has failed.
    end = int(min(1.0, well + failed) * width)
    bad = min(max(round(failed * width), failed > 0), max(end, failed > 0))
    bar = Text(full * max(0, end - bad), style="green")
    bar.append(full * bad, style="red")
    bar.append(rest * (width - len(bar)), style="dim")
    return bar
