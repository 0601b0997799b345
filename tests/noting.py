"""What is noted while a program is played: what the transport has told each run and was told, each
state of each run, and what handlers saw.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from execo import Action, ActionLifecycleHandler, ProcessLifecycleHandler, configuration, transports
from execo.execution import Execution
from execo.lifecycle import Run
from execo.log import logger
from execo.outcome import State
from execo.process import ProcessOutputHandler
from execo.testing import FakeTransport, Script

if TYPE_CHECKING:
    from playing import Player

__all__ = [
    "PATIENCE",
    "TRANSPORT",
    "Attempt",
    "Collecting",
    "Counting",
    "Facts",
    "Note",
    "forget",
    "logged",
    "watched",
]

PATIENCE = 30.0
"""Seconds: a hang, not a speed."""

TRANSPORT = "program"

_numbers = itertools.count()


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


def forget() -> None:
    """Forget the scripts of a program that is over, with all that hangs on them."""
    _scripts.clear()


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


logged: list[str] = []
"""What must not be logged, and was."""


class _Log(logging.Handler):
    """Keeps what must not be logged; and makes each text, since that reads what it tells of."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "internal error" in text or (
            record.levelno >= logging.ERROR and "on purpose" not in str(record.exc_info)
        ):
            trace = (
                "" if not record.exc_info else "".join(traceback.format_exception(*record.exc_info))
            )
            logged.append(f"logged: {text}\n{trace}")


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
