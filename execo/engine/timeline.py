"""When each process of a run ran, host by host: a Gantt chart."""

from __future__ import annotations

import datetime
import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .drawing import (
    OUTCOMES,
    PALE,
    RASTER,
    add_boxes,
    label,
    legend,
    natural,
    new_figure,
    plain_text,
    set_ticks,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .run import ProcessRow, Run

__all__ = ["draw_timeline"]

LOCAL = "(this machine)"

_ROW = 0.22
_LEAST, _MOST = 1.2, 9.0
"""Inches: of a host, and of all of them."""

_APART = 60
"""Hosts up to which there is room between their rows."""

_UNITS = ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"), (86400.0, "days"))


@dataclass(slots=True)
class _Bar:
    begin: float
    end: float
    outcome: str
    low: float = 0.0
    high: float = 0.0


def draw_timeline(
    run: Run, *, width: float = 7.0, height: float | None = None, title: str | None = None
) -> Figure:
    """A Gantt chart: a row for each host, a bar for each process from its start to its end, in the
    colour of its outcome. (new)

    Processes of a host that ran at the same time share the height of its row. A bar is never
    thinner than can be seen, and failed ones lie on top: none is hidden behind others. One without
    an end goes to the end of what is known. Above some thousand bars these are a bitmap in PDF and
    SVG, texts and axes are not. Blocks while it computes, a few seconds for 100 000 processes.

    :param run: of :func:`~execo.engine.load`
    :param width: inches
    :param height: inches; default: what the hosts need, at most some 10
    :param title: above it
    :returns: a figure to change, or to give to :func:`~execo.engine.save_picture`
    :raises ImportError: matplotlib is not installed
    """
    rows, begin, unknown = _bars(run.processes)
    hosts = sorted(rows, key=lambda host: (host is not None, natural(host or "")))
    if height is None:
        height = min(max(_ROW * len(hosts), _LEAST), _MOST) + 1.1
    figure = new_figure(width, height)
    axes = figure.add_subplot()
    tidy(axes, "x")
    if title is not None:
        label(axes.set_title(plain_text(title, 200), fontsize=10, loc="left"))
    if not rows:
        _say_nothing(axes, unknown)
        return figure
    for place, host in enumerate(hosts):
        _stack(rows[host], place, 0.4 if len(hosts) <= _APART else 0.5)
    bars = [bar for host in hosts for bar in rows[host]]
    span = max(bar.end for bar in bars) or 1e-3
    size, unit = _unit(span)
    _draw(axes, bars, span / size, size, width)
    _name_hosts(axes, hosts, height - 1.1)
    _name_times(axes, unit, begin, unknown)
    _name_outcomes(figure, bars)
    return figure


def _bars(
    processes: Sequence[ProcessRow],
) -> tuple[dict[str | None, list[_Bar]], float, int]:
    """Those of each host, in seconds since the first start; that start, as a unix time; and the
    number of processes of which no start is known."""
    known = [one for one in processes if _known(one.start)]
    times = [one.start or 0.0 for one in known]
    begin = min(times, default=0.0)
    # What runs goes on to the end of what is known.
    last = max([*times, *(one.end or 0.0 for one in known if _known(one.end))], default=0.0)
    rows: dict[str | None, list[_Bar]] = {}
    for one, start in zip(known, times, strict=True):
        end = one.end if one.end is not None and _known(one.end) else last
        # A clock that was set back meanwhile makes no bar that goes to the left.
        bar = _Bar(start - begin, max(start, end) - begin, one.outcome)
        rows.setdefault(one.host, []).append(bar)
    return rows, begin, len(processes) - len(known)


def _known(time: float | None) -> bool:
    return time is not None and math.isfinite(time)


def _stack(bars: list[_Bar], place: int, half: float) -> None:
    """Give bars that overlap different heights within the row of that place."""
    bars.sort(key=lambda bar: (bar.begin, bar.end))
    busy: list[tuple[float, int]] = []
    """When each of the lanes in use is free again."""
    free: list[int] = []
    lanes: list[int] = []
    count = 0
    for bar in bars:
        while busy and busy[0][0] <= bar.begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            free.append(count)
            count += 1
        lane = heapq.heappop(free)
        lanes.append(lane)
        heapq.heappush(busy, (bar.end, lane))
    for bar, lane in zip(bars, lanes, strict=True):
        bar.low = place - half + 2 * half * lane / count
        # A line between two lanes, while there is room for it.
        bar.high = place - half + 2 * half * (lane + (0.92 if count <= 8 else 1.0)) / count


# -- drawing -------------------------------------------------------------------------------------


def _draw(axes: Axes, bars: list[_Bar], span: float, size: float, width: float) -> None:
    thin = span / (width * 120)  # half a point or so
    bitmap = len(bars) > RASTER
    for order, (colour, outcomes) in enumerate(_groups(bars), 2):
        boxes = [
            (bar.begin / size, max(bar.end / size, bar.begin / size + thin), bar.low, bar.high)
            for bar in bars
            if bar.outcome in outcomes
        ]
        # Two without a gap are seen to be two, unless nothing would be left of them.
        add_boxes(axes, boxes, colour, bitmap=bitmap, order=order, outlined=8 * thin)
    axes.set_xlim(-0.01 * span, 1.01 * span + thin)


def _groups(bars: Iterable[_Bar]) -> list[tuple[str, tuple[str, ...]]]:
    """A colour and the outcomes there are that have it; those that failed last."""
    there = dict.fromkeys(bar.outcome for bar in bars)
    named = {outcome for _, outcomes in OUTCOMES for outcome in outcomes}
    others = tuple(outcome for outcome in there if outcome not in named)
    found = []
    for colour, outcomes in OUTCOMES:
        own = tuple(outcome for outcome in outcomes if outcome in there)
        if "exit code" in outcomes:
            own += others  # of a later version: they are failures, too
        if own:
            found.append((colour, own))
    return found


def _name_hosts(axes: Axes, hosts: list[str | None], height: float) -> None:
    names = [LOCAL if host is None else host for host in hosts]
    domain = _common_domain([host for host in hosts if host is not None])
    each = max(1, math.ceil(len(names) * 0.13 / height))  # inches for a line of text
    places = range(0, len(names), each)
    set_ticks(
        axes.yaxis,
        places,
        [plain_text(names[place].removesuffix(domain), 32) for place in places],
        fontsize=min(8.0, max(5.0, 72 * height / len(names) * 0.7 * each)),
    )
    axes.tick_params(axis="y", length=0)
    # From top to bottom, with lines between some of them.
    axes.set_ylim(len(names) - 0.4, -0.6)
    if 1 < len(names) <= _APART:
        for place in range(1, len(names)):
            axes.axhline(place - 0.5, color=PALE, alpha=0.25, linewidth=0.5, zorder=1)
    notes = []
    if each > 1:
        notes.append(f"{len(names)} hosts, one name in {each}")
    if domain:
        notes.append(f"*{domain}")
    if notes:
        label(axes.set_ylabel(plain_text(", ".join(notes), 80), fontsize=8))


def _common_domain(hosts: list[str]) -> str:
    """What all names end in, from a dot on, if it leaves something of each; never of addresses."""
    if len(hosts) < 2 or any(":" in host or host[-1:].isdigit() for host in hosts):
        return ""
    endings = [host.split(".")[1:] for host in hosts]
    common: list[str] = []
    for parts in zip(*(reversed(ending) for ending in endings), strict=False):
        if len(set(parts)) > 1:
            break
        common.insert(0, parts[0])
    return "." + ".".join(common) if common else ""


def _unit(span: float) -> tuple[float, str]:
    # Two of it, at least: half an hour is 30 minutes.
    return [one for one in _UNITS if span >= 2 * one[0] or one[0] == 1.0][-1]


def _name_times(axes: Axes, unit: str, begin: float, unknown: int) -> None:
    try:
        since = datetime.datetime.fromtimestamp(begin, datetime.UTC)
        text = f"{unit} since {since:%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        text = unit
    if unknown:
        text += f" (not shown: {unknown} without a start)"
    label(axes.set_xlabel(text, fontsize=8))


def _name_outcomes(figure: Figure, bars: list[_Bar]) -> None:
    from matplotlib.patches import Patch

    counts = Counter(bar.outcome for bar in bars)
    groups = _groups(bars)
    texts = [
        ", ".join(f"{plain_text(one)} {counts[one]:,}".replace(",", " ") for one in outcomes)
        for _, outcomes in groups
    ]
    legend(figure, [Patch(color=colour) for colour, _ in groups], texts)


def _say_nothing(axes: Axes, unknown: int) -> None:
    axes.set_axis_off()
    text = f"no process has started, of {unknown}" if unknown else "no processes"
    label(axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes, fontsize=9))
