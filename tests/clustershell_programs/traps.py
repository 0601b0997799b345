"""What ClusterShell does not do well, or not at all, and what happens instead."""

from __future__ import annotations

import resource
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from programs import Place, by_node, only, ours_alone, raised, recorder

ENDED = [("ev_start",), ("ev_pickup", "k"), ("ev_close", False)]


def gone(mark: Path, seconds: float = 10.0) -> bool:
    """Whether the process whose id is in the file has ended."""
    end = time.monotonic() + seconds
    stat = Path(f"/proc/{mark.read_text().strip()}/stat")
    while time.monotonic() < end:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


# -- defects of the original ------------------------------------------------------------------


@ours_alone("nothing raised", ("ev_start",), ("ev_close", False), b"next")
def a_worker_is_aborted_at_the_start(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    handler = recorder(cs, "ev_pickup", ev_start=lambda worker: worker.abort())
    with raised(happened):
        task.run("sleep 20", key="k", handler=handler)
    task.run("echo next", key="next")
    return [*happened, *handler.events, task.key_buffer("next")]


@ours_alone(
    ["ev_start", "ev_pickup", "ev_read", "ev_close"],
    True,
)
def workers_behind_the_window_are_aborted(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.set_info("fanout", 1)
    handler = recorder(cs, ev_read=lambda worker, *_: worker.abort())
    begin = time.monotonic()
    task.run("echo %h; sleep 20", nodes="n[1-5]", remote=False, handler=handler)
    return [[event[0] for event in handler.events], time.monotonic() - begin < 15]


@ours_alone(True, ("ev_start",), ("ev_pickup", "k"), ("ev_read", "k", "stdout", b"out"), 1)
def a_worker_is_aborted_by_a_thread(cs: Any, place: Place) -> list[Any]:
    task = cs.Task()
    seen = threading.Event()
    handler = recorder(cs, ev_read=lambda *_: seen.set())
    worker = task.shell("echo out; sleep 20", key="k", handler=handler)
    task.resume()
    seen.wait(20)
    worker.abort()
    begin = time.monotonic()
    cs.task_wait()
    closes = len(only(handler.events, "ev_close"))
    return [time.monotonic() - begin < 15, *handler.events[:3], closes]


@ours_alone(("raised", "LookupError"), *ENDED, b"next")
def an_exception_in_a_timer(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()

    def fail(*_: object) -> None:
        raise LookupError("mine")

    handler = recorder(cs)
    task.shell("sleep 20", key="k", handler=handler)
    task.timer(0.3, handler=recorder(cs, ev_timer=fail))
    with raised(happened):
        task.resume()
    happened += handler.events
    task.run("echo next", key="next")
    return [*happened, task.key_buffer("next")]


@ours_alone(
    ("ev_start",),
    ("ev_pickup", "k"),
    ("ev_read", "k", "stdout", b"one"),
    ("ev_read", "k", "stdout", b"no end"),
    ("ev_close", True),
    b"one\nno end",
)
def a_timeout_keeps_the_partial_line(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.run("echo one; printf 'no end'; sleep 20", key="k", handler=handler, timeout=3)
    return [*handler.events, task.key_buffer("k")]


# -- the traps --------------------------------------------------------------------------------


@ours_alone([], False)
def an_empty_set_of_nodes_runs_nothing(cs: Any, place: Place) -> list[Any]:
    """Here or anywhere, with an error or without."""
    task = cs.task_self()
    mark = place.folder / "mark"
    handler = recorder(cs)
    empty: list[Any] = [cs.NodeSet(), "", [], ()]
    for nodes in empty:
        try:
            task.shell(f"touch {mark}", nodes=nodes, handler=handler)
        except (ValueError, cs.TaskError, cs.WorkerError):
            continue
    task.resume()
    return [only(handler.events, "ev_pickup", "ev_hup"), mark.exists()]


@ours_alone(("ev_start",), ("ev_pickup", "a"), ("ev_close", False), True, [b"next"])
def an_autoclose_worker_is_aborted(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    command = f"echo $$ > {place.folder}/pid; exec sleep 20"
    task.shell(command, key="a", handler=handler, autoclose=True)
    task.shell("sleep 0.7", key="m")
    task.resume()
    ended = gone(place.folder / "pid")
    task.run("echo next", key="next")
    return [*handler.events, ended, [bytes(text) for text, _ in task.iter_buffers()]]


@ours_alone(True, False)
def a_tree_without_topology_is_an_error(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    mark = place.folder / "mark"
    place.connect(task)
    try:
        task.shell(f"touch {mark}", nodes=place.nodes[0], tree=True)
        task.resume()
    except Exception as error:  # noqa: BLE001 - which one is told
        return [isinstance(error, (cs.TaskError, cs.TopologyError)), mark.exists()]
    return ["no error", mark.exists()]


@ours_alone(True, True, True)
def a_time_limit_ends_the_whole_group(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    command = "sh -c 'echo $$ > {}; sleep 20; :' & wait"
    found = []
    for name, options in (("local", {"key": "k"}), ("exec", {"nodes": "n1", "remote": False})):
        mark = place.folder / name
        worker = task.run(command.format(mark), timeout=3, **options)
        found.append(worker.did_timeout() and gone(mark))
    place.connect(task)
    mark = place.folder / "ssh"
    task.run(command.format(mark), nodes=place.nodes[0], timeout=8)
    return [*found, gone(mark)]


@ours_alone(True, True)
def an_abort_ends_the_whole_group(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    place.connect(task)
    found = []
    for name, options in (("local", {"key": "k"}), ("ssh", {"nodes": place.nodes[0]})):
        mark = place.folder / name
        handler = recorder(cs, ev_read=lambda worker, *_: worker.abort())
        command = f"sh -c 'echo $$ > {mark}; echo out; sleep 20; :' & wait"
        task.run(command, handler=handler, **options)
        found.append(gone(mark))
    return found


@ours_alone(True, ("ev_timer",))
def a_timer_does_not_look_at_the_clock_on_the_wall(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    wall = time.time
    handler = recorder(cs)
    task.timer(0.4, handler=handler)
    begin = time.monotonic()
    try:
        # Somebody sets the clock back by an hour.
        task.timer(0.1, handler=recorder(cs, ev_timer=lambda _: setattr(time, "time", early)))

        def early() -> float:
            return wall() - 3600

        task.resume(10)
    finally:
        time.time = wall
    return [0.35 < time.monotonic() - begin < 8, *handler.events]


@ours_alone([bytes(range(256)) * 20], [bytes(range(256)) * 20])
def binary_output_is_not_damaged(cs: Any, place: Place) -> list[Any]:
    data = bytes(range(256)) * 20
    (place.folder / "data").write_bytes(data)
    task = cs.task_self()
    found = []
    for options in ({"key": "k"}, {"nodes": "n1", "remote": False}):
        lines: list[bytes] = []
        handler = recorder(cs, ev_read=lambda *arguments, lines=lines: lines.append(arguments[3]))
        task.run(f"cat {place.folder}/data", handler=handler, **options)
        found.append([b"\n".join(lines)])
    return found


@ours_alone(
    ("ev_read", "k", "stdout", b"10%\r20%\r30%"),
    ("ev_read", "k", "stdout", b"a\x0bb\x0cc\x1cd\x85e"),
)
def only_newlines_end_lines(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    command = r"printf '10%%\r20%%\r30%%\na\013b\014c\034d\205e\n'"
    task.run(command, key="k", handler=handler)
    return only(handler.events, "ev_read")


@ours_alone(True, True)
def an_unreachable_node_is_told_apart(cs: Any, place: Place) -> list[Any]:
    """From a command that exits with 255: the output of one is a message, of the other its own."""
    task = cs.task_self()
    node = place.nodes[0]
    place.connect(task)
    reached = task.run("echo mine; exit 255", nodes=node)
    own = (task.key_buffer(node), task.key_retcode(node)) == (b"mine", 255)
    place.connect(task, port=place.refused)
    refused = task.run("echo mine; exit 255", nodes=node)
    reasons = [worker.node_reason(node) for worker in (reached, refused)]
    return [own and task.key_retcode(node) == 255, not reasons[0] and bool(reasons[1])]


# -- names that the library has dropped -------------------------------------------------------


@ours_alone(
    ("start", "n1"),
    ("read", ("n1", b"out")),
    ("error", ("n1", b"err")),
    ("hup", ("n1", 3)),
    True,
)
def names_of_distant_workers_that_are_gone(cs: Any, place: Place) -> list[Any]:
    events: list[Any] = []

    class Old(cs.EventHandler):  # type: ignore[misc]
        def ev_pickup(self, worker: Any, node: str) -> None:
            events.append(("start", worker.last_node()))

        def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
            if sname == "stdout":
                events.append(("read", worker.last_read()))
            else:
                events.append(("error", worker.last_error()))

        def ev_hup(self, worker: Any, node: str, rc: int) -> None:
            events.append(("hup", worker.last_retcode()))

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        command = "echo out; sleep 0.4; echo err >&2; exit 3"
        cs.task_self().run(command, nodes="n1", remote=False, stderr=True, handler=Old())
    return [*events, any(issubclass(one.category, DeprecationWarning) for one in found)]


@ours_alone(("read", b"out"), ("error", b"err"))
def names_of_local_workers_that_are_gone(cs: Any, place: Place) -> list[Any]:
    events: list[Any] = []

    class Old(cs.EventHandler):  # type: ignore[misc]
        def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
            if sname == "stdout":
                events.append(("read", worker.last_read()))
            else:
                events.append(("error", worker.last_error()))

    command = "echo out; sleep 0.4; echo err >&2"
    cs.task_self().run(command, key="k", stderr=True, handler=Old())
    return events


@ours_alone([("ev_msg", "one"), ("ev_msg", "two")], True)
def a_port_is_asked(cs: Any, place: Place) -> list[Any]:
    """``msg_recv`` is in the reference alone; a port with a handler does without."""
    task = cs.task_self()

    def take(port: Any, message: Any) -> None:
        if message == "two":
            task.remove_port(port)

    handler = recorder(cs, "ev_port_start", ev_msg=take)
    port = task.port(handler=handler)
    sender = threading.Thread(target=lambda: [port.msg_send(one) for one in ("one", "two")])
    sender.start()
    task.resume(20)
    sender.join(20)
    return [handler.events, callable(getattr(port, "msg_recv", None))]


# -- what has to hold besides -----------------------------------------------------------------


@ours_alone(*[("ev_close", False)] * 3, [("ev_hup", 0)] * 3, b"next")
def an_exception_in_the_last_event_of_several(cs: Any, place: Place) -> list[Any]:
    """Each handler is told of its worker's end once, whatever the others raise."""
    happened: list[Any] = []
    task = cs.task_self()

    def fail(*_: object) -> None:
        raise LookupError("mine")

    handlers = [recorder(cs, ev_close=fail) for _ in range(3)]
    for key, handler in enumerate(handlers):
        task.shell("sleep 0.5", key=key, handler=handler)
    with raised(happened):
        task.resume()
    closes = [event for handler in handlers for event in only(handler.events, "ev_close")]
    task.run("echo next", key="next")
    return [*closes, [("ev_hup", 0)] * 3, task.key_buffer("next")]


@ours_alone(True, True, True)
def a_thousand_nodes_here(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.run("echo %n", nodes="n[0-999]", remote=False, handler=handler)
    events = by_node(handler.events)
    return [
        len(only(events, "ev_read")) == 1000,
        len(only(events, "ev_hup")) == 1000,
        len(list(task.iter_buffers())) == 1000,
    ]


@ours_alone(True, False, b"next")
def the_last_event_always_adds_more(cs: Any, place: Place) -> list[Any]:
    """An abort ends that as well."""
    task = cs.task_self()
    added = [0]

    def more(worker: Any, timedout: bool) -> None:
        added[0] += 1
        task.shell("sleep 0.05", key=added[0], handler=handler)

    handler = recorder(cs, ev_close=more)
    task.shell("sleep 0.05", key=0, handler=handler)
    task.timer(1.5, handler=recorder(cs, ev_timer=lambda _: task.abort()))
    task.resume()
    found = [added[0] > 1, task.running()]
    task.run("echo next", key="next")
    return [*found, task.key_buffer("next")]


@ours_alone("raised", 3, True, b"next")
def interrupts_in_the_last_events(cs: Any, place: Place) -> list[Any]:
    """All are ended, whatever their handlers raise when another one has ended the run."""
    happened: list[Any] = []
    task = cs.task_self()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def fail(*_: object) -> None:
        raise LookupError("mine")

    handlers = [recorder(cs, ev_close=interrupt) for _ in range(3)]
    marks = [place.folder / f"pid-{number}" for number in range(3)]
    for mark, handler in zip(marks, handlers, strict=True):
        task.shell(f"echo $$ > {mark}; exec sleep 20", key=mark.name, handler=handler)
    # Once they run.
    wait = " && ".join(f"[ -s {mark} ]" for mark in marks)
    command = f"until {wait}; do sleep 0.05; done; echo ready; sleep 20"
    task.shell(command, key="f", handler=recorder(cs, ev_read=fail))
    with raised(happened):
        task.resume()
    closes = sum(len(only(handler.events, "ev_close")) for handler in handlers)
    task.run("echo next", key="next")
    return [happened[0][0], closes, all(map(gone, marks)), task.key_buffer("next")]


@ours_alone(30_000_000, True)
def a_slow_handler_holds_commands_up(cs: Any, place: Place) -> list[Any]:
    """What they print does not fill the memory meanwhile."""
    task = cs.task_self()
    task.set_default("stdout_msgtree", False)
    counted = [0]

    def count(worker: Any, node: Any, sname: str, msg: bytes) -> None:
        if not counted[0]:
            time.sleep(1.5)
        counted[0] += len(msg) + 1

    handler = recorder(cs, "ev_read", ev_read=count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for key in range(3):
        task.shell(f"yes {'x' * 999} | head -c 10000000", key=key, handler=handler)
    task.resume()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return [counted[0], grown < 25]


@ours_alone(b"second", ("ev_start",), ("ev_pickup", "a"), ("ev_close", False))
def the_end_of_an_autoclose_worker_adds_more(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()

    def more(*_: object) -> None:
        task.shell("echo second", key="second")

    handler = recorder(cs, ev_close=more)
    task.shell("sleep 20", key="a", handler=handler, autoclose=True)
    task.shell("sleep 0.5", key="m")
    task.resume()
    return [task.key_buffer("second"), *handler.events]


@ours_alone(True, *ENDED)
def a_signal_aborts_the_worker(cs: Any, place: Place) -> list[Any]:
    """A handler of a signal runs in the task's thread, while that waits."""
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.shell("sleep 20", key="k", handler=handler)
    signal.signal(signal.SIGALRM, lambda *_: worker.abort())
    signal.setitimer(signal.ITIMER_REAL, 1)
    begin = time.monotonic()
    task.resume()
    return [time.monotonic() - begin < 15, *handler.events]


@ours_alone(b"next")
def an_abort_from_a_thread_is_not_for_the_next_run(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    thread = threading.Thread(target=task.abort)
    thread.start()
    thread.join()
    task.run("echo next", key="next")
    return [task.key_buffer("next")]
