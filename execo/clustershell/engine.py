"""The loop in ``resume()``: takes what the I/O thread and other threads have put into the inbox,
starts what may start, and does what is due. All in the task's thread, where nothing else is said.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from execo import transports
from execo._core.loop import Loop
from execo._core.runtime import Runtime, get_runtime
from execo.config import configuration
from execo.errors import ProcessError, SpawnError
from execo.log import logger
from execo.transports.base import Request, Sink

from .client import Client, ProcessClient
from .errors import EngineTimeoutException
from .sink import Flow, Inbox
from .timer import EngineBaseTimer

if TYPE_CHECKING:
    from .port import EnginePort
    from .task import Task
    from .worker import Worker

__all__ = ["FANOUT_DEFAULT", "FANOUT_UNLIMITED", "Engine", "Window"]

FANOUT_UNLIMITED = -1
"""As the fanout of a worker: all its commands run at once."""

FANOUT_DEFAULT = None
"""As the fanout of a worker: its commands share the window of the task."""

AT_A_TIME = 256
"""Items of the inbox until the clock is looked at."""


class Window:
    """How many clients may run at a time, and those that wait."""

    def __init__(self, limit: Callable[[], float]) -> None:
        self._limit = limit
        self._running = 0
        self._waiting: deque[Client] = deque()

    def add(self, client: Client) -> None:
        """It waits for its start."""
        client.window = self
        self._waiting.append(client)

    def take(self) -> list[Client]:
        """Those that may start now."""
        taken: list[Client] = []
        while self._waiting and self._running < self._limit():
            client = self._waiting.popleft()
            if not client.closed:
                self._running += 1
                client.started = True
                taken.append(client)
        return taken

    def leave(self, client: Client) -> None:
        """It is over."""
        if client.started:
            self._running -= 1

    @property
    def empty(self) -> bool:
        """Nobody waits or runs."""
        return not self._running and not self._waiting


class Engine:
    """What one task runs.

    :param task: the task
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.inbox: Inbox = queue.SimpleQueue()
        self.flow = Flow()
        self.running = False
        self._clients: dict[Client, None] = {}
        self._timers: dict[EngineBaseTimer, None] = {}
        self._ports: dict[EnginePort, None] = {}
        self._held = 0  # by what is not autoclose
        self._shared = Window(self._fanout)
        self._windows: dict[Any, Window] = {None: self._shared}
        self._due: list[tuple[float, int, Any]] = []
        self._numbers = itertools.count()
        self._backlog: deque[tuple[Any, ...]] = deque()

    @property
    def runtime(self) -> Runtime:
        """What runs behind it: in a forked child another one."""
        return get_runtime(configuration["switch_interval"])

    @property
    def loop(self) -> Loop:
        """The I/O thread."""
        return self.runtime.loop

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` in the task's thread, when its loop runs. From any thread."""
        self.inbox.put((function, *args))

    # A signal handler may do this while the loop waits: it has to look again.

    def _hold(self, what: Client | EngineBaseTimer | EnginePort) -> None:
        self._held += not what.autoclose
        if self.running:
            self.post(_nothing)

    def _release(self, what: Client | EngineBaseTimer | EnginePort) -> None:
        self._held -= not what.autoclose
        if not self._held:
            self.post(_nothing)

    def waiting(self) -> list[Client]:
        """Those that there are. From any thread."""
        return list(self._clients)

    def abort_waiting(self, clients: list[Client]) -> None:
        """Drop those of them that have not started."""
        for client in clients:
            if not client.started:
                client.abort()

    # -- what there is ------------------------------------------------------------------------

    def add(self, client: Client) -> None:
        """It will start when there is room."""
        client.engine = self
        self._clients[client] = None
        self._hold(client)
        fanout = client.worker._fanout
        if fanout is FANOUT_DEFAULT:
            self._shared.add(client)
            return
        window = self._windows.get(client.worker)
        if window is None:
            worker = client.worker
            window = self._windows[worker] = Window(lambda: _limit(worker._fanout))
        window.add(client)

    def add_empty(self, worker: Worker) -> None:
        """It has nothing to run."""
        self.post(worker._on_nothing)

    def remove(self, client: Client) -> None:
        """It is over."""
        if self._clients.pop(client, self) is self:
            return
        self._release(client)
        client.due = None
        window = client.window
        if window is not None:
            window.leave(client)
            if window is not self._shared and window.empty:
                self._windows.pop(client.worker, None)

    def add_timer(self, timer: EngineBaseTimer) -> None:
        """It is due from now on."""
        if timer._over:
            return
        timer.engine = self
        self._timers[timer] = None
        self._hold(timer)
        self.schedule(timer, timer.fire_delay)

    def remove_timer(self, timer: EngineBaseTimer) -> None:
        """It is due no more. From any thread."""
        if threading.current_thread() is not self._task.thread:
            self.post(self.remove_timer, timer)  # and wakes who waits for it
        elif self._timers.pop(timer, self) is None:
            self._release(timer)
            timer.due = None

    def add_port(self, port: EnginePort) -> None:
        """It takes messages."""
        if not port._closed:
            port.registered = True
            self._ports[port] = None
            self._hold(port)
            if self.running:
                port._start()

    def remove_port(self, port: EnginePort) -> None:
        """It takes none any more."""
        port._close()
        if self._ports.pop(port, self) is None:
            port.registered = False
            self._release(port)

    # -- what is due --------------------------------------------------------------------------

    def schedule(self, what: Client | EngineBaseTimer, delay: float) -> None:
        """It is due in ``delay`` seconds, and not when it was to be; negative = never."""
        what.due = None
        if delay >= 0:
            self._schedule_at(what, time.monotonic() + delay)

    def _schedule_at(self, what: Client | EngineBaseTimer, when: float) -> None:
        what.due = entry = (when, next(self._numbers), what)
        heapq.heappush(self._due, entry)

    def _next_due(self) -> float | None:
        while self._due:
            entry = self._due[0]
            when, _, what = entry
            if what.due is entry:
                return when
            heapq.heappop(self._due)  # what is over, or was put off
        return None

    def _do_due(self) -> None:
        now = time.monotonic()
        while (when := self._next_due()) is not None and when <= now:
            entry = heapq.heappop(self._due)
            what = entry[2]
            what.due = None
            if isinstance(what, Client):
                self._task._results.add_timeouts(what)
                what.abort(timedout=True)
            elif self._held:
                self._fire(what, when)

    def _fire(self, timer: EngineBaseTimer, when: float) -> None:
        timer._fire()
        if timer.due is None and not timer._over:
            if timer.interval > 0:
                # From the date that it was due: a slow handler does not make it slower.
                self._schedule_at(timer, when + timer.interval)
            else:
                timer.invalidate()

    # -- the loop -----------------------------------------------------------------------------

    def run(self, timeout: float | None) -> None:
        """Until nothing holds it any more.

        :param timeout: seconds until it is given up; None or 0 = never
        :raises EngineTimeoutException: then
        :raises EngineAbortException: when it is aborted
        """
        limit = None if timeout is None or timeout <= 0 else time.monotonic() + timeout
        self.running = True
        try:
            for port in list(self._ports):
                port._start()
            while True:
                self._drain()
                self._start_clients()
                if not self._held:
                    if self._settle():
                        break
                    continue
                due = self._next_due()
                if limit is not None and (due is None or limit < due):
                    due = limit
                self._wait(due)
                self._do_due()
                if limit is not None and self._held and time.monotonic() >= limit:
                    raise EngineTimeoutException("the limit of the run is reached")
        finally:
            self.running = False

    def _wait(self, until: float | None) -> None:
        """For the next item, and do it."""
        try:
            if until is None:
                item = self.inbox.get()
            else:
                item = self.inbox.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return
        item[0](*item[1:])

    def _drain(self) -> None:
        """Do what there is, but not so much that what is due has to wait."""
        get = self.inbox.get_nowait
        while self._backlog:
            item = self._backlog.popleft()
            item[0](*item[1:])
        try:
            for _ in range(AT_A_TIME):
                item = get()
                item[0](*item[1:])
        except queue.Empty:
            pass

    def _fanout(self) -> float:
        return _limit(self._task.info("fanout"))

    # -- starting -----------------------------------------------------------------------------

    def _start_clients(self) -> None:
        # Handlers, which are told of starts, may schedule more.
        while chosen := [client for one in list(self._windows.values()) for client in one.take()]:
            self._start(chosen)

    def _start(self, clients: list[Client]) -> None:
        if self._task.info("debug"):
            for client in clients:
                self._task.info("print_debug")(self._task, f"start {client!r}")
        for client in clients:
            client.prepare()
        failed = self._open([client for client in clients if isinstance(client, ProcessClient)])
        for client in clients:
            if not client.closed:
                if client.timeout is not None:
                    self.schedule(client, client.timeout)
                client.worker._on_client_start(client)
        for process, error in failed:
            process.ended(None, error)

    def _open(self, clients: Iterable[ProcessClient]) -> list[tuple[ProcessClient, ProcessError]]:
        pairs: dict[str, list[tuple[Request, Sink]]] = {}
        opened: dict[str, list[ProcessClient]] = {}
        failed: list[tuple[ProcessClient, ProcessError]] = []
        for client in clients:
            try:
                name, request = client.request()
            except Exception as exc:  # noqa: BLE001 - what the user has set: it ends this one
                failed.append((client, _not_started(client, exc)))
                continue
            pairs.setdefault(name, []).append((request, client.sink()))
            opened.setdefault(name, []).append(client)
        for name, requests in pairs.items():
            try:
                transport = transports.get(self.runtime, name)
                self.runtime.run_unbroken(transport.open_all, requests, brief=len(requests) == 1)
            except Exception as exc:  # noqa: BLE001 - a transport of the user's, for one
                failed += [(client, _not_started(client, exc)) for client in opened[name]]
        return failed

    # -- the end ------------------------------------------------------------------------------

    def _settle(self) -> bool:
        """Only what nobody waits for is left: end it. False if handlers have added more."""
        self._forget_timers()
        for client in list(self._clients):
            client.abort()
        return not self._held

    def clear(self, *, timedout: bool = False, ports: bool = False) -> BaseException | None:
        """End all that there is.

        :param timedout: what runs has had its time
        :param ports: ports are closed, too
        :returns: what a handler has raised meanwhile: a Ctrl-C, or the first exception
        """
        raised = self._abort_all(timedout=timedout)
        self._forget_timers()
        if ports:
            for port in list(self._ports):
                self.remove_port(port)
        self.tidy()
        return raised

    def _abort_all(self, *, timedout: bool) -> BaseException | None:
        first: BaseException | None = None
        while self._clients:  # handlers may add some
            for client in list(self._clients):
                try:
                    if timedout and client.started:
                        self._task._results.add_timeouts(client)
                    client.abort(timedout=timedout)
                except BaseException as exc:  # noqa: BLE001 - all are ended, then it is raised
                    # A Ctrl-C may have come before the command was told to end.
                    client.drop()
                    if first is None or isinstance(first, Exception):
                        first = exc
                self.remove(client)
        return first

    def _forget_timers(self) -> None:
        for timer in list(self._timers):
            timer.invalidate()
        self._due.clear()

    def tidy(self) -> None:
        """Drop what has come of clients that are over: it may be much."""
        try:
            while True:
                item = self.inbox.get_nowait()
                client = getattr(item[0], "__self__", None)
                if isinstance(client, Client) and client.closed:
                    if item[0].__name__ == "take":
                        self.flow.taken(len(item[-1]))
                else:
                    self._backlog.append(item)
        except queue.Empty:
            pass


def _nothing() -> None:
    pass


def _limit(fanout: float | None) -> float:
    return float("inf") if fanout is None or fanout < 0 else fanout


def _not_started(client: Client, cause: Exception) -> ProcessError:
    if isinstance(cause, ProcessError):
        return cause
    logger.debug("not started: %r", client, exc_info=cause)
    error = SpawnError(f"cannot start it for {client.key}: {str(cause) or type(cause).__name__}")
    error.__cause__ = cause
    return error
