"""Tasks: what one thread runs, and its results."""

from __future__ import annotations

import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Collection, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from ClusterShell.MsgTree import MsgTreeElem

from execo._core.latch import Latch
from execo._core.locks import new_lock
from execo.log import logger

from .defaults import Defaults, defaults, worker_class
from .engine import Engine
from .errors import (
    AlreadyRunningError,
    EngineAbortException,
    EngineTimeoutException,
    TaskError,
    TimeoutError,  # noqa: A004 - its name there
)
from .event import EventHandler
from .port import EnginePort
from .results import Results, checked_keys
from .stream_worker import WorkerPopen
from .timer import EngineBaseTimer, EngineTimer
from .tree_worker import NO_TOPOLOGY, TreeWorker, topology_of

if TYPE_CHECKING:
    from .worker import DistantWorker, Worker

__all__ = ["Task", "task_cleanup", "task_self", "task_terminate", "task_wait"]

ExceptHook = Callable[[type[BaseException], BaseException, TracebackType | None], object]

_lock = new_lock()
_tasks: weakref.WeakKeyDictionary[threading.Thread, Task] = weakref.WeakKeyDictionary()
_number = 0


def _after_fork() -> None:
    for thread, task in list(_tasks.items()):
        if thread is threading.current_thread():
            task._after_fork()
        else:
            del _tasks[thread]  # only this one thread is there


os.register_at_fork(after_in_child=_after_fork)


class _Park:
    """Somebody wants a run to stand still."""

    def __init__(self) -> None:
        self.answered = Latch()
        self.parked = False


class Task:
    """What one thread runs: workers, timers and ports; and the results of its last run.

    There is one for each thread. ``task_self()`` gives that of the thread it is called in;
    ``Task(thread=...)`` that of another one; ``Task()`` makes a new thread, not a daemon, which
    sleeps until ``resume()`` and ends with ``abort()``. All handlers run in the task's thread, in
    ``resume()``. (ClusterShell 1.10, and the reference document, whose defaults differ in
    ``port_qlimit`` (32) and ``grooming_delay`` (0.5): those here are the library's.)

    - ``thread``: its thread
    - ``topology``: the gateways, see :meth:`load_topology`; None without

    :param thread: the thread; None = a new one
    :param defaults: what it begins with; default: that of the files ``defaults.conf``
    """

    def __new__(
        cls, thread: threading.Thread | None = None, defaults: Defaults | None = None
    ) -> Self:
        global _number
        with _lock:
            if thread is not None and (found := _tasks.get(thread)) is not None:
                return cast(Self, found)
            task = super().__new__(cls)
            _number += 1
            task._init(thread, _number, defaults)
            _tasks[task.thread] = task
        if thread is None:
            task.thread.start()
        return task

    def __init__(
        self, thread: threading.Thread | None = None, defaults: Defaults | None = None
    ) -> None:
        """Nothing: it is the same object for the same thread."""

    def _init(self, thread: threading.Thread | None, number: int, given: Defaults | None) -> None:
        found = given or defaults()
        self._default: dict[str, Any] = dict(found.task_default)
        self._info: dict[str, Any] = dict(found.task_info)
        self._default_lock = threading.Lock()
        engine = self._default["engine"]
        if engine not in ("auto", "epoll", "poll", "select"):
            raise KeyError(engine)
        # There is one; programs print its name.
        self._info["engine"] = "epoll" if engine == "auto" else engine
        self.topology: Any = None
        self._own_thread = thread is None
        self.thread = thread or threading.Thread(target=self._live, name=f"Task-{number}")
        self._engine = Engine(self)
        self._results = Results(lambda sname: bool(self.default(f"{sname}_msgtree")))
        self._excepthook: ExceptHook = self.default_excepthook
        self._state = threading.Condition()
        self._asked = 0  # runs, of a thread of its own
        self._done = 0
        self._timeout: float | None = None
        self._quit = False
        self._parks: list[_Park] = []
        self._aborts: list[object] = []
        self._go_on: Latch | None = None  # who fires it ends the standing still

    def _after_fork(self) -> None:
        """In a forked child: what runs belongs to the parent."""
        self._default_lock = threading.Lock()
        self._state = threading.Condition()
        self._engine = Engine(self)
        self._results.clear()
        self._asked = self._done = 0
        self._parks, self._aborts, self._go_on = [], [], None

    # -- its thread ---------------------------------------------------------------------------

    def default_excepthook(
        self, exc_type: type[BaseException], exc_value: BaseException, tb: TracebackType | None
    ) -> None:
        """What happens to an exception that leaves a run in a thread of the task's own: its
        traceback goes to stderr."""
        lines = traceback.format_exception(exc_type, exc_value, tb)
        sys.stderr.write(f"Exception in thread {self.thread}:\n{''.join(lines)}")

    @property
    def excepthook(self) -> ExceptHook:
        """Called as ``hook(type, value, traceback)`` in a thread of the task's own, when an
        exception leaves a run; the thread ends then."""
        return self._excepthook

    @excepthook.setter
    def excepthook(self, hook: ExceptHook) -> None:
        self._excepthook = hook

    def _live(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._quit or self._asked > self._done)
                if self._asked <= self._done:
                    break
                timeout = self._timeout
            try:
                self._run(timeout)
            except BaseException as exc:  # noqa: BLE001 - the hook is told
                self._quit = True
                self._excepthook(type(exc), exc, exc.__traceback__)
            finally:
                with self._state:
                    self._done = self._asked
                    self._state.notify_all()
            if self._quit:
                break
        self._forget()

    def _is_mine(self) -> bool:
        return threading.current_thread() is self.thread

    def _is_alive(self) -> bool:
        return self.thread.is_alive() and not (self._own_thread and self._quit)

    def _post(self, function: Callable[..., object], *args: Any) -> None:
        """Run it in the task's thread: when its loop runs."""
        if not self._is_alive():
            logger.warning(
                "%r: its thread has ended: a call of %s is dropped",
                self,
                getattr(function, "__name__", function),
            )
            return
        self._engine.post(function, *args)

    def _do(self, function: Callable[..., object], *args: Any) -> None:
        """Now, in the task's thread; else when its loop runs."""
        if self._is_mine():
            function(*args)
        else:
            self._post(function, *args)

    def _forget(self) -> None:
        """The thread has no task any more."""
        with _lock:
            if _tasks.get(self.thread) is self:
                del _tasks[self.thread]
        self._engine.clear(ports=True)
        with self._state:
            self._done = self._asked
            self._state.notify_all()

    # -- defaults and info --------------------------------------------------------------------

    def default(self, default_key: str, def_val: Any = None) -> Any:
        """A default, see :meth:`set_default`; ``def_val`` if there is none of this name."""
        with self._default_lock:
            if default_key in ("local_worker", "distant_worker"):
                name = self._default[f"{default_key}name"]
                return self._default.get(default_key) or worker_class(name)
            return self._default.get(default_key, def_val)

    def set_default(self, default_key: str, value: Any) -> None:
        """Set a default, at once, from any thread. Names of your own can be used, too.

        ======================  =========================================================== ========
        ``stderr``              stderr is apart from stdout                                 False
        ``stdin``               commands have an input that can be written to               True
        ``stdout_msgtree``      output is gathered                                          True
        ``stderr_msgtree``      that on stderr, too                                         True
        ``<name>_msgtree``      that of the stream <name> of a StreamWorker                 False
        ``port_qlimit``         messages that may wait in a port                            100
        ``auto_tree``           a file topology.conf is looked for                          True
        ``local_workername``    what runs commands with nodes and ``remote=False``          exec
        ``distant_workername``  what runs commands with nodes: ssh, rsh, pdsh, or a module  ssh
        ``local_worker``        the class itself, likewise ``distant_worker``
        ``engine``              without effect: there is one
        ======================  =========================================================== ========

        :raises ImportError: if there is no such worker
        :raises TypeError: if what was found is no class of workers
        """
        if default_key in ("local_workername", "distant_workername"):
            found = worker_class(value)
            with self._default_lock:
                self._default[default_key.removesuffix("name")] = found
        with self._default_lock:
            self._default[default_key] = value

    def info(self, info_key: str, def_val: Any = None) -> Any:
        """An info, see :meth:`set_info`; ``def_val`` if there is none of this name."""
        return self._info.get(info_key, def_val)

    def set_info(self, info_key: str, value: Any) -> None:
        """Set an info: in the task's thread at once, from another one when its loop runs. Names of
        your own can be used, too.

        ===================  ================================================================ ======
        ``fanout``           commands that may run at a time                                  64
        ``connect_timeout``  seconds for connecting to a node; 0 = no limit                   10
        ``command_timeout``  seconds for a command, by pdsh alone                             0
        ``grooming_delay``   without effect                                                   0.25
        ``debug``            without effect                                                   False
        ``print_debug``      what prints: a function of the task and a line
        ===================  ================================================================ ======

        Without a default: ``ssh_user``, ``ssh_path``, ``ssh_options``, and likewise ``scp_``,
        ``rsh_``, ``rcp_``, ``pdsh_``, ``pdcp_``, see the workers.
        """
        self._do(self._info.__setitem__, info_key, value)

    # -- what it is to run --------------------------------------------------------------------

    def shell(self, command: str, **kwargs: Any) -> Any:
        """Schedule a command: it starts at once if the task runs, else with ``resume()``.

        :param command: the command
        :param nodes: a node set, or a text that names one. An empty one runs nothing (ClusterShell
          runs the command on this machine)
        :param handler: is told of what happens
        :param timeout: seconds from the start of each command until it is killed; None = no limit
        :param autoclose: it is aborted when all else of the task is over; default False
        :param stderr: stderr is apart from stdout; default: the default ``stderr``
        :param stdin: False: the commands' input is empty; default: the default ``stdin``
        :param key: without nodes: what its results are found under; default: the worker
        :param remote: False: the commands run on this machine, one for each node
        :param tree: True: through the gateways of the task's topology; False: directly; None = if
          there is one and the default ``auto_tree`` is set
        :returns: the worker
        :raises ValueError: if there is no command
        :raises NodeSetParseError: for a text that names no nodes
        :raises TaskError: for ``tree=True`` without a topology (ClusterShell: without effect)
        """
        options = {
            "handler": kwargs.pop("handler", None),
            "timeout": kwargs.pop("timeout", None),
            "autoclose": kwargs.pop("autoclose", False),
            "stderr": kwargs.pop("stderr", self.default("stderr")),
        }
        stdin = kwargs.pop("stdin", self.default("stdin"))
        nodes = kwargs.pop("nodes", None)
        worker: Worker
        if nodes is None:
            worker = WorkerPopen(command, key=kwargs.pop("key", None), **options)
        elif kwargs.get("key") is not None:
            raise ValueError("'key' argument not supported for distant command")
        else:
            worker = self._distant(nodes, {"command": command, **options}, kwargs)
        if not stdin and hasattr(worker, "set_write_eof"):
            _end_input(worker)
        self.schedule(worker)
        return worker

    def copy(self, source: str | os.PathLike[str], dest: str, nodes: Any, **kwargs: Any) -> Any:
        """Schedule the copy of a local file or folder to nodes. See :meth:`shell` for ``handler``,
        ``timeout``, ``autoclose``, ``stderr``, ``remote`` and ``tree``.

        :param source: the file or folder
        :param dest: where to
        :param nodes: a node set, or a text that names one
        :param preserve: keep permissions and times; execo's own copies always do
        :param reverse: from the nodes, see :meth:`rcopy`
        :returns: the worker
        :raises ValueError: with ``reverse``, if ``dest`` is no folder
        """
        what = {
            "handler": kwargs.pop("handler", None),
            "timeout": kwargs.pop("timeout", None),
            "autoclose": kwargs.pop("autoclose", False),
            "stderr": kwargs.pop("stderr", self.default("stderr")),
            "preserve": kwargs.pop("preserve", False),
            "reverse": kwargs.pop("reverse", False),
        }
        worker = self._distant(nodes, {"source": source, "dest": dest, **what}, kwargs)
        self.schedule(worker)
        return worker

    def rcopy(self, source: str, dest: str | os.PathLike[str], nodes: Any, **kwargs: Any) -> Any:
        """Schedule the copy of a file or folder of nodes to this machine: to
        ``dest/basename.NODE`` (through gateways, too: ClusterShell has another suffix there). See
        :meth:`copy`.

        :param dest: a folder that exists
        """
        return self.copy(os.fspath(source), os.fspath(dest), nodes, reverse=True, **kwargs)

    def _distant(self, nodes: Any, what: dict[str, Any], rest: dict[str, Any]) -> DistantWorker:
        kind: type[Any]
        tree = rest.pop("tree", None)
        remote = rest.pop("remote", True)
        handler, timeout = what.pop("handler"), what.pop("timeout")
        if remote is False:
            kind = self.default("local_worker")
        elif tree or (tree is None and self.default("auto_tree")):
            found = topology_of(self)
            if tree and found is None:
                raise TaskError(NO_TOPOLOGY)
            kind = self.default("distant_worker") if found is None else TreeWorker
        else:
            kind = self.default("distant_worker")
        worker: DistantWorker = kind(nodes, handler, timeout, **what, **rest)
        return worker

    def schedule(self, worker: Worker) -> None:
        """Schedule a worker that was made by hand. From any thread.

        :raises WorkerError: if it was scheduled before
        """
        worker._set_task(self)
        self._do(self._add_worker, worker)

    def _add_worker(self, worker: Worker) -> None:
        clients = worker._engine_clients()
        for client in clients:
            if not client.closed:
                self._engine.add(client)
        if not clients:
            self._engine.add_empty(worker)

    def port(self, handler: EventHandler | None = None, autoclose: bool = False) -> EnginePort:
        """A new port of the task. A run waits until it is removed (:meth:`remove_port`), unless it
        is ``autoclose``.

        :param handler: its ``ev_msg(port, msg)`` is called in the task's thread; None = messages
          wait for ``port.msg_recv()``
        """
        port = EnginePort(self, handler, autoclose, int(self.default("port_qlimit")))
        self._do(self._engine.add_port, port)
        return port

    def remove_port(self, port: EnginePort) -> None:
        """Close a port. From any thread."""
        self._do(self._engine.remove_port, port)

    def timer(
        self,
        fire: float,
        handler: EventHandler,
        interval: float = -1.0,
        autoclose: bool = False,
    ) -> EngineTimer:
        """A new timer, which calls ``handler.ev_timer(timer)`` in the task's thread.

        :param fire: seconds until it does
        :param handler: the handler
        :param interval: seconds until it does again; 0 or negative = once
        :param autoclose: a run does not wait for it
        :raises ValueError: for a negative ``fire``, or no handler
        """
        if fire < 0:
            raise ValueError("timer's relative fire time must be a positive floating number")
        if handler is None:
            raise ValueError("An event handler is needed for timer.")
        timer = EngineTimer(fire, interval, autoclose, handler)
        self._add_timer(timer)
        return timer

    def _add_timer(self, timer: EngineBaseTimer) -> None:
        timer.engine = self._engine
        self._do(self._engine.add_timer, timer)

    # -- running ------------------------------------------------------------------------------

    def resume(self, timeout: float | None = None) -> None:
        """Run what is scheduled. In the task's own thread it blocks until all that is not
        ``autoclose`` has ended; then what is, is aborted. Else it wakes the task's thread and
        returns: see :meth:`join`, :func:`task_wait`. A suspended task goes on.

        The results of the last run are forgotten first.

        :param timeout: seconds until all is ended; None or 0 = no limit
        :raises TimeoutError: then
        :raises AlreadyRunningError: in a handler
        """
        if self._is_mine():
            self._run(timeout)
            return
        with self._state:
            go_on, self._go_on = self._go_on, None
            if go_on is not None:
                go_on.fire()
                return
            self._timeout = timeout
            self._asked += 1
            self._state.notify_all()

    def run(self, command: Any = None, **kwargs: Any) -> Any:
        """With a command, :meth:`shell` and :meth:`resume`, and the worker is returned; without,
        :meth:`resume`: ``run(3)`` and ``run(timeout=3)`` limit the run."""
        if command is None or isinstance(command, (int, float)):
            return self.resume(kwargs.pop("timeout", command) if command is None else command)
        worker = self.shell(command, **kwargs)
        self.resume()
        return worker

    def running(self) -> bool:
        """Whether it is in ``resume()``."""
        return self._engine.running

    def _run(self, timeout: float | None) -> None:
        engine = self._engine
        if engine.running:
            raise AlreadyRunningError("task is already running")
        self._results.clear()
        raised: BaseException | None = None
        try:
            engine.run(timeout)
        except EngineTimeoutException as exc:
            raised = engine.clear(timedout=True)
            raise (raised or TimeoutError(f"the limit of {timeout} s is reached")) from exc
        except EngineAbortException as exc:
            raised = engine.clear()
            self._aborted(exc.kill)
            if raised is not None and not isinstance(raised, Exception):
                raise raised from exc
        except BaseException as exc:
            raised = engine.clear()
            if raised is not None and not isinstance(raised, Exception):
                raise raised from exc
            raise
        else:
            engine.tidy()
        finally:
            self._answer_parks()

    def _aborted(self, kill: bool) -> None:
        self._results.clear()
        if self._own_thread:
            self._quit = True
        elif kill:
            self._forget()

    def suspend(self) -> bool:
        """Have the task stand still, from another thread: no handler is called, what runs goes on.
        Blocks until it does; ``resume()`` lets it go on.

        :returns: False if it does not run
        """
        park = _Park()
        with self._state:
            if not self._engine.running or not self._is_alive():
                return False
            self._parks.append(park)
        if self._is_mine():
            self._park(park)
            return True
        self._engine.post(self._park, park)
        park.answered.wait()
        return park.parked

    def _park(self, park: _Park) -> None:
        if park.answered.fired:
            return
        with self._state:
            self._parks.remove(park)
            go_on = self._go_on = self._go_on or Latch()
            park.parked = True
        park.answered.fire()
        go_on.wait()

    def _answer_parks(self) -> None:
        """The run is over: nobody can stand still any more, or be aborted."""
        with self._state:
            parks, self._parks = self._parks, []
            self._go_on = None
            self._quit = self._quit or (self._own_thread and bool(self._aborts))
            self._aborts.clear()
            self._state.notify_all()
        for park in parks:
            park.answered.fire()

    def abort(self, kill: bool = False) -> None:
        """End what runs, and drop what is scheduled; the results are forgotten. In a handler it
        does not return: it raises through the handler, and ``resume()`` returns. From another
        thread it is done soon.

        :param kill: the task is given up: the next ``task_self()`` of its thread is a new one
        """
        if self._is_mine():
            if self._engine.running:
                raise EngineAbortException(kill)
            self._engine.clear(ports=kill)
            self._aborted(kill)
            return
        with self._state:
            go_on, self._go_on = self._go_on, None
            if self._engine.running or self._asked > self._done:
                token = object()
                self._aborts.append(token)
                self._engine.post(self._raise_abort, kill, token)
                if go_on is not None:
                    go_on.fire()
            elif self._own_thread:
                self._quit = True
                self._state.notify_all()
            else:
                # What is scheduled later is not meant.
                self._engine.post(self._engine.abort_waiting, self._engine.waiting())
                if kill:
                    self._forget()

    def _raise_abort(self, kill: bool, token: object) -> None:
        if token in self._aborts:  # of this run
            raise EngineAbortException(kill)

    def join(self) -> None:
        """Block until its run is over; returns at once if there is none."""
        if self._own_thread:
            with self._state:
                self._state.wait_for(lambda: self._asked <= self._done or not self._is_alive())
            if self._quit and not self._is_mine():
                self.thread.join()
        elif not self._is_mine():
            with self._state:
                self._state.wait_for(lambda: not self._engine.running)

    @classmethod
    def wait(cls, from_thread: threading.Thread) -> None:
        """Block until the runs of all tasks are over, save that of ``from_thread``."""
        with _lock:
            tasks = [task for thread, task in _tasks.items() if thread is not from_thread]
        for task in tasks:
            task.join()

    def load_topology(self, topology_file: str | os.PathLike[str]) -> None:
        """Set ``topology`` to that of a file ``topology.conf``.

        :raises TopologyError: if it is wrong; nothing is changed then
        """
        from execo.topology import load_topology

        self.topology = load_topology(topology_file)

    # -- results ------------------------------------------------------------------------------

    def key_buffer(self, key: Any) -> bytes:
        """The output of a key (of a node), of all its workers; empty if there is none.

        :raises TaskMsgTreeError: if it is not gathered
        """
        return self._results.text_of_key(key, "stdout")

    node_buffer = key_buffer

    def key_error(self, key: Any) -> bytes:
        """What a key has printed on stderr, likewise."""
        return self._results.text_of_key(key, "stderr")

    node_error = key_error

    def key_retcode(self, key: Any) -> int:
        """The return code of a key, the largest of those of its workers.

        :raises KeyError: if it has none
        """
        return self._results.rc_of_key(key)

    node_retcode = key_retcode

    def max_retcode(self) -> int | None:
        """The largest return code of the run; None if no command has ended by itself."""
        return self._results.max_rc

    def iter_buffers(
        self, match_keys: Collection[Any] | None = None
    ) -> Iterator[tuple[MsgTreeElem, list[Any]]]:
        """Each different output, and the keys (nodes) that it is of: ``NodeSet.fromlist(keys)``.

        :param match_keys: of these alone; None or empty = of all
        :raises TaskMsgTreeError: if it is not gathered
        """
        return self._iter("stdout", match_keys)

    def iter_errors(
        self, match_keys: Collection[Any] | None = None
    ) -> Iterator[tuple[MsgTreeElem, list[Any]]]:
        """Likewise what was printed on stderr."""
        return self._iter("stderr", match_keys)

    def _iter(
        self, sname: str, match_keys: Collection[Any] | None
    ) -> Iterator[tuple[MsgTreeElem, list[Any]]]:
        self._results.tree(sname)
        return self._walk(sname, match_keys)

    def _walk(
        self, sname: str, match_keys: Collection[Any] | None
    ) -> Iterator[tuple[MsgTreeElem, list[Any]]]:
        yield from self._results.walk(sname, checked_keys(match_keys) or None)

    def iter_retcodes(
        self, match_keys: Collection[Any] | None = None
    ) -> Iterator[tuple[int, list[Any]]]:
        """Each return code, and the keys (nodes) that have it.

        :param match_keys: of these alone (a code that none of them has comes with an empty list);
          None or empty = all
        """
        for rc, keys in self._results.rcs().items():
            yield rc, [key for key in keys if key in match_keys] if match_keys else keys

    def num_timeout(self) -> int:
        """How many keys (nodes) a timeout has ended."""
        return len(self._results.timeouts())

    def iter_keys_timeout(self) -> Iterator[Any]:
        """The keys (nodes) that a timeout has ended."""
        return iter(self._results.timeouts())

    def flush_buffers(self) -> None:
        """Forget output."""
        self._results.flush("stdout")

    def flush_errors(self) -> None:
        """Forget what was printed on stderr."""
        self._results.flush("stderr")


def _end_input(worker: Any) -> None:
    from .pdsh_worker import WorkerPdsh

    if not isinstance(worker, WorkerPdsh):  # pdsh has none
        worker.set_write_eof()


def task_self(defaults: Defaults | None = None) -> Task:
    """The task of this thread.

    :param defaults: what it begins with, if it is a new one
    """
    return Task(thread=threading.current_thread(), defaults=defaults)


def task_wait() -> None:
    """Block until the runs of all other threads' tasks are over."""
    Task.wait(threading.current_thread())


def task_terminate() -> None:
    """Give up the task of this thread: the next ``task_self()`` is a new one. Not for signal
    handlers."""
    task_self().abort(kill=True)


def task_cleanup() -> None:
    """Give up all tasks, and wait until their runs are over. Not for signal handlers."""
    while True:
        with _lock:
            tasks = list(_tasks.values())
        if not tasks:
            return
        for task in tasks:
            task.abort(kill=True)
            task.join()
