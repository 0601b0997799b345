"""``import execo`` does nothing: no thread, no child, no output, no file but the configuration."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

HEAVY = [
    "ClusterShell",
    "IPython",
    "asyncio",
    "cryptography",
    "dateutil",
    "matplotlib",
    "multiprocessing",
    "pandas",
    "paramiko",
    "rich",
    "sqlite3",
    "ssl",
]

# Python tells of what it does through audit events, threads only since 3.12.
WATCH = """
import _thread, sys, threading

before = set(sys.modules)
done = []

def watch(event, args):
    if event == "open" or event.startswith(("os.exec", "os.fork", "os.posix_spawn", "os.spawn",
            "os.system", "pty.", "socket.", "subprocess.")):
        done.append((event, args[:1] if event == "open" else args))

def start_new_thread(*args, start=_thread.start_new_thread, **kwargs):
    done.append(("thread", args))
    return start(*args, **kwargs)

_thread.start_new_thread = threading._start_new_thread = start_new_thread
sys.addaudithook(watch)
import execo
seen = list(done)
modules = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
for event, args in seen:
    print("event", event, *args)
for name in modules:
    print("module", name)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


def run(*command: str | Path, home: Path) -> str:
    """What a command of a fresh interpreter prints; no word on stderr is accepted."""
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        # No __pycache__ is written, so all that is opened is read.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        command, check=False, env=environment, cwd=home, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def is_code(path: str) -> bool:
    """True for what an import reads: a module, a folder of modules, a shared library."""
    stdlib = sysconfig.get_path("stdlib")
    folders = {*sysconfig.get_paths().values(), os.path.realpath(stdlib), str(ROOT / "execo")}
    return (
        path.endswith((".py", ".pyc"))
        and any(os.path.realpath(path).startswith(os.path.realpath(one)) for one in folders)
    ) or (re.search(r"\.so(\.\d+)*$", path) is not None)


def test_it_prints_nothing(home: Path) -> None:
    assert run(sys.executable, "-c", "import execo", home=home) == ""


def test_it_starts_nothing_and_reads_only_the_configuration(home: Path) -> None:
    (home / ".execo.conf.py").write_text("configuration = {}\n")
    lines = run(sys.executable, "-c", WATCH, home=home).splitlines()
    events = [line.split(" ", 2)[1:] for line in lines if line.startswith("event ")]
    opened = {path for event, path in events if event == "open" and not is_code(path)}
    assert opened == {str(home / ".execo.conf.py")}
    assert [event for event in events if event[0] != "open"] == []


def test_it_needs_no_configuration(home: Path) -> None:
    run(sys.executable, "-c", WATCH, home=home)
    assert list(home.iterdir()) == []


def test_it_loads_nothing_heavy(home: Path) -> None:
    lines = run(sys.executable, "-c", WATCH, home=home).splitlines()
    modules = {line.removeprefix("module ") for line in lines if line.startswith("module ")}
    assert "execo" in modules
    assert modules.isdisjoint(HEAVY)


def test_the_system_sees_nothing_either(home: Path, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (apt install strace)")
    if subprocess.run([strace, "-qq", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("strace may not trace here: no ptrace in this container")
    (home / ".execo.conf.py").write_text("configuration = {}\n")

    def traced(code: str) -> tuple[list[str], set[str]]:
        """The programs and threads that were started, and the paths that were opened."""
        trace = tmp_path / "trace"
        calls = "trace=openat,clone,clone3,vfork,fork,execve"
        python = (sys.executable, "-c", code)
        run(strace, "-f", "-qq", "-o", trace, "-e", calls, *python, home=home)
        text = trace.read_text()
        started = re.findall(r"^\d+ +(clone|clone3|vfork|fork|execve)\(", text, re.MULTILINE)
        return started, set(re.findall(r'openat\([^"]*"([^"]*)"[^\n]* = \d', text))

    started, opened = traced("import execo")
    assert started == ["execve"], "a thread or a child was started"
    _, always_opened = traced("pass")
    others = {
        path
        for path in opened - always_opened
        if not is_code(path) and not Path(path).is_dir() and not path.startswith("/etc/ld.so")
    }
    assert others == {str(home / ".execo.conf.py")}
