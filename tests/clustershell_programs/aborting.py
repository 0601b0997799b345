"""The end of workers and tasks before their time."""

from __future__ import annotations

import threading
import time
from typing import Any

from programs import Place, buffers, by_node, only, program, raised, recorder, retcodes


@program
def a_worker_is_aborted_at_a_line(cs: Any, place: Place) -> list[Any]:
    told: list[Any] = []
    task = cs.task_self()

    def stop(worker: Any, *_: object) -> None:
        worker.abort()
        told.append(list(handler.events))  # ev_close has come by now

    handler = recorder(cs, ev_read=stop)
    begin = time.monotonic()
    worker = task.run("echo one; sleep 0.5; echo two; sleep 20", key="k", handler=handler)
    return [
        time.monotonic() - begin < 15,
        *told,
        *handler.events,
        worker.read(),
        worker.did_timeout(),
        task.max_retcode(),
        task.num_timeout(),
    ]


@program
def a_worker_is_aborted_at_its_end(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs, ev_hup=lambda worker, *_: worker.abort())
    task.run("echo out; exit 3", key="k", handler=handler)
    closing = recorder(cs, ev_close=lambda worker, *_: worker.abort())
    task.shell("echo out; exit 4", key="other", handler=closing)
    first = [*handler.events, task.key_retcode("k")]
    task.resume()
    return [*first, *closing.events, task.key_retcode("other")]


@program
def a_worker_is_aborted_by_another(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    slow = task.shell("sleep 20", key="slow", handler=handler)
    quick = recorder(cs, ev_hup=lambda *_: slow.abort())
    task.shell("sleep 0.7; echo quick", key="quick", handler=quick)
    task.resume()
    return [*handler.events, *quick.events, buffers(task.iter_buffers())]


@program
def a_worker_is_aborted_by_a_timer(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    stopping = recorder(cs, ev_timer=lambda _: worker.abort())

    def look(*_: object) -> None:
        if len(only(handler.events, "ev_read")) == 3:
            task.timer(0.1, handler=stopping)

    handler = recorder(cs, ev_read=look)
    worker = task.shell("echo %h; sleep 20", nodes="n[1-3]", remote=False, handler=handler)
    task.resume()
    return [*by_node(handler.events), retcodes(task.iter_retcodes()), worker.num_timeout()]


@program
def a_worker_is_aborted_twice(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()

    def stop(worker: Any, *_: object) -> None:
        worker.abort()
        worker.abort()

    handler = recorder(cs, ev_read=stop)
    worker = task.run("echo one; sleep 20", key="k", handler=handler)
    worker.abort()
    return [*handler.events]


@program
def a_worker_is_aborted_before(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    handler = recorder(cs)
    loose = cs.WorkerPopen("echo loose", key="l", handler=handler)
    with raised(happened):
        loose.abort()
    worker = task.shell("echo out", key="k", handler=handler)
    task.shell("echo other", key="other")
    with raised(happened):
        worker.abort()
    task.resume()
    return [*happened, handler.events, buffers(task.iter_buffers())]


@program
def the_task_is_aborted_by_a_handler(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()

    def stop(worker: Any, *_: object) -> None:
        happened.append("before")
        task.abort()
        happened.append("after")

    handler = recorder(cs, ev_read=stop)
    other = recorder(cs)
    task.shell("echo one; sleep 20", key="k", handler=handler)
    task.shell("sleep 20", key="other", handler=other)
    with raised(happened):
        task.resume()
    happened += [
        *handler.events,
        *other.events,
        task.key_buffer("k"),
        task.max_retcode(),
        task.num_timeout(),
        task.running(),
        cs.task_self() is task,
    ]
    task.run("echo next", key="next")
    return [*happened, task.key_buffer("next")]


@program
def the_task_is_aborted_by_each_event(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    for event in ("ev_start", "ev_pickup", "ev_read", "ev_hup", "ev_close"):
        handler = recorder(cs, **{event: lambda *_: task.abort()})
        other = recorder(cs)
        late = event in {"ev_hup", "ev_close"}
        task.shell(f"sleep 0.5; echo out; sleep {0 if late else 20}", key="k", handler=handler)
        task.shell("sleep 20", key="other", handler=other)
        with raised(happened):
            task.resume()
        happened.append(event)
        if event not in {"ev_start", "ev_pickup"}:  # the other one has begun
            happened += [*handler.events, *other.events]
    return happened


@program
def the_task_is_aborted_by_a_timer(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    stopping = recorder(cs, ev_timer=lambda _: task.abort())
    handler = recorder(cs, ev_read=lambda *_: task.timer(0.1, handler=stopping, interval=0.1))
    task.shell("echo out; sleep 20", key="k", handler=handler)
    with raised(happened):
        task.resume()
    return [*happened, *handler.events, list(task.iter_buffers())]


@program
def the_task_is_aborted_by_a_thread(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    thread = threading.Timer(0.1, task.abort)
    handler = recorder(cs, ev_read=lambda *_: thread.start())
    task.shell("echo out; sleep 20", key="k", handler=handler)
    begin = time.monotonic()
    with raised(happened):
        task.resume()
    thread.join(20)
    return [
        *happened,
        time.monotonic() - begin < 15,
        *handler.events,
        list(task.iter_buffers()),
        task.max_retcode(),
    ]


@program
def the_task_is_aborted_before(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.shell("echo out", key="k", handler=handler)
    task.abort()
    first = [*handler.events]
    task.resume()
    return [first, handler.events, task.key_buffer("k"), cs.task_self() is task]


@program
def the_task_is_aborted_after(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.run("echo out; exit 3", key="k")
    task.abort()
    return [task.key_buffer("k"), task.max_retcode(), cs.task_self() is task]


@program
def the_task_is_killed(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    task.run("echo out", key="k")
    task.abort(kill=True)
    new = cs.task_self()
    happened += [new is task, new.key_buffer("k")]
    new.run("echo new", key="k")
    happened.append(new.key_buffer("k"))
    cs.task_terminate()
    return [*happened, cs.task_self() is new]


@program
def the_task_is_killed_by_a_handler(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    handler = recorder(cs, ev_read=lambda *_: task.abort(kill=True))
    task.shell("echo out; sleep 20", key="k", handler=handler)
    with raised(happened):
        task.resume()
    return [*happened, *handler.events, cs.task_self() is task]


@program
def aborted_in_the_last_event_of_an_abort(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    closing = recorder(cs, ev_close=lambda *_: task.abort())
    stopping = recorder(cs, ev_read=lambda *_: task.abort())
    task.shell("sleep 20", key="a", handler=closing)
    task.shell("sleep 0.5; echo out; sleep 20", key="b", handler=stopping)
    with raised(happened):
        task.resume()
    return [*happened, *closing.events, *stopping.events]


@program
def a_handler_catches_everything(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()

    def stop(*_: object) -> None:
        try:
            task.abort()
        except Exception as error:
            happened.append(isinstance(error, cs.EngineException))
            raise

    task.shell("echo out; sleep 20", key="k", handler=recorder(cs, ev_read=stop))
    with raised(happened):
        task.resume()
    return happened
