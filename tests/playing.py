"""Plays the programs of ``program.py`` over the fake transport, and notes all that happens.

What is noted is what the transport has told and was told (``Facts``), each state of each run, and
what handlers saw: what ``claims.py`` compares with what processes and actions say of themselves.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import logging
import signal
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from execo import (
    Action,
    ActionLifecycleHandler,
    Local,
    ParallelActions,
    Process,
    ProcessesFailed,
    ProcessLifecycleHandler,
    Remote,
    SequentialActions,
    configuration,
    transports,
    wait_all_actions,
    wait_any_actions,
)
from execo._core.runtime import get_runtime
from execo.execution import Execution
from execo.lifecycle import Run
from execo.log import logger
from execo.outcome import State
from execo.process import ProcessBase, ProcessOutputHandler
from execo.testing import FakeTransport, Script
from program import Command, Cycle, Op, Program, Tree

__all__ = ["PATIENCE", "Facts", "Note", "Player", "watched"]

PATIENCE = 30.0
"""Seconds: a hang, not a speed."""

TRANSPORT = "program"

LEGAL = {
    (State.NEW, State.STARTING),
    (State.STARTING, State.RUNNING),
    (State.STARTING, State.ENDED),
    (State.RUNNING, State.DRAINING),
    (State.RUNNING, State.ENDED),
    (State.DRAINING, State.ENDED),
}
"""The changes of state that there are, see the states of a run in doc/internals.rst."""

_numbers = itertools.count()
_plays = itertools.count()


class Note:
    """Something that happened, with its place in the order of all that happens."""

    def __init__(self, what: str, whom: object) -> None:
        self.number = next(_numbers)
        self.what, self.whom = what, whom


class Attempt:
    """What a transport has told the run of one channel, and the signals that it was given."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.began = False


class Facts:
    """What really happened in one run."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.states: list[State] = [State.NEW]
        self.ends = 0


# -- the transport ----------------------------------------------------------------------------

_scripts: dict[str, Script] = {}


class ProgramTransport(FakeTransport):
    """The fake transport, with the script of a command for each attempt, and notes."""

    def __init__(self, runtime: Any) -> None:
        super().__init__(runtime, scripts=_scripts)

    def open_all(self, pairs: Any) -> Any:
        channels = []
        for request, run in pairs:
            play: Player = run.process.play
            facts = play.facts_of(run)
            words = request.command if isinstance(request.command, str) else request.command[0]
            script = run.process.command.script(len(facts.attempts))
            if run.process.command.end != "never":
                play.scripts.append(script)
            _scripts[words] = script
            facts.attempts.append(Attempt())
            channels += super().open_all([(request, _Told(run, facts.attempts[-1]))])
        return channels


class _Told:
    """The sink of a channel: notes what a run is told."""

    def __init__(self, run: Any, attempt: Attempt) -> None:
        self._run, self._attempt = run, attempt

    def _note(self, *what: Any) -> None:
        # On the I/O thread: what is true then stays so until the run was told.
        self._attempt.told.append((*what, self._run.state))

    def on_open(self, channel: Any) -> None:
        self._run.on_open(_Channel(channel, self))

    def on_start(self) -> None:
        self._note("start")
        self._run.on_start()

    def on_data(self, stream: int, data: bytes) -> None:
        self._note("data", stream, data)
        self._run.on_data(stream, data)

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self._note("eof", stream, error)
        self._run.on_eof(stream, error)

    def on_exit(self, status: int | None, error: Any = None) -> None:
        self._note("exit", status, error)
        self._run.on_exit(status, error)

    def on_error(self, error: Any) -> None:
        self._note("error", error)
        self._run.on_error(error)

    def on_written(self, count: int) -> None:
        self._run.on_written(count)

    def on_write_error(self, error: OSError) -> None:
        self._note("write error")
        self._run.on_write_error(error)


class _Channel:
    """The channel, as the run sees it: notes the signals."""

    def __init__(self, channel: Any, told: _Told) -> None:
        self._channel, self._told = channel, told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def send_signal(self, number: int) -> bool:
        alive: bool = self._channel.send_signal(number)
        self._told._note("signal", int(number), alive)
        return alive


# -- what sees all states ---------------------------------------------------------------------


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """The product, with an eye on each state of a run and each run of an action; and quick."""

    def get_state(run: Run) -> State:
        state: State = run.__dict__.get("state_", State.NEW)
        return state

    def set_state(run: Run, state: State) -> None:
        old = get_state(run)
        run.__dict__["state_"] = state
        play = getattr(run.process, "play", None)
        if play is not None:
            play.on_state(run, old, state)

    original = Execution.__init__

    def begin(execution: Execution, action: Action, *args: Any) -> None:
        original(execution, action, *args)
        play = getattr(action, "play", None)
        if play is not None:
            play.on_execution(execution)

    # Short: a hundredth of a second is long here. And an output that a handler holds up.
    quick = {"kill_timeout": 0.003, "drain_timeout": 0.003, "handler_queue_size": 30}
    before = {name: configuration[name] for name in quick}
    transports.register(TRANSPORT, f"{__name__}:ProgramTransport")
    propagate = logger.propagate
    handlers = logger.handlers[:]
    try:
        Run.state = property(get_state, set_state)  # type: ignore[assignment]
        Execution.__init__ = begin  # type: ignore[method-assign, assignment]
        configuration.update(quick)
        logger.propagate = False
        logger.handlers[:] = [_Log()]
        yield
    finally:
        logger.propagate, logger.handlers[:] = propagate, handlers
        configuration.update(before)
        Execution.__init__ = original  # type: ignore[method-assign]
        del Run.state


class _Log(logging.Handler):
    """Keeps what must not be logged; and makes each text, since that reads what it tells of."""

    errors: list[str] = []  # noqa: RUF012 - of all plays

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "internal error" in text or (
            record.levelno >= logging.ERROR and "on purpose" not in str(record.exc_info)
        ):
            trace = (
                "" if not record.exc_info else "".join(traceback.format_exception(*record.exc_info))
            )
            self.errors.append(f"logged: {text}\n{trace}")


# -- handlers ---------------------------------------------------------------------------------


class Counting(ProcessLifecycleHandler, ActionLifecycleHandler):  # type: ignore[misc]
    """Counts starts and ends, and does what it is told at each of them."""

    def __init__(self, play: Player, kind: str) -> None:
        self.play, self.kind = play, kind
        self.starts: Counter[Any] = Counter()
        self.ends: Counter[Any] = Counter()

    def start(self, what: Any) -> None:
        self.starts[what] += 1
        self._act(what)

    def end(self, what: Any) -> None:
        self.ends[what] += 1
        self.play.notes.append(Note("told of end", what))
        if not what.ended and not self.play.wild:
            self.play.wrong.append(f"the end handler was called before the end of {what!r}")
        if self.starts[what] < self.ends[what] and self in self.play.early:
            self.play.wrong.append(f"end before start: {what!r}")
        self._act(what)

    def _act(self, what: Any) -> None:
        if self.kind == "raise":
            raise RuntimeError("on purpose")
        # In a wild cycle it may have been reset meanwhile.
        with contextlib.suppress(ValueError):
            if self.kind == "wait":
                what.wait(PATIENCE)
            elif self.kind == "wait for all":
                self.play.root.wait(PATIENCE)
            elif self.kind == "kill":
                what.kill()
            elif self.kind == "kill all":
                self.play.root.kill()


class Collecting(ProcessOutputHandler):
    """What it was given of the output of each process."""

    def __init__(self) -> None:
        self.text: defaultdict[tuple[Any, int], str] = defaultdict(str)
        self.eofs: Counter[tuple[Any, int]] = Counter()

    def read(self, process: Any, stream: int, string: str, eof: bool, error: bool) -> None:
        self.text[process, stream] += string
        self.eofs[process, stream] += eof

    def reset(self, process: Any) -> None:
        for stream in (1, 2):
            self.text.pop((process, stream), None)
            self.eofs.pop((process, stream), None)


# -- the play ---------------------------------------------------------------------------------


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
            self.wrong += _Log.errors
            _Log.errors.clear()
            if self.wrong or cycle.then == "stop":
                break
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
        found: list[Any] = [
            run for runs in self.runs.values() for run in runs if not run.release_latch.fired
        ]
        found += [
            one for some in self.executions.values() for one in some if not one.release_latch.fired
        ]
        return found

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
