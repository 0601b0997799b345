"""Scripts in an interpreter of their own, for faults that would befall the tests as well: limits of
descriptors, processes and memory.

Each script has ``execo``, ``watch`` (a Watch, entered), ``limit``, ``hold`` and ``give``, and ends
by ``watch.check(...)``.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from execo import Host

__all__ = ["USER", "addresses", "script"]

USER = 64321
"""A user id that nobody has: limits of processes count all that a user runs."""

PATIENCE = 150.0
"""Seconds: a hang, not a speed."""

TESTS = Path(__file__).resolve().parent

HEAD = """
import gc, json, os, random, resource, sys, threading, time
from execo import *
from execo import transports
from execo.errors import Reason
from invariants import PATIENCE, Watch, wait_until

held = []

def limit(kind, number):
    '''Set the soft limit; -1 = back to the hard one.'''
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (hard if number == -1 else number, hard))

def hold(leave):
    '''Take all descriptors but so many, as another part of a program would.'''
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(leave):
        os.close(held.pop())

def give():
    '''Give them back.'''
    while held:
        os.close(held.pop())

def in_a_while(function, *args, seconds=0.7):
    timer = threading.Timer(seconds, function, args)
    timer.start()
    return timer

"""


def script(text: str, *arguments: str, ordinary: bool = False) -> str:
    """What a script prints to its stderr; it must end well.

    :param ordinary: as an ordinary user, for whom limits of processes hold
    """
    argv = [sys.executable, "-c", HEAD + textwrap.dedent(text), *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    if ordinary and os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv, of util-linux")
        # It may read the files of others: Python itself, and this package, may be where only root
        # comes by. That lifts no limit.
        identity = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        argv = ["setpriv", *identity, *rights, *argv]
    # A folder of its own: the watch looks at all temporary files, those of other scripts, too.
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        if ordinary:
            os.chmod(folder, 0o777)
        done = subprocess.run(
            argv,
            env={**environment, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def addresses(hosts: list[Host]) -> list[list[object]]:
    """What ``Host(*...)`` takes, for a script."""
    return [[host.address, host.user, host.keyfile, host.port] for host in hosts]
