"""The parameters of a process, and what is known of it: outcome, output, statistics, texts."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from .config import configuration, default_connection_params
from .errors import CancelledError, Reason
from .handlers import (
    OutputHandler,
    ProcessLifecycleHandler,
    check_lifecycle_handlers,
    check_output_handlers,
)
from .log import compact_output, escape_controls
from .outcome import NOTHING, Outcome
from .report import Stats
from .time_utils import Duration, get_seconds

if TYPE_CHECKING:
    from .lifecycle import Run

__all__ = ["ProcessArgs", "ProcessState"]

_UNSET: Any = object()


class ProcessArgs(TypedDict, total=False):
    """The keyword arguments that every kind of process takes, see :class:`ProcessBase`."""

    timeout: Duration | None
    ignore_exit_code: bool
    nolog_exit_code: bool
    ignore_timeout: bool
    nolog_timeout: bool
    ignore_error: bool
    nolog_error: bool
    ignore_expect_fail: bool
    nolog_expect_fail: bool
    ignore_write_error: bool
    nolog_write_error: bool
    default_expect_timeout: Duration | None
    default_stdout_handler: bool
    default_stderr_handler: bool
    max_output: int | None
    lifecycle_handlers: Iterable[ProcessLifecycleHandler] | None
    stdout_handlers: Iterable[OutputHandler] | None
    stderr_handlers: Iterable[OutputHandler] | None
    name: str | None


class ProcessState:
    """The parameters of a process and what is known of it: what all processes have in common.

    All parameters are also attributes, which may be changed until the process starts (the
    ``ignore_*`` and ``nolog_*`` ones at any time). As a context manager a process is killed at the
    end of the block, without waiting for it. (execo 2.8.2, where not said otherwise)

    :param cmd: the command
    :param timeout: seconds (or what :func:`~execo.time_utils.get_seconds` takes) from its start
      after which it gets a SIGTERM, and ``configuration["kill_timeout"]`` later a SIGKILL; None =
      no limit
    :param ignore_exit_code: an exit code other than 0 leaves it ``ok``
    :param nolog_exit_code: such an exit code is not logged
    :param ignore_timeout: reaching its timeout leaves it ``ok``
    :param nolog_timeout: reaching its timeout is not logged
    :param ignore_error: not being startable, or being lost, leaves it ``ok``
    :param nolog_error: the same is not logged
    :param ignore_expect_fail: an expected output that did not come leaves it ``ok``
    :param nolog_expect_fail: the same is not logged
    :param ignore_write_error: input that could not be written leaves it ``ok``
    :param nolog_write_error: the same is not logged
    :param default_expect_timeout: seconds to wait for an expected output; None = no limit
    :param default_stdout_handler: keep its output in ``stdout``
    :param default_stderr_handler: keep its error output in ``stderr``
    :param max_output: bytes kept of each, the first ones; the rest is counted in ``truncated``.
      None = all; default: ``configuration["max_output"]`` (new)
    :param lifecycle_handlers: told of its start and end
    :param stdout_handlers: given its output: handlers, descriptors (int), names of files to append
      to, objects with ``write()``
    :param stderr_handlers: given its error output, likewise
    :param name: for messages; default: the command, shortened
    :raises TypeError: for arguments of a wrong type
    :raises ValueError: for a timeout that is none
    """

    ignore_exit_code = False
    nolog_exit_code = False
    ignore_timeout = False
    nolog_timeout = False
    ignore_error = False
    nolog_error = False
    ignore_expect_fail = False
    nolog_expect_fail = False
    ignore_write_error = False
    nolog_write_error = False
    default_expect_timeout: float | None = None
    default_stdout_handler = True
    default_stderr_handler = True
    detach: bool | None = None

    _run: Run | None = None
    _early_outcome = NOTHING
    _timeout: float | None = None
    _name: str | None = None
    _max_output: int | None = _UNSET

    def __init__(self, cmd: str | Sequence[str], **options: Unpack[ProcessArgs]) -> None:
        self.cmd = cmd
        self.lifecycle_handlers: list[Any] = check_lifecycle_handlers(
            options.pop("lifecycle_handlers", None)
        )
        self.stdout_handlers = check_output_handlers(options.pop("stdout_handlers", None))
        self.stderr_handlers = check_output_handlers(options.pop("stderr_handlers", None))
        known = ProcessArgs.__annotations__
        for key, value in options.items():
            if key not in known:
                raise _unknown_argument(type(self), key)
            # Most processes are made with the defaults: those stay on the class, which keeps the
            # ten thousand processes of a large action small.
            if key in ("timeout", "max_output") or value != getattr(self, key):
                setattr(self, key, value)

    # -- what may be set ----------------------------------------------------------------------

    @property
    def timeout(self) -> float | None:
        """Seconds from its start after which it is killed; None = never. Takes the formats of
        :func:`~execo.time_utils.get_seconds`."""
        return self._timeout

    @timeout.setter
    def timeout(self, value: Duration | None) -> None:
        seconds = get_seconds(value)
        if seconds is not None and seconds < 0:
            raise ValueError(f"a timeout is not negative: {value!r}")
        self._timeout = seconds

    @property
    def max_output(self) -> int | None:
        """Bytes kept of each output stream; None = all."""
        return configuration["max_output"] if self._max_output is _UNSET else self._max_output

    @max_output.setter
    def max_output(self, value: int | None) -> None:
        if value is not None and (not isinstance(value, int) or value < 0):
            raise ValueError(f"max_output is a number of bytes, or None: not {value!r}")
        self._max_output = value

    @property
    def name(self) -> str:
        """For messages: the name given, or the command on one line, at most 39 characters."""
        if self._name is not None:
            return self._name
        line = " ".join(self._command_text().split())
        return line if len(line) <= 39 else line[:36] + "..."

    @name.setter
    def name(self, value: str | None) -> None:
        self._name = value

    # -- what has happened --------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """True from ``start()`` on."""
        return self._outcome.requested

    @property
    def running(self) -> bool:
        """Started and not ended."""
        return self.started and not self.ended

    @property
    def ended(self) -> bool:
        """True once it has exited and its output was read, or it could not be started."""
        return self._outcome.ended

    @property
    def attempts(self) -> int:
        """How often its start was tried: 0 before; more than 1 with the ``retry`` of its action
        only, see :class:`~execo.action.Retry` (new)."""
        return self._outcome.attempts

    @property
    def pid(self) -> int | None:
        """Its process id at its place; None before its start, or if it could not be started."""
        channel = None if self._run is None else self._run.channel
        return self._outcome.pid if channel is None else channel.pid

    @property
    def start_date(self) -> float | None:
        """When it started, a unix timestamp; None before, or if it could not be started."""
        channel = None if self._run is None else self._run.channel
        return self._outcome.start_date if channel is None else channel.start_date

    @property
    def end_date(self) -> float | None:
        """When it ended, a unix timestamp."""
        return self._outcome.end_date

    @property
    def timeout_date(self) -> float | None:
        """When its timeout is or was due, a unix timestamp; None without one."""
        start = self.start_date
        return None if start is None or self.timeout is None else start + self.timeout

    @property
    def exit_code(self) -> int | None:
        """3 for ``exit 3``, -15 for a death by SIGTERM (as in :mod:`subprocess`; execo 2.8.2: the
        raw wait status); None before its end, or if it is not known."""
        return self._outcome.exit_code

    @property
    def exit_status_raw(self) -> int | None:
        """The wait status as the system gave it."""
        return self._outcome.exit_status_raw

    @property
    def error(self) -> bool:
        """True if it could not be started, or was lost, or some of its output was: with the
        connection to its host (new: execo 2.8.2 knows such a process by its exit code alone)."""
        return self._outcome.error is not None

    @property
    def error_reason(self) -> BaseException | None:
        """The error behind ``error``: the system's (an OSError) if there was one."""
        error = self._outcome.error
        return None if error is None else error.__cause__ or error

    @property
    def cancelled(self) -> bool:
        """True if it was given up before it started."""
        return isinstance(self._outcome.error, CancelledError)

    @property
    def timeouted(self) -> bool:
        """True once its timeout was reached."""
        return self._outcome.timeouted

    @property
    def killed(self) -> bool:
        """True after a ``kill()`` that found it alive, by a signal that is meant to end it or did,
        and after its timeout."""
        return self._outcome.killed

    @property
    def forced_kill(self) -> bool:
        """True if it did not end by the signal of ``kill()`` or the timeout, and got a SIGKILL."""
        return self._outcome.forced_kill

    @property
    def expect_fail(self) -> bool:
        """True if an expected output did not come."""
        return self._outcome.expect_fail

    @property
    def write_error(self) -> bool:
        """True if some of its input could not be written."""
        return self._outcome.write_error

    @property
    def drained(self) -> bool:
        """False if it ended while something that it left behind still held its output open."""
        return self._outcome.drained

    @property
    def waited(self) -> bool:
        """True if it had to wait over 5 s for a slot to start in (descriptors, connections)."""
        return self._outcome.waited

    @property
    def stdout(self) -> str:
        """Its output so far: UTF-8; bytes that are not are kept as surrogates (PEP 383)."""
        capture = self._outcome.stdout
        return "" if capture is None else capture.text

    @property
    def stderr(self) -> str:
        """Its error output so far, likewise."""
        capture = self._outcome.stderr
        return "" if capture is None else capture.text

    @property
    def stdout_bytes(self) -> bytes:
        """Its output so far, as it was written."""
        capture = self._outcome.stdout
        return b"" if capture is None else capture.data

    @property
    def stderr_bytes(self) -> bytes:
        """Its error output so far, as it was written."""
        capture = self._outcome.stderr
        return b"" if capture is None else capture.data

    @property
    def truncated(self) -> int:
        """Bytes of output that were not kept: beyond ``max_output``, or after the end."""
        return self._outcome.truncated

    @property
    def stdout_ioerror(self) -> bool:
        """True if reading its output, or writing it to a file handler, failed."""
        return self._outcome.stdout_ioerror

    @property
    def stderr_ioerror(self) -> bool:
        """True if reading its error output, or writing it to a file handler, failed."""
        return self._outcome.stderr_ioerror

    @property
    def reason(self) -> Reason | None:
        """Why it failed, in one word, whatever the ``ignore_*`` flags say; None if it did not."""
        return self._outcome.reason

    @property
    def message(self) -> str:
        """What went wrong, in a sentence; empty if nothing did."""
        return "" if self.reason is None else _explain(self)

    @property
    def ok(self) -> bool:
        """False once it has failed in a way that is not ignored; True before its end. One that
        was killed on purpose is ok, one that was given up before its start is not. A file handler
        that could not write leaves it ok: its output is here."""
        if (self.expect_fail and not self.ignore_expect_fail) or (
            self.write_error and not self.ignore_write_error
        ):
            return False
        if not self.ended:
            return True
        if self.error:
            return self.ignore_error and not self.cancelled
        if self.timeouted and not self.ignore_timeout:
            return False
        return self.exit_code == 0 or self.ignore_exit_code or self.killed

    @property
    def finished_ok(self) -> bool:
        """Started, ended and ok."""
        return self.started and self.ended and self.ok

    def stats(self) -> Stats:
        """Its statistics as of now, frozen."""
        return _stats_of(self)

    def dump(self) -> str:
        """A text of what it is, what happened and what it has printed, shortened to
        ``configuration["compact_output_threshold"]`` characters a stream; safe for a terminal."""
        lines = [str(self)]
        if self.message not in lines[0]:
            lines.append(self.message)
        for label, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            if text:
                # Cut first, since escaping costs; and again, since it lengthens.
                shown = compact_output(escape_controls(compact_output(text)))
                lines += [f"{label}:", shown.rstrip("\n")]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}{self._place()}: {self._state_text()}>"

    # -- for the rest of the house ------------------------------------------------------------

    @property
    def _outcome(self) -> Outcome:
        return self._early_outcome if self._run is None else self._run

    def _command_text(self) -> str:
        if isinstance(self.cmd, str):
            return self.cmd
        # The user may have set it to anything since.
        return (
            shlex.join(map(str, self.cmd))
            if isinstance(self.cmd, (list, tuple))
            else repr(self.cmd)
        )

    def _place(self) -> str:
        return ""

    def _state_text(self) -> str:
        run = self._outcome
        if self._run is None:
            return "not started"
        if not run.ended:
            if self.start_date is None:
                return "starting"
            text = "running" if self.pid is None else f"running, pid {self.pid}"
            return f"{text}, detached" if self.detach else text
        if run.error is not None:
            return str(run.error.reason)
        text = f"exited {self.exit_code}" if (self.exit_code or 0) >= 0 else _signal_text(self)
        notes = [
            ("timeout", self.timeouted),
            ("killed", self.killed and not self.timeouted),
            ("write error", self.write_error),
            ("not drained", not self.drained),
            ("truncated", self.truncated),
            ("waited", self.waited),
        ]
        return ", ".join([text, *(note for note, holds in notes if holds)])


def _unknown_argument(kind: type, key: str) -> TypeError:
    import difflib
    import inspect

    # Those of its bases too: a Serial takes what a Process does.
    known = list(ProcessArgs.__annotations__)
    for base in kind.__mro__:
        if "__init__" in vars(base) and base is not object:
            parameters = inspect.signature(base).parameters.values()
            known += [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    near = difflib.get_close_matches(key, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if key in default_connection_params and "connection_params" in known:
        hint = f"; it belongs into connection_params={{{key!r}: ...}}"
    return TypeError(f"{kind.__name__} has no argument {key!r}{hint}")


def _signal_text(process: ProcessState) -> str:
    number = -(process.exit_code or 0)
    try:
        return f"died of {signal.Signals(number).name}"
    except ValueError:
        return f"died of signal {number}"


def _explain(process: ProcessState) -> str:
    run = process._outcome
    if run.error is not None:
        tried = f" ({run.attempts} attempts)" if run.attempts > 1 else ""
        kept = "; not started again, since it may have run" if run.may_have_run else ""
        return f"{run.error}{tried}{kept}"
    parts = []
    if run.timeouted:
        forced = "; it ignored TERM and was killed" if run.forced_kill else ""
        parts.append(f"reached its timeout of {process.timeout} s{forced}")
    elif run.exit_code:
        parts.append(_signal_text(process) if run.exit_code < 0 else f"exited {run.exit_code}")
    if run.expect_fail:
        parts.append(run.expect_failure)
    if run.write_error:
        parts.append("its stdin was closed before all input was written")
    return "; ".join(parts)


def _stats_of(process: ProcessState) -> Stats:
    run = process._outcome
    if run is NOTHING:
        return Stats(name=process.name, num_processes=1, num_ok=1)
    ended = process.ended
    reason = run.reason if ended else None
    return Stats(
        name=process.name,
        start_date=process.start_date,
        end_date=process.end_date,
        num_processes=1,
        num_started=int(process.started),
        num_ended=int(ended),
        num_errors=int(process.error and not process.cancelled),
        num_timeouts=int(process.timeouted),
        num_forced_kills=int(process.forced_kill),
        num_non_zero_exit_codes=int(ended and process.exit_code != 0),
        num_expect_fail=int(process.expect_fail),
        num_write_error=int(process.write_error),
        num_ok=int(process.ok),
        num_finished_ok=int(process.finished_ok),
        num_cancelled=int(process.cancelled),
        num_truncated=int(process.truncated > 0),
        num_undrained=int(not process.drained),
        num_waited=int(process.waited),
        num_retries=max(0, process.attempts - 1),
        reasons={reason.value: 1} if reason is not None else {},
    )
