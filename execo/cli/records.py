"""``execo report`` and ``execo sweep``: what experiments have left in their folders."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from execo.engine import HashableDict, ParamSweeper, Run, load, write_report
from execo.hostset import fold
from execo.log import escape_controls
from execo.time_utils import format_date, format_duration

from .outcome import without_host
from .parser import Misuse
from .printing import printer, tell

__all__ = ["explain_sweep", "report", "retry_sweep", "show_sweep"]


def report(options: argparse.Namespace) -> int:
    """Show the record of a run; returns the exit status."""
    run = _run_in(options.folder)
    if options.html is not None:
        try:
            path = write_report(run, options.html or None)
        except (ImportError, OSError) as exc:
            tell(str(exc))
            return 1
        printer.text(f"{path}\n")
    elif options.json:
        printer.text(_json(_facts(run)))
    else:
        printer.text(_summary(run))
    return 0


def _run_in(folder: str) -> Run:
    try:
        return load(folder)
    except OSError as exc:
        raise Misuse(str(exc)) from exc


def _facts(run: Run) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "manifest": run.manifest,
        "processes": [dataclasses.asdict(row) for row in run.processes],
        "actions": [dataclasses.asdict(row) for row in run.actions],
        "results": [dataclasses.asdict(row) for row in run.results],
        "faults": run.faults,
    }


def _json(value: Any) -> str:
    return json.dumps(value, default=str) + "\n"


def _summary(run: Run) -> str:
    manifest = run.manifest
    lines = [f"{manifest.get('name') or run.folder.name}: {run.folder}"]
    began = min((row.start for row in run.processes if row.start), default=None)
    ended = manifest.get("ended")
    if began is not None:
        how = "no end recorded" if ended is None else f"took {format_duration(ended - began)}"
        lines.append(f"began {format_date(began)}, {how}")
    if manifest.get("error"):
        lines.append(f"ended by {manifest['error']}")
    outcomes = Counter(row.outcome for row in run.processes)
    lines.append(f"processes: {_counts(outcomes) or 'none'}")
    states = Counter(run.states.values())
    if states:
        lines.append(f"combinations: {_counts(states)}")
    alike: dict[str, list[str]] = {}
    for row in run.processes:
        if row.outcome not in ("ok", "running"):
            host = row.host or "localhost"
            words = f"{row.cmd}: {without_host(row.message or row.outcome, host)}"
            alike.setdefault(words, []).append(host)
    lines += [f"  {fold(hosts)} ({len(hosts)}): {words}" for words, hosts in alike.items()]
    lines += [f"damaged: {fault}" for fault in run.faults]
    return escape_controls("\n".join(lines)) + "\n"


def _counts(counts: Mapping[str, int]) -> str:
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in found)


# -- sweeps --------------------------------------------------------------------------------------


def show_sweep(options: argparse.Namespace) -> int:
    """Show how far a sweep is; changes nothing, and waits for nobody."""
    run = _sweep_in(options.folder)
    chosen = _chosen(run.combinations, options.which)
    if options.json:
        results = {row.combination: row for row in run.results}
        for one in chosen:
            row = results.get(one)
            facts: dict[str, Any] = {"combination": one, "state": run.states[one]}
            if row is not None:
                facts |= {"result": row.result, "reason": row.reason, "attempt": row.attempt}
            printer.text(_json(facts))
        return 0
    counts = Counter(run.states[one] for one in chosen)
    printer.text(f"{len(chosen)} combinations: {_counts(counts) or 'none'}\n")
    told = {row.combination: row.reason for row in run.results if row.reason}
    for one in chosen:
        if run.states[one] in ("failed", "skipped"):
            why = f": {escape_controls(told[one])}" if one in told else ""
            printer.text(f"  {run.states[one]} {_shown(one)}{why}\n")
    return 0


def explain_sweep(options: argparse.Namespace) -> int:
    """Tell what has happened to combinations."""
    _sweep_in(options.folder)
    sweeper = _sweeper(options.folder)
    for one in _chosen(sweeper.stats().sweeps, options.which):
        printer.text(escape_controls(sweeper.explain(one)) + "\n")
    return 0


def retry_sweep(options: argparse.Namespace) -> int:
    """Have combinations done again that have failed or were skipped."""
    _sweep_in(options.folder)
    sweeper = _sweeper(options.folder)
    again = _chosen(sweeper.get_skipped(), options.which, needed=False)
    if options.which:
        sweeper.cancel_batch(again)
    else:
        sweeper.reset()
    sweeper.close()
    for one in again:
        printer.text(f"{_shown(one)}\n")
    tell(f"{len(again)} combinations will be done again")
    return 0


def _sweep_in(folder: str) -> Run:
    run = _run_in(folder)
    if not run.combinations:
        raise Misuse(f"{folder}: there is no sweep in it")
    return run


def _sweeper(folder: str) -> ParamSweeper:
    path = Path(folder)
    # Of the record of an experiment, or the folder of a sweeper itself.
    within = [path, *sorted(path.glob("*/"))]
    found = [one for one in within if (one / "journal.jsonl").exists()]
    if len(found) > 1:
        names = ", ".join(os.fspath(one) for one in found)
        raise Misuse(f"{folder}: several sweeps are in it, choose one: {names}")
    try:
        return ParamSweeper(found[0])
    except (OSError, EOFError) as exc:
        raise Misuse(f"{folder}: {exc}") from exc


def _chosen(
    combinations: Iterable[HashableDict], which: list[str], *, needed: bool = True
) -> list[HashableDict]:
    """Those that have all the factors, compared as they are written.

    :raises Misuse: for what is no FACTOR=VALUE, and if none has them
    """
    wanted = []
    for text in which:
        factor, equals, value = text.partition("=")
        if not equals:
            raise Misuse(f"{text!r}: a combination is chosen by FACTOR=VALUE")
        wanted.append((factor, value))
    chosen = [one for one in combinations if all(_has(one, *pair) for pair in wanted)]
    if needed and wanted and not chosen:
        raise Misuse(f"no combination has {' '.join(which)}")
    return chosen


def _has(combination: HashableDict, factor: str, value: str) -> bool:
    return any(str(key) == factor and str(one) == value for key, one in combination.items())


def _shown(combination: HashableDict) -> str:
    return escape_controls(" ".join(f"{key}={value}" for key, value in combination.items()))
