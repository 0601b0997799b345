"""What is read after a run: buffers, errors, exit codes, time-outs, by key and by node."""

from __future__ import annotations

import re
from typing import Any

from programs import Place, buffers, program, raised, retcodes


def after(cs: Any) -> tuple[Any, Any]:
    """A task and a worker of four nodes that have ended: 0 and 1 alike, 2 with errors, 3 late."""
    task = cs.task_self()
    command = (
        "case %n in 0|1) echo same;; 2) echo other; echo err >&2; exit 2;;"
        " *) echo part; sleep 20;; esac"
    )
    worker = task.run(command, nodes="n[0-3]", remote=False, stderr=True, timeout=4)
    return task, worker


@program
def gathered_by_the_task(cs: Any, place: Place) -> list[Any]:
    task, _ = after(cs)
    found = list(task.iter_buffers())
    return [
        buffers(found),
        [type(keys).__name__ for _, keys in found],
        buffers(task.iter_errors()),
        retcodes(task.iter_retcodes()),
        [type(keys).__name__ for _, keys in task.iter_retcodes()],
        sorted(task.iter_keys_timeout()),
        task.num_timeout(),
        task.max_retcode(),
    ]


@program
def gathered_by_the_worker(cs: Any, place: Place) -> list[Any]:
    _, worker = after(cs)
    found = list(worker.iter_buffers())
    return [
        buffers(found),
        [type(keys).__name__ for _, keys in found],
        buffers(worker.iter_errors()),
        retcodes(worker.iter_retcodes()),
        [type(keys).__name__ for _, keys in worker.iter_retcodes()],
        sorted((node, bytes(text)) for node, text in worker.iter_node_buffers()),
        sorted((node, bytes(text)) for node, text in worker.iter_node_errors()),
        sorted(worker.iter_node_retcodes()),
        sorted(worker.iter_keys_timeout()),
        worker.num_timeout(),
    ]


@program
def one_node(cs: Any, place: Place) -> list[Any]:
    task, worker = after(cs)
    return [
        worker.node_buffer("n0"),
        worker.node_error("n2"),
        worker.node_error_buffer("n2"),
        worker.read("n2"),
        worker.read("n2", "stderr"),
        worker.node_rc("n2"),
        worker.node_retcode("n2"),
        task.key_buffer("n0"),
        task.node_buffer("n0"),
        task.key_error("n2"),
        task.node_error("n2"),
        task.key_retcode("n2"),
        task.node_retcode("n2"),
        worker.node_buffer("n3"),
    ]


@program
def a_missing_key(cs: Any, place: Place) -> list[Any]:
    task, worker = after(cs)
    happened: list[Any] = []
    for call in (
        lambda: worker.node_buffer("nowhere"),
        lambda: worker.node_error("nowhere"),
        lambda: worker.read("nowhere"),
        worker.read,
        lambda: worker.node_rc("nowhere"),
        lambda: worker.node_retcode("n3"),
        lambda: task.key_buffer("nowhere"),
        lambda: task.node_buffer("nowhere"),
        lambda: task.key_error("n0"),
        lambda: task.key_retcode("nowhere"),
        lambda: task.key_retcode("n3"),
        lambda: task.node_retcode("n3"),
    ):
        with raised(happened):
            happened.append(call())
    return happened


@program
def some_keys_of_the_task(cs: Any, place: Place) -> list[Any]:
    task, _ = after(cs)
    happened: list[Any] = []
    for keys in (None, [], ["n0"], ["n0", "n2"], ["nowhere"], cs.NodeSet("n[1-2]"), ("n3",), "n0"):
        with raised(happened):
            happened.append(buffers(task.iter_buffers(keys)))
        with raised(happened):
            happened.append(buffers(task.iter_errors(match_keys=keys)))
        with raised(happened):
            happened.append(retcodes(task.iter_retcodes(keys)))
    return happened


@program
def some_keys_of_the_worker(cs: Any, place: Place) -> list[Any]:
    _, worker = after(cs)
    happened: list[Any] = []
    for keys in (None, [], ["n0"], ["n0", "n2"], ["nowhere"], cs.NodeSet("n[1-2]"), ("n3",), "n0"):
        with raised(happened):
            happened.append(buffers(worker.iter_buffers(keys)))
        with raised(happened):
            happened.append(buffers(worker.iter_errors(match_keys=keys)))
        with raised(happened):
            happened.append(retcodes(worker.iter_retcodes(keys)))
        with raised(happened):
            happened.append(sorted((n, bytes(b)) for n, b in worker.iter_node_buffers(keys)))
    return happened


@program
def without_trees(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    task.set_default("stdout_msgtree", False)
    task.set_default("stderr_msgtree", False)
    worker = task.run("echo out; echo err >&2", nodes="n1", remote=False, stderr=True)
    for call in (
        task.iter_buffers,
        task.iter_errors,
        lambda: task.key_buffer("n1"),
        lambda: task.key_error("n1"),
        lambda: buffers(worker.iter_buffers()),
        lambda: worker.node_buffer("n1"),
        lambda: worker.read("n1"),
        lambda: retcodes(task.iter_retcodes()),
        task.flush_buffers,
        worker.flush_buffers,
    ):
        with raised(happened):
            happened.append(call())
    return [*happened, issubclass(cs.TaskMsgTreeError, cs.TaskError)]


@program
def without_the_tree_of_errors(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    task.set_default("stderr_msgtree", False)
    task.run("echo out; echo err >&2", key="k", stderr=True)
    happened += [buffers(task.iter_buffers()), task.key_buffer("k")]
    for call in (task.iter_errors, lambda: task.key_error("k")):
        with raised(happened):
            happened.append(call())
    return happened


@program
def one_key_in_several_workers(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    first = task.shell("echo first; exit 2", key="k")
    second = task.shell("sleep 0.7; echo second; exit 5", key="k")
    task.shell("sleep 1.2; echo third; exit 1", nodes="k", remote=False)
    task.resume()
    return [
        # Which worker comes first is left to chance.
        sorted(re.findall(b"first|second|third", task.key_buffer("k"))),
        task.key_retcode("k"),
        task.max_retcode(),
        first.read(),
        second.read(),
        buffers(task.iter_buffers()),
        retcodes(task.iter_retcodes()),
    ]


@program
def one_node_in_several_workers(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    workers = [
        task.shell(f"echo {code}; exit {code}", nodes="n[1-2]", remote=False) for code in (3, 1)
    ]
    task.resume()
    return [
        [worker.node_rc("n1") for worker in workers],
        [worker.node_buffer("n2") for worker in workers],
        task.key_retcode("n1"),
        sorted(re.findall(b"[0-9]", task.key_buffer("n1"))),
        retcodes(task.iter_retcodes()),
    ]


@program
def keys_of_every_kind(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    for key in ("text", 7, ("a", 1), None, b"bytes"):
        task.shell("echo out", key=key)
    task.resume()
    return [
        task.key_buffer("text"),
        task.key_buffer(7),
        task.key_buffer(("a", 1)),
        task.key_buffer(b"bytes"),
        task.key_retcode(7),
        len([key for _, keys in task.iter_buffers() for key in keys]),
    ]


@program
def flushed(cs: Any, place: Place) -> list[Any]:
    task, worker = after(cs)
    task.flush_buffers()
    found: list[Any] = [buffers(task.iter_buffers()), buffers(task.iter_errors())]
    task.flush_errors()
    return [*found, buffers(task.iter_errors()), worker.node_buffer("n0"), task.max_retcode()]


@program
def flushed_by_the_worker(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    first = task.shell("echo a; echo a >&2", nodes="n1", remote=False, stderr=True)
    second = task.shell("echo b; echo b >&2", nodes="n2", remote=False, stderr=True)
    task.resume()
    first.flush_buffers()
    found: list[Any] = [first.node_buffer("n1"), second.node_buffer("n2")]
    second.flush_errors()
    return [*found, first.node_error("n1"), second.node_error("n2"), buffers(task.iter_buffers())]


@program
def flushed_in_a_handler(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()

    class Flushing(cs.EventHandler):  # type: ignore[misc]
        def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
            if msg == b"2":
                worker.flush_buffers()

    worker = task.run("echo 1; sleep 0.3; echo 2; sleep 0.3; echo 3", key="k", handler=Flushing())
    return [worker.read(), task.key_buffer("k")]


@program
def gathered_while_running(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    found: list[Any] = []

    class Looking(cs.EventHandler):  # type: ignore[misc]
        def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
            found.append((worker.node_buffer(node), task.key_buffer(node), task.max_retcode()))

        def ev_hup(self, worker: Any, node: str, rc: int) -> None:
            found.append((worker.node_rc(node), task.key_retcode(node), task.max_retcode()))

    command = "echo 1; sleep 0.4; echo 2; exit 3"
    task.run(command, nodes="n1", remote=False, handler=Looking())
    return found


@program
def elements_of_a_tree(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    task.run("echo one; echo; echo three", key="k")
    ((element, keys),) = task.iter_buffers()
    happened += [
        type(element).__name__,
        isinstance(element, cs.MsgTreeElem),
        bytes(element),
        element.message(),
        list(element),
        list(element.lines()),
        len(element),
        element == b"one\n\nthree",
        list(element.splitlines()),
        keys,
    ]
    tree = cs.MsgTree()
    for key, line in (("a", b"x"), ("b", b"x"), ("a", b"y"), ("b", b"z"), ("c", b"x")):
        tree.add(key, line)
    happened += [
        sorted((bytes(element), sorted(keys)) for element, keys in tree.walk()),
        tree.get("a").message(),
        len(tree),
        sorted(tree.keys()),
    ]
    return happened


@program
def sets_of_nodes(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    nodes = cs.NodeSet("n[1-5],m3")
    happened += [str(nodes), len(nodes), str(nodes - cs.NodeSet("n[2-3]")), "n4" in nodes]
    happened += [str(cs.NodeSet.fromlist(["n1", "n2", "n5"])), list(cs.RangeSet("1-10/3"))]
    happened += [cs.expand("n[1-2]"), cs.fold("n1,n2"), str(cs.RangeSet("08-11"))]
    with raised(happened):
        cs.NodeSet("n[1")
    with raised(happened):
        cs.RangeSet("a")
    return happened
