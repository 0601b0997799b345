"""Commands on the nodes of a real sshd."""

from __future__ import annotations

import time
from typing import Any

from programs import Place, buffers, by_node, program, recorder, retcodes


@program
def ssh_events(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    handler = recorder(cs)
    nodes = ",".join(place.nodes[:3])
    worker = task.run("echo one; echo two; exit 3", nodes=nodes, handler=handler)
    return [
        type(worker).__name__,
        handler.events[0],
        *by_node(handler.events),
        buffers(task.iter_buffers()),
        retcodes(worker.iter_retcodes()),
        task.max_retcode(),
        worker.num_timeout(),
    ]


@program
def ssh_twice(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    nodes = cs.NodeSet.fromlist(place.nodes[:2])
    found = []
    for word in ("one", "two"):
        task.run(f"echo {word}", nodes=nodes)
        found.append(buffers(task.iter_buffers()))
    return found


@program
def ssh_stderr(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    node = place.nodes[0]
    handler = recorder(cs)
    command = "echo out; sleep 0.4; echo err >&2; exit 1"
    task.run(command, nodes=node, handler=handler, stderr=True)
    found = [*handler.events, task.key_buffer(node), task.key_error(node)]
    merged = recorder(cs)
    task.run(command, nodes=node, handler=merged)
    return [*found, *merged.events, task.key_buffer(node), task.key_error(node)]


@program
def ssh_time_limit(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    slow = place.nodes[0]
    handler = recorder(cs)
    command = f"echo here; case $SSH_CONNECTION in *' {slow} '*) sleep 20;; esac"
    worker = task.run(command, nodes=",".join(place.nodes[:2]), handler=handler, timeout=8)
    return [
        *by_node(handler.events),
        list(worker.iter_keys_timeout()),
        retcodes(worker.iter_retcodes()),
        buffers(worker.iter_buffers()),
    ]


@program
def ssh_input(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    handler = recorder(cs, "ev_written")
    worker = task.shell("cat", nodes=",".join(place.nodes[:2]), handler=handler)
    worker.write(b"one\n")
    worker.write(b"two\n")
    worker.set_write_eof()
    task.resume()
    return [*by_node(handler.events), buffers(task.iter_buffers())]


@program
def ssh_without_input(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    task.run("cat; echo end", nodes=place.nodes[0], stdin=False)
    return [buffers(task.iter_buffers())]


@program
def ssh_one_argument(cs: Any, place: Place) -> list[Any]:
    """What the remote shell is given is the text as it is, %h and quotes included."""
    task = place.connect(cs.task_self())
    node = place.nodes[0]
    command = 'echo \'%h  %n\' "$((1 + 2))" `echo x` | tr x y; echo "a\'b"'
    task.run(command, nodes=node)
    return [task.key_buffer(node)]


@program
def ssh_signal(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    node = place.nodes[0]
    task.run("kill -9 $$", nodes=node)
    return [task.key_retcode(node) > 128]


@program
def ssh_refused(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self(), port=place.refused)
    handler = recorder(cs, "ev_read")
    node = place.nodes[0]
    worker = task.run("echo out", nodes=node, handler=handler, stderr=True)
    return [
        *handler.events,
        task.key_retcode(node),
        task.key_buffer(node),
        bool(task.key_error(node)),
        worker.num_timeout(),
    ]


@program
def ssh_program_that_is_not_there(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    task.set_info("ssh_path", "/no/such/ssh -x")
    handler = recorder(cs, "ev_read")
    task.run("echo out", nodes=place.nodes[0], handler=handler, stderr=True)
    return [*handler.events, task.max_retcode()]


@program
def ssh_program_of_its_own(cs: Any, place: Place) -> list[Any]:
    """ssh_path may be a wrapper with arguments."""
    wrapper = place.folder / "wrapper"
    wrapper.write_text('#!/bin/sh\necho "$1" > "$0.mark"\nshift\nexec ssh "$@"\n')
    wrapper.chmod(0o755)
    task = place.connect(cs.task_self())
    task.set_info("ssh_path", f"{wrapper} marked")
    task.run("echo out", nodes=place.nodes[0])
    return [task.key_buffer(place.nodes[0]), (place.folder / "wrapper.mark").read_text()]


@program
def ssh_window(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    task.set_info("fanout", 2)
    running = 0
    most = 0

    def begin(*_: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)

    def end(*_: object) -> None:
        nonlocal running
        running -= 1

    handler = recorder(cs, ev_pickup=begin, ev_hup=end)
    task.run("sleep 0.3", nodes=",".join(place.nodes), handler=handler)
    return [most, running]


@program
def ssh_abort(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    handler = recorder(cs, ev_read=lambda worker, *_: worker.abort())
    begin = time.monotonic()
    worker = task.run("echo out; sleep 20", nodes=place.nodes[0], handler=handler)
    return [*handler.events, time.monotonic() - begin < 15, list(worker.iter_retcodes())]


@program
def ssh_and_local(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    task.shell("echo there", nodes=place.nodes[0])
    task.shell("echo here", key="local")
    task.shell("echo here", nodes="n1", remote=False)
    task.resume()
    return [buffers(task.iter_buffers())]


@program
def ssh_worker_by_itself(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    handler = recorder(cs)
    nodes = ",".join(place.nodes[:2])
    worker = cs.WorkerSsh(nodes, handler, 15, command="echo out")
    task.schedule(worker)
    task.resume()
    return [str(worker.nodes), worker.command, *by_node(handler.events)]


@program
def ssh_in_a_thread(cs: Any, place: Place) -> list[Any]:
    task = cs.Task()
    place.connect(task)
    task.shell("echo out", nodes=place.nodes[0])
    task.resume()
    cs.task_wait()
    return [buffers(task.iter_buffers())]


@program
def ssh_a_lot_of_lines(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    counts: dict[str, int] = {}

    class Counting(cs.EventHandler):  # type: ignore[misc]
        def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
            counts[node] = counts.get(node, 0) + len(msg) + 1

    task.set_default("stdout_msgtree", False)
    nodes = place.nodes[:3]
    task.run("seq 60000", nodes=",".join(nodes), handler=Counting())
    return [sorted(counts.items())]
