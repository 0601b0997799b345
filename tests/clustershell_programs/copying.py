"""copy and rcopy, on the nodes of a real sshd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from programs import Place, by_node, program, raised, recorder, retcodes


def tree(folder: Path) -> list[tuple[str, str]]:
    return sorted(
        (str(one.relative_to(folder)), one.read_text() if one.is_file() else "folder")
        for one in folder.rglob("*")
    )


@program
def copy_a_file(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    source = place.folder / "source"
    source.write_text("text\n")
    there = place.folder / "there"
    there.mkdir()
    there.chmod(0o777)
    handler = recorder(cs)
    worker = task.copy(str(source), f"{there}/copied", place.nodes[0], handler=handler)
    before = worker.started
    task.resume()
    return [before, *handler.events, tree(there), retcodes(task.iter_retcodes())]


@program
def copy_a_folder(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    source = place.folder / "source"
    (source / "below").mkdir(parents=True)
    (source / "file").write_text("one\n")
    (source / "below" / "file").write_text("two\n")
    there = place.folder / "there"
    there.mkdir()
    there.chmod(0o777)
    task.copy(str(source), str(there), nodes=place.nodes[0])
    task.resume()
    return [tree(there), task.max_retcode()]


@program
def copy_to_nowhere(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    source = place.folder / "source"
    source.write_text("text\n")
    handler = recorder(cs, "ev_read")
    nodes = ",".join(place.nodes[:2])
    task.copy(str(source), f"{place.folder}/no/such/folder", nodes, handler=handler)
    task.resume()
    found = [[event[:2] for event in by_node(handler.events)], (task.max_retcode() or 0) > 0]
    task.copy(f"{place.folder}/nothing", f"{place.folder}/copied", nodes, stderr=True)
    task.resume()
    return [*found, (task.max_retcode() or 0) > 0]


@program
def copy_back(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    (place.folder / "remote").write_text("text\n")
    here = place.folder / "here"
    here.mkdir()
    handler = recorder(cs)
    nodes = ",".join(place.nodes[:3])
    task.rcopy(f"{place.folder}/remote", str(here), nodes, handler=handler)
    task.resume()
    return [*by_node(handler.events), tree(here), retcodes(task.iter_retcodes())]


@program
def copy_back_a_folder(cs: Any, place: Place) -> list[Any]:
    task = place.connect(cs.task_self())
    (place.folder / "remote").mkdir()
    (place.folder / "remote" / "file").write_text("text\n")
    here = place.folder / "here"
    here.mkdir()
    task.rcopy(f"{place.folder}/remote", str(here), nodes=place.nodes[0])
    task.resume()
    return [tree(here), task.max_retcode()]


@program
def copy_back_to_nowhere(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = place.connect(cs.task_self())
    with raised(happened):
        task.rcopy("/etc/hostname", f"{place.folder}/no/such/folder", nodes=place.nodes[0])
    return happened
