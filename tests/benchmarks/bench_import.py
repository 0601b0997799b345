"""What ``import execo`` costs: time, threads, children, files.

Each import is a fresh interpreter, in turns with ``python -S -c pass``.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import ROOT, Bench, main

# Without site: the finder of an editable installation imports what execo needs as well, and that
# would be counted as bare Python.
PYTHON = [sys.executable, "-S"]
LIMIT = 40.0
COUNT_THREADS = "import execo, os; print(len(os.listdir('/proc/self/task')))"


def environment(home: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HOME": home}


def milliseconds(code: str, home: str) -> float:
    begin = time.perf_counter()
    subprocess.run([*PYTHON, "-c", code], env=environment(home), check=True)
    return (time.perf_counter() - begin) * 1000


def traced(code: str, home: str) -> tuple[int, set[str]]:
    """The processes and threads that ``code`` makes, and the files that it opens."""
    log = Path(home) / "strace.txt"
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=open,openat,process"]
    subprocess.run([*command, *PYTHON, "-c", code], env=environment(home), check=True)
    made, opened = 0, set()
    for line in log.read_text().splitlines():
        call = line.split(None, 1)[1]
        made += call.startswith(("clone", "fork", "vfork"))
        if call.startswith("open") and " = -1 " not in call:
            opened.add(call.split('"')[1])
    return made, opened


def is_code(path: str) -> bool:
    """True for what the interpreter itself opens for an import."""
    name = Path(path).name
    return (
        path.endswith((".py", ".pyc", ".pth"))
        or ".so" in name
        or ".pyc." in name  # a cache file that is being written
        or Path(path).is_dir()
    )


def figures(bench: Bench) -> None:
    """What ``import execo`` costs."""
    with tempfile.TemporaryDirectory(prefix="execo-bench-") as home:
        (Path(home) / ".execo.conf.py").write_text("configuration = {}\n")
        milliseconds("import execo", home)  # writes the bytecode
        times: dict[str, list[float]] = {"pass": [], "import execo": []}
        for _ in range(bench.rounds):
            for code, taken in times.items():
                taken.append(milliseconds(code, home))
        bare, ours = (statistics.median(taken) for taken in times.values())
        bench.show("python -S -c 'import execo' / python -S -c pass", ours, bare, "ms")
        bench.below("import execo, beyond that", ours - bare, LIMIT, "ms")
        if ours - bare >= LIMIT:
            print("  look at: python -S -X importtime -c 'import execo'")
        threads = subprocess.run(
            [*PYTHON, "-c", COUNT_THREADS],
            env=environment(home),
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        bench.below("threads after import execo", float(threads), 2, "")
        if shutil.which("strace") is None:
            print("  strace is not installed: children and files are not looked at")
            return
        _, usual = traced("pass", home)
        made, opened = traced("import execo", home)
        others = {path for path in opened - usual if not is_code(path)}
        others.discard(str(Path(home) / ".execo.conf.py"))
        bench.below("children and threads made by import execo", made, 1, "")
        bench.below("files read but code and the configuration", len(others), 1, "")
        for path in sorted(others):
            print(f"  {path}")


if __name__ == "__main__":
    main(figures, rounds=20)
