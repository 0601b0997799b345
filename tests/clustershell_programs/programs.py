"""What the programs share: their list, where they run, and a handler that writes events down.

A program is written for ClusterShell and takes its names from ``cs``, whichever library that is.
What it returns is what happened, in an order that does not depend on chance, so that two libraries
can be compared by it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "OURS",
    "PROGRAMS",
    "Place",
    "buffers",
    "by_node",
    "named",
    "only",
    "ours_alone",
    "program",
    "raised",
    "recorder",
    "retcodes",
]

Event = tuple[Any, ...]
Program = Callable[[Any, "Place"], list[Any]]

PROGRAMS: dict[str, Program] = {}

OURS: dict[str, list[Any]] = {}
"""What happens in the programs that ClusterShell does not run well, by their names."""


def program(function: Program) -> Program:
    """Put a function into the list, under its own name."""
    assert function.__name__ not in PROGRAMS, function.__name__
    PROGRAMS[function.__name__] = function
    return function


def ours_alone(*happens: Any) -> Callable[[Program], Program]:
    """Put a function into the list whose program ClusterShell does not run well: a trap, or a
    defect.

    :param happens: what the program returns
    """

    def put(function: Program) -> Program:
        OURS[function.__name__] = list(happens)
        return program(function)

    return put


@dataclasses.dataclass
class Place:
    """Where a program runs.

    - ``nodes``: addresses of one real sshd
    - ``refused``: a port of 127.0.0.1 where nobody listens
    - ``folder``: a folder of the program's own, which the user of the nodes may write to
    """

    nodes: list[str]
    user: str
    keyfile: str
    port: int
    refused: int
    folder: Path

    def connect(self, task: Any, *, port: int | None = None) -> Any:
        """Tell the task how to reach the nodes, as one tells ClusterShell; give it back."""
        options = [
            *("-F", "none", "-i", self.keyfile, "-p", str(port or self.port)),
            *("-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR"),
        ]
        task.set_info("ssh_user", self.user)
        task.set_info("ssh_options", " ".join(options))
        scp = [word if word != "-p" else "-P" for word in options]
        task.set_info("scp_user", self.user)
        task.set_info("scp_options", " ".join(scp))
        return task


EVENTS = {
    "ev_start": ("worker",),
    "ev_pickup": ("worker", "node"),
    "ev_read": ("worker", "node", "sname", "msg"),
    "ev_written": ("worker", "node", "sname", "size"),
    "ev_hup": ("worker", "node", "rc"),
    "ev_close": ("worker", "timedout"),
    "ev_port_start": ("port",),
    "ev_msg": ("port", "msg"),
    "ev_timer": ("timer",),
}
"""The events of a handler and the names of their arguments, without those of old."""


def recorder(cs: Any, *skip: str, **react: Callable[..., object]) -> Any:
    """A handler that keeps a list of what it is told, ``events``: name and arguments, save the
    worker, timer or port.

    :param skip: events that are not written down
    :param react: what to do at an event, with the arguments of the event, once it is written
    """
    events: list[Event] = []

    def noting(event: str) -> Callable[..., None]:
        def note(self: Any, source: Any, *arguments: Any) -> None:
            if event not in skip:
                events.append((event, *(named(one, source) for one in arguments)))
            if event in react:
                react[event](source, *arguments)

        def of_one(self: Any, source: Any) -> None:
            note(self, source)

        def of_two(self: Any, source: Any, first: Any) -> None:
            note(self, source, first)

        def of_three(self: Any, source: Any, first: Any, second: Any) -> None:
            note(self, source, first, second)

        def of_four(self: Any, source: Any, first: Any, second: Any, third: Any) -> None:
            note(self, source, first, second, third)

        # The number of arguments tells the handlers of old.
        return (of_one, of_two, of_three, of_four)[len(EVENTS[event]) - 1]

    body = {event: noting(event) for event in EVENTS}
    handler = type("Recorder", (cs.EventHandler,), body)()
    handler.events = events
    return handler


def named(value: Any, source: Any) -> Any:
    """What two libraries call the same: a worker stands as its key where it has none."""
    return "itself" if value is source else value


def by_node(events: Iterable[Event]) -> list[Event]:
    """The events with those of a node together: across nodes their order is left to chance.

    ``ev_start`` stays first and ``ev_close`` last, and a second worker begins after the first.
    """
    ordered: list[Event] = []
    waiting: list[Event] = []

    def flush() -> None:
        ordered.extend(sorted(waiting, key=lambda event: str(event[1])))
        waiting.clear()

    for event in events:
        if event[0] in {"ev_start", "ev_close"}:
            flush()
            ordered.append(event)
        else:
            waiting.append(event)
    flush()
    return ordered


def only(events: Iterable[Event], *names: str) -> list[Event]:
    return [event for event in events if event[0] in names]


def buffers(found: Iterable[tuple[Any, Any]]) -> list[tuple[bytes, list[str]]]:
    """What ``iter_buffers`` gives, as plain and sorted values."""
    return sorted((bytes(text), sorted(str(key) for key in keys)) for text, keys in found)


def retcodes(found: Iterable[tuple[int, Any]]) -> list[tuple[int, list[str]]]:
    """What ``iter_retcodes`` gives, as plain and sorted values."""
    return sorted((code, sorted(str(key) for key in keys)) for code, keys in found)


@contextlib.contextmanager
def raised(happened: list[Any]) -> Iterator[None]:
    """Write down the name of what the block raises, and its bases down to Exception."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt is one of them
        happened.append(("raised", type(error).__name__))
    else:
        happened.append("nothing raised")
