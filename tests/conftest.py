"""What every test runs in: an empty home, a clean environment, and a guard against leaks.

The guard looks at threads, descriptors and processes before and after each test, and names what
the test left behind. With ``CI=true`` a skipped test is a failure.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Hashable, Iterator
from pathlib import Path

import hypothesis
import pytest

SETTLE = 10.0
"""Seconds for what a test has ended to be gone: threads finish, the kernel reaps."""

MARK = "LEAK_GUARD_OF"
"""In the environment of every process that a test starts, so that an orphan is named too."""

RUNTIME_THREADS = ("execo-io", "execo-start", "execo-worker-", "execo-handler-", "execo-wait")
"""Threads of the runtime, by the start of their names: they stay for the next process."""

ASKED_FOR = ("EXECO_ROUNDS", "EXECO_SEED")
"""What is left in the environment: it is for the tests, see ``rounds.py``."""

RUNTIME_PROCESS = "execo-watchdog"
"""A word in the command line of the runtime's own child, which stays as well."""


# -- the environment --------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    # Not a fixture: test modules import execo, which reads ~/.execo.conf.py, before any fixture.
    home = tempfile.TemporaryDirectory(prefix="execo-home-")
    config.add_cleanup(home.cleanup)
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name in list(os.environ):
        if name.startswith(("EXECO_", "SSH_", "XDG_")) and name not in ASKED_FOR:
            patch.delenv(name)
    # A suite in the background of a shell without job control (nohup, some CI) ignores Ctrl-C, and
    # every script that a test starts would, too.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    patch.setenv("HOME", home.name)
    patch.setenv("LC_ALL", "C.UTF-8")
    patch.setenv(MARK, str(os.getpid()))
    with contextlib.suppress(ImportError):  # no execo here: the guard alone is being tried
        # ssh takes the home from the system, not from HOME; and systems differ.
        ssh_config = importlib.import_module("execo.transports.ssh_config")
        patch.setattr(ssh_config, "USER_FILE", f"{home.name}/.ssh/config")
        patch.setattr(ssh_config, "SYSTEM_FILE", f"{home.name}/system/ssh_config")
    hypothesis.settings.register_profile(
        "execo",
        deadline=None,
        derandomize=_in_ci(),
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("execo")


# -- no skip in CI ----------------------------------------------------------------------------


def _in_ci() -> bool:
    return os.environ.get("CI") == "true"


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped too, but it has run.
    if _in_ci() and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: no test may be skipped under CI=true. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


# -- the leak guard ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def runtime() -> None:
    """The I/O thread, its descriptors and its watchdog, there before the first comparison."""
    try:
        importlib.import_module("execo._core.runtime").get_runtime()
        importlib.import_module("execo.process").Process("true").run()
    except ImportError:
        return  # no execo here: the guard alone is being tried


@pytest.fixture(autouse=True)
def leak_guard(runtime: None) -> Iterator[None]:
    before = held()
    yield
    _close_idle_connections()
    leaked = _new_since(before)
    if leaked:
        # What only a cycle of garbage holds (the frames of a caught exception) is not leaked.
        gc.collect()
        deadline = time.monotonic() + SETTLE
        nap = threading.Event()
        while (leaked := _new_since(before)) and time.monotonic() < deadline:
            nap.wait(0.02)
            _close_idle_connections()  # what the test has ended may have come to its end by now
    if leaked:
        pytest.fail("the test left behind:\n  " + "\n  ".join(leaked), pytrace=False)


def _close_idle_connections() -> None:
    # They stay for the next process, and would look like a leak of threads and sockets.
    if "execo.transports" in sys.modules:
        importlib.import_module("execo.transports").close_idle()


def _new_since(before: dict[Hashable, str]) -> list[str]:
    return [description for key, description in held().items() if key not in before]


def held() -> dict[Hashable, str]:
    """What this process holds now: an identity and a description of each thing."""
    return {**_threads(), **_descriptors(), **_processes()}


def _threads() -> dict[Hashable, str]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    try:
        # The system's list: threading keeps a dead foreign thread, and misses a quiet one.
        alive = [int(task) for task in os.listdir("/proc/self/task")]
    except OSError:
        alive = [tid for tid in names if tid is not None]
    return {
        ("thread", tid): f"thread {names.get(tid, 'unnamed')!r}"
        for tid in alive
        if not names.get(tid, "").startswith(RUNTIME_THREADS)
    }


def _descriptors() -> dict[Hashable, str]:
    found: dict[Hashable, str] = {}
    listing = "/proc/self/fd"
    if not os.path.isdir(listing):
        return found
    for number in os.listdir(listing):
        try:
            target = os.readlink(f"{listing}/{number}").removesuffix(" (deleted)")
        except OSError:
            continue  # closed since: the listing's own descriptor, to begin with
        if target.endswith(".ttf"):
            continue  # matplotlib keeps the fonts open that it has used, some for each thread
        found["descriptor", number, target] = f"descriptor {number} -> {target}"
    return found


def _processes() -> dict[Hashable, str]:
    """Children of this process, dead ones that nobody has reaped, and what they left running."""
    found: dict[Hashable, str] = {}
    parent = str(os.getpid())
    mark = f"{MARK}={parent}".encode()
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            # The command's name stands in brackets and may hold anything, even a bracket.
            stat = (proc / "stat").read_text(errors="replace").rpartition(")")[2].split()
            child = stat[1] == parent
            if not child and mark not in (proc / "environ").read_bytes().split(b"\0"):
                continue
            command = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # gone since, or another user's
        if proc.name == parent or RUNTIME_PROCESS in command:
            continue
        kind = "zombie child" if stat[0] == "Z" else "child" if child else "orphan"
        found["process", proc.name, stat[19]] = f"{kind} process {proc.name}: {command.strip()}"
    return found
