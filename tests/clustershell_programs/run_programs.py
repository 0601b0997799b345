"""Run programs on one library, each in a process of its own, and print what happened as JSON.

``python run_programs.py original|ours PLACE [NAME ...]``, with the place in JSON; or ``list``: the
names of the programs that run on both, and what happens in those of ours.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing.connection
import os
import sys
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from programs import OURS, PROGRAMS, Place

ROOMS = (
    "aborting",
    "copying",
    "distant",
    "events",
    "gathering",
    "named_streams",
    "old_ways",
    "running",
    "threads",
    "timers_ports",
    "traps",
    "windows",
    "workers",
    "writing",
)

PATIENCE = 60.0
"""Seconds in which a program has ended: a hang, not a speed."""

AT_ONCE = 6


class Running:
    """A program in a process of its own. Forked: what has been imported is there, and nothing of
    another program is."""

    def __init__(self, name: str, cs: Any, place: Place) -> None:
        context = multiprocessing.get_context("fork")
        self.name = name
        self.deadline = time.monotonic() + PATIENCE
        self.answer, other = context.Pipe(duplex=False)
        self.process = context.Process(target=child, args=(name, cs, place, other))
        self.process.start()
        other.close()

    def happened(self) -> list[str]:
        """What it answered, or how it ended without an answer, or that it goes on."""
        try:
            if self.answer.poll(0):
                happened: list[str] = self.answer.recv()
                return happened
            return [f"has not ended within {PATIENCE:g} s"]
        except EOFError:
            self.process.join(1)
            return [f"ended with {self.process.exitcode}"]
        finally:
            self.process.kill()
            self.process.join()
            self.answer.close()


def child(name: str, cs: Any, place: Place, answer: Connection) -> None:
    place.folder.mkdir(parents=True)
    place.folder.chmod(0o777)
    os.chdir(place.folder)
    # What a program writes is for who reads its folder.
    os.dup2(os.open("output", os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(1, 2)
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        happened = [repr(one) for one in PROGRAMS[name](cs, place)]
    except BaseException:  # noqa: BLE001 - whatever it is, it is what happened
        happened = ["failed", *traceback.format_exc().splitlines()]
    answer.send(happened)
    os._exit(0)  # a thread of a task may be running


def run_all(library: str, known: dict[str, Any], chosen: list[str]) -> dict[str, list[str]]:
    """What happened in each of these programs."""
    if library == "original":
        cs = importlib.import_module("original").cs
    else:
        cs = importlib.import_module("execo.clustershell")
    folder = Path(known.pop("folder")) / library
    waiting = list(chosen)
    running: list[Running] = []
    ended: dict[str, list[str]] = {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            name = waiting.pop(0)
            running.append(Running(name, cs, Place(**known, folder=folder / name)))
        multiprocessing.connection.wait([one.answer for one in running], timeout=1)
        for one in list(running):
            if one.answer.poll(0) or time.monotonic() > one.deadline:
                ended[one.name] = one.happened()
                running.remove(one)
    return {name: ended[name] for name in chosen}


def main(library: str, known: str = "{}", *names: str) -> None:
    for room in ROOMS:
        importlib.import_module(room)
    both = [name for name in PROGRAMS if name not in OURS]
    if library == "list":
        ours = {name: [repr(one) for one in happens] for name, happens in OURS.items()}
        print(json.dumps([both, ours]))
        return
    # Some of the others do not even end in the original.
    chosen = list(names or (both if library == "original" else PROGRAMS))
    print(json.dumps(run_all(library, json.loads(known), chosen)))


if __name__ == "__main__":
    main(*sys.argv[1:])
