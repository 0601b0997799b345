"""What processes and actions say of themselves, at any moment: the definitions of the docstrings of
``ProcessState`` and ``Action``, beside what the transport has really told and was told.
"""

from __future__ import annotations

import copy
import math
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from execo import Action, Reason, Report
from execo.lifecycle import Run
from execo.outcome import State
from execo.process import ProcessBase
from execo.report import Stats
from noting import Attempt, Facts
from playing import Player

__all__ = ["compare", "of", "printed"]

COUNTS = tuple(field for field in Stats() if field.startswith("num_"))


def of(play: Player, what: Any) -> list[str]:
    """On the I/O thread, where nothing changes meanwhile, save that other threads start more:
    what is seen in the middle of that is not judged."""
    before = _started(what)
    if isinstance(what, Action):
        wrong = list(_of_action(play, what))
    else:
        wrong = [] if what._run is None else list(_of_run(play, what, what._run))
    return wrong if _started(what) == before else []


def _started(what: Any) -> list[Any]:
    processes = what.processes if isinstance(what, Action) else [what]
    found: list[Any] = [(p._run, p._early_outcome, p.start_date) for p in processes]
    if isinstance(what, Action):
        found += [what._execution, *(_started(part) for part in getattr(what, "actions", ()))]
    return found


def compare(whom: object, found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for name, value in wanted.items():
        if found[name] != value:
            yield f"{name} is {found[name]!r}, should be {value!r}: {whom!r}"


# -- a process --------------------------------------------------------------------------------


def _of_run(play: Player, process: Any, run: Run) -> Iterator[str]:
    p = copy.copy(process)  # a wild program may reset the process meanwhile
    p._run = run
    facts = play.facts_of(run)
    yield from _states(play, p, run, facts)
    yield from _definitions(p)
    yield from _dates(p, run)
    last = facts.attempts[-1] if facts.attempts else Attempt()
    yield from _signals(play, p, last)
    yield from _output(p, last)
    if run.ended:
        yield from _outcome(p, facts, last)
    yield from _stats_of_one(p)
    situation = (run.state.name, p.reason, p.ok, p.killed, p.timeouted, p.forced_kill, p.drained)
    play.situations[situation] += 1


def _states(play: Player, p: Any, run: Run, facts: Facts) -> Iterator[str]:
    state = facts.states[-1]
    wanted = {
        "started": run.requested,
        "ended": state is State.ENDED,
        "running": run.requested and state is not State.ENDED,
    }
    yield from compare(p, {name: getattr(p, name) for name in wanted}, wanted)
    before = play.last_seen.get(run, (False, False))
    if (before[1] and not p.ended) or (before[0] and not p.started and not p.cancelled):
        yield f"started, ended were {before}, and are not any more: {p!r}"
    play.last_seen[run] = (p.started, p.ended)


def _definitions(p: Any) -> Iterator[str]:
    """``ok``, ``finished_ok``, ``reason``, ... follow from the plain facts."""
    if (p.expect_fail and not p.ignore_expect_fail) or (p.write_error and not p.ignore_write_error):
        ok = False
    elif not p.ended:
        ok = True
    elif p.cancelled:
        ok = False
    elif p.error:
        ok = p.ignore_error
    elif p.timeouted and not p.ignore_timeout:
        ok = False
    else:
        ok = p.exit_code == 0 or p.ignore_exit_code or p.killed
    reasons = [
        (p.cancelled, Reason.CANCELLED),
        (p.error, getattr(p._run.error, "reason", None)),
        (p.timeouted, Reason.TIMEOUT),
        (p.expect_fail, Reason.EXPECT),
        ((p.exit_code or 0) < 0, Reason.SIGNAL),
        ((p.exit_code or 0) > 0, Reason.EXIT_CODE),
        (p.write_error, Reason.WRITE),
    ]
    reason = next((reason for holds, reason in reasons if holds), None)
    found = {"ok": p.ok, "finished_ok": p.finished_ok, "reason": p.reason}
    yield from compare(
        p, found, {"ok": ok, "finished_ok": p.started and p.ended and ok, "reason": reason}
    )
    if (p.message == "") != (reason is None):
        yield f"the message {p.message!r} does not go with {reason}: {p!r}"
    if not p.ok and p.reason is None:
        yield f"not ok, without a reason: {p!r}"


def _dates(p: Any, run: Run) -> Iterator[str]:
    if (p.end_date is None) != (not p.ended):
        yield f"end_date is {p.end_date}: {p!r}"
    if run.state in (State.RUNNING, State.DRAINING) and p.start_date is None:
        yield f"it runs, and has no start_date: {p!r}"
    if p.start_date is not None and p.end_date is not None and p.start_date > p.end_date:
        yield f"ended at {p.end_date}, before its start at {p.start_date}: {p!r}"
    due = None if p.start_date is None or p.timeout is None else p.start_date + p.timeout
    if p.timeout_date != due:
        yield f"timeout_date is {p.timeout_date}, not {due}: {p!r}"


ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)


def _signals(play: Player, p: Any, attempt: Attempt) -> Iterator[str]:
    """``killed``, ``timeouted``, ``forced_kill`` beside the signals that it really got."""
    # What came with the same instruction of the loop is noted before the run has drawn its
    # conclusion: so this is called after that.
    told = attempt.told
    got = [
        event[1]
        for event in told
        if event[0] == "signal" and event[2] and event[-1] is State.RUNNING
    ]
    codes = [_code(event[1]) for event in told if event[0] == "exit"]
    killed = any(number in ENDING for number in got) or any(
        code is not None and -code in got for code in codes
    )
    sent = [event[1] for event in told if event[0] == "signal"]
    found = {"killed": p.killed}
    yield from compare(p, found, {"killed": killed})
    if p.timeouted and (p.timeout is None or signal.SIGTERM not in sent):
        yield f"timeouted, with timeout {p.timeout} and the signals {sent}: {p!r}"
    if p.timeouted and p.ended and p.end_date < p.timeout_date - 0.1:
        yield f"timeouted before its time: {p!r}"
    if p.forced_kill and signal.SIGKILL not in sent:
        yield f"forced_kill without a SIGKILL: {p!r}"
    kills = any(
        op.number == signal.SIGKILL
        for cycle in play.program.cycles
        for ops in cycle.threads
        for op in ops
    )
    if signal.SIGKILL in sent and not p.forced_kill and not kills:
        yield f"a SIGKILL that nobody asked for, and no forced_kill: {p!r}"
    if killed and not p.timeouted and not play.disturbed:
        yield f"killed by nobody: {p!r}"


def _code(status: int | None) -> int | None:
    return None if status is None else os.waitstatus_to_exitcode(status)


def printed(attempt: Attempt, stream: int) -> bytes:
    """What a run was given of one output before its end."""
    return b"".join(
        event[2]
        for event in attempt.told
        if event[:2] == ("data", stream) and event[-1] is not State.ENDED
    )


def _output(p: Any, attempt: Attempt) -> Iterator[str]:
    late = sum(
        len(event[2]) for event in attempt.told if event[0] == "data" and event[-1] is State.ENDED
    )
    whole = {1: printed(attempt, 1), 2: printed(attempt, 2)}
    cut = sum(max(0, len(data) - (p.max_output or 0)) for data in whole.values())
    found = {"stdout": p.stdout_bytes, "stderr": p.stderr_bytes, "truncated": p.truncated}
    wanted = {
        "stdout": whole[1][: p.max_output],
        "stderr": whole[2][: p.max_output],
        "truncated": late + (0 if p.max_output is None else cut),
    }
    yield from compare(p, found, wanted)
    if p.ended and not any(event[0] == "signal" for event in attempt.told):
        begun = any(event[0] == "start" for event in attempt.told)
        for stream, data in whole.items():
            script = b"".join(d for s, d in p.command.prints if s == stream) if begun else b""
            extra = b"late" if p.command.end == "left" and stream == 1 else b""
            if p.error and script.startswith(data):
                continue  # what was on its way is lost with its connection, and the error says so
            if data not in (script, script + extra):
                yield f"printed {script!r}, of which came {data!r}: {p!r}"


def _outcome(p: Any, facts: Facts, attempt: Attempt) -> Iterator[str]:
    """How it has ended, beside what its last channel has told."""
    told = [event for event in attempt.told if event[-1] is not State.ENDED]
    names = [event[0] for event in told]
    error: Reason | None = None
    for at, event in enumerate(told):
        if event[0] == "error":
            error = event[1].reason
        elif event[0] == "exit" and event[2] is not None:
            error = event[2].reason
        elif event[0] == "eof" and event[2] is not None and error is None:
            killed = any(e[0] == "signal" and e[2] and e[1] in ENDING for e in told[:at])
            error = None if killed else Reason.WRITE
    if "start" not in names and "error" not in names:
        error = Reason.CANCELLED
    codes = [_code(event[1]) for event in told if event[0] == "exit"]
    eofs = {event[1] for event in told if event[0] == "eof"}
    drained = "exit" not in names or "error" in names or eofs == {1, 2}
    wanted = {
        "error": error is not None,
        "cancelled": error is Reason.CANCELLED,
        "exit_code": codes[-1] if codes else None,
        "drained": drained,
        "attempts": 0 if not facts.attempts and not p.started else max(1, len(facts.attempts)),
    }
    if p._run._retry_timer is None and len(facts.attempts) < p.attempts:
        del wanted["attempts"]  # given up between the decision to try again and the attempt
    yield from compare(p, {name: getattr(p, name) for name in wanted}, wanted)
    if error is not None and p.reason is not error:
        yield f"the reason is {p.reason}, should be {error}: {p!r}"
    if "start" in names and p.start_date is None:
        yield f"it has started, and has no start_date: {p!r}"


def _stats_of_one(p: Any) -> Iterator[str]:
    stats = p.stats()
    wanted = {
        "num_processes": 1,
        "num_started": p.started,
        "num_ended": p.ended,
        "num_errors": p.error and not p.cancelled,
        "num_timeouts": p.timeouted,
        "num_forced_kills": p.forced_kill,
        "num_non_zero_exit_codes": p.ended and p.exit_code != 0,
        "num_expect_fail": p.expect_fail,
        "num_write_error": p.write_error,
        "num_ok": p.ok,
        "num_finished_ok": p.finished_ok,
        "num_cancelled": p.cancelled,
        "num_truncated": p.truncated > 0,
        "num_undrained": not p.drained,
        "num_waited": p.waited,
        "num_retries": max(0, p.attempts - 1),
        "start_date": p.start_date,
        "end_date": p.end_date,
        "reasons": {str(p.reason): 1} if p.ended and p.reason is not None else {},
    }
    yield from compare(p, {name: stats[name] for name in wanted}, wanted)


# -- an action --------------------------------------------------------------------------------


def _of_action(play: Player, action: Any) -> Iterator[str]:
    processes = action.processes
    if not play.wild:
        if action.ended and not all(p.ended for p in processes):
            yield f"it has ended before its processes: {action!r}"
        before = play.last_seen.get(action, (False, False))
        now = (action.started, action.ended)
        if (before[1] and not now[1]) or (before[0] and not now[0]):
            yield f"started, ended were {before}, and are {now}: {action!r}"
        play.last_seen[action] = now
    failed = [p for p in processes if not p.ok]
    wanted = {
        "running": action.started and not action.ended,
        "ok": not failed,
        "finished_ok": action.started and action.ended and not failed,
        "failed": failed,
    }
    yield from compare(action, {name: getattr(action, name) for name in wanted}, wanted)
    yield from _partitions(action, failed)
    yield from _sums(action)


def _partitions(action: Any, failed: Sequence[ProcessBase]) -> Iterator[str]:
    found = [p for some in action.by_reason().values() for p in some]
    if Counter(found) != Counter(failed):
        yield f"by_reason() is no partition of failed: {action!r}"
    if any(p.reason is not reason for reason, some in action.by_reason().items() for p in some):
        yield f"by_reason() has one under the reason of another: {action!r}"
    good, bad = action.ok_hosts, action.failed_hosts
    for host in {p.host for p in action.processes if hasattr(p, "host")}:
        own = [p for p in action.processes if getattr(p, "host", None) == host]
        places = (good.count(host), bad.count(host))
        if places != (int(all(p.finished_ok for p in own)), int(any(not p.ok for p in own))):
            yield f"{host} is {places} times in ok_hosts and failed_hosts: {action!r}"


def _sums(action: Any) -> Iterator[str]:
    parts = [p.stats() for p in action.processes]
    stats = action.stats()
    for field in COUNTS:
        if stats[field] != sum(part[field] for part in parts):
            yield f"{field} is {stats[field]}, no sum of {parts}: {action!r}"
    states = Counter(
        "ended" if p.ended else "running" if p.started else "new" for p in action.processes
    )
    cancelled = sum(p.cancelled and not p.started for p in action.processes)
    if states.total() != stats.num_processes or states["ended"] != stats.num_ended:
        yield f"{states} of {stats}: {action!r}"
    if states["ended"] + states["running"] != stats.num_started + cancelled:
        yield f"{states}, {cancelled} cancelled, of {stats}: {action!r}"
    if stats.reasons != Counter(str(p.reason) for p in action.processes if p.ended and p.reason):
        yield f"the reasons are {stats.reasons}: {action!r}"
    if hasattr(action, "actions"):
        parts = [one.stats() for one in action.actions]  # the empty ones have dates, too
    if action.processes:
        starts = [part.start_date for part in parts if part.start_date is not None]
        unfinished = [part for part in parts if not part.end_date]
        ends = [part.end_date for part in parts if part.end_date is not None]
        if any(part.start_date or part.num_processes for part in unfinished):
            ends.append(math.inf)
        end = max(ends, default=None)
        wanted = (min(starts, default=None), None if end == math.inf else end)
        if (stats.start_date, stats.end_date) != wanted:
            yield f"its dates are {stats.start_date}, {stats.end_date}, should be {wanted}"
    yield from _merges(action, stats, parts)


def _merges(action: Any, stats: Stats, parts: list[Stats]) -> Iterator[str]:
    """In whatever order and pieces: the same."""
    for part in stats.sub_stats:
        yield from _sub_sums(part)
    whole = Stats.merge(parts)
    at = random.Random(len(parts)).randint(0, len(parts))
    pieces = [Stats.merge(parts[at:]), Stats.merge([]), Stats.merge(parts[:at])]
    if Stats.merge(pieces) != whole:
        yield f"merging {at} and the others gives {Stats.merge(pieces)}, not {whole}: {action!r}"
    report = Report([action, action]).stats()
    if any(report[field] != 2 * stats[field] for field in COUNTS):
        yield f"a report of it twice is no double: {action!r}"


def _sub_sums(stats: Stats) -> Iterator[str]:
    for field in COUNTS:
        if stats.sub_stats and stats[field] != sum(part[field] for part in stats.sub_stats):
            yield f"{field} of {stats!r} is no sum of {stats.sub_stats!r}"
    for part in stats.sub_stats:
        yield from _sub_sums(part)
