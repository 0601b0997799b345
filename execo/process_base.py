"""What all processes have in common: starting, waiting, killing, writing, resetting."""

from __future__ import annotations

import copy
import logging
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from weakref import ref

from . import observing, transports
from ._core.latch import Latch
from ._core.locks import new_lock
from ._core.pool import current_strand
from ._core.pool import wait as wait_for
from ._core.runtime import Runtime, get_runtime
from .config import configuration
from .delivery import call_handlers
from .errors import ProcessesFailed, Reason, SpawnError
from .expect import WINDOW, ExpectOutputHandler, Match, Patterns, search_all
from .handlers import ProcessOutputHandler
from .lifecycle import Run, kill_timeout
from .log import logger, style
from .outcome import NOTHING, Outcome
from .output import STDOUT
from .policy import Retry
from .process_state import ProcessState
from .time_utils import Duration, get_seconds
from .transports.base import Exec, Sink

if TYPE_CHECKING:
    from .action_base import Action

__all__ = [
    "ProcessBase",
    "checked_signal",
    "force_after",
    "start_all",
    "wait_released",
]

SLOW_HANDLER = 10.0
"""Seconds that a handler may hold up a wait() before it is named in a warning."""

_starting = new_lock()
E = TypeVar("E")


class ProcessBase(ProcessState, AbstractContextManager["ProcessBase"]):
    """What all processes can do; use :class:`~execo.process.Process` or
    :class:`~execo.process.SshProcess`. Its parameters are those of
    :class:`~execo.process_state.ProcessState`.

    As a context manager a process is killed at the end of the block, without waiting for it.
    """

    transport = "local"
    """The name of the transport that runs it."""

    _events: dict[str, Any] | None = None
    _action_ref: ref[Action] | None = None
    _purpose: Any = None
    """What it was started for, as far as somebody observes."""
    _early_input: tuple[str | bytes | None, ...] = ()
    _early_watchers: tuple[Callable[[], object], ...] = ()

    # -- what can be done ---------------------------------------------------------------------

    def start(self) -> Self:
        """Start it and return. A local command runs then, or has failed; a second call does
        nothing. Blocks no longer than the system takes to start a program.

        :raises OSError: at the first start of a script, if there are no descriptors for execo
          itself
        :raises RuntimeError: then, if no thread can be started; at the end of the interpreter
        """
        if self._run is None:
            if observing.observers:
                purpose = observing.label.get()
                if purpose is not self._purpose:  # most often neither is there
                    self._purpose = purpose
            runtime = get_runtime(configuration["switch_interval"])
            runtime.run_unbroken(start_all, [self], brief=True)
        return self

    def wait(self, timeout: Duration | None = None, *, check: bool = False) -> Self:
        """Block until it has ended and its own handlers have returned.

        In a handler it waits for the end only, and the handler's process goes on meanwhile.

        :param timeout: seconds to wait at the most; None = no limit. Look at ``ended`` then: it is
          neither an error nor a reason to kill it
        :param check: raise :class:`~execo.errors.ProcessesFailed` if it has failed
        :raises ValueError: if it was not started
        """
        run = self._run
        if run is None:
            raise ValueError(f"{self!r} was not started: call start() or run()")
        run.disown()
        wait_released(self, run.end_latch, run.release_latch, get_seconds(timeout))
        return self.raise_if_failed() if check else self

    def run(self, timeout: Duration | None = None, *, check: bool = False) -> Self:
        """``start()`` and ``wait(timeout)``."""
        return self.start().wait(timeout, check=check)

    def kill(
        self, sig: int = signal.SIGTERM, auto_force_kill_timeout: Duration | bool | None = True
    ) -> Self:
        """Send a signal to it and to all that it has started; does nothing unless it is running.

        On this machine that is its session: what it put into a session of its own (``setsid``, a
        daemon) is left alone. On a host it is all that has its mark in the environment.

        Returns when the signal is sent, see ``wait()`` for its end.

        :param sig: the signal
        :param auto_force_kill_timeout: seconds until SIGKILL follows; True =
          ``configuration["kill_timeout"]`` after a SIGTERM and never after another signal, None or
          False = never
        """
        number = checked_signal(sig)
        self._kill(number, force_after(number, auto_force_kill_timeout))
        return self

    def write(self, data: str | bytes) -> int:
        """Write to its stdin; ``print(..., file=process)`` works. Text is encoded as UTF-8.

        Returns at once; what the process does not read yet waits in memory, and past 16 MiB the
        call waits for the process to read. What could not be written sets ``write_error``.

        :returns: the length of ``data``
        :raises TypeError: for what is neither text nor bytes
        :raises ValueError: if it was not started (execo 2.8.2: TypeError), or takes no input
          (``detach``)
        """
        if self._run is None:
            raise ValueError(f"{self!r} was not started: write() needs start() first")
        self._check_input(data)
        if isinstance(data, str):
            encoded = data.encode("utf-8", "surrogateescape")
        elif isinstance(data, (bytes, bytearray, memoryview)):
            encoded = bytes(data)
        else:
            # bytes(3) would be three NULs, and bytes([3]) a byte.
            raise TypeError(f"write() takes text or bytes, not {data!r}")
        self._run.feed.write(encoded)
        return len(data)

    def flush(self) -> None:
        """Does nothing: what is written goes out at once. For ``print(..., flush=True)``."""

    def close_stdin(self) -> Self:
        """End of file on its stdin, after all that was written (new).

        :raises ValueError: if it was not started
        """
        if self._run is None:
            raise ValueError(f"{self!r} was not started: close_stdin() needs start() first")
        self._run.runtime.loop.call_soon(self._run.feed.end)
        return self

    def expect(
        self,
        regexes: Patterns,
        timeout: Duration | Literal[False] | None = False,
        stream: int = STDOUT,
        backtrack: bool = True,
        expect_output_handler: ExpectOutputHandler | None = None,
        *,
        window: int = WINDOW,
    ) -> Match:
        r"""Block until it has printed something, and go on from there at the next call.

        Of several matches the first in the output counts. A match may be spread over several
        pieces of output; what it is made of is within ``window``. ``$`` and a greedy end match
        what has come so far: ``\n`` says that the line is complete.

        Each thread has its own place in the output: the end of its last match. The handlers of
        one process or action share a place, whatever threads they run on. Where the output is not
        kept (``default_stdout_handler=False``, ``max_output``), searching begins with the first
        call, and the last 1 MiB is kept for it.

        :param regexes: a regular expression, or a list of them: texts (``re.MULTILINE``) or
          compiled ones
        :param timeout: seconds to wait at the most; 0 = look only; None = no limit; False =
          ``default_expect_timeout``
        :param stream: STDOUT or STDERR
        :param backtrack: False: what was printed before this call does not count
        :param expect_output_handler: use the place of this handler instead of the thread's
        :param window: characters before new output in which a match may begin (new)
        :returns: the index of the pattern and the match; None and None if the time, the output or
          the process has ended first: that sets ``expect_fail``
        :raises re.error: for what is no regular expression
        :raises TypeError: for what is no pattern
        :raises ValueError: if it was not started; for no patterns, a wrong stream or window
        :raises RuntimeError: if another thread is waiting with the same handler
        """
        if self._run is None:
            raise ValueError(f"{self!r} was not started: call start() before expect()")
        limit = self.default_expect_timeout if timeout is False else timeout
        return search_all(
            [(self, stream)],
            expect_output_handler,
            regexes,
            limit,
            backtrack=backtrack,
            window=window,
        )[0]

    def reset(self) -> Self:
        """Back to its initial state, to be started again; kills it and waits if it runs."""
        run = self._run
        if self.running:
            self.kill()
        if run is not None:
            # Also if it has ended: what its handlers still do belongs to this run.
            run.disown()
            wait_released(self, run.end_latch, run.release_latch, None)
        call_handlers(self, "reset")
        for handler in [*self.stdout_handlers, *self.stderr_handlers]:
            if isinstance(handler, ProcessOutputHandler):
                handler.reset(self)
        with _starting:
            if self._run is not run:
                return self  # another thread was quicker, and has started it again
            self._run = None
            self._early_input = ()
            self._early_outcome = NOTHING
        for event in (self._events or {}).values():
            if isinstance(event, threading.Event):
                event.clear()
        return self

    def raise_if_failed(self) -> Self:
        """Raise :class:`~execo.errors.ProcessesFailed` if it has ended and is not ``ok``."""
        if self.ended and not self.ok:
            raise ProcessesFailed([self])
        return self

    # -- events, made when first asked for ----------------------------------------------------

    @property
    def started_event(self) -> threading.Event:
        """Set when it has started."""
        return self._event("started_event", threading.Event)

    @property
    def ended_event(self) -> threading.Event:
        """Set when it has ended."""
        return self._event("ended_event", threading.Event)

    @property
    def started_condition(self) -> threading.Condition:
        """Notified when it has started."""
        return self._event("started_condition", threading.Condition)

    @property
    def ended_condition(self) -> threading.Condition:
        """Notified when it has ended."""
        return self._event("ended_condition", threading.Condition)

    def _event(self, key: str, make: Callable[[], E]) -> E:
        with _starting:
            if self._events is None:
                self._events = {}
            event: E = self._events.setdefault(key, make())
        # Looked at after it is in place: the I/O thread may have come by just before.
        happened = self.ended or (key == "started_event" and self.start_date is not None)
        if isinstance(event, threading.Event) and happened:
            event.set()
        return event

    def _running_handlers(self) -> str:
        run = self._run
        strand = None if run is None or run._delivery is None else run._delivery.strand
        return "" if strand is None or strand.running is None else f"handler {strand.running!r}"

    def _set_events(self, which: str) -> None:
        events = self._events or {}
        if f"{which}_event" in events:
            events[f"{which}_event"].set()
        condition = events.get(f"{which}_condition")
        if condition is not None:
            with condition:
                condition.notify_all()

    # -- for coroutines and blocks ------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Self]:
        """``await process`` waits as ``wait()`` does, without blocking the coroutine's loop.

        :raises ValueError: if it was not started
        """
        run = self._run
        if run is None:
            raise ValueError(f"{self!r} was not started: call start() before await")
        run.disown()
        yield from run.release_latch.__await__()
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    # -- for the rest of the house ------------------------------------------------------------

    @property
    def _action(self) -> Action | None:
        """The action that it is part of. Not held: the action holds it."""
        return None if self._action_ref is None else self._action_ref()

    @_action.setter
    def _action(self, action: Action) -> None:
        self._action_ref = ref(action)

    def _request(self) -> Exec:
        raise NotImplementedError

    def _keep_input(self, data: str | bytes | None) -> bool:
        """Keep input (None = its end) for one that will be started; False if it has been."""
        self._check_input(data)
        with _starting:
            if self._run is None:
                self._early_input += (data,)
                return True
        return False

    def _check_input(self, data: str | bytes | None) -> None:
        if self.detach and data is not None:
            raise ValueError(f"{self!r} is detached: its stdin is empty, and takes no input")

    def _give_early_input(self) -> None:
        early, self._early_input = self._early_input, ()
        for data in early:
            if data is None:
                self.close_stdin()
            else:
                self.write(data)

    def _run_or_tell(self, tell: Callable[[], object]) -> Run | None:
        """Its run; or None, and ``tell`` is called when it has one."""
        with _starting:
            run = self._run
            if run is None:
                self._early_watchers += (tell,)
        if run is not None:
            run.disown()
        return run

    def _tell_no_more(self, tell: Callable[[], object]) -> None:
        """``tell`` need not be called any more."""
        with _starting:
            self._early_watchers = tuple(one for one in self._early_watchers if one is not tell)

    def _tell_early_watchers(self, run: Run) -> None:
        with _starting:
            watchers, self._early_watchers = self._early_watchers, ()
            if self._early_outcome.expect_fail:
                run.fail_expect(self._early_outcome.expect_failure)
        for tell in watchers:
            tell()

    def _expect_failed(self, run: Run | None, why: str) -> bool:
        """Note that an expected output of ``run`` (None = of the one to come) did not come; True
        if that is to be logged now."""
        with _starting:
            run = run or self._run
            if run is None:
                self._early_outcome = Outcome()
                self._early_outcome.expect_fail = True
                self._early_outcome.expect_failure = why
                return False
        if run.runtime.gone:
            unlogged: bool | None = run.fail_expect(why)  # there is no I/O thread any more
        else:
            unlogged = run.runtime.loop.run_sync(run.fail_expect, why)
        return bool(unlogged) and not self.nolog_expect_fail

    def _kill(self, number: int, after: float | None) -> None:
        run = self._run
        if run is not None and not run.ended and not run.runtime.gone:
            run.runtime.loop.run_sync(run.kill, number, after)

    def _kill_on_loop(self, number: int, after: float | None) -> None:
        if self._run is not None:
            self._run.kill(number, after)

    def _cancel(self, runtime: Runtime, why: str) -> None:
        """Give it up before its start; on the I/O thread."""
        if self._run is None:
            self._run = Run(self, runtime)
            self._run.cancel(why)
            self._tell_early_watchers(self._run)

    def _give_up_start(self, why: str) -> None:
        """Give it up if its start is under way; on the I/O thread."""
        if self._run is not None:
            self._run.give_up(why)

    def _start_again(self, run: Run) -> None:
        """The next attempt of ``run``; on a worker."""
        if not run.ended:
            _open([run])
            # Told to end while there was no channel to give up.
            run.runtime.loop.call_soon(run.look_unwanted)

    def _sink_failed(self, stream: int) -> None:
        if self._run is not None:
            if stream == STDOUT:
                self._run.stdout_ioerror = True
            else:
                self._run.stderr_ioerror = True

    def _wants_log(self, run: Run) -> bool:
        """Whether the end of this run is to be logged; on the I/O thread, once a run."""
        failed = (
            (run.error is not None and not self.nolog_error and run.reason is not Reason.CANCELLED)
            or (run.timeouted and not self.nolog_timeout)
            or (run.expect_fail and not self.nolog_expect_fail)
            or (run.write_error and not self.nolog_write_error)
            or (bool(run.exit_code) and not (self.nolog_exit_code or run.killed))
        )
        if failed and run.reason is not None:
            alone = self._action is None or self._action._admit_failure(run.reason)
            return alone and logger.isEnabledFor(logging.WARNING)
        return False

    def _wrap_up(self, run: Run, log: bool) -> None:
        """After the end handlers, on the strand."""
        try:
            if self._run is run:
                self._set_events("ended")
            if log:
                logger.warning("%s", style.emph("failed: ") + self._as_of(run).dump())
        finally:
            run.release()

    def _as_of(self, run: Run) -> Self:
        """The process as it was in ``run``: a handler may have reset and started it again."""
        if self._run is run:
            return self
        past = copy.copy(self)
        past._run = run
        return past


def start_all(processes: Sequence[ProcessBase], retry: Retry | None = None) -> list[Run]:
    """Start processes, those of one transport with one call, and give back their runs. What was
    started before is left alone. Failures end the process that they concern. Not for the main
    thread, see ``Runtime.run_unbroken``."""
    runtime = get_runtime(configuration["switch_interval"])
    runs: list[Run] = []
    new: list[Run] = []
    for process in processes:
        with _starting:
            run = process._run
            if run is not None:
                runs.append(run)
                continue
            run = process._run = Run(process, runtime, retry)
        runs.append(run)
        new.append(run)
        process._tell_early_watchers(run)
        if process._early_input:
            process._give_early_input()
    _open(new)
    for run in new:
        # With a policy, what has failed may be on its way again, and end much later.
        if retry is None and (run.channel is None or run.channel.failed):
            run.end_latch.wait()  # on its way: the I/O thread never blocks
    return runs


def _open(runs: Sequence[Run]) -> None:
    """Ask the transports for what ``runs`` are to run."""
    pairs: dict[str, list[tuple[Exec, Sink]]] = {}
    for run in runs:
        process = run.process
        try:
            request = process._request()  # which may choose the transport
            pairs.setdefault(process.transport, []).append((request, run))
        except Exception as exc:  # noqa: BLE001 - what the user set: it ends this process
            _fail(run, exc)
    for name, requests in pairs.items():
        try:
            transports.get(runs[0].runtime, name).open_all(requests)
        except Exception as exc:  # noqa: BLE001 - a transport of the user's, for one
            for _, sink in requests:
                if isinstance(sink, Run) and not (sink.channel and sink.channel.start_date):
                    _fail(sink, exc)


def _fail(run: Run, cause: BaseException) -> None:
    what = str(cause) or type(cause).__name__
    hint = "; mend its quoting, or give a list of words" if "quot" in what else ""
    message = f"cannot start {run.process.name!r}: {what}{hint}"
    error = SpawnError(message, command=run.process._command_text())
    error.__cause__ = cause
    run.runtime.loop.call_soon(run.on_error, error)


def wait_released(
    subject: ProcessBase | Action, ended: Latch, released: Latch, timeout: float | None
) -> None:
    """Wait for ``released``, in a handler for ``ended``, at most ``timeout`` seconds.

    Names a handler that holds it up for SLOW_HANDLER seconds.
    """
    if current_strand() is not None:
        wait_for(ended, timeout)
        return
    first = SLOW_HANDLER if timeout is None else min(timeout, SLOW_HANDLER)
    if released.wait(first):
        return
    # A handler can hold up the end as well: its process is paused while output waits for it.
    if first == SLOW_HANDLER and (running := subject._running_handlers()):
        logger.warning("%s of %r holds up wait(), %d s so far", running, subject, SLOW_HANDLER)
    if timeout is None or timeout > SLOW_HANDLER:
        released.wait(None if timeout is None else timeout - SLOW_HANDLER)


def force_after(number: int, value: Duration | bool | None) -> float | None:
    """The seconds that ``auto_force_kill_timeout`` means for signal ``number``; None = never."""
    if value is True:
        # Others may be meant otherwise: HUP reloads, QUIT dumps, INT stops a calculation.
        return kill_timeout() if number == signal.SIGTERM else None
    return None if value is False or value is None else get_seconds(value)


def checked_signal(sig: int) -> int:
    """``sig`` as a number.

    :raises ValueError: if it is no signal
    """
    if isinstance(sig, bool) or not isinstance(sig, int) or not 0 <= sig < signal.NSIG:
        raise ValueError(f"no signal: {sig!r}")
    return int(sig)
