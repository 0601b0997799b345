"""shell, run and resume; time limits; what is left after a run."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from programs import Place, buffers, by_node, only, program, raised, recorder, retcodes


@program
def shell_and_resume(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.shell("echo one; echo two; exit 3", handler=handler, key="k")
    before = (worker.started, worker.task is task)
    task.resume()
    return [
        before,
        worker.started,
        *handler.events,
        task.key_buffer("k"),
        task.key_retcode("k"),
        task.max_retcode(),
        buffers(task.iter_buffers()),
        retcodes(task.iter_retcodes()),
        worker.read(),
        worker.did_timeout(),
    ]


@program
def run_gives_the_worker(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    worker = task.run("echo out", key="k")
    return [type(worker).__name__, worker.read(), task.run(), list(task.iter_retcodes())]


@program
def default_key_is_the_worker(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.run("echo out", handler=handler)
    keys = [key is worker for _, keys in task.iter_buffers() for key in keys]
    return [*handler.events, keys, task.key_buffer(worker), worker.current_node]


@program
def each_run_begins_afresh(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.run("echo one; exit 5", key="a")
    first = (task.key_buffer("a"), task.max_retcode())
    task.run("echo two", key="b")
    second = (task.key_buffer("a"), task.key_buffer("b"), task.max_retcode())
    task.run("sleep 20", key="c", timeout=0.2)
    third = (task.num_timeout(), task.max_retcode())
    task.resume()
    return [first, second, third, task.num_timeout(), task.max_retcode()]


@program
def results_stay_with_the_worker(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    first = task.run("echo one; exit 4", key="a")
    task.run("echo two", key="b")
    return [first.read(), first.started, first.did_timeout()]


@program
def timeout_of_a_worker(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.shell("echo part; sleep 20", key="slow", handler=handler, timeout=3)
    task.shell("echo whole", key="quick")
    begin = time.monotonic()
    task.resume()
    return [
        time.monotonic() - begin < 10,
        *handler.events,
        worker.did_timeout(),
        list(task.iter_keys_timeout()),
        task.num_timeout(),
        retcodes(task.iter_retcodes()),
        task.key_buffer("slow"),
    ]


@program
def partial_line_at_the_end(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.run("printf 'one\\r\\ntwo\\n\\nthree'", key="k", handler=handler)
    return [*handler.events, task.key_buffer("k")]


@program
def timeout_of_some_nodes(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    command = "[ %n -lt 2 ] || sleep 20; echo %h; exit %n"
    worker = task.run(command, nodes="n[0-3]", remote=False, handler=handler, timeout=4)
    return [
        *by_node(handler.events[1:]),
        handler.events[0][0],
        sorted(worker.iter_keys_timeout()),
        worker.num_timeout(),
        worker.did_timeout(),
        retcodes(worker.iter_retcodes()),
        sorted(worker.iter_node_retcodes()),
        task.max_retcode(),
    ]


@program
def timeout_zero_is_at_once(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.run("sleep 20", key="k", handler=handler, timeout=0)
    return [*handler.events, worker.did_timeout(), task.num_timeout(), task.max_retcode()]


@program
def timeout_none_and_negative(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.shell("sleep 0.2; echo a", key="a", timeout=None)
    task.shell("sleep 0.2; echo b", key="b", timeout=-1)
    task.resume()
    return [buffers(task.iter_buffers()), task.num_timeout()]


@program
def timeout_of_the_task(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    handler = recorder(cs)
    quick = recorder(cs)
    task.shell("echo part; sleep 20", key="slow", handler=handler)
    task.shell("echo whole", key="quick", handler=quick)
    with raised(happened):
        task.resume(4)
    happened += [
        *handler.events,
        *quick.events,
        list(task.iter_keys_timeout()),
        buffers(task.iter_buffers()),
        retcodes(task.iter_retcodes()),
        task.running(),
    ]
    task.run("echo next", key="next")
    return [*happened, task.key_buffer("next")]


@program
def timeout_of_the_task_by_run(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    for options in ({"command": 0.3}, {"timeout": 0.3}):
        task.shell("sleep 20", key="k")
        with raised(happened):
            task.run(**options)
        happened.append(task.num_timeout())
    happened.append(issubclass(cs.TimeoutError, cs.TaskError))
    return happened


@program
def task_timeout_not_reached(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    task.shell("echo out", key="k")
    with raised(happened):
        task.resume(20)
    return [*happened, task.key_buffer("k"), task.num_timeout()]


@program
def task_timeout_before_a_worker_has_started(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    task.set_info("fanout", 1)
    handlers = [recorder(cs) for _ in range(2)]
    workers = [task.shell("sleep 20", key=key, handler=handlers[key]) for key in range(2)]
    with raised(happened):
        task.resume(0.5)
    first, second = sorted((only(one.events, "ev_start", "ev_close") for one in handlers), key=len)
    return [
        *happened,
        first,
        second,
        task.num_timeout(),
        sorted(worker.did_timeout() for worker in workers),
    ]


@program
def timeout_counts_from_the_start(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.set_info("fanout", 1)
    for key in range(3):
        task.shell("sleep 1.5", key=key, timeout=4)
    task.resume()
    return [task.num_timeout(), retcodes(task.iter_retcodes())]


@program
def several_time_limits(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    order: list[Any] = []
    for key, limit in (("b", 1.2), ("a", 0.4), ("c", 2)):
        handler = recorder(cs, ev_close=lambda worker, _, key=key: order.append(key))
        task.shell("sleep 20", key=key, timeout=limit, handler=handler)
    task.resume()
    return [order, sorted(task.iter_keys_timeout())]


@program
def a_run_within_a_run(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()

    def again(worker: Any, *_: object) -> None:
        with raised(happened):
            task.resume()

    handler = recorder(cs, ev_hup=again)
    task.run("true", key="k", handler=handler)
    return [*handler.events, *happened]


@program
def a_run_within_a_run_leaves_both(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    handler = recorder(cs, ev_read=lambda *_: task.resume())
    other = recorder(cs)
    task.shell("echo out; sleep 1", key="k", handler=handler)
    task.shell("sleep 20", key="other", handler=other)
    with raised(happened):
        task.resume()
    happened += [*handler.events, *other.events, issubclass(cs.AlreadyRunningError, cs.TaskError)]
    task.run("echo next", key="next")
    return [*happened, task.key_buffer("next")]


@program
def exit_by_a_signal(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.run("kill -9 $$", key="k", handler=handler)
    return [*handler.events, task.key_retcode("k"), task.max_retcode()]


@program
def a_command_that_is_not_there(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.run("/no/such/command", key="k", stderr=True)
    return [task.key_retcode("k"), task.key_error("k").count(b"not found")]


@program
def stderr_is_merged(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.run("echo out; echo err >&2", key="k", handler=handler)
    return [*handler.events, worker.read(), task.key_error("k"), list(task.iter_errors())]


@program
def stderr_is_apart(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.run("echo out; sleep 0.3; echo err >&2", key="k", handler=handler, stderr=True)
    return [
        *handler.events,
        worker.read(),
        worker.read(sname="stderr"),
        task.key_buffer("k"),
        task.key_error("k"),
        buffers(task.iter_errors()),
    ]


@program
def stderr_by_default(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.set_default("stderr", True)
    task.run("echo out; echo err >&2", key="k")
    apart = (task.key_buffer("k"), task.key_error("k"))
    task.run("echo out; echo err >&2", key="k", stderr=False)
    return [apart, task.key_buffer("k"), task.key_error("k")]


@program
def keyboard_interrupt(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    handler = recorder(cs, ev_read=lambda *_: signal.setitimer(signal.ITIMER_REAL, 0.2))
    task.shell("echo out; sleep 20", key="k", handler=handler)
    begin = time.monotonic()
    with raised(happened):
        task.resume()
    happened += [time.monotonic() - begin < 10, *handler.events, task.running()]
    task.run("echo next", key="next")
    return [*happened, task.key_buffer("next")]


@program
def a_signal_that_is_handled(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    signal.signal(signal.SIGALRM, lambda *_: happened.append("signal"))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    task.run("sleep 1.5; echo out", key="k")
    return [*happened, task.key_buffer("k"), task.key_retcode("k")]


@program
def nothing_to_do(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    return [
        task.resume(),
        task.run(),
        task.running(),
        task.max_retcode(),
        list(task.iter_buffers()),
        list(task.iter_retcodes()),
        list(task.iter_keys_timeout()),
        task.num_timeout(),
        task.key_buffer("k"),
    ]


@program
def running_or_not(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    found = [task.running()]
    handler = recorder(cs, ev_start=lambda _: found.append(task.running()))
    task.run("true", key="k", handler=handler)
    return [*found, task.running()]


@program
def defaults_and_info(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    found = [
        (key, task.default(key))
        for key in (
            "stderr",
            "stdin",
            "stdout_msgtree",
            "stderr_msgtree",
            "engine",
            "port_qlimit",
            "auto_tree",
            "local_workername",
            "distant_workername",
            "mine",
        )
    ]
    found += [
        (key, task.info(key))
        for key in (
            "debug",
            "fanout",
            "grooming_delay",
            "connect_timeout",
            "command_timeout",
            "ssh_user",
            "mine",
        )
    ]
    task.set_default("mine", [1])
    task.set_info("mine", {"a": 1})
    return [
        *found,
        task.default("mine"),
        task.default("other", 7),
        task.info("mine"),
        task.info("other", 8),
        task.default("local_worker").__name__,
        task.default("distant_worker").__name__,
    ]


@program
def debug_goes_to_a_function(cs: Any, place: Place) -> list[Any]:
    told: list[bool] = []
    task = cs.task_self()
    task.set_info("print_debug", lambda task, text: told.append(isinstance(text, str)))
    task.set_info("debug", True)
    task.run("true", key="k")
    return [bool(told), set(told)]


@program
def shell_from_a_handler(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    second = recorder(cs)

    def more(worker: Any, *_: object) -> None:
        task.shell("echo second", key="second", handler=second)

    first = recorder(cs, ev_hup=more)
    task.run("echo first", key="first", handler=first)
    return [*first.events, *second.events, buffers(task.iter_buffers())]


@program
def shell_from_the_last_event(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    left = [2, 1, 0]

    def more(worker: Any, timedout: bool) -> None:
        if left:
            task.shell("echo more", key=left.pop(0), handler=handler)

    handler = recorder(cs, ev_close=more)
    task.run("echo first", key="first", handler=handler)
    return [handler.events, buffers(task.iter_buffers())]


@program
def odd_arguments(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    calls: list[Callable[[], object]] = [
        lambda: task.shell(None, key="k"),
        lambda: task.shell(None, nodes="n1"),
        lambda: cs.WorkerSsh("n1", None, 10),
        lambda: cs.ExecWorker("n1", None, 10),
        lambda: task.shell("true", nodes="n[1"),
        lambda: task.shell("true", nodes="n1", worker=3),
    ]
    for call in calls:
        with raised(happened):
            call()
    with raised(happened):
        task.abort()
    return happened
