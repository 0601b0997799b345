"""Programs for the property tests: a tree of actions, the scripts of its commands, what threads do.

All of it is data, so that a program that fails can be made smaller, printed, and played again.
``playing.py`` plays it.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import hypothesis.strategies as st

from execo import Reason, Retry
from execo.errors import ProcessError
from execo.testing import CloseStdin, Eof, Err, Event, Exit, Fail, Gate, Out, Read, Script, Start

__all__ = ["Command", "Cycle", "Op", "Program", "Tree", "programs"]

SOON = 0.002
"""Seconds: some of what happens, happens in the middle of something else."""

ENDS = {
    "exit": "at once",
    "late": "soon",
    "gate": "when its gate is opened",
    "cat": "when its stdin is closed",
    "closed": "when its gate is opened; does not read its stdin",
    "lost": "its connection is lost",
    "status lost": "nobody knows how",
    "output lost": "the end of its output is an error",
    "left": "at once, but something that it left behind holds and uses its output",
    "never": "when it is killed",
}


class _Brief:
    """Shown without what is as usual."""

    def __repr__(self) -> str:
        shown = [
            f"{one.name}={getattr(self, one.name)!r}"
            for one in fields(self)  # type: ignore[arg-type]
            if getattr(self, one.name) != one.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class Command(_Brief):
    """What one process does, and its parameters."""

    fails: tuple[str, ...] = ()
    """The reasons of the attempts to start it that fail, in order; the next one works."""
    start_delay: float = 0.0
    prints: tuple[tuple[int, bytes], ...] = ()
    end: str = "exit"
    code: int = 0
    on_term: int | None = -signal.SIGTERM
    """What it exits with at a SIGTERM; None: it ignores that."""
    timeout: float | None = None
    flags: frozenset[str] = frozenset()
    max_output: int | None = None
    handler: str = ""

    def script(self, attempt: int) -> Script:
        """Of that attempt to start it, counted from 0."""
        if attempt < len(self.fails):
            reason = Reason(self.fails[attempt])
            error = ProcessError(f"no {reason}", reason=reason, host="h")
            return Script(Fail(error, delay=self.start_delay))
        prints: list[Event] = [(Out if stream == 1 else Err)(data) for stream, data in self.prints]
        lost = ProcessError("lost", reason=Reason.CONNECT)
        broken = OSError(errno.EIO, "broken")
        ends: dict[str, list[Event]] = {
            "exit": [Exit(self.code)],
            "late": [Exit(self.code, delay=SOON)],
            "gate": [Gate(), Exit(self.code)],
            "cat": [Read(), Exit(self.code)],
            "closed": [CloseStdin(), Gate(), Exit(self.code)],
            "lost": [Fail(lost)],
            "status lost": [Exit(None)],
            "output lost": [Eof(1, broken), Exit(self.code)],
            "left": [Exit(self.code), Gate(), Out(b"late")],
            "never": [Gate()],  # which nobody opens
        }
        events = [Start(delay=self.start_delay), *prints, *ends[self.end]]
        return Script(*events, signals={signal.SIGTERM: self.on_term, signal.SIGUSR1: None})

    @property
    def ends_by_itself(self) -> bool:
        return self.end != "never" or (self.timeout or 1) <= SOON or self.timeout == 0.0


@dataclass(frozen=True, repr=False)
class Tree(_Brief):
    """An action: ``local`` and ``remote`` are made of commands, the others of actions."""

    kind: str
    commands: tuple[Command, ...] = ()
    parts: tuple[Tree, ...] = ()
    fanout: int | None = None
    start_rate: float | None = None
    max_failures: int | str | None = None
    retry: Retry | None = None
    handler: str = ""

    def all_commands(self) -> Iterator[Command]:
        yield from self.commands
        for part in self.parts:
            yield from part.all_commands()

    def all_trees(self) -> Iterator[Tree]:
        yield self
        for part in self.parts:
            yield from part.all_trees()


@dataclass(frozen=True, repr=False)
class Op(_Brief):
    """One thing that a thread does: the name of a method of ``playing.Player``, and its arguments.

    ``at`` chooses an action or a process (each has a number, which may be too high: it wraps)."""

    name: str
    at: int = 0
    seconds: float | None = None
    number: int = 0


WILD = frozenset(["start", "reset", "retry_failed"])
"""What makes the order of things anybody's guess, in the middle of a run."""

DISTURBING = frozenset(["kill", "kill_process", "expect", "write"])
"""What makes an outcome depend on when it happens."""


@dataclass(frozen=True, repr=False)
class Cycle(_Brief):
    """One start of the whole tree, what happens meanwhile, and how to go on from there."""

    before: tuple[Op, ...] = ()
    threads: tuple[tuple[Op, ...], ...] = ()
    then: str = "stop"

    @property
    def wild(self) -> bool:
        return any(op.name in WILD for thread in self.threads for op in thread)

    @property
    def disturbed(self) -> bool:
        ops = (*self.before, *(op for thread in self.threads for op in thread))
        return any(op.name in WILD | DISTURBING for op in ops)


@dataclass(frozen=True, repr=False)
class Program(_Brief):
    tree: Tree
    cycles: tuple[Cycle, ...]


# -- the strategies ---------------------------------------------------------------------------

# Mostly what is common: a program where everything is odd ends at the first odd thing.
flags = st.frozensets(
    st.sampled_from(
        [
            *("ignore_exit_code", "ignore_timeout", "ignore_error"),
            *("ignore_expect_fail", "ignore_write_error"),
            *("nolog_exit_code", "nolog_timeout", "nolog_error"),
        ]
    ),
    max_size=4,
)
delays = st.sampled_from([0.0, 0.0, 0.0, SOON])
pieces = st.sampled_from(
    [(1, b"one\n"), (1, b"two"), (2, b"oops\n"), (1, b"\xc3"), (1, b"\xa9\xff"), (1, b"long" * 10)]
)
process_handlers = st.sampled_from(
    ["", "", "", "", "count", "count", "count", "count", "raise", "wait", "wait for all", "kill"]
)


# Functions, not plain strategies: the text of a strategy that holds others is long to make.
@st.composite
def commands(draw: st.DrawFn) -> Command:
    fails: list[tuple[str, ...]] = [("connect",), ("connect", "connect"), ("auth",), ("spawn",)]
    return Command(
        fails=draw(st.sampled_from([()] * 12 + fails)),
        start_delay=draw(delays),
        prints=tuple(draw(st.lists(pieces, max_size=3))),
        end=draw(st.sampled_from(["exit", "exit", "exit", "late", "gate", *ENDS])),
        code=draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, 3, -9, -15])),
        on_term=draw(st.sampled_from([-15, -15, None, 0, 5])),
        timeout=draw(st.sampled_from([None, None, None, 0.0, SOON, 3600.0])),
        flags=draw(flags),
        max_output=draw(st.sampled_from([None, None, None, 0, 3])),
        handler=draw(process_handlers),
    )


retries = st.sampled_from(
    [
        *(None, None, None, Retry(times=1, backoff=0.0)),
        *(Retry(times=2, backoff=0.001), Retry(times=1, backoff=0.0, on=["connect", "spawn"])),
    ]
)
limits = st.sampled_from([None, None, None, None, None, None, 0, 0, 1, "50%"])
rates = st.sampled_from([None, None, None, None, 2000.0])

fanouts = st.sampled_from([None, None, 1, 2])
action_handlers = st.sampled_from([""] * 6 + ["count"] * 5 + ["raise", "wait", "kill all"])


@st.composite
def leaves(draw: st.DrawFn) -> Tree:
    if draw(st.booleans()):
        return Tree("local", (draw(commands()),), handler=draw(action_handlers))
    return _with_policy(draw, "remote", commands=tuple(draw(st.lists(commands(), max_size=3))))


@st.composite
def trees(draw: st.DrawFn, depth: int = 2) -> Tree:
    if depth == 0 or draw(st.integers(0, 4)) == 4:
        return draw(leaves())
    kind = draw(st.sampled_from(["parallel", "sequential"]))
    parts = draw(st.lists(trees(depth - 1), min_size=draw(st.integers(0, 2)), max_size=3))
    return _with_policy(draw, kind, parts=tuple(parts))


def _with_policy(draw: st.DrawFn, kind: str, **made_of: Any) -> Tree:
    return Tree(
        kind,
        **made_of,
        fanout=None if kind == "sequential" else draw(fanouts),
        start_rate=draw(rates),
        max_failures=draw(limits),
        retry=draw(retries),
        handler=draw(action_handlers),
    )


places = st.integers(0, 9)
patiences = st.sampled_from([0.0, SOON, None])
quiet_ops = st.one_of(
    st.builds(Op, st.sampled_from(["wait", "wait", "look", "add_handler", "step"]), places, delays),
    st.builds(
        Op, st.sampled_from(["wait", "wait_process", "wait_any", "wait_all"]), places, patiences
    ),
    st.builds(Op, st.just("nap"), seconds=st.just(SOON)),
)
disturbing_ops = st.one_of(
    st.builds(
        Op,
        st.sampled_from(["kill", "kill_process", "kill_process"]),
        places,
        st.sampled_from([None, 0.0, SOON]),
        st.sampled_from(
            [0, signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGUSR1]
        ),
    ),
    st.builds(Op, st.sampled_from(["expect", "write"]), places, st.sampled_from([0.0, SOON])),
)
wild_ops = st.builds(Op, st.sampled_from(sorted(WILD)), places)


@st.composite
def cycles(draw: st.DrawFn) -> Cycle:
    # Each kind in a part of them: what is quiet can be foretold, what is wild cannot.
    kind = draw(st.sampled_from(["quiet", "disturbed", "disturbed", "wild"]))
    ops = {
        "quiet": quiet_ops,
        "disturbed": quiet_ops | disturbing_ops,
        "wild": quiet_ops | disturbing_ops | wild_ops | wild_ops,
    }[kind]
    before = st.lists(
        st.builds(Op, st.sampled_from(["look", "start", "add_handler"]), places),
        max_size=0 if kind == "quiet" or draw(st.booleans()) else 2,
    )
    threads = st.lists(st.lists(ops, min_size=1, max_size=5).map(tuple), min_size=1, max_size=3)
    then = st.sampled_from(["reset", "retry_failed", "stop"])
    return Cycle(tuple(draw(before)), tuple(draw(threads)), draw(then))


def programs() -> st.SearchStrategy[Program]:
    """Programs of all kinds."""
    return st.builds(Program, trees(), st.lists(cycles(), min_size=1, max_size=3).map(tuple))
