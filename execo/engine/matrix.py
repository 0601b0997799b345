"""How far a sweep has come: a matrix of its combinations by two factors."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .combination import HashableDict
from .drawing import (
    INK,
    MARK,
    RASTER,
    STATES,
    add_boxes,
    label,
    legend,
    name_levels,
    new_figure,
    plain_text,
    tidy,
)
from .grouping import in_order, level_of, varying_factors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .run import Run

__all__ = ["draw_sweep"]


def draw_sweep(
    run: Run,
    *,
    rows: Any = None,
    columns: Any = None,
    width: float = 7.0,
    title: str | None = None,
) -> Figure:
    """A matrix of the combinations by two factors: which are done, running, failed, skipped or to
    do. (new)

    A cell that has several combinations is divided by their states, and says how many of them are
    done. Blocks while it computes.

    :param run: of :func:`~execo.engine.load`, which also reads the folder of a ParamSweeper alone
    :param rows: a factor; default: of those with several levels, the second one of the sweep
    :param columns: another one; default: the first
    :param width: inches; its height is what the rows need
    :param title: above it
    :returns: a figure to change, or to give to :func:`~execo.engine.save_picture`
    :raises ValueError: there is no such factor
    :raises ImportError: matplotlib is not installed
    """
    factors = varying_factors(run.combinations)
    for factor in (rows, columns):
        if factor is not None and not any(factor in one for one in run.combinations):
            known = sorted({str(name) for one in run.combinations for name in one})
            raise ValueError(f"no factor {factor!r}: there are {', '.join(known) or 'none'}")
    left = [factor for factor in factors if factor not in (rows, columns)]
    columns = columns if columns is not None else next(iter(left), None)
    rows = rows if rows is not None else next((one for one in left if one != columns), None)
    down, across = (_levels(run, factor) for factor in (rows, columns))
    height = min(max(0.3 * len(down), 0.5), 9.0)
    figure = new_figure(width, height + 1.2)
    axes = figure.add_subplot()
    if title is not None:
        label(axes.set_title(plain_text(title, 200), fontsize=10, loc="left"))
    if not run.combinations:
        axes.set_axis_off()
        text = axes.text(0.5, 0.5, "no combinations", ha="center", transform=axes.transAxes)
        label(text).set_fontsize(9)
        return figure
    cells = _cells(run, rows, columns, down, across)
    roomy = width / len(across) > 0.3 and height / len(down) > 0.14
    _draw_cells(axes, cells, roomy)
    name_levels(axes.xaxis, columns, across, (width - 1.2) / len(across), upright=False)
    name_levels(axes.yaxis, rows, down, height / len(down), upright=True)
    tidy(axes)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlim(-0.5, len(across) - 0.5)
    axes.set_ylim(len(down) - 0.5, -0.5)
    _name_states(figure, run)
    return figure


def _levels(run: Run, factor: Any) -> list[Any]:
    """In the order of the sweep; numbers go up."""
    if factor is None:
        return [None]
    levels = {repr(level_of(one, factor)): level_of(one, factor) for one in run.combinations}
    return in_order(list(levels.values())) or [None]


_Cells = dict[tuple[int, int], Counter[str]]


def _cells(run: Run, rows: Any, columns: Any, down: list[Any], across: list[Any]) -> _Cells:
    row_of = {repr(level): place for place, level in enumerate(down)}
    column_of = {repr(level): place for place, level in enumerate(across)}
    cells: _Cells = {}
    for one in run.combinations:
        row = row_of.get(repr(level_of(one, rows)), 0)
        column = column_of.get(repr(level_of(one, columns)), 0)
        cells.setdefault((row, column), Counter())[_state(run, one)] += 1
    return cells


def _state(run: Run, combination: HashableDict) -> str:
    state = run.states.get(combination, "to do")
    return state if any(state == known for known, _, _ in STATES) else "to do"


def _draw_cells(axes: Axes, cells: _Cells, roomy: bool) -> None:
    gap = 0.04 if roomy else 0.0
    parts: dict[str, list[tuple[float, float, float, float]]] = {}
    single: dict[str, list[tuple[int, int]]] = {}
    for (row, column), counts in cells.items():
        total, left = counts.total(), column - 0.5 + gap
        for state, _, _ in STATES:
            if counts[state]:
                right = left + (1 - 2 * gap) * counts[state] / total
                box = (left, right, row - 0.5 + gap, row + 0.5 - gap)
                parts.setdefault(state, []).append(box)
                left = right
                if total == 1:
                    single.setdefault(state, []).append((column, row))
    for state, colour, mark in STATES:
        if state in parts:
            add_boxes(axes, parts[state], colour, bitmap=len(cells) > RASTER)
        if mark and roomy and state in single:
            x, y = zip(*single[state], strict=True)
            axes.scatter(x, y, marker=mark, s=22, color=MARK, linewidths=1, zorder=3)
    if roomy:
        for (row, column), counts in cells.items():
            if counts.total() > 1:
                _write_share(axes, row, column, counts)


def _write_share(axes: Axes, row: int, column: int, counts: Counter[str]) -> None:
    done, total = counts["done"], counts.total()
    # On what the middle of the cell is filled with.
    light = done / total > 0.5
    axes.text(
        *(column, row, str(total) if done == total else f"{done}/{total}"),
        ha="center",
        va="center",
        fontsize=7,
        color="white" if light else INK,
        zorder=4,
    )


def _name_states(figure: Figure, run: Run) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    counts = Counter(_state(run, one) for one in run.combinations)
    handles: list[Any] = []
    texts: list[str] = []
    for state, colour, mark in STATES:
        if counts[state]:
            patch = Patch(facecolor=colour, linewidth=0)
            line = Line2D([], [], linestyle="none", marker=mark, color=MARK, markersize=4.5)
            handles.append((patch, line) if mark else patch)
            texts.append(f"{state} {counts[state]}")
    legend(figure, handles, texts)
