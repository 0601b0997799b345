"""The errors of the Task and Worker API: the tree of ClusterShell 1.10, under ours.

::

    ExecoError
    ├── TaskException ── TaskError
    │   ├── TimeoutError           the limit of resume() was reached
    │   ├── AlreadyRunningError    resume() within a run
    │   └── TaskMsgTreeError       output that is not gathered was asked for
    ├── EngineException
    │   ├── EngineAbortException   ends a run from within, see Task.abort()
    │   ├── EngineTimeoutException
    │   ├── EngineIllegalOperationError ── EngineAlreadyRunningError
    │   └── EngineNotSupportedError
    ├── EngineClientException
    │   ├── EngineClientEOF
    │   └── EngineClientError ── EngineClientNotSupportedError
    ├── WorkerException ── WorkerError
    └── RouteResolvingError
    ValueError = WorkerBadArgumentError
"""

from __future__ import annotations

from execo.errors import ExecoError

__all__ = [
    "AlreadyRunningError",
    "EngineAbortException",
    "EngineAlreadyRunningError",
    "EngineClientEOF",
    "EngineClientError",
    "EngineClientException",
    "EngineClientNotSupportedError",
    "EngineException",
    "EngineIllegalOperationError",
    "EngineNotSupportedError",
    "EngineTimeoutException",
    "RouteResolvingError",
    "TaskError",
    "TaskException",
    "TaskMsgTreeError",
    "TimeoutError",
    "WorkerBadArgumentError",
    "WorkerError",
    "WorkerException",
]


class TaskException(ExecoError):
    """Base of the errors of tasks."""


class TaskError(TaskException):
    """A task cannot do what it was asked."""


class TimeoutError(TaskError):  # noqa: A001 - its name there
    """The limit that ``resume(timeout)`` was given is reached. Not Python's own one."""


class AlreadyRunningError(TaskError):
    """``resume()`` was called in a handler of the run that goes on."""


class TaskMsgTreeError(TaskError):
    """Output was asked for that is not gathered: ``stdout_msgtree`` or another one is off."""


class EngineException(ExecoError):
    """Base of the errors of the loop in ``resume()``."""


class EngineAbortException(EngineException):
    """Ends a run: ``Task.abort()`` raises it through the handler that it is called in.

    :param kill: the task is given up, too
    """

    def __init__(self, kill: bool) -> None:
        super().__init__("the run is aborted")
        self.kill = kill


class EngineTimeoutException(EngineException):
    """The time of a run is over."""


class EngineIllegalOperationError(EngineException):
    """Something was asked at a moment, or in a thread, where it cannot be done."""


class EngineAlreadyRunningError(EngineIllegalOperationError):
    """The loop runs."""


class EngineNotSupportedError(EngineException):
    """There is no such engine.

    :param engineid: its name
    """

    def __init__(self, engineid: str) -> None:
        super().__init__(f"there is no engine {engineid!r}")
        self.engineid = engineid


class EngineClientException(ExecoError):
    """Base of the errors of what a worker runs."""


class EngineClientEOF(EngineClientException):
    """The end of a stream."""


class EngineClientError(EngineClientException):
    """What a worker runs cannot do what it was asked."""


class EngineClientNotSupportedError(EngineClientError):
    """It never can."""


class WorkerException(ExecoError):
    """Base of the errors of workers."""


class WorkerError(WorkerException):
    """A worker cannot do what it was asked."""


WorkerBadArgumentError = ValueError
"""An argument of a worker is wrong or lacks."""


class RouteResolvingError(ExecoError):
    """No gateway is left for a host."""
