"""How many run at a time, and objects that do not keep a run going."""

from __future__ import annotations

import time
from typing import Any

from programs import Place, only, program, recorder


def most(handler_events: list[Any]) -> int:
    """How many were running at most, by the events of one handler."""
    running = highest = 0
    for event in handler_events:
        running += {"ev_pickup": 1, "ev_hup": -1}.get(event[0], 0)
        highest = max(highest, running)
    return highest


@program
def a_window_of_nodes(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.set_info("fanout", 3)
    handler = recorder(cs)
    task.run("sleep 0.4", nodes="n[1-8]", remote=False, handler=handler)
    return [most(handler.events), len(only(handler.events, "ev_hup"))]


@program
def a_window_of_several_workers(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.set_info("fanout", 2)
    handler = recorder(cs)
    for key in range(3):
        task.shell("sleep 0.3", key=key, handler=handler)
    task.shell("sleep 0.3", nodes="n[1-3]", remote=False, handler=handler)
    task.resume()
    return [most(handler.events), len(only(handler.events, "ev_hup"))]


@program
def a_window_of_one(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.set_info("fanout", 1)
    handler = recorder(cs)
    for key in range(4):
        task.shell("echo out", key=key, handler=handler)
    task.resume()
    return [most(handler.events), len(only(handler.events, "ev_hup"))]


@program
def a_window_that_grows(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.set_info("fanout", 1)
    handler = recorder(cs, ev_start=lambda worker: task.set_info("fanout", 4))
    task.run("sleep 2", nodes="n[1-4]", remote=False, handler=handler)
    return [most(handler.events), task.info("fanout")]


@program
def a_window_that_shrinks(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.set_info("fanout", 4)
    handler = recorder(cs, ev_hup=lambda *_: task.set_info("fanout", 1))
    command = "sleep 0.$((%n + 4))"
    task.run(command, nodes="n[0-7]", remote=False, handler=handler)
    ends = 0
    late = []
    running = 0
    for event in handler.events:
        running += {"ev_pickup": 1, "ev_hup": -1}.get(event[0], 0)
        ends += event[0] == "ev_hup"
        if ends >= 4:
            late.append(running)
    return [most(handler.events), max(late)]


@program
def more_than_the_default_window(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.run("sleep 1", nodes="n[1-70]", remote=False, handler=handler)
    return [most(handler.events) <= 64, len(only(handler.events, "ev_hup"))]


@program
def an_autoclose_worker(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    main = recorder(cs)
    begin = time.monotonic()
    closing = task.shell("sleep 20; echo late", key="a", handler=handler, autoclose=True)
    task.shell("sleep 1.5; echo main", key="m", handler=main)
    task.resume()
    return [
        time.monotonic() - begin < 15,
        *main.events,
        only(handler.events, "ev_start", "ev_pickup", "ev_read", "ev_hup"),
        closing.read(),
        task.max_retcode(),
        task.num_timeout(),
    ]


@program
def an_autoclose_worker_that_ends_before(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.shell("echo early", key="a", handler=handler, autoclose=True)
    task.shell("sleep 2", key="m")
    task.resume()
    return [*handler.events]


@program
def only_autoclose_workers(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    begin = time.monotonic()
    task.shell("sleep 20", key="a", autoclose=True)
    task.resume()
    return [time.monotonic() - begin < 15, task.running()]


@program
def an_autoclose_timer(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    begin = time.monotonic()
    timer = task.timer(20, handler=handler, autoclose=True)
    quick = recorder(cs)
    task.timer(0.2, handler=quick, autoclose=True)
    task.shell("sleep 1.5", key="m")
    task.resume()
    return [time.monotonic() - begin < 15, handler.events, quick.events, timer.is_valid()]


@program
def hundreds_of_nodes(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.run("exit 0", nodes="n[1-300]", remote=False, handler=handler)
    return [
        len(only(handler.events, "ev_pickup")),
        len(only(handler.events, "ev_hup")),
        [(code, len(keys)) for code, keys in task.iter_retcodes()],
    ]
