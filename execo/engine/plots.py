"""What came out of a sweep, by the levels of factors, and how sure it is."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .drawing import (
    PAPER,
    SERIES,
    label,
    legend,
    level_text,
    name_levels,
    new_figure,
    plain_text,
    set_ticks,
    tidy,
)
from .grouping import Group, Grouped, grouped, in_order, is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .run import Run

__all__ = ["caption", "draw_results"]

_SINGLE = 60
"""Results of a group up to which each is shown."""

_NAMED = 2 * len(SERIES)
"""Curves that are named: as many as are told apart."""

_WIDE = 100
"""Ratio of the greatest level to the least from which on an axis is logarithmic."""


def draw_results(
    run: Run,
    value: str,
    x: Any,
    by: Any = None,
    *,
    where: Mapping[Any, Any] | None = None,
    statistic: str = "mean",
    confidence: float = 0.95,
    width: float = 6.0,
    height: float = 3.6,
    title: str | None = None,
) -> Figure:
    """Results by the levels of one factor, or two, with confidence intervals. (new)

    For each pair of levels: the mean, or the median, of the results of all combinations that have
    them and are done; its interval, see :func:`~execo.engine.intervals.mean_interval` and
    :func:`~execo.engine.intervals.median_interval`; and each single result, in pale, unless they
    are very many. Below stands what was drawn: how many results, which interval, and which other
    factors are mixed (repetitions are not one): fix these by ``where``, or the interval means
    little. Levels that are numbers stand where they belong on their axis, and curves a little
    beside one another, that no interval hides another. An axis whose numbers reach over a factor of
    100 is logarithmic. Blocks while it computes.

    :param run: of :func:`~execo.engine.load`
    :param value: which of the results, by its name; ``result`` if they are no dicts; ``duration``:
      of the combination, in seconds
    :param x: the factor along the axis
    :param by: another one: a curve for each of its levels
    :param where: factor -> level: only combinations that have these
    :param statistic: ``mean`` or ``median``
    :param confidence: of the interval
    :param width: inches
    :param height: inches
    :param title: above it
    :returns: a figure to change, or to give to :func:`~execo.engine.save_picture`
    :raises ValueError: no such factor; no result of that name is a number; another statistic; a
      confidence that is not between 0 and 1
    :raises ImportError: matplotlib is not installed
    """
    found = grouped(run, value, x, by, where=where, statistic=statistic, confidence=confidence)
    figure = new_figure(width, height)
    axes = figure.add_subplot()
    tidy(axes, "y")
    axes.margins(x=0.07)
    if title is not None:
        label(axes.set_title(plain_text(title, 200), fontsize=10, loc="left"))
    levels = in_order(list({repr(one.x): one.x for one in found.groups}.values()))
    numeric = len(levels) > 1 and all(map(is_number, levels))
    place_of = {repr(one): float(one) if numeric else at for at, one in enumerate(levels)}
    series = list({repr(one.series): one.series for one in found.groups}.values())
    for number, name in enumerate(series):
        groups = [one for one in found.groups if repr(one.series) == repr(name)]
        # Beside one another, though they have the same level: in points where that is a number.
        side = number - (len(series) - 1) / 2
        shift = 0.0 if numeric else side * 0.5 / len(series)
        places = [place_of[repr(one.x)] + shift for one in groups]
        aside = side * min(8, 30 / len(series)) if numeric else 0.0
        _draw_series(figure, axes, groups, places, number, numeric, aside)
    _name_x(axes, x, levels, numeric, width)
    if _reaches_far([one.estimate.value for one in found.groups]):
        axes.set_yscale("log")
    label(axes.set_ylabel(plain_text(value), fontsize=9))
    if by is not None:
        _name_series(figure, by, series, numeric)
    text = caption(found, statistic, confidence)
    label(figure.supxlabel("\n".join(textwrap.wrap(text, int(width * 20))), fontsize=7))
    return figure


def _style(number: int, joined: bool) -> dict[str, Any]:
    """How a curve looks. When all colours are used they come again, dashed and hollow."""
    colour, marker = SERIES[number % len(SERIES)]
    again = number // len(SERIES) % 2
    return {
        "color": colour,
        "linestyle": ("--" if again else "-") if joined else "none",
        "linewidth": 1.2,
        "marker": marker,
        "markersize": 5,
        "markerfacecolor": PAPER if again else colour,
    }


def _draw_series(
    figure: Figure,
    axes: Axes,
    groups: list[Group],
    places: list[float],
    number: int,
    joined: bool,
    aside: float,
) -> None:
    from matplotlib.transforms import ScaledTranslation

    def moved(points: float) -> Any:
        return axes.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)

    # What is moved does not count for the limits of the axes by itself.
    for one, place in zip(groups, places, strict=True):
        shown = (*one.values, one.estimate.value, one.estimate.low, one.estimate.high)
        axes.update_datalim([(place, value) for value in shown if value is not None])
    colour, _ = SERIES[number % len(SERIES)]
    for one, place in zip(groups, places, strict=True):
        if 1 < len(one.values) <= _SINGLE:
            axes.scatter(
                [place] * len(one.values),
                one.values,
                s=9,
                color=colour,
                alpha=0.35,
                linewidths=0,
                transform=moved(aside + 4),
                zorder=2,
            )
    sure = [
        (place, one.estimate.value, one.estimate.low, one.estimate.high)
        for one, place in zip(groups, places, strict=True)
        if one.estimate.low is not None and one.estimate.high is not None
    ]
    if sure:
        at, middle, low, high = zip(*sure, strict=True)
        axes.errorbar(
            at,
            middle,
            yerr=(
                [value - end for value, end in zip(middle, low, strict=True)],
                [end - value for value, end in zip(middle, high, strict=True)],
            ),
            fmt="none",
            ecolor=colour,
            elinewidth=1.3,
            capsize=2.5,
            transform=moved(aside),
            zorder=3,
        )
    axes.plot(
        places,
        [one.estimate.value for one in groups],
        **_style(number, joined),
        transform=moved(aside),
        zorder=4,
    )


def _name_x(axes: Axes, x: Any, levels: list[Any], numeric: bool, width: float) -> None:
    room = (width - 1.0) / len(levels)
    if not numeric:
        name_levels(axes.xaxis, x, levels, room, upright=False)
        axes.set_xlim(-0.5, len(levels) - 0.5)
        return
    label(axes.set_xlabel(plain_text(x), fontsize=9))
    if _reaches_far(levels):
        axes.set_xscale("log")
    # The levels themselves, where they do not touch one another.
    texts = [level_text(level) for level in levels]
    places = list(map(float, levels))
    if max(map(len, texts)) * 0.075 < room and _even(axes, places):
        set_ticks(axes.xaxis, places, texts)
        set_ticks(axes.xaxis, [], [], minor=True)


def _reaches_far(numbers: list[float]) -> bool:
    return min(numbers) > 0 and max(numbers) / min(numbers) >= _WIDE


def _even(axes: Axes, levels: list[float]) -> bool:
    """No two are much closer to one another than they would be in equal steps."""
    shown = axes.transScale.transform([(level, 1.0) for level in levels])[:, 0]
    step = (shown[-1] - shown[0]) / (len(levels) - 1)
    return all(b - a > 0.6 * step for a, b in itertools.pairwise(shown))


def _name_series(figure: Figure, by: Any, series: list[Any], joined: bool) -> None:
    from matplotlib.lines import Line2D

    shown = series[:_NAMED]
    handles = [Line2D([], [], **_style(number, joined)) for number in range(len(shown))]
    names = [f"{plain_text(by)} {level_text(level)}" for level in shown]
    if len(series) > len(shown):
        handles.append(Line2D([], [], linestyle="none"))
        names.append(f"and {len(series) - len(shown)} more")
    legend(figure, handles, names, columns=max(1, 60 // max(len(name) + 5 for name in names)))


def caption(found: Grouped, statistic: str, confidence: float) -> str:
    """What is shown, in words."""
    counts = [len(one.values) for one in found.groups]
    number = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    text = f"{statistic} of {number} result{'s' * (max(counts) > 1)}"
    unsure = sum(one.estimate.low is None for one in found.groups)
    if unsure < len(counts):
        kind = "Student's t" if statistic == "mean" else "order statistics"
        text += f" and its {100 * confidence:g} % confidence interval ({kind})"
    if unsure:
        few = "no" if unsure == len(counts) else f"{unsure} of {len(counts)} points have no"
        text += f"; {few} interval: too few results"
    if found.pooled:
        text += f"; mixed: {', '.join(plain_text(one) for one in found.pooled)}"
    if found.left_out:
        text += f"; left out, without this number: {found.left_out}"
    return text
