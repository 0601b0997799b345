"""Handlers as they were written before 1.8, and names that have been replaced."""

from __future__ import annotations

import warnings
from typing import Any

from programs import Place, only, program, recorder


def counted(found: list[warnings.WarningMessage]) -> int:
    return len([one for one in found if issubclass(one.category, DeprecationWarning)])


@program
def handlers_of_old(cs: Any, place: Place) -> list[Any]:
    events: list[Any] = []

    class Old(cs.EventHandler):  # type: ignore[misc]
        def ev_start(self, worker: Any) -> None:
            events.append("start")

        def ev_pickup(self, worker: Any) -> None:
            events.append(("pickup", worker.current_node))

        def ev_read(self, worker: Any) -> None:
            events.append(("read", worker.current_node, worker.current_msg))

        def ev_error(self, worker: Any) -> None:
            events.append(("error", worker.current_node, worker.current_errmsg))

        def ev_hup(self, worker: Any) -> None:
            events.append(("hup", worker.current_node, worker.current_rc))

        def ev_close(self, worker: Any) -> None:
            events.append("close")

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        command = "echo out; sleep 0.4; echo err >&2; exit 3"
        cs.task_self().run(command, nodes="n1", remote=False, stderr=True, handler=Old())
    return [*events, counted(found)]


@program
def a_time_limit_of_old(cs: Any, place: Place) -> list[Any]:
    events: list[Any] = []

    class Old(cs.EventHandler):  # type: ignore[misc]
        def ev_hup(self, worker: Any) -> None:
            events.append("hup")

        def ev_timeout(self, worker: Any) -> None:
            events.append(("timeout", sorted(worker.iter_keys_timeout())))

        def ev_close(self, worker: Any) -> None:
            events.append(("close", worker.did_timeout()))

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        task = cs.task_self()
        task.run("sleep 20", nodes="n1", remote=False, timeout=0.4, handler=Old())
    return [*events, counted(found)]


@program
def input_of_old(cs: Any, place: Place) -> list[Any]:
    events: list[Any] = []

    class Old(cs.EventHandler):  # type: ignore[misc]
        def ev_written(self, worker: Any, node: str, sname: str, size: int) -> None:
            events.append((node, sname, size))

    task = cs.task_self()
    worker = task.shell("cat", key="k", handler=Old())
    worker.write(b"text\n")
    worker.set_write_eof()
    task.resume()
    return events


@program
def errors_of_old_beside_new_lines(cs: Any, place: Place) -> list[Any]:
    events: list[Any] = []

    class Mixed(cs.EventHandler):  # type: ignore[misc]
        def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
            events.append(("read", sname, msg))

        def ev_error(self, worker: Any) -> None:
            events.append(("error", worker.current_errmsg))

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        command = "echo err >&2; sleep 0.4; echo out"
        cs.task_self().run(command, key="k", stderr=True, handler=Mixed())
    return [*events, counted(found)]


@program
def new_handlers_are_silent(cs: Any, place: Place) -> list[Any]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        handler = recorder(cs)
        cs.task_self().run("echo out", key="k", stderr=True, handler=handler)
        cs.task_self().run("sleep 20", key="k", timeout=0.2, handler=handler)
    return [counted(found), len(handler.events)]


@program
def a_handler_that_is_no_handler(cs: Any, place: Place) -> list[Any]:
    """Any object with some of the methods."""
    events: list[Any] = []

    class Plain:
        def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
            events.append(msg)

    handler = recorder(cs)
    task = cs.task_self()
    task.run("echo out", key="k", handler=handler)
    mixed = type("Both", (Plain, cs.EventHandler), {})()
    task.run("echo both", key="k", handler=mixed)
    return [*events, len(only(handler.events, "ev_read"))]


@program
def a_method_with_defaults(cs: Any, place: Place) -> list[Any]:
    events: list[Any] = []

    class Loose(cs.EventHandler):  # type: ignore[misc]
        def ev_hup(self, worker: Any, node: str = "?", rc: int = -1) -> None:
            events.append(("hup", node, rc))

    cs.task_self().run("echo out; exit 2", key="k", handler=Loose())
    return events
