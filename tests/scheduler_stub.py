"""Commands of a scheduler that answer what a test says: for faults that a real one cannot be made
to have. The lines that they print are those that real ones have printed.

::

    stub = Stub(tmp_path)
    stub.play("squeue", says(jobs=[line("PENDING")]), says(err="timed out", exit=1))
    stub.calls("squeue")  # the words of each call so far

Each call takes the next answer, and the last one stays.
"""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["HEADER", "NAME", "Stub", "line", "oar_job", "says"]

NAME = "@NAME@"
"""Stands for the name of the job that was submitted last."""

HEADER = "execo|JOBID|STATE|TIME_LEFT|NODELIST|SUBMIT_TIME|REASON|NAME"

# No sites, no user's settings: it starts several times a second.
COMMAND = """#!/bin/sh
exec {python} -ISs {folder}/stub.py "${{0##*/}}" "$@"
"""

PROGRAM = r"""
import fcntl, json, os, select, sys, time
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
command, words = sys.argv[1], sys.argv[2:]
stdin = sys.stdin.read() if command == "sbatch" else ""
with open(folder + "/lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    for before, word in zip(["", *words], words):
        if word.startswith("--job-name=") or before == "-n":
            open(folder + "/name", "w").write(word.partition("=")[2] or word)
    name = open(folder + "/name").read() if os.path.exists(folder + "/name") else ""
    with open(folder + "/calls", "a") as log:
        call = {"command": command, "words": words, "stdin": stdin, "env": dict(os.environ)}
        log.write(json.dumps(call) + "\n")
    path = folder + "/" + command + ".json"
    answers = json.load(open(path)) if os.path.exists(path) else [{}]
    one = answers.pop(0)
    if answers:
        json.dump(answers, open(path, "w"))
if one.get("sleep"):
    select.select([], [], [], one["sleep"])
sys.stdout.write(one.get("out", "").replace("@NAME@", name).replace("@NOW@", str(int(time.time()))))
sys.stderr.write(one.get("err", ""))
sys.exit(one.get("exit", 0))
"""


class Stub:
    """A folder of commands."""

    def __init__(self, folder: Path, commands: str = "sbatch squeue scancel") -> None:
        self.folder = folder
        (folder / "stub.py").write_text(PROGRAM)
        for name in commands.split():
            path = folder / name
            python, place = shlex.quote(sys.executable), shlex.quote(str(folder))
            path.write_text(COMMAND.format(python=python, folder=place))
            path.chmod(0o755)

    def play(self, command: str, *answers: dict[str, Any]) -> None:
        """From the next call on."""
        new = self.folder / f"{command}.{threading.get_ident()}.new"
        new.write_text(json.dumps(answers))
        new.replace(self.folder / f"{command}.json")

    def calls(self, command: str) -> list[dict[str, Any]]:
        """``words``, ``stdin``, ``env``."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if call["command"] == command]

    def words(self, command: str) -> list[str]:
        """Those of each call, in one text."""
        return [" ".join(call["words"]) for call in self.calls(command)]


def says(
    out: str = "",
    err: str = "",
    exit: int = 0,  # noqa: A002
    sleep: float = 0,
    jobs: Sequence[str] | None = None,
) -> dict[str, Any]:
    """An answer. ``jobs`` are lines of squeue."""
    if jobs is not None:
        out = "\n".join([HEADER, *jobs]) + "\n"
    return {"out": out, "err": err, "exit": exit, "sleep": sleep}


def line(
    state: str = "RUNNING",
    left: str = "59:59",
    nodes: str = "n[1-2]",
    *,
    job: int = 12,
    why: str = "None",
    name: str = NAME,
    born: str = "2026-11-21T21:33:58",
) -> str:
    """A line of squeue."""
    if state == "PENDING":
        left, nodes = left if left != "59:59" else "1:00:00", ""
    return f"execo|{job}|{state}|{left}|{nodes}|{born}|{why}|{name}"


def oar_job(state: str = "Running", name: str = NAME, **more: Any) -> dict[str, Any]:
    """A job in the words of ``oarstat -J`` of OAR 2.5; the server's numbers are texts at some
    sites."""
    return {
        "types": [],
        "reservation": "None",
        "dependencies": [],
        "Job_Id": 36627,
        "assigned_network_address": ["gengar-1", "gengar-2"] if state == "Running" else [],
        "owner": "jane",
        "properties": "(( ( dedicated='NO') AND desktop_computing = 'NO') AND drain='NO'",
        "startTime": "@NOW@",
        "cpuset_name": "jane_36627",
        "stderr_file": "/dev/null",
        "queue": "default",
        "state": state,
        "stdout_file": "/dev/null",
        "array_index": 1,
        "array_id": 36627,
        "assigned_resources": [419, 420, 421],
        "name": name,
        "resubmit_job_id": 0,
        "message": "R=16,W=1:0:0,J=B (Karma=0.087,quota_ok)",
        "launchingDirectory": "/home/jane",
        "jobType": "PASSIVE",
        "stopTime": 0,
        "walltime": "3600",
        "project": "default",
        "submissionTime": 1751979900,
        "scheduledStart": 1751979909,
        "wanted_resources": "-l \\\"{type = 'default'}/host=2,walltime=1:0:0\\\" ",
        "exit_code": None,
        "command": "sleep 3660",
        "events": [],
        **more,
    }
