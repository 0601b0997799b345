"""A run as one page of HTML, to be looked at in any browser, without a network."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from execo.time_utils import format_seconds

from .drawing import OUTCOMES, STATES, inline_svg, level_text, plain_text, write_whole
from .grouping import combinations_with, grouped, is_number, level_of, measured, varying_factors
from .html_tables import (
    Table,
    began,
    groups_table,
    hosts_table,
    processes_table,
    results_table,
)
from .matrix import draw_sweep
from .plots import draw_results
from .run import Run
from .timeline import draw_timeline

__all__ = ["write_report"]

REPORT = "report.html"

MOST_PLOTS = 12
"""Plots of a report that nobody has chosen."""

MOST_CURVES = 14
"""Curves of such a plot."""

_LONGEST_FACT = 2000
_MOST_FAULTS = 100
_MOST_SOURCES = 200_000


def write_report(
    run: Run,
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    plots: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write a run as one HTML file: what was run, on what, how far the sweep has come, plots,
    timeline, and tables of all results, processes and hosts that can be sorted and filtered. (new)

    The file needs no other and no network: pictures, styles and script are in it, and it forbids
    the browser to load or run anything else. It is light or dark as the browser is, can be printed,
    and used by keyboard; without JavaScript the beginning of each table is there. Long texts are
    shortened. Blocks while it is made: some seconds for 10 000 processes. It is there as a whole,
    or the one of before is.

    :param run: of :func:`~execo.engine.load`
    :param path: the file; default: ``report.html`` in the folder of the run
    :param title: default: the name of the experiment
    :param plots: which plots of results: for each the arguments of
      :func:`~execo.engine.draw_results`, ``[{"value": "seconds", "x": "size", "by": "tool"}]``;
      default: each number that was measured by the first factors of the sweep
    :returns: the file
    :raises ImportError: Jinja2 is not installed. Without matplotlib there are no pictures, and the
      report says so
    :raises ValueError: one of ``plots`` cannot be drawn
    :raises OSError: it cannot be written
    """
    try:
        import jinja2
    except ImportError as exc:
        raise ImportError("a report needs Jinja2: pip install 'execo[report]'") from exc
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__name__.rpartition(".")[0], "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["long"] = _is_long
    sources = {name: _source(environment, f"report.{name}") for name in ("css", "js")}
    text = environment.get_template("report.html").render(
        **sources,
        script_hash=_hash(sources["js"]),
        title=plain_text(title or run.manifest.get("name") or run.folder.name or "Run", 200),
        ending=_ending(run),
        facts=[(plain_text(name), plain_text(text, _LONGEST_FACT)) for name, text in _facts(run)],
        counts=list(_counts(run)),
        colours=[*OUTCOMES, *((colour, (state,)) for state, colour, _ in STATES)],
        faults=[plain_text(fault, 500) for fault in run.faults[:_MOST_FAULTS]],
        more_faults=max(0, len(run.faults) - _MOST_FAULTS),
        **_pictures(run, plots),
        tables=_tables(run),
        manifest=_manifest(run),
    )
    place = run.folder / REPORT if path is None else Path(path)
    return write_whole(place, text.encode("utf-8", "replace"))


def _is_long(value: Any) -> bool:
    """It may be broken into lines; see the script, too."""
    return isinstance(value, str) and (len(value) > 32 or "\n" in value)


def _source(environment: Any, name: str) -> Any:
    from markupsafe import Markup

    source, _, _ = environment.loader.get_source(environment, name)
    return Markup(source)  # a file of ours


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


# -- what was run --------------------------------------------------------------------------------


def _ending(run: Run) -> tuple[str, str]:
    """How it has ended: a word for its colour, and a text."""
    manifest = run.manifest
    if manifest.get("error"):
        return "failed", plain_text(f"ended with {manifest['error']}", 500)
    if manifest.get("ended") is not None:
        return "done", "has ended"
    if not manifest:
        return "to do", "without a manifest: how it has ended is not known"
    return "in progress", "has not ended: it runs, or was killed"


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """What is said of a run in its head: a name, a text."""
    manifest = run.manifest
    argv = manifest.get("argv")
    if isinstance(argv, list | tuple) and argv:
        yield "command line", shlex.join(map(str, argv))
    for name in ("version", "cwd", "user", "seeds"):
        value = manifest.get(name)
        if value not in (None, {}, ""):
            yield {"cwd": "folder"}.get(name, name), level_text(value, _LONGEST_FACT)
    begin, end = (_number(manifest.get(name)) for name in ("started", "ended"))
    begin = began(run) if begin is None else begin
    if begin is not None:
        yield "began", _date(begin)
    if end is not None:
        yield "ended", _date(end)
        if begin is not None:
            yield "took", format_seconds(max(0.0, end - begin))
    git = manifest.get("git")
    if isinstance(git, Mapping):
        changed = ", with changes" if git.get("changed") else ""
        yield "sources", f"{git.get('commit') or git.get('error') or 'no commit'}{changed}"
    for name, parts in (("versions", None), ("machine", ("name", "cpu", "cpus", "kernel"))):
        value = manifest.get(name)
        if isinstance(value, Mapping):
            chosen = [(one, value[one]) for one in parts or value if one in value]
            yield name, ", ".join(f"{one} {what}" for one, what in chosen)


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _date(time: float) -> str:
    try:
        return f"{datetime.datetime.fromtimestamp(time, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return str(time)


def _counts(run: Run) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """What there is of, and how many in which state."""
    if run.combinations:
        states = Counter(plain_text(run.states.get(one, "to do")) for one in run.combinations)
        yield "combinations", states.most_common()
    if run.processes:
        outcomes = Counter(plain_text(one.outcome) for one in run.processes)
        yield "processes", outcomes.most_common()
    if run.actions:
        names = {True: "ok", False: "failed", None: "running"}
        yield "actions", Counter(names[one.ok] for one in run.actions).most_common()


def _manifest(run: Run) -> str:
    text = json.dumps(run.manifest, indent=2, ensure_ascii=False, default=str)
    return plain_text(text, _MOST_SOURCES, lines=True)


def _tables(run: Run) -> list[Table]:
    found = []
    if run.results or run.combinations:
        found.append(results_table(run))
    if run.processes:
        found.append(processes_table(run))
    hosts = hosts_table(run)
    if hosts.rows:
        found.append(hosts)
    return found


# -- pictures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Picture:
    name: str
    title: str
    svg: Any
    table: Table | None = None


def _pictures(run: Run, plots: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return {"pictures": [], "plots": [], "no_pictures": True}
    found = []
    if run.combinations:
        found.append(_picture(draw_sweep(run, width=8.5), "sweep", "How far the sweep has come"))
    if run.processes:
        figure = draw_timeline(run, width=8.5)
        found.append(_picture(figure, "timeline", "When processes ran"))
    wanted = enumerate(_chosen(run) if plots is None else plots)
    drawn = [_plot(run, f"plot{number}", one) for number, one in wanted]
    return {"pictures": found, "plots": drawn, "no_pictures": False}


def _picture(figure: Any, name: str, title: str, table: Table | None = None) -> _Picture:
    from markupsafe import Markup, escape

    svg = inline_svg(figure, name)
    opening = f'<svg role="img" aria-label="{escape(title)}" '
    # What matplotlib writes is escaped: texts by it, and there are no other.
    return _Picture(name, title, Markup(svg.replace("<svg ", opening, 1)), table)


def _plot(run: Run, name: str, wanted: Mapping[str, Any]) -> _Picture:
    options = dict(wanted)
    figure = draw_results(run, **{"width": 5.5, "height": 3.6, **options})
    shared = {k: v for k, v in options.items() if k not in ("width", "height", "title")}
    by, statistic = shared.get("by"), shared.get("statistic", "mean")
    table = groups_table(grouped(run, **shared), f"{name}-numbers", shared["x"], by, statistic)
    fixed = "".join(
        f", {plain_text(factor)} {level_text(level)}"
        for factor, level in (options.get("where") or {}).items()
    )
    title = options.get("title") or f"{plain_text(shared['value'])} by {plain_text(shared['x'])}"
    return _picture(figure, name, plain_text(title + fixed, 200), table)


def _chosen(run: Run) -> list[dict[str, Any]]:
    """A plot for each number that was measured, by the factor with most numbers along the axis, and
    the one with fewest levels as curves; one for each combination of the others, if they are few,
    since their mean says little."""
    found: list[dict[str, Any]] = []
    names = measured(run)
    for name in names:
        combinations = combinations_with(run, name)
        factors = varying_factors(combinations)
        if not factors:
            continue
        x = max(factors, key=lambda one: (all(map(is_number, factors[one])), len(factors[one])))
        rest = {factor: len(levels) for factor, levels in factors.items() if factor != x}
        by = min(rest, key=lambda one: rest[one]) if rest else None
        if by is not None and rest[by] > MOST_CURVES:
            by = None
        others = [factor for factor in rest if factor != by]
        settings = {
            repr(fixed): fixed
            for fixed in ({one: level_of(all_, one) for one in others} for all_ in combinations)
        }
        few = len(settings) * len(names) <= MOST_PLOTS
        found += [
            {"value": name, "x": x, "by": by, "where": fixed}
            for fixed in (settings.values() if few else [{}])
        ]
    return found[:MOST_PLOTS]
