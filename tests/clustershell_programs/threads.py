"""Tasks in threads of their own, and what other threads may ask of a task."""

from __future__ import annotations

import threading
import time
from typing import Any

from programs import Place, buffers, only, program, recorder


def until(condition: Any, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


@program
def a_task_in_a_thread(cs: Any, place: Place) -> list[Any]:
    task = cs.Task()
    inside: list[bool] = []
    main = threading.current_thread()

    def look(*_: object) -> None:
        inside.append(cs.task_self() is task and threading.current_thread() is not main)

    handler = recorder(cs, ev_read=look)
    found = [task is cs.task_self(), task.running()]
    task.shell("echo out; exit 3", key="k", handler=handler)
    task.resume()
    cs.task_wait()
    return [*found, *handler.events, inside, task.key_buffer("k"), task.max_retcode()]


@program
def a_task_of_a_thread(cs: Any, place: Place) -> list[Any]:
    found: list[Any] = []

    def work() -> None:
        task = cs.task_self()
        found.append(task is cs.Task(thread=threading.current_thread()))
        task.run("echo out", key="k")
        found.extend([task.key_buffer("k"), task is mine])
        cs.task_terminate()

    mine = cs.task_self()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return [*found, cs.Task(thread=threading.current_thread()) is mine]


@program
def a_task_in_a_thread_runs_twice(cs: Any, place: Place) -> list[Any]:
    task = cs.Task()
    found = []
    for word in ("one", "two"):
        task.shell(f"echo {word}", key=word)
        task.resume()
        cs.task_wait()
        found.append(buffers(task.iter_buffers()))
    return found


@program
def several_tasks(cs: Any, place: Place) -> list[Any]:
    tasks = [cs.Task() for _ in range(4)]
    handlers = [recorder(cs) for _ in tasks]
    for number, (task, handler) in enumerate(zip(tasks, handlers, strict=True)):
        task.shell(f"echo {number}; sleep 0.3", key="k", handler=handler)
        task.resume()
    cs.task_wait()
    return [[task.key_buffer("k") for task in tasks], *(handler.events for handler in handlers)]


@program
def joined(cs: Any, place: Place) -> list[Any]:
    task = cs.Task()
    begin = time.monotonic()
    task.join()  # never resumed
    found: list[Any] = [time.monotonic() - begin < 10]
    task.shell("sleep 0.5; echo out", key="k")
    task.resume()
    task.join()
    found.append(task.key_buffer("k"))
    task.join()
    cs.task_self().join()
    return found


@program
def a_shell_for_a_running_task(cs: Any, place: Place) -> list[Any]:
    task = cs.Task()
    first, second = recorder(cs), recorder(cs)
    task.shell("sleep 1.2; echo first", key="first", handler=first)
    task.resume()
    until(lambda: first.events)
    task.shell("echo second", key="second", handler=second)
    cs.task_wait()
    return [*first.events, *second.events, buffers(task.iter_buffers())]


@program
def information_from_another_thread(cs: Any, place: Place) -> list[Any]:
    task = cs.Task()
    task.set_info("fanout", 3)
    task.set_default("mine", 4)
    found = [task.info("fanout"), task.default("mine")]
    task.shell("true", key="k")
    task.resume()
    cs.task_wait()
    return [*found, task.info("fanout")]


@program
def a_timer_from_another_thread(cs: Any, place: Place) -> list[Any]:
    task = cs.Task()
    handler = recorder(cs)
    task.timer(0.2, handler=handler)
    task.resume()
    cs.task_wait()
    return [*handler.events]


@program
def a_task_in_a_thread_is_aborted(cs: Any, place: Place) -> list[Any]:
    task = cs.Task()
    handler = recorder(cs)
    task.shell("echo out; sleep 20", key="k", handler=handler)
    task.resume()
    until(lambda: only(handler.events, "ev_read"))
    found: list[Any] = [task.running()]
    task.abort()
    begin = time.monotonic()
    cs.task_wait()
    return [*found, time.monotonic() - begin < 15, *handler.events, bool(task.running())]


@program
def a_task_in_a_thread_is_killed(cs: Any, place: Place) -> list[Any]:
    task = cs.Task()
    threads: list[threading.Thread] = []
    handler = recorder(cs, ev_read=lambda *_: threads.append(threading.current_thread()))
    task.shell("echo out; sleep 20", key="k", handler=handler)
    task.resume()
    until(lambda: only(handler.events, "ev_read"))
    task.abort(kill=True)
    cs.task_wait()
    ended = until(lambda: not threads[0].is_alive())
    return [*handler.events, ended]


@program
def cleaned_up(cs: Any, place: Place) -> list[Any]:
    handlers = [recorder(cs) for _ in range(2)]
    tasks = [cs.Task() for _ in handlers]
    for task, handler in zip(tasks, handlers, strict=True):
        task.shell("echo out; sleep 20", key="k", handler=handler)
        task.resume()
    mine = cs.task_self()
    until(lambda: all(only(one.events, "ev_read") for one in handlers))
    begin = time.monotonic()
    cs.task_cleanup()
    cs.task_wait()
    closed = until(lambda: all(only(one.events, "ev_close") for one in handlers))
    return [
        time.monotonic() - begin < 15,
        closed,
        *(handler.events for handler in handlers),
        cs.task_self() is mine,
    ]


@program
def suspended(cs: Any, place: Place) -> list[Any]:
    task = cs.Task()
    handler = recorder(cs)
    task.shell("for i in 1 2 3 4 5; do echo $i; sleep 0.3; done", key="k", handler=handler)
    found: list[Any] = [task.suspend()]
    task.resume()
    until(lambda: only(handler.events, "ev_read"))
    found.append(task.suspend())
    seen = len(handler.events)
    time.sleep(1)
    found += [len(handler.events) == seen, seen < 7]
    task.resume()
    cs.task_wait()
    return [*found, *handler.events]


@program
def suspended_by_a_thread(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    found: list[Any] = []

    def pause() -> None:
        until(lambda: only(handler.events, "ev_read"))
        found.append(task.suspend())
        seen = len(handler.events)
        time.sleep(0.7)
        found.append(len(handler.events) == seen)
        task.resume()

    thread = threading.Thread(target=pause)
    thread.start()
    command = "for i in 1 2 3 4; do echo $i; sleep 0.3; done"
    task.run(command, key="k", handler=handler)
    thread.join(20)
    return [*found, *handler.events]


@program
def an_exception_in_a_thread(cs: Any, place: Place) -> list[Any]:
    caught: list[Any] = []
    task = cs.Task()
    task.excepthook = lambda kind, value, tb: caught.append((kind.__name__, str(value), bool(tb)))

    def fail(*_: object) -> None:
        raise LookupError("mine")

    handler = recorder(cs, ev_read=fail)
    task.shell("echo out; sleep 20", key="k", handler=handler)
    task.resume()
    cs.task_wait()
    until(lambda: caught)
    return [*caught, *handler.events]


@program
def a_port_of_the_main_task(cs: Any, place: Place) -> list[Any]:
    """Tasks in threads tell the main one what they have found."""
    main = cs.task_self()
    left = ["a", "b"]

    def take(port: Any, message: Any) -> None:
        left.remove(message[0])
        if not left:
            main.remove_port(port)

    handler = recorder(cs, ev_msg=take)
    port = main.port(handler=handler)
    tasks = []
    for name in ("a", "b"):

        def tell(worker: Any, node: str, rc: int, name: str = name) -> None:
            port.msg((name, worker.read(), rc))

        task = cs.Task()
        task.shell(f"echo {name}; exit 2", key="k", handler=recorder(cs, ev_hup=tell))
        task.resume()
        tasks.append(task)
    main.resume()
    cs.task_wait()
    return sorted(only(handler.events, "ev_msg"))


@program
def a_time_limit_in_a_thread(cs: Any, place: Place) -> list[Any]:
    caught: list[Any] = []
    task = cs.Task()
    task.excepthook = lambda kind, value, tb: caught.append(kind.__name__)
    handler = recorder(cs)
    task.shell("sleep 20", key="k", handler=handler)
    task.resume(0.5)
    cs.task_wait()
    until(lambda: caught, 2)
    return [*caught, *handler.events]
