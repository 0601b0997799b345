#!/usr/bin/env python3
"""Compress the largest modules of Python's standard library with several tools and levels at once.

Each command comes from one template, with the values of its rank put in; two run per processor.
Then everything is decompressed again and compared. You should see a line for each tool and level
(size, share of the original, seconds), "all files came back unchanged", and execo's report of what
ran. The exit code is 1 if something failed or differs.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

from execo import Local, ParallelActions, Report, SequentialActions, remote_substitute

FILES = 4
# Python's own gzip is always there; the others are used if they are installed.
PYTHON_GZIP = f"{shlex.quote(sys.executable)} -m gzip"
TOOLS = {f"python gzip --{level}": f"{PYTHON_GZIP} --{level}" for level in ("fast", "best")}
TOOLS |= {
    f"{tool} -{level}": f"{tool} -{level}"
    for tool in ("gzip", "bzip2", "xz")
    if shutil.which(tool)
    for level in (1, 6, 9)
}


STDLIB = Path(sysconfig.get_path("stdlib"))
MODULES = sorted(STDLIB.glob("*.py"), key=os.path.getsize)[-FILES:]

JOBS = [(name, module) for name in TOOLS for module in MODULES]
# One value for each job: {{SOURCE}} in a template is the value of the job's rank. A shell reads the
# commands, so what comes from outside is quoted for it.
PACK = [TOOLS[name] for name, _ in JOBS]
UNPACK = [PYTHON_GZIP if name.startswith("python") else name.split()[0] for name, _ in JOBS]
SOURCE = [shlex.quote(str(module)) for _, module in JOBS]


def actions(commands: Iterable[str], name: str) -> ParallelActions:
    """All these shell commands, a few at a time."""
    local = [Local(command, {"shell": True}) for command in commands]
    few = 2 * (os.cpu_count() or 1)
    return ParallelActions(local, name=name, hide_subactions=True, fanout=few)


def main(folder: Path) -> int:
    """Run it all in ``folder``; returns the exit code."""
    ranks = range(len(JOBS))
    packed = [folder / f"{rank}.packed" for rank in ranks]
    copy = [folder / f"{rank}.py" for rank in ranks]

    template = "{{PACK}} < {{SOURCE}} > {{packed}}"
    compress = actions([remote_substitute(template, JOBS, rank) for rank in ranks], "compress")
    template = "{{UNPACK}} -d < {{packed}} > {{copy}}"
    decompress = actions([remote_substitute(template, JOBS, rank) for rank in ranks], "decompress")
    both = SequentialActions([compress, decompress], name="compress, decompress").run()

    original = sum(module.stat().st_size for module in MODULES)
    print(f"{FILES} modules, {original} bytes\n{'tool':<20}{'bytes':>10}{'share':>8}{'seconds':>9}")
    for first in range(0, len(JOBS), FILES):
        size = sum(path.stat().st_size for path in packed[first : first + FILES])
        processes = compress.processes[first : first + FILES]
        seconds = sum((p.end_date or 0) - (p.start_date or 0) for p in processes)
        print(f"{JOBS[first][0]:<20}{size:>10}{size / original:>8.1%}{seconds:>9.2f}")

    differing = [
        str(path)
        for (_, module), path in zip(JOBS, copy, strict=True)
        if path.read_bytes() != module.read_bytes()
    ]
    print(f"differing: {differing}" if differing else "all files came back unchanged")
    print(Report([both]))
    return 0 if both.finished_ok and not differing else 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(Path(temporary)))
