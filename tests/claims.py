"""What must hold of processes and actions, whatever befalls them.

:func:`of` holds at any moment (``definitions.py``), :func:`at_end` when all has ended,
:func:`after_reset` after that. All give texts that say what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from definitions import compare, of, printed
from execo import Action
from execo.outcome import State
from execo.report import Stats
from foretell import foretell
from noting import Attempt
from playing import Player

__all__ = ["after_reset", "at_end", "of"]


def at_end(play: Player) -> Iterator[str]:
    """When all has ended, and every handler has returned."""
    if not play.root.started and not play.wild:
        yield f"start() was lost: {play.root!r}"
    for process, runs in list(play.runs.items()):
        for run in runs:
            facts = play.facts_of(run)
            if facts.states[-1] is not State.ENDED or facts.ends != 1:
                yield f"has ended {facts.ends} times: {facts.states} {process!r}"
            play.loop.run_sync(play.look_at, process)
    for action in play.actions:
        play.loop.run_sync(play.look_at, action)
    yield from _told(play)
    yield from _timers(play)
    if not play.wild:
        yield from _heard(play)
        yield from _order(play)
        yield from foretell(play)
        for process in play.expect_failed:
            if not process.expect_fail:
                yield f"expect() failed, and expect_fail is not set: {process!r}"


def _told(play: Player) -> Iterator[str]:
    """Each start was told once, and each end."""
    for handler in play.early:
        for what in play.everything:
            if handler not in what.lifecycle_handlers:
                continue
            runs: Any = play.executions[what] if isinstance(what, Action) else play.runs[what]
            wanted = sum(run.requested for run in runs)
            found = (handler.starts[what], handler.ends[what])
            if found != (wanted, wanted):
                yield f"{wanted} runs, but told of starts and ends {found}: {what!r}"
    if play.wild:
        return
    for what, handler, had_ended in play.late_handlers:
        run = what._execution if isinstance(what, Action) else what._run
        wanted = int(run is not None and run.requested)
        if handler.ends[what] > wanted or (handler.ends[what] < wanted and not had_ended):
            yield f"a handler that came later was told of {handler.ends[what]} ends: {what!r}"


def _heard(play: Player) -> Iterator[str]:
    """Output handlers were given all, and the end of it once."""
    for process in play.processes:
        if play.collecting not in process.stdout_handlers or process._run is None:
            continue
        attempts = play.facts_of(process._run).attempts
        last = attempts[-1] if attempts else Attempt()
        begun = any(event[0] == "start" for event in last.told)
        for stream in (1, 2):
            text = printed(last, stream).decode("utf-8", "surrogateescape")
            if play.collecting.text[process, stream] != text:
                got = play.collecting.text[process, stream]
                yield f"the output handler was given {got!r}, not {text!r}: {process!r}"
            if play.collecting.eofs[process, stream] != begun:
                yield f"{play.collecting.eofs[process, stream]} ends of output: {process!r}"


def _timers(play: Player) -> Iterator[str]:
    """Nothing of what has ended waits for its time. The look for silence sees that it has ended."""
    mine = {id(run) for runs in list(play.runs.values()) for run in runs}
    mine |= {id(one) for some in list(play.executions.values()) for one in some}

    def left() -> list[str]:
        timers = [timer for timer in play.loop._aio._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        callbacks = [timer._callback for timer in timers]
        return [
            call.__name__
            for call in callbacks
            if id(getattr(call, "__self__", None)) in mine and call.__name__ != "_check_drain"
        ]

    for name in play.loop.run_sync(left) or ():
        yield f"a timer is left: {name}"


def _order(play: Player) -> Iterator[str]:
    """Parts before the whole, one after the other, so many at a time."""
    at: dict[tuple[str, int], int] = {}
    for note in play.notes:
        at[note.what, id(note.whom)] = note.number
    for action in play.actions:
        parts = [*action.processes, *(one for one in play.actions if one._parent is action)]
        for part in parts:
            own, its = (at.get(("told of end", id(one))) for one in (action, part))
            if own is not None and its is not None and own < its:
                yield f"the end of {action!r} was told before that of {part!r}"
        yield from _limits(play, action, at)


def _limits(play: Player, action: Any, at: dict[tuple[str, int], int]) -> Iterator[str]:
    tree = play.trees[action]
    fanout = 1 if tree.kind == "sequential" else tree.fanout
    children = list(action._children())
    if fanout is None or not action.started or play.prestarted:
        return
    changes: list[tuple[int, int]] = []
    spans: list[tuple[int, int]] = []
    for child in children:
        is_action = isinstance(child, Action)
        run = child._execution if isinstance(child, Action) else child._run
        begun, ended = ("begun", "ended") if is_action else ("STARTING", "ENDED")
        if run is not None and run.requested and (begun, id(run)) in at:
            spans.append((at[begun, id(run)], at[ended, id(run)]))
            changes += [(spans[-1][0], 1), (spans[-1][1], -1)]
    running = 0
    for _, change in sorted(changes):
        running += change
        if running > fanout:
            yield f"{running} of its children ran at once, more than {fanout}: {action!r}"
            return
    if fanout == 1 and spans != sorted(spans):
        yield f"its children were not started in order: {action!r}"


def after_reset(play: Player) -> Iterator[str]:
    """Nothing is left of what was."""
    blank = Stats(num_processes=1, num_ok=1)
    for process in play.processes:
        found = {**process.stats(), "name": None}
        yield from compare(process, found, dict(blank))
        if process.started or process.ended or process.stdout or process.reason or not process.ok:
            yield f"reset() left something: {process!r}"
    for action in play.actions:
        if action.started or action.ended or action.stats().num_started:
            yield f"reset() left something: {action!r}"
