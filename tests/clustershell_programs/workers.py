"""Workers that a program makes itself, and the workers of modules."""

from __future__ import annotations

import sys
from typing import Any

from programs import Place, buffers, by_node, program, raised, recorder, retcodes


@program
def substitutions(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    command = "echo %h %host %n %rank %%h 100%%"
    worker = cs.ExecWorker("n[5-7]", None, 10, command=command)
    task.schedule(worker)
    task.resume()
    return [sorted((node, bytes(text)) for node, text in worker.iter_node_buffers())]


@program
def substitution_of_all_hosts(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = cs.ExecWorker("n[5-7]", handler, 10, command="echo %hosts; exit 2")
    task.schedule(worker)
    task.resume()
    return [
        *by_node(handler.events),
        retcodes(worker.iter_retcodes()),
        buffers(worker.iter_buffers()),
        buffers(task.iter_buffers()),
    ]


@program
def an_unknown_substitution(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    with raised(happened):
        task.shell("echo %z", nodes="n1", remote=False)
    with raised(happened):
        task.resume()
    return happened


@program
def exec_by_itself(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = cs.ExecWorker("n[1-3]", handler, 10, command="echo %h", stderr=True)
    before = (worker.started, worker.task, str(worker.nodes), worker.command)
    task.schedule(worker)
    task.resume()
    return [before, *by_node(handler.events), worker.started, worker.task is task]


@program
def popen_by_itself(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = cs.WorkerPopen("echo out; exit 2", key="k", handler=handler, timeout=10)
    task.schedule(worker)
    task.resume()
    return [*handler.events, worker.read(), worker.retcode(), task.key_retcode("k")]


@program
def scheduled_twice(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    worker = cs.WorkerPopen("echo out", key="k")
    task.schedule(worker)
    with raised(happened):
        task.schedule(worker)
    task.resume()
    happened.append(task.key_buffer("k"))
    with raised(happened):
        task.schedule(worker)
    return happened


@program
def not_scheduled(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    worker = cs.ExecWorker("n1", None, 10, command="true")
    popen = cs.WorkerPopen("true", key="k")
    for call in (
        lambda: worker.read("n1"),
        lambda: worker.node_buffer("n1"),
        lambda: worker.node_rc("n1"),
        lambda: list(worker.iter_buffers()),
        worker.num_timeout,
        popen.read,
        popen.retcode,
        worker.did_timeout,
        worker.flush_buffers,
        lambda: worker.write(b"text"),
    ):
        with raised(happened):
            happened.append(call())
    return happened


@program
def which_class(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    found: list[Any] = [
        type(task.shell("true")).__name__,
        type(task.shell("true", nodes="n1", remote=False)).__name__,
        type(task.shell("true", nodes=place.nodes[0])).__name__,
    ]
    task.set_default("distant_workername", "rsh")
    found.append(type(task.shell("true", nodes="n1")).__name__)
    task.set_default("distant_workername", "ssh")
    task.set_default("distant_worker", cs.ExecWorker)
    found.append(type(task.shell("true", nodes="n1")).__name__)
    task.abort()
    found.append(
        [
            issubclass(cs.WorkerSsh, cs.ExecWorker),
            issubclass(cs.ExecWorker, cs.DistantWorker),
            issubclass(cs.DistantWorker, cs.Worker),
            issubclass(cs.WorkerPopen, cs.Worker),
            issubclass(cs.WorkerSimple, cs.Worker),
            issubclass(cs.WorkerBadArgumentError, ValueError),
            cs.WorkerTree is cs.TreeWorker,
        ]
    )
    return found


MODULE = """
from {exec_module} import ExecWorker

class Polite(ExecWorker):
    def __init__(self, nodes, handler, timeout, **kwargs):
        kwargs["command"] = "echo please; " + kwargs["command"]
        ExecWorker.__init__(self, nodes, handler, timeout, **kwargs)

WORKER_CLASS = Polite
"""


@program
def a_worker_of_a_module(cs: Any, place: Place) -> list[Any]:
    text = MODULE.format(exec_module=cs.ExecWorker.__module__)
    (place.folder / "polite_worker.py").write_text(text)
    sys.path.insert(0, str(place.folder))
    task = cs.task_self()
    task.set_default("distant_workername", "polite_worker")
    worker = task.run("echo %h", nodes="n[1-2]")
    return [type(worker).__name__, buffers(worker.iter_buffers())]


@program
def a_worker_of_a_module_for_local_use(cs: Any, place: Place) -> list[Any]:
    text = MODULE.format(exec_module=cs.ExecWorker.__module__)
    (place.folder / "polite_local.py").write_text(text)
    sys.path.insert(0, str(place.folder))
    task = cs.task_self()
    task.set_default("local_workername", "polite_local")
    worker = task.run("echo %h", nodes="n[1-2]", remote=False)
    return [type(worker).__name__, buffers(worker.iter_buffers())]


@program
def a_module_that_is_not_there(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    with raised(happened):
        task.set_default("distant_workername", "no_such_worker")
        task.shell("true", nodes="n1")
    return happened


@program
def a_subclass_of_a_worker(cs: Any, place: Place) -> list[Any]:
    class Mine(cs.ExecWorker):  # type: ignore[misc]
        def __init__(self, nodes: str, handler: Any, timeout: float | None, **options: Any) -> None:
            cs.ExecWorker.__init__(self, nodes, handler, timeout, **options)
            self.extra = 7

    task = cs.task_self()
    seen: list[Any] = []
    handler = recorder(cs, ev_hup=lambda worker, *_: seen.append(worker.extra))
    task.schedule(Mine("n[1-2]", handler, None, command="true"))
    task.resume()
    return seen


@program
def a_worker_that_copies(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    source = place.folder / "source"
    source.write_text("text\n")
    handler = recorder(cs)
    worker = cs.ExecWorker(
        "n[1-2]", handler, 10, source=str(source), dest=str(place.folder / "copy-%h")
    )
    task.schedule(worker)
    task.resume()
    copies = sorted(one.name for one in place.folder.glob("copy-*"))
    return [*by_node(handler.events), copies, retcodes(worker.iter_retcodes())]


@program
def pdsh_has_no_input(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    worker = cs.WorkerPdsh("n1", None, 10, command="true")
    with raised(happened):
        worker.write(b"text")
    with raised(happened):
        worker.set_write_eof()
    happened.append(issubclass(cs.EngineClientNotSupportedError, cs.EngineClientError))
    return happened
