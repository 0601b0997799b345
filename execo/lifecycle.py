"""One run of a process, from its start to its release: the state machine.

::

    STARTING ──on_start──> RUNNING ──on_exit──> DRAINING ──all output read──> ENDED ──> released
        │                     │                     └── drain_timeout without data ──┘
        └──────on_error───────┴── lost ──> ENDED

*Ended* means exited and drained: a command that exits with output in the pipe has not ended, and a
command whose child in the background holds the pipe open has, after ``drain_timeout``. *Released*
means that the process's own handlers have returned, too; that is what ``wait()`` waits for.

A run whose command cannot have been started is tried again if its action's policy says so: it stays
STARTING, with another channel. Nothing else is: what may have run is not repeated.

A run is the sink of one channel at a time. A process that is reset and started again has a new
run, so what an old one left in the background cannot write into the new one. All state belongs to
the I/O thread; other threads read it.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

from . import observing
from ._core.latch import Latch
from ._core.runtime import Runtime
from .config import configuration
from .delivery import Delivery
from .errors import CancelledError, OutputError, ProcessError, SpawnError
from .expect import watch_outputs
from .feed import Feed
from .log import logger
from .outcome import Outcome, State
from .output import STDERR, STDOUT, Capture
from .policy import Retry
from .reading import Reading
from .time_utils import get_seconds
from .transports.base import ENDING_SIGNALS, Channel

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from .process_base import ProcessBase

__all__ = ["Run", "kill_timeout"]

LATE = 0.1
"""Seconds by which the I/O thread comes too late when it cannot have heard what there was."""

MOST_DRAINS = 10
"""Times the drain limit that it may be put off for that."""

LONG_WAIT = 5.0
"""Seconds of waiting for a slot from which on it is worth a word."""


class Run(Outcome):
    """What happens to one start of ``process``; the sink of its channel."""

    # Defaults of the class cost a run nothing until they change.
    channel: Channel | None = None
    attempts = 1
    _past: ref[ProcessBase] | None = None
    _last_error: ProcessError | None = None  # of the attempt before, while the next one waits
    _retry_timer: TimerHandle | None = None
    _given_up = ""
    _stdout_open = _stderr_open = True
    _delivery: Delivery | None = None
    _feed: Feed | None = None
    _force_timer: TimerHandle | None = None
    _timeout_timer: TimerHandle | None = None
    _quiet_since = _exited_at = 0.0
    _early_signals: tuple[tuple[int, float | None], ...] = ()
    _sent_signals: frozenset[int] = frozenset()
    _reading: Reading | None = None
    _logged = False

    def __init__(self, process: ProcessBase, runtime: Runtime, retry: Retry | None = None) -> None:
        self._process: ProcessBase | None = process
        self.runtime = runtime
        self._retry = retry
        self.state = State.STARTING
        self.requested = True
        self.end_latch = Latch()
        self.release_latch = Latch()
        # Read now, in the user's thread: a wrong value is an error of start(), where the user sees
        # it, and not one of the I/O thread, where it would keep the run from its end.
        self._drain_timeout = float(configuration["drain_timeout"])
        self._queue_size = int(configuration["handler_queue_size"])
        self._kill_timeout = kill_timeout()
        self._max_output = process.max_output
        self._folder = ""
        if process.stdout_handlers or process.stderr_handlers:
            self._folder = os.getcwd()
            watch_outputs(process)

    @property
    def process(self) -> ProcessBase:
        """Whose run it is: held until it is released, and known as long as somebody else has it.

        :raises ReferenceError: when nobody has it any more
        """
        process = self._process
        if process is None and self._past is not None:
            process = self._past()
        if process is None:
            raise ReferenceError("the process of this run is gone")
        return process

    def release(self) -> None:
        """Its own handlers have returned; any thread. From now on it holds nothing that holds it:
        a process with all its output is gone when its last user drops it, not when the garbage
        collector comes by, thousands of processes later."""
        if self._process is not None:
            self._past = ref(self._process)
            self._process = None
        self._delivery = None
        self.release_latch.fire()

    # -- the sink -----------------------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self.channel = channel

    def on_start(self) -> None:
        channel = self.channel
        if channel is None:
            return  # a transport that has failed goes on all the same: it was told to abort
        self.state = State.RUNNING
        self.pid, self.start_date = channel.pid, channel.start_date
        self.waited = channel.waited > LONG_WAIT
        if observing.observers:
            observing.tell("process_started", self)
        if self.process.timeout is not None:
            timeout = float(self.process.timeout)
            self._timeout_timer = self.runtime.loop.call_later(timeout, self._on_timeout)
        if self.process.lifecycle_handlers or self.process._events:
            self._started()
        if self._feed is not None:
            self._feed.start(channel)
        for number, force_after in self._early_signals:
            self.kill(number, force_after)

    def on_data(self, stream: int, data: bytes) -> None:
        if self.ended:
            # Read all the same: a server left in the background must not die of SIGPIPE.
            self.late_bytes += len(data)
            return
        if self.state is State.DRAINING:
            self._quiet_since = self.runtime.loop.time()
        capture = self.stdout if stream == STDOUT else self.stderr
        if capture is None:
            capture = self._new_capture(stream)
        if capture is not None:
            try:
                capture.append(data)
            except MemoryError as exc:
                self.error = self.error or _cut(exc)
        if self._reading is not None:
            self._reading.add(stream, data)
        if observing.observers:
            observing.tell("process_printed", self, stream, data)
        if self._has_handlers(stream):
            self.delivery.output(self.channel, stream, data, eof=False)

    def on_eof(self, stream: int, error: OSError | None) -> None:
        if self.ended:
            return
        if error is not None and not self.killed:
            # Whatever its exit was: what is missing may be what it was run for.
            self.error = self.error or _cut(error)
        self._close_stream(stream, error is not None)
        if self.state is State.DRAINING and not self._stdout_open and not self._stderr_open:
            self._end()

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        # The timers go on: what it left behind may hold its output open, and never be silent.
        self.error = error or self.error
        self.exit_status_raw = status
        if status is not None:
            self.exit_code = os.waitstatus_to_exitcode(status)
            if self.exit_code < 0 and -self.exit_code in self._sent_signals:
                self.killed = True  # by a signal that need not have ended it, SIGUSR1 for one
            if self.exit_code and self.runtime.exiting:
                self.killed = True  # with the script
        self.state = State.DRAINING
        if not self._stdout_open and not self._stderr_open:
            self._end()
        else:
            self._exited_at = self._quiet_since = self.runtime.loop.time()
            self._check_drain(self._quiet_since)

    def on_error(self, error: ProcessError) -> None:
        if self.ended or self._try_again(error):
            return
        if self._given_up and isinstance(error, CancelledError):
            error = CancelledError(f"{error}: {self._given_up}")
        self._fail(error)

    def _fail(self, error: ProcessError) -> None:
        self.error = error
        if self.state is State.STARTING and (
            self.process.lifecycle_handlers or self.process._events
        ):
            self._started()
        self._end()

    def on_written(self, count: int) -> None:
        if self._feed is not None:
            self._feed.on_written(count)

    def on_write_error(self, error: OSError) -> None:
        # One that was told to end need not read on.
        self.write_error = self.write_error or not self.killed
        if self._feed is not None:
            self._feed.close()

    # -- asked by the user, on the I/O thread -------------------------------------------------

    def kill(self, number: int, force_after: float | None) -> None:
        """Send a signal, and KILL ``force_after`` seconds later."""
        ending = number in ENDING_SIGNALS
        if self.state is State.STARTING:
            self._early_signals += ((number, force_after),)
            if ending:
                self.look_unwanted()
        elif self.channel is not None:
            if self.channel.send_signal(number) and self.state is State.RUNNING:
                self._sent_signals |= {number}
                self.killed = self.killed or ending
            if number != signal.SIGKILL and force_after is not None:
                self._force_in(force_after)

    def cancel(self, why: str) -> None:
        """Give up before the start: its action starts nothing any more."""
        if self.state is State.STARTING and self.channel is None:
            self.requested = False
            self.attempts = 0
            self.error = CancelledError(f"given up before its start: {why}")
            self._end()

    def give_up(self, why: str) -> None:
        """Give up if it has not started; what has goes on."""
        if self.state is State.STARTING:
            self._given_up = why
            self.look_unwanted()

    def look_unwanted(self) -> None:
        """Give up the start, if it is under way and was told to end, or not to begin."""
        channel = self.channel
        if self.state is not State.STARTING:
            return
        if self._retry_timer is not None and self._is_unwanted:
            self._abort_pause()
        elif channel is not None and (
            self._is_to_end or (self._given_up and channel.start_date is None)
        ):
            channel.abort()

    def disown(self) -> None:
        """Where nobody would ever see its end, end it now: in a forked child, and at the end of
        the interpreter. In the user's thread; the I/O thread is not there."""
        if self.runtime.gone and not self.ended:
            why = "the interpreter is exiting"
            if self.runtime.foreign:
                why = "it belongs to the parent of this forked process"
            self.error = SpawnError(f"{why}: its end cannot be seen here")
            self.state = State.ENDED
            self.channel = None
            self.end_latch.fired = self.release_latch.fired = True

    @property
    def feed(self) -> Feed:
        """Its stdin; made in the user's thread that first asks for it."""
        if self._feed is None:
            with self.runtime.lock:
                if self._feed is None:
                    self._feed = Feed(self)
        return self._feed

    @property
    def delivery(self) -> Delivery:
        """The way to its handlers."""
        if self._delivery is None:
            self._delivery = Delivery(self.process, self.runtime, self._queue_size, self._folder)
        return self._delivery

    # -- for those who expect output ----------------------------------------------------------

    @property
    def reading(self) -> Reading:
        """What they have of it; made in the user's thread that first asks for it."""
        if self._reading is None:
            with self.runtime.lock:
                if self._reading is None:
                    self._reading = Reading(self)
        return self._reading

    def is_over(self, stream: int) -> bool:
        """Whether no more output will come."""
        return self.ended or not (self._stdout_open if stream == STDOUT else self._stderr_open)

    def keeps_all(self, stream: int) -> bool:
        """Whether its output is kept as a whole."""
        wanted = (self.process.default_stdout_handler, self.process.default_stderr_handler)
        return bool(wanted[stream - 1]) and self._max_output is None

    def fail_expect(self, why: str) -> bool:
        """An expected output did not come; True if its end did not log a failure, nor will."""
        first, self.expect_fail = not self.expect_fail, True
        self.expect_failure = self.expect_failure or why
        return first and self.ended and not self._logged

    # -- starting again -----------------------------------------------------------------------

    def _try_again(self, error: ProcessError) -> bool:
        """Whether it will be started again."""
        if self._retry_timer is not None:
            return True  # told twice of one attempt: by its transport, and by who has asked that
        pause = None if self._retry is None else self._retry.pause(error.reason, self.attempts)
        if pause is None or self._is_unwanted or self.runtime.exiting:
            return False
        channel = self.channel
        if self.state is not State.STARTING or not (channel is None or channel.failed):
            self.may_have_run = True
            return False
        if channel is not None:
            channel.forget()
            self.channel = None
        self._last_error = error
        self._retry_timer = self.runtime.loop.call_later(pause, self._start_again)
        return True

    def _start_again(self) -> None:
        self._retry_timer = None
        if self.runtime.exiting:
            self._abort_pause()
            return
        self.attempts += 1
        self.runtime.workers.submit(self.process._start_again, self)

    @property
    def _is_to_end(self) -> bool:
        return any(number in ENDING_SIGNALS for number, _ in self._early_signals)

    @property
    def _is_unwanted(self) -> bool:
        return bool(self._given_up) or self._is_to_end

    def _abort_pause(self) -> None:
        """It waits for its next attempt, which does not come: it has failed as the last one."""
        assert self._last_error is not None
        self._fail(self._last_error)

    # -- the rest -----------------------------------------------------------------------------

    def _new_capture(self, stream: int) -> Capture | None:
        # Made for the first output: most processes print nothing on stderr.
        process = self.process
        if stream == STDOUT and process.default_stdout_handler:
            self.stdout = Capture(self._max_output)
            return self.stdout
        if stream == STDERR and process.default_stderr_handler:
            self.stderr = Capture(self._max_output)
            return self.stderr
        return None

    def _has_handlers(self, stream: int) -> bool:
        process = self.process
        return bool(process.stdout_handlers if stream == STDOUT else process.stderr_handlers)

    def _started(self) -> None:
        self.delivery.strand.submit(self.process._set_events, "started")
        self.delivery.event("start")

    def _close_stream(self, stream: int, error: bool) -> None:
        capture = self.stdout if stream == STDOUT else self.stderr
        # First: who sees that the stream is closed reads the very last character.
        if capture is not None:
            capture.finish()
        if self._reading is not None:
            self._reading.finish(stream)
        if stream == STDOUT:
            self._stdout_open = False
            self.stdout_ioerror = self.stdout_ioerror or error
        else:
            self._stderr_open = False
            self.stderr_ioerror = self.stderr_ioerror or error
        if self._reading is not None:
            self._reading.tell()
        if self._has_handlers(stream):
            self.delivery.output(None, stream, b"", eof=True, error=error)

    def _check_drain(self, due: float) -> None:
        if self.state is not State.DRAINING:
            return
        now = self.runtime.loop.time()
        paused = self._delivery is not None and self._delivery.paused
        if paused:
            # Not silent, but held up by its own handlers.
            self._quiet_since = now
        elif now - due > LATE and now - self._exited_at < MOST_DRAINS * self._drain_timeout:
            # Nothing was heard, because this machine is so busy that nobody listened.
            self._quiet_since = now
        left = self._quiet_since + self._drain_timeout - now
        if left <= 0 and not paused:
            self.drained = False
            self._end()
            return
        left = max(left, 0.01)
        self.runtime.loop.call_later(left, self._check_drain, now + left)

    def _force_in(self, seconds: float) -> None:
        loop = self.runtime.loop
        if self._force_timer is not None:
            if self._force_timer.when() <= loop.time() + seconds:
                return
            self._force_timer.cancel()
        self._force_timer = loop.call_later(seconds, self._on_force)

    def _on_timeout(self) -> None:
        self._timeout_timer = None
        self.timeouted = True
        self.kill(signal.SIGTERM, self._kill_timeout)

    def _on_force(self) -> None:
        self._force_timer = None
        if self.channel is not None:
            self.forced_kill = True
            if self.channel.send_signal(signal.SIGKILL) and self.state is State.RUNNING:
                self.killed = True  # also after a signal that was not meant to end it, SIGHUP

    def _cancel_timers(self) -> None:
        for timer in (self._timeout_timer, self._force_timer, self._retry_timer):
            if timer is not None:
                timer.cancel()
        self._timeout_timer = self._force_timer = self._retry_timer = None

    def _end(self) -> None:
        self._cancel_timers()
        started = self.state is not State.STARTING
        for stream, is_open in ((STDOUT, self._stdout_open), (STDERR, self._stderr_open)):
            if started and is_open:
                self._close_stream(stream, False)
        self.end_date = max(time.time(), self.start_date or 0.0)  # the clock may have been set back
        self.state = State.ENDED
        if self._reading is not None:
            self._reading.tell()
        if self.channel is not None:
            if not started:
                self.channel.abort()
            self.channel.forget()
            self.channel = None
        if self._feed is not None:
            self._feed.close()
        try:
            told = self._tell_end()
        except Exception:
            # The user's attributes are theirs to break; wait() returns all the same.
            logger.exception("internal error at the end of %r", self.process)
            told = False
        if observing.observers:
            observing.tell("process_ended", self)
        self.end_latch.fire()
        if not told:
            self.release()

    def _tell_end(self) -> bool:
        """Have the end told to handlers and log; False if there is nobody to tell."""
        process = self.process
        log = self._logged = process._wants_log(self)
        if self._delivery is None and not (log or process.lifecycle_handlers or process._events):
            return False
        if self.requested:
            self.delivery.event("end")
        self.delivery.finish(partial(process._wrap_up, self, log))
        return True


def _cut(error: OSError | MemoryError) -> OutputError:
    """Some output could not be read, or kept."""
    lost = error.__cause__
    if isinstance(error, MemoryError):
        own = OutputError(
            "some of its output is lost: there is no memory for it; see max_output, and "
            "output handlers for what need not be kept"
        )
    elif isinstance(lost, ProcessError):
        own = OutputError(f"some of its output is lost: {lost}", reason=lost.reason, host=lost.host)
    else:
        own = OutputError(f"some of its output could not be read: {error.strerror or error}")
    own.__cause__ = error
    return own


def kill_timeout() -> float | None:
    """Seconds from a signal that should end a process to the one that does; None = never."""
    seconds: float | None = get_seconds(configuration["kill_timeout"])
    return seconds
