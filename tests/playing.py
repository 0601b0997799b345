"""Plays the programs of ``program.py`` over the fake transport.

What happens is noted (``noting.py``), and is what ``claims.py`` compares with what processes and
actions say of themselves.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import signal
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from execo import (
    Action,
    Local,
    ParallelActions,
    Process,
    ProcessesFailed,
    Remote,
    SequentialActions,
    wait_all_actions,
    wait_any_actions,
)
from execo._core.runtime import get_runtime
from execo.execution import Execution
from execo.lifecycle import Run
from execo.outcome import State
from execo.process import ProcessBase
from execo.testing import Script
from noting import PATIENCE, TRANSPORT, Collecting, Counting, Facts, Note, forget, logged
from program import Command, Cycle, Op, Program, Tree

__all__ = ["LEGAL", "Player"]

LEGAL = {
    (State.NEW, State.STARTING),
    (State.STARTING, State.RUNNING),
    (State.STARTING, State.ENDED),
    (State.RUNNING, State.DRAINING),
    (State.RUNNING, State.ENDED),
    (State.DRAINING, State.ENDED),
}
"""The changes of state that there are, see the states of a run in doc/internals.rst."""

_plays = itertools.count()


class Player:
    """Builds the tree of a program and plays its cycles.

    :param program: the program
    :param check: is called with the player at the end of each cycle; gives what is wrong
    """

    def __init__(self, program: Program, checks: Any) -> None:
        self.program, self._checks = program, checks
        self.word = f"p{next(_plays)}"
        self.wild = self.disturbed = False
        self.wrong: list[str] = []
        self.notes: list[Note] = []
        self.facts: dict[Run, Facts] = {}
        self.runs: defaultdict[Any, list[Run]] = defaultdict(list)
        self.executions: defaultdict[Any, list[Execution]] = defaultdict(list)
        self.scripts: list[Script] = []
        self.early: list[Counting] = []
        self.collecting = Collecting()
        self.prestarted: set[Any] = set()
        self.transitions: Counter[tuple[str, str]] = Counter()
        self.situations: Counter[Any] = Counter()
        self.done: Counter[str] = Counter()
        self.last_seen: dict[Any, tuple[bool, bool]] = {}
        self.expect_failed: set[Any] = set()
        self.written: set[Any] = set()
        self.late_handlers: list[tuple[Any, Counting, bool]] = []
        self.actions: list[Action] = []
        self.trees: dict[Any, Tree] = {}
        self._made: list[ProcessBase] = []
        self.counting = Counting(self, "count")
        self.early.append(self.counting)
        self.loop = get_runtime().loop
        self.root = self._make(program.tree)
        self.processes = list(self.root.processes)
        self.everything: list[Any] = [*self.actions, *self.processes]

    # -- the tree -----------------------------------------------------------------------------

    def _make(self, tree: Tree) -> Any:
        policy: dict[str, Any] = {
            "max_failures": tree.max_failures,
            "retry": tree.retry,
            "start_rate": tree.start_rate,
        }
        number = len(self._made)
        words = [f"{self.word}.{number + i}" for i in range(len(tree.commands))]
        action: Any
        if tree.kind == "local":
            action = Local(words[0])
        elif tree.kind == "remote":
            hosts = [f"h{i % 3}" for i in range(len(words))]
            text = "{{" + repr(words) + "}}" if words else "none"
            params = {"transport": TRANSPORT}
            action = Remote(text, hosts, params, fanout=tree.fanout, **policy)
        else:
            at = len(self.actions)
            parts = [self._make(part) for part in tree.parts]
            if tree.kind == "parallel":
                action = ParallelActions(parts, fanout=tree.fanout, **policy)
            else:
                action = SequentialActions(parts, **policy)
            self._enlist(action, tree, at)
            return action
        for process, command in zip(action.processes, tree.commands, strict=True):
            self._prepare(process, command)
        self._enlist(action, tree, len(self.actions))
        return action

    def _enlist(self, action: Any, tree: Tree, at: int) -> None:
        action.play = self
        self.trees[action] = tree
        self.actions.insert(at, action)
        action.lifecycle_handlers.append(self.counting)
        if tree.handler:
            action.lifecycle_handlers.append(self._counting(tree.handler))

    def _prepare(self, process: Any, command: Command) -> None:
        process.play, process.command = self, command
        if isinstance(process, Process):
            process.transport = TRANSPORT
        process.timeout = command.timeout
        process.max_output = command.max_output
        for flag in command.flags:
            setattr(process, flag, True)
        # Without handlers a process goes another way to its end.
        if command.handler:
            process.lifecycle_handlers += [self.counting, self._counting(command.handler)]
            process.stdout_handlers.append(self.collecting)
            process.stderr_handlers.append(self.collecting)
        self._made.append(process)

    def _counting(self, kind: str) -> Counting:
        self.early.append(Counting(self, kind))
        return self.early[-1]

    # -- what is noted ------------------------------------------------------------------------

    def facts_of(self, run: Run) -> Facts:
        return self.facts.setdefault(run, Facts())

    def on_state(self, run: Run, old: State, new: State) -> None:
        if new is State.STARTING:
            self.runs[run.process].append(run)
        self.facts_of(run).states.append(new)
        self.notes.append(Note(new.name, run))
        self.transitions[old.name, new.name] += 1
        if (old, new) not in LEGAL:
            self.wrong.append(f"{run.process!r}: from {old} to {new}")
        if new is not State.STARTING:
            if not self.loop.in_thread():
                self.wrong.append(f"{run.process!r} changes its state on another thread")
            # After what goes with it.
            self.loop.call_soon(self.look_at, run.process)
        if new is State.ENDED:
            self.facts_of(run).ends += 1

    def on_execution(self, execution: Execution) -> None:
        self.executions[execution.action].append(execution)
        self.notes.append(Note("begun", execution))
        execution.end_latch.add(lambda: self._on_action_end(execution))
        execution.release_latch.add(lambda: self.notes.append(Note("released", execution)))

    def _on_action_end(self, execution: Execution) -> None:
        self.notes.append(Note("ended", execution))
        self.transitions["action running", "action ended"] += 1
        if not self.wild and execution is execution.action._execution:
            late = [p for p in execution.action.processes if not p.ended]
            if late:
                self.wrong.append(f"{execution.action!r} has ended before {late!r}")
            self.loop.call_soon(self.look_at, execution.action)

    def look_at(self, what: Any) -> None:
        """On the I/O thread: what is said of it is true at one moment."""
        try:
            self.wrong += self._checks.of(self, what)
        except Exception:  # noqa: BLE001 - kept
            self.wrong.append(traceback.format_exc())

    # -- the ops ------------------------------------------------------------------------------

    def _action(self, op: Op) -> Any:
        return self.actions[op.at % len(self.actions)]

    def _process(self, op: Op) -> Any:
        return self.processes[op.at % len(self.processes)] if self.processes else self.root

    def _do_all(self, ops: Sequence[Op]) -> None:
        for op in ops:
            self.do(op)

    def do(self, op: Op) -> None:
        self.done[op.name] += 1
        try:
            getattr(self, f"op_{op.name}")(op)
        except ValueError as exc:
            # Not started yet, or not any more; or it runs, for retry_failed().
            if "not started" not in str(exc) and "has not ended" not in str(exc):
                raise
            self.done[f"{op.name}: refused"] += 1

    def op_nap(self, op: Op) -> None:
        threading.Event().wait(op.seconds)

    def op_wait(self, op: Op) -> None:
        action = self._action(op).wait(op.seconds)
        if op.seconds is None and not self.wild and not action.ended:
            self.wrong.append(f"wait() came back before the end of {action!r}")

    def op_wait_process(self, op: Op) -> None:
        process = self._process(op)
        process.wait(op.seconds)
        if op.seconds is None and not self.wild and not process.ended:
            self.wrong.append(f"wait() came back before the end of {process!r}")

    def op_wait_any(self, op: Op) -> None:
        self._wait_several(op, wait_any_actions, 1)

    def op_wait_all(self, op: Op) -> None:
        self._wait_several(op, wait_all_actions, 2)

    def _wait_several(self, op: Op, wait: Any, count: int) -> None:
        some = list(dict.fromkeys([self._action(op), self.actions[-1]]))
        found = wait(some, op.seconds)
        if self.wild:
            return
        if op.seconds is None and len(found) < min(count, len(some)):
            self.wrong.append(f"{wait.__name__}() gave only {found!r}")
        if not all(action.ended for action in found):
            self.wrong.append(f"{wait.__name__}() gave what has not ended: {found!r}")

    def op_look(self, op: Op) -> None:
        for what in (self._action(op), self._process(op)):
            self.loop.run_sync(self.look_at, what)

    def op_add_handler(self, op: Op) -> None:
        for what in (self._action(op), self._process(op)):
            handler = Counting(self, "count")
            what.lifecycle_handlers.append(handler)
            self.late_handlers.append((what, handler, what.ended))

    def op_step(self, op: Op) -> None:
        for script in self.scripts[:]:
            script.step()

    def op_kill(self, op: Op) -> None:
        self._kill(self._action(op), op)

    def op_kill_process(self, op: Op) -> None:
        self._kill(self._process(op), op)

    def _kill(self, what: Any, op: Op) -> None:
        what.kill(op.number or signal.SIGTERM, True if op.seconds is None else op.seconds)

    def op_expect(self, op: Op) -> None:
        process = self._process(op)
        if isinstance(process, ProcessBase):
            index, match = process.expect(["two", "one"], op.seconds, backtrack=True)
            if (index is None) != (match is None):
                self.wrong.append(f"expect() gave {index} and {match}")
            if match is None and not self.wild:
                self.expect_failed.add(process)
                if not process.expect_fail:
                    self.wrong.append(f"no expect_fail: {process!r}")

    def op_write(self, op: Op) -> None:
        process = self._process(op)
        if isinstance(process, ProcessBase):
            self.written.add(process)
            process.write("input\n")

    def op_start(self, op: Op) -> None:
        self._action(op).start()

    def op_reset(self, op: Op) -> None:
        self._action(op).reset()

    def op_retry_failed(self, op: Op) -> None:
        self._action(op).retry_failed()

    # -- the cycles ---------------------------------------------------------------------------

    def play(self) -> list[str]:
        """Play all cycles; gives what is wrong, at the first cycle that is."""
        for cycle in self.program.cycles:
            self._play_cycle(cycle)
            if not self.wrong:
                self.wrong += self._checks.at_end(self)
            if not self.wrong:
                self._go_on(cycle.then)
            self.wrong += logged
            logged.clear()
            if self.wrong or cycle.then == "stop":
                break
        forget()
        return self.wrong

    def _play_cycle(self, cycle: Cycle) -> None:
        self.wild = cycle.wild
        self.notes = []
        kinds = [c.handler for c in self.program.tree.all_commands()]
        kinds += [tree.handler for tree in self.program.tree.all_trees()]
        self.disturbed = cycle.disturbed or any(kind.startswith("kill") for kind in kinds)
        for op in cycle.before:
            self.do(op)
            if op.name == "start":
                self.prestarted.add(self._action(op))
        # Waits in it have no limit: in a thread of its own, which may hang.
        ops = [self._in_thread(self.root.start)]
        ops[0].join(PATIENCE)
        ops += [self._in_thread(partial(self._do_all, thread)) for thread in cycle.threads]
        self.disturbed |= not all(c.ends_by_itself for c in self.program.tree.all_commands())
        self._settle(ops)

    def _in_thread(self, function: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                function()
            except BaseException:  # noqa: BLE001 - kept
                self.wrong.append(traceback.format_exc())

        thread = threading.Thread(target=run, daemon=True, name=f"play-{self.word}")
        thread.start()
        return thread

    def _settle(self, threads: list[threading.Thread]) -> None:
        """Let all come to its end: what would not by itself is helped."""
        deadline = time.monotonic() + PATIENCE
        by_itself = all(c.ends_by_itself for c in self.program.tree.all_commands())
        happened = -1
        while True:
            for thread in threads:
                thread.join(0.002)
            busy = [thread for thread in threads if thread.is_alive()]
            live = [what for what in self.everything if what.running]
            open_ = self._unreleased()
            if not (busy or live or open_):
                return
            if time.monotonic() > deadline:
                faulthandler.dump_traceback(sys.stderr)
                self.wrong.append(f"hangs: {busy} {live} {open_}")
                return
            for script in self.scripts[:]:
                script.step()
            for process in self.processes:
                with contextlib.suppress(ValueError):
                    process.close_stdin()
            stuck, happened = happened == len(self.notes), len(self.notes)
            if stuck and (self.wild or not by_itself):
                for what in self.everything:
                    what.kill()
            # The end is waited for where there is one: a wait that misses it would hang.
            if not busy and self.root.started:
                threads = [self._in_thread(self._wait_for_all)]

    def _wait_for_all(self) -> None:
        for what in self.everything:
            with contextlib.suppress(ValueError):
                what.wait(None if not self.wild else PATIENCE)

    def _unreleased(self) -> list[Any]:
        # Lists, since other threads may start more meanwhile; one that is being made has no latch.
        every: list[Any] = [*list(self.runs.values()), *list(self.executions.values())]
        return [one for some in every for one in list(some) if not _is_released(one)]

    def _go_on(self, then: str) -> None:
        """From the end of a cycle to the next one."""
        if then == "stop":
            try:
                if self.root.started:
                    self.root.wait(PATIENCE, check=True)
                    if not self.root.ok:
                        self.wrong.append("check=True did not raise")
            except ProcessesFailed as exc:
                if list(exc.processes) != [p for p in self.processes if not p.ok]:
                    self.wrong.append(f"check=True raised {exc!r}")
            return
        self.expect_failed.clear()
        self.prestarted.clear()
        self.written.clear()
        self.late_handlers.clear()
        self.last_seen.clear()
        if then == "reset" or not self.root.started:
            self.root.reset()
            self.wrong += self._checks.after_reset(self)
            return
        runs = {p: p._run for p in self.processes}
        failed = [p for p in self.processes if not p.ok]
        self.wild = self.disturbed = True
        starter = self._in_thread(self.root.retry_failed)
        starter.join(PATIENCE)
        self._settle([starter])
        for process in self.processes:
            again = process._run is not runs[process]
            if again != (process in failed):
                self.wrong.append(f"retry_failed(): started again is {again}: {process!r}")
        self.root.reset()


def _is_released(run: Any) -> bool:
    latch = getattr(run, "release_latch", None)
    return latch is not None and bool(latch.fired)
