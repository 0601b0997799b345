"""Which events come, in which order, with what, and what a worker says of itself meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from programs import Place, by_node, named, only, program, raised, recorder


@program
def events_of_many_nodes(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.run("echo one; echo two; exit %n", nodes="n[0-4]", remote=False, handler=handler)
    return [handler.events[0], handler.events[1][0], *by_node(handler.events)]


@program
def events_of_an_empty_output(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.run("true", key="k", handler=handler)
    return [*handler.events, worker.read(), task.key_buffer("k"), list(task.iter_buffers())]


@program
def current_values(cs: Any, place: Place) -> list[Any]:
    found: list[Any] = []
    task = cs.task_self()

    def look(event: str) -> Any:
        def note(worker: Any, *arguments: Any) -> None:
            found.append(
                (
                    event,
                    named(worker.current_node, worker),
                    worker.current_msg,
                    worker.current_errmsg,
                    worker.current_sname,
                    worker.current_rc,
                )
            )

        return note

    watched = ("ev_start", "ev_pickup", "ev_read", "ev_hup")
    handler = recorder(cs, **{event: look(event) for event in watched})
    command = "echo out; sleep 0.3; echo err >&2; sleep 0.3; echo again; exit 4"
    task.run(command, key="k", handler=handler, stderr=True)
    found.append("nodes")
    # One node, and what stands in ev_start is left to chance.
    handler = recorder(cs, **{event: look(event) for event in ("ev_pickup", "ev_read", "ev_hup")})
    task.run(command, nodes="n1", remote=False, handler=handler, stderr=True)
    return found


@program
def handlers_run_in_the_thread_of_the_task(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    here = threading.current_thread()
    found: list[Any] = []

    def look(source: Any, *_: object) -> None:
        found.append(threading.current_thread() is here and cs.task_self() is task)

    events = ("ev_start", "ev_pickup", "ev_read", "ev_hup", "ev_close")
    handler = recorder(cs, **dict.fromkeys(events, look))
    task.shell("echo out", key="k", handler=handler)
    task.timer(0.1, handler=recorder(cs, ev_timer=look))
    task.resume()
    return found


@program
def only_some_events_are_defined(cs: Any, place: Place) -> list[Any]:
    codes: list[Any] = []

    class Only(cs.EventHandler):  # type: ignore[misc]
        def ev_hup(self, worker: Any, node: str, rc: int) -> None:
            codes.append((node, rc))

    cs.task_self().run("echo out; exit 6", key="k", handler=Only())
    return codes


@program
def one_handler_of_several_workers(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    for key in "abc":
        task.shell(f"echo {key}", key=key, handler=handler)
    task.resume()
    events = handler.events
    counts = [len(only(events, "ev_start")), len(only(events, "ev_close"))]
    return [*counts, *sorted(only(events, "ev_pickup", "ev_read", "ev_hup"))]


@program
def the_handler_may_change(cs: Any, place: Place) -> list[Any]:
    second = recorder(cs)

    def change(worker: Any, *_: object) -> None:
        worker.eh = second

    first = recorder(cs, ev_read=change)
    worker = cs.task_self().run("echo one; sleep 0.4; echo two", key="k", handler=first)
    return [*first.events, "second", *second.events, worker.eh is second]


@program
def an_exception_in_each_event(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()

    def fail(*_: object) -> None:
        raise LookupError("mine")

    for event in ("ev_start", "ev_pickup", "ev_read", "ev_hup", "ev_close"):
        happened.append(event)
        handler = recorder(cs, **{event: fail})
        other = recorder(cs)
        late = event in {"ev_hup", "ev_close"}
        task.shell(f"sleep 0.5; echo out; sleep {0 if late else 20}", key="k", handler=handler)
        task.shell("sleep 20", key="other", handler=other)
        with raised(happened):
            task.resume()
        happened.append(task.running())
        if event not in {"ev_start", "ev_pickup"}:  # the other one has begun
            happened += [*handler.events, *other.events]
    task.run("echo next", key="next")
    return [*happened, task.key_buffer("next")]


@program
def an_exception_keeps_what_was_read(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()

    def fail(*_: object) -> None:
        raise LookupError("mine")

    task.shell("echo whole; exit 2", key="quick")
    task.shell("sleep 1; echo part; sleep 20", key="k", handler=recorder(cs, ev_read=fail))
    with raised(happened):
        task.resume()
    return [
        *happened,
        task.key_buffer("quick"),
        task.key_retcode("quick"),
        task.key_buffer("k"),
        task.max_retcode(),
        task.num_timeout(),
    ]


@program
def an_interrupt_in_a_handler(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    handler = recorder(cs, ev_read=fail)
    other = recorder(cs)
    task.shell("echo out; sleep 20", key="k", handler=handler)
    task.shell("sleep 20", key="other", handler=other)
    with raised(happened):
        task.resume()
    return [*happened, *handler.events, *other.events]


@program
def an_exit_in_a_handler(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()

    def leave(*_: object) -> None:
        raise SystemExit(3)

    task.shell("echo out; sleep 20", key="k", handler=recorder(cs, ev_read=leave))
    with raised(happened):
        task.resume()
    return happened


@program
def many_lines(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.run("seq 20000", key="k", handler=handler)
    lines = [event[3] for event in only(handler.events, "ev_read")]
    return [
        lines == [b"%d" % number for number in range(1, 20001)],
        task.key_buffer("k") == b"\n".join(lines),
        handler.events[-2:],
    ]


@program
def one_very_long_line(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.run("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end", key="k", handler=handler)
    return [[len(event[3]) for event in only(handler.events, "ev_read")], handler.events[-1]]


@program
def the_handler_changes_between_two_lines(cs: Any, place: Place) -> list[Any]:
    """Which have come together."""
    second = recorder(cs)

    def change(worker: Any, *_: object) -> None:
        worker.eh = second

    first = recorder(cs, ev_read=change)
    cs.task_self().run(r"printf 'one\ntwo\n'", key="k", handler=first)
    return [*first.events, "second", *second.events]


@program
def an_end_of_line_comes_in_two_pieces(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    command = r"printf 'a\r'; sleep 0.3; printf '\nb\r\n\r'; sleep 0.3; printf '\r\nc'"
    handler = recorder(cs)
    task.run(command, key="k", handler=handler)
    # What a lone \r does at the end of a read is left to chance.
    return [event[3].strip(b"\r") for event in only(handler.events, "ev_read")]


@program
def a_handler_forks(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()

    def fork(*_: object) -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    handler = recorder(cs, ev_read=fork)
    task.run("echo one; sleep 0.3; echo two", key="k", handler=handler)
    return [*handler.events]


@program
def a_fork_runs_commands(cs: Any, place: Place) -> list[Any]:
    """The parent has run some, and goes on."""
    task = cs.task_self()
    task.run("echo parent", key="k")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        cs.task_self().run("echo child", key="k")
        os.write(theirs, cs.task_self().key_buffer("k"))
        os._exit(0)
    os.close(theirs)
    _, status = os.waitpid(child, 0)
    task.run("echo again", key="other")
    with os.fdopen(ours, "rb") as file:
        return [status, file.read(), task.key_buffer("other")]
