"""Timers and ports."""

from __future__ import annotations

import threading
import time
from typing import Any

from programs import Place, only, program, raised, recorder


@program
def a_timer(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    fired: list[float] = []
    handler = recorder(cs, ev_timer=lambda timer: fired.append(time.monotonic()))
    begin = time.monotonic()
    timer = task.timer(0.4, handler=handler)
    before = timer.is_valid()
    task.resume()
    (when,) = fired
    return [before, *handler.events, 0.39 <= when - begin < 20]


@program
def timers_in_order(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    order: list[str] = []
    for name, delay in (("c", 1.6), ("a", 0.2), ("b", 0.8)):
        handler = recorder(cs, ev_timer=lambda timer, name=name: order.append(name))
        task.timer(delay, handler=handler)
    task.resume()
    return order


@program
def a_timer_that_repeats(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    validity: list[bool] = []

    def fire(timer: Any) -> None:
        validity.append(timer.is_valid())
        if len(validity) == 4:
            timer.invalidate()

    handler = recorder(cs, ev_timer=fire)
    begin = time.monotonic()
    timer = task.timer(0.1, handler=handler, interval=0.2)
    task.resume()
    return [*handler.events, validity, 0.68 < time.monotonic() - begin < 20, timer.is_valid()]


@program
def a_timer_beside_a_worker(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.timer(0.5, handler=handler)
    task.run("sleep 2; echo out", key="k", handler=handler)
    return [*handler.events]


@program
def a_timer_keeps_the_run_going(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.timer(2, handler=handler)
    task.run("echo out", key="k", handler=handler)
    return [*handler.events]


@program
def a_timer_that_is_invalidated(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    timer = task.timer(20, handler=handler)
    task.timer(0.2, handler=recorder(cs, ev_timer=lambda _: timer.invalidate()))
    begin = time.monotonic()
    task.resume()
    return [handler.events, time.monotonic() - begin < 15, timer.is_valid()]


@program
def a_timer_that_is_invalidated_before(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    timer = task.timer(0.2, handler=handler)
    timer.invalidate()
    task.resume()
    return [*handler.events]


@program
def the_next_time_is_set(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    begin = time.monotonic()
    fired: list[float] = []

    def fire(timer: Any) -> None:
        fired.append(time.monotonic() - begin)
        if len(fired) == 1:
            timer.set_nextfire(0.3)
        if len(fired) == 2:
            timer.set_nextfire(0.3, interval=0.2)
        if len(fired) == 4:
            timer.invalidate()

    timer = task.timer(0.1, handler=recorder(cs, ev_timer=fire))
    task.resume()
    with raised(happened):
        timer.set_nextfire(0.1)
    return [*happened, len(fired), fired[0] >= 0.09, fired[1] - fired[0] >= 0.28]


@program
def a_timer_is_moved_by_another(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    order: list[str] = []
    moved = task.timer(20, handler=recorder(cs, ev_timer=lambda _: order.append("moved")))

    def move(timer: Any) -> None:
        order.append("mover")
        moved.set_nextfire(0.2)

    task.timer(0.2, handler=recorder(cs, ev_timer=move))
    begin = time.monotonic()
    task.resume()
    return [order, time.monotonic() - begin < 15]


@program
def a_timer_from_a_handler(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    inner = recorder(cs)
    outer = recorder(cs, ev_read=lambda *_: task.timer(0.2, handler=inner))
    task.run("echo out", key="k", handler=outer)
    return [*outer.events, *inner.events]


@program
def a_timer_from_a_timer(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    left = [1, 2, 3]

    def more(timer: Any) -> None:
        if left:
            left.pop()
            task.timer(0.05, handler=handler)

    handler = recorder(cs, ev_timer=more)
    task.timer(0.05, handler=handler)
    task.resume()
    return [*handler.events]


@program
def timers_do_not_last(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    handler = recorder(cs)
    timer = task.timer(20, handler=handler)
    task.shell("sleep 20", key="k")  # without it, the original would return at once
    with raised(happened):
        task.resume(0.3)
    begin = time.monotonic()
    task.resume()
    return [*happened, handler.events, timer.is_valid(), time.monotonic() - begin < 15]


@program
def a_timer_of_no_time(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.timer(0, handler=handler)
    task.timer(0.0, handler=handler, interval=-1)
    task.resume()
    return [*handler.events]


@program
def a_port_between_tasks(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    receiver = cs.Task()
    inside: list[bool] = []

    def take(port: Any, message: Any) -> None:
        inside.append(cs.task_self() is receiver)
        if message == "end":
            receiver.abort()

    handler = recorder(cs, ev_msg=take)
    port = receiver.port(handler=handler)
    receiver.resume()
    happened += [port.msg("one"), port.msg(2), port.msg({"three": [3]})]
    port.msg_send("end")
    cs.task_wait()
    return [*happened, *handler.events, inside]


@program
def a_port_in_its_own_task(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    sent: list[Any] = []

    def take(port: Any, message: Any) -> None:
        if message == "last":
            task.remove_port(port)

    handler = recorder(cs, ev_msg=take)
    port = task.port(handler=handler)

    def send() -> None:
        sent.extend(port.msg(message) for message in ("first", "second"))
        port.msg_send("last")

    thread = threading.Thread(target=send)
    task.timer(0.2, handler=recorder(cs, ev_timer=lambda _: thread.start()))
    task.resume()
    thread.join()
    return [*handler.events, sent]


@program
def sent_before_the_run(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()

    def take(port: Any, message: Any) -> None:
        if message == 2:
            task.remove_port(port)

    handler = recorder(cs, ev_msg=take)
    port = task.port(handler=handler)
    found = [port.msg(number, send_once=True) for number in range(3)]
    task.resume()
    return [found, *handler.events]


@program
def a_port_that_closes_itself(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    port = task.port(handler=handler, autoclose=True)
    sending = recorder(cs, ev_read=lambda *_: port.msg_send("text"))
    task.run("echo out; sleep 0.5", key="k", handler=sending)
    return [*handler.events, *sending.events]


@program
def a_port_that_is_closed(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    port = task.port(handler=handler, autoclose=True)
    task.timer(0.2, handler=recorder(cs, ev_timer=lambda _: task.remove_port(port)))
    task.resume()
    return [handler.events, port.msg("text"), port.msg_send("text")]


@program
def a_port_from_several_threads(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    count = 40

    def take(port: Any, message: Any) -> None:
        if len(only(handler.events, "ev_msg")) == 4 * count:
            task.remove_port(port)

    handler = recorder(cs, ev_msg=take)
    port = task.port(handler=handler)
    answers: list[Any] = []

    def send(name: str) -> None:
        answers.extend(port.msg((name, number)) for number in range(count))

    threads = [threading.Thread(target=send, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    task.resume()
    for thread in threads:
        thread.join(20)
    events = [event[1] for event in only(handler.events, "ev_msg")]
    in_order = all(
        [number for one, number in events if one == name] == list(range(count)) for name in "abcd"
    )
    return [len(events), in_order, set(answers)]


@program
def an_exception_in_a_port(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()

    def fail(*_: object) -> None:
        raise LookupError("mine")

    port = task.port(handler=recorder(cs, ev_msg=fail))
    worker = recorder(cs)
    task.shell("sleep 20", key="k", handler=worker)
    thread = threading.Thread(target=port.msg_send, args=("text",))
    task.timer(0.2, handler=recorder(cs, ev_timer=lambda _: thread.start()))
    with raised(happened):
        task.resume()
    thread.join()
    return [*happened, *worker.events]


@program
def an_interval_of_zero_is_none(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.timer(0.1, handler=handler, interval=0)
    task.run("sleep 0.6", key="k")
    return [*handler.events]
