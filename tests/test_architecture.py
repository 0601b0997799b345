"""Who may import whom: the tables below, and a walk over every module of the package.

A room is a module, or a whole package where its name ends in ``.*``. A new room gets a line in
``MAY_IMPORT``; a new dependency gets one in ``LIBRARIES``.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from import_rules import Source, import_cycles, package_sources

PACKAGE = Path(__file__).resolve().parent.parent / "execo"


def rooms(names: str) -> frozenset[str]:
    return frozenset(names.split())


# From the ground up. A level knows the levels below it, except where a line says less.
GROUND = rooms("errors time_utils")
PLAIN = GROUND | rooms("_user_file config log host hostset substitutions report")
CORE = PLAIN | rooms("_core.*")
HANDLERS = CORE | rooms("output handlers search expect")
SEAM = CORE | rooms("transports.base")
SSH_PARTS = rooms(
    "transports.wire transports.dial transports.session transports.keys transports.known_hosts"
    " transports.remote_shell transports.guard transports.channel transports.ssh_login"
    " transports.asking"
)
# One run of a process: what is known of it, its events and output, its stdin, its states.
RUN = HANDLERS | SEAM | rooms("outcome delivery feed reading policy lifecycle observing")
PROCESS = RUN | rooms("process_state process_base local_process ssh_process connection transports")
ACTION = (PROCESS - rooms("transports")) | rooms("execution action_base")
REMOTE = ACTION | rooms("action_groups action_waits remote transfer.*")
KINDS = REMOTE | rooms("serial taktuk topology tree port_forwarder factory")
DOORS = KINDS | rooms("process action")
SCHEDULERS = DOORS | rooms("schedulers.*")
PUBLIC = (
    SCHEDULERS - rooms("_core.*")
    | rooms("execo exception engine.* clustershell.* jobs.* gathering progress.*")
) | rooms("transports transports.base")

MAY_IMPORT: dict[str, Collection[str]] = {
    # room                   what it may import of ours
    "errors":                (),
    "time_utils":            (),
    "exception":             rooms("errors"),
    "_user_file":            GROUND,  # for config alone
    "_config_rules":         (),  # likewise
    "config":                PLAIN | rooms("_config_rules"),
    "log":                   PLAIN,
    "host":                  PLAIN,
    "hostset":               PLAIN,
    "substitutions":         PLAIN,
    "report":                PLAIN | rooms("gathering"),
    "topology":              GROUND | rooms("hostset"),
    "_core.*":               rooms("errors time_utils log"),
    "output":                HANDLERS,
    "handlers":              HANDLERS,
    "gathering":             PLAIN | rooms("output differences"),  # by what processes have
    "differences":           (),
    "search":                HANDLERS,
    "expect":                HANDLERS,
    "transports.base":       CORE,
    "transports.counters": GROUND,
    # The registry: it knows the others by name alone.
    "transports":            SEAM | rooms("transports.counters"),
    "transports.spawn_errors": GROUND,
    "transports.local_channel": SEAM | rooms("transports.detached transports.spawn_errors"),
    "transports.local":      SEAM | rooms("transports.local_channel"),
    "transports.fake":       SEAM,
    "transports.sshconfig":  SEAM,
    # SSH in process, from the socket up.
    "transports.wire":       SEAM,
    "transports.dial":       SEAM | rooms("transports.wire"),
    "transports.carried_wire": SEAM,
    "transports.dial_through": SEAM | rooms(
        "transports.carried_wire transports.dial transports.ssh_lease"
    ),
    "transports.channel":    SEAM,
    "transports.session":    SEAM | rooms("transports.wire transports.channel"),
    "transports.questions":  CORE,
    "transports.key_files":  CORE | rooms("transports.questions"),
    "transports.ssh_agent":  GROUND | rooms("transports.key_files"),
    "transports.asking":     SEAM | rooms("transports.key_files transports.questions"),
    "transports.keys":       SEAM | rooms(
        "transports.asking transports.key_files transports.ssh_agent"
    ),
    "transports.known_hosts": SEAM | rooms("transports.ssh_config_match"),
    "transports.detached":   GROUND,
    "transports.last_start": SEAM,
    "transports.remote_shell": GROUND | rooms("transports.detached"),
    "transports.guard":      SEAM | rooms(
        "transports.remote_shell transports.session transports.channel"
    ),
    "transports.liveness":   SEAM,
    "transports.ssh_auth":   GROUND | rooms("transports.key_files"),
    "transports.ssh_methods": SEAM | rooms(
        "transports.asking transports.key_files transports.keys transports.session"
        " transports.ssh_auth"
    ),
    "transports.ssh_login":  SEAM | rooms(
        "transports.asking transports.dial transports.keys transports.known_hosts"
        " transports.session transports.ssh_methods"
    ),
    "transports.ssh_connection": SEAM | SSH_PARTS | rooms("transports.liveness"),
    "transports.set_ups":    SEAM | rooms(
        "transports.dial transports.ssh_connection transports.counters transports.wire"
    ),
    "transports.upkeep":     SEAM | rooms("transports.ssh_connection"),
    "transports.pooled_host": SEAM | rooms("transports.ssh_connection transports.dial_through"),
    "transports.pool":       SEAM | SSH_PARTS | rooms(
        "transports.dial_through transports.set_ups transports.ssh_connection"
        " transports.counters transports.upkeep transports.pooled_host"
    ),
    "transports.ssh_expired": GROUND,
    "transports.signal_requests": SEAM,
    "transports.ssh_exec":   SEAM | SSH_PARTS | rooms(
        "transports.signal_requests transports.ssh_expired"
    ),
    "transports.ssh_lease":  SEAM | SSH_PARTS,
    "transports.inprocess":  SEAM | rooms(
        "transports transports.dial transports.dial_through transports.last_start"
        " transports.pool transports.ssh_exec transports.ssh_lease"
    ),
    "transports.ssh_messages": SEAM,
    # What ssh_config says of a host, from the line up.
    "transports.ssh_tokens": GROUND,
    "transports.ssh_config_values": GROUND | rooms("transports.ssh_tokens"),
    "transports.ssh_config_keywords": GROUND | rooms("transports.ssh_config_values"),
    "transports.ssh_config_match": GROUND,
    "transports.ssh_config_lines": PLAIN | rooms(
        "transports.ssh_config_keywords transports.ssh_config_match transports.ssh_tokens"
    ),
    "transports.ssh_config_lookup": GROUND | rooms(
        "transports.ssh_config_keywords transports.ssh_config_lines transports.ssh_config_match"
        " transports.ssh_tokens"
    ),
    "transports.ssh_config_settings": GROUND | rooms(
        "transports.ssh_config_keywords transports.ssh_config_lines transports.ssh_config_lookup"
        " transports.ssh_config_match transports.ssh_config_values transports.ssh_tokens"
    ),
    "transports.ssh_config": GROUND | rooms(
        "transports.ssh_config_keywords transports.ssh_config_lines transports.ssh_config_lookup"
        " transports.ssh_config_settings transports.ssh_config_values transports.ssh_tokens"
    ),
    "transports.ssh_config_files": GROUND | rooms("_core.* transports.ssh_config"),
    # From that to a target.
    "transports.ssh_options": (),
    "transports.ssh_algorithms": SEAM | rooms(
        "transports.ssh_config_match transports.ssh_config_settings"
    ),
    "transports.ssh_target": SEAM | rooms(
        "transports.dial transports.known_hosts"
        " transports.ssh_algorithms transports.ssh_config transports.ssh_config_match"
    ),
    "transports.openssh_window": SEAM,
    "transports.openssh_folder": SEAM,
    "transports.openssh_words": SEAM | rooms("transports.ssh_messages"),
    "transports.openssh_pulse": SEAM,
    "transports.openssh_master": SEAM | rooms(
        "transports.openssh_pulse transports.openssh_window transports.remote_shell"
        " transports.ssh_messages"
    ),
    "transports.openssh_masters": SEAM | rooms(
        "transports.openssh_folder transports.openssh_master transports.openssh_window"
        " transports.ssh_messages"
    ),
    "transports.openssh_guard": SEAM | rooms(
        "transports.openssh_master transports.remote_shell transports.ssh_messages"
    ),
    "transports.openssh_input": SEAM,
    "transports.openssh_record": SEAM | rooms("transports.ssh_messages"),
    "transports.openssh_seat": SEAM | rooms("transports.ssh_messages"),
    "transports.openssh_signals": SEAM | rooms(
        "transports.openssh_guard transports.ssh_messages"
    ),
    "transports.openssh_channel": SEAM | rooms(
        "transports.openssh_guard transports.openssh_input transports.openssh_master"
        " transports.openssh_record transports.openssh_seat transports.openssh_signals"
        " transports.ssh_messages"
    ),
    "transports.openssh":    SEAM | rooms(
        "transports transports.last_start transports.openssh_channel transports.openssh_folder"
        " transports.openssh_guard"
        " transports.openssh_master transports.openssh_masters transports.openssh_window"
        " transports.openssh_words transports.remote_shell transports.ssh_messages"
    ),
    "transports.taktuk_frames": GROUND,
    "transports.taktuk_orders": GROUND,
    "transports.taktuk_failures": SEAM | rooms("transports.ssh_messages"),
    "transports.taktuk_words": SEAM | rooms(
        "transports.openssh_words transports.remote_shell transports.taktuk_frames"
    ),
    "transports.taktuk_channel": SEAM | rooms(
        "transports.remote_shell transports.ssh_messages transports.taktuk_failures"
        " transports.taktuk_words"
    ),
    "transports.taktuk_run": SEAM | rooms(
        "transports.remote_shell transports.taktuk_failures transports.taktuk_frames"
        " transports.taktuk_orders transports.taktuk_words"
    ),
    "transports.taktuk":     SEAM | rooms(
        "transports transports.openssh_folder transports.remote_shell transports.ssh_messages"
        " transports.taktuk_channel transports.taktuk_failures transports.taktuk_run"
        " transports.taktuk_words"
    ),
    "transports.tree_frames": GROUND,
    "transports.tree_channel": SEAM | rooms("transports.ssh_messages transports.tree_frames"),
    "transports.tree_leaf":  SEAM | rooms(
        "transports.openssh_words transports.remote_shell transports.ssh_messages"
        " transports.tree_channel"
    ),
    "transports.tree_link":  SEAM | rooms(
        "transports.ssh_messages transports.tree_channel transports.tree_frames"
        " transports.tree_leaf"
    ),
    "transports.tree":       SEAM | rooms(
        "transports transports.last_start transports.remote_shell transports.ssh_messages"
        " transports.tree_channel transports.tree_link"
    ),
    "transports.node":       (),  # its text is sent to hosts that have Python and no execo
    "policy":                GROUND,
    "observing":             CORE,
    "progress.*":            CORE | rooms("observing outcome"),  # by what things have
    "outcome":               RUN,
    "delivery":              RUN,
    "feed":                  RUN,
    "lifecycle":             RUN,
    "reading":               RUN,
    "process_state":         RUN,
    "connection":            SEAM | rooms(
        "topology "
        "transports.ssh_config_files transports.ssh_options transports.ssh_target"
        " transports.ssh_tokens"
    ),
    "process_base":          PROCESS,
    "local_process":         PROCESS,
    "ssh_process":           PROCESS,
    "serial":                PROCESS,
    "execution":             ACTION,
    "action_base":           ACTION | rooms("progress.* gathering"),
    "action_groups":         ACTION,
    "action_waits":          ACTION,
    "remote":                ACTION | rooms("serial"),
    "taktuk":                REMOTE,
    "tree":                  REMOTE | rooms("topology"),
    "factory":               ACTION | rooms("action"),  # by name, when it makes one
    # Doors: they hand out what is behind them.
    "process":               KINDS,
    "action":                KINDS,
    "transfer.broadcast_node": (),  # its text is sent to hosts that have Python and no execo
    "transfer.*":            ACTION | rooms(
        "transports taktuk transports.remote_shell transports.tree_frames transports.tree_leaf"
    ),
    "forwarding.*":          SEAM | rooms("transports"),
    "becoming.*":            SEAM | rooms(
        "transports transports.last_start transports.questions transports.remote_shell"
    ),
    "ports":                 CORE,
    "port_forwarder":        PROCESS | rooms("ssh_process forwarding.* ports"),
    "execo":                 DOORS,
    "schedulers.*":          DOORS,
    "engine.*":              SCHEDULERS | rooms("progress.*"),
    "clustershell.*":       SCHEDULERS | rooms("topology transports"),
    "jobs.*":                SCHEDULERS,
    "_engine_compat.*":      rooms("engine.*"),
    # For scripts of execo 2.8.2.
    "conductor":             CORE,
    "ssh_utils":             PLAIN,
    "utils":                 PLAIN | rooms("ports"),
    # Nobody imports these.
    "__main__":              rooms("cli.*"),
    "cli.*":                 PUBLIC,
    "ipython":               PUBLIC,
    "testing.*":             PUBLIC,
}  # fmt: skip

# Beyond that, rooms and libraries under ``if TYPE_CHECKING:``: annotations name them, and nothing
# is imported at run time.
MAY_NAME: dict[str, Collection[str]] = {
    "handlers": rooms("process_base"),
    "reading": rooms("lifecycle"),
    "connection": rooms("transports.ssh_config"),
    "lifecycle": rooms("process_base asyncio"),
    "observing": rooms("lifecycle execution"),
    "progress.*": rooms("process_base action_base execution lifecycle rich"),
    "delivery": rooms("process_base action_base"),
    "search": rooms("reading"),
    "expect": rooms("process_base lifecycle"),
    "process_base": rooms("action_base"),
    "execution": rooms("action_base asyncio"),
    "transports.local_channel": rooms("transports.local"),
    "transports.openssh_channel": rooms("transports.openssh"),
    "transports.openssh_guard": rooms("transports.openssh transports.openssh_channel"),
    "transports.openssh_seat": rooms("asyncio transports.openssh_channel"),
    "transports.openssh_signals": rooms("transports.openssh_channel"),
    "transports.openssh_master": rooms("transports.openssh_masters"),
    "transports.openssh_masters": rooms("transports.openssh"),
    "transports.taktuk_channel": rooms("transports.taktuk_run"),
    "transports.taktuk_run": rooms("transports.taktuk transports.taktuk_channel"),
    "transports.tree_channel": rooms("transports.tree transports.tree_leaf transports.tree_link"),
    "transports.tree_leaf": rooms("transports.tree_link"),
    "transports.tree_link": rooms("transports.tree"),
    "transports.dial": rooms("asyncio"),
    "becoming.*": rooms("asyncio"),
    "transports.ssh_connection": rooms("asyncio transports.pool"),
    "transports.liveness": rooms("asyncio transports.ssh_connection"),
    "transports.upkeep": rooms("asyncio"),
    "transports.ssh_login": rooms("asyncio"),
    "transports.ssh_auth": rooms("transports.session"),
    "transports.channel": rooms("transports.session"),
    "transports.ssh_exec": rooms("transports.inprocess transports.ssh_connection"),
    "transports.ssh_lease": rooms("transports.inprocess transports.ssh_connection"),
    "engine.*": rooms("matplotlib"),
}

# Who may import what is not ours. In parentheses: inside a function, when it is first needed.
LIBRARIES: dict[str, str] = {
    "asyncio": "_core.*",
    "sqlite3": "jobs.store",
    "dateutil": "(time_utils)",
    "ClusterShell": "(hostset) clustershell.*",
    "paramiko": (
        "transports.session transports.channel transports.key_files transports.ssh_auth testing.*"
    ),
    "cryptography": "transports.key_files testing.*",  # comes with paramiko
    "pytest": "testing.pytest_plugin",
    "matplotlib": (
        "(engine.drawing) (engine.timeline) (engine.matrix) (engine.plots) (engine.html)"
    ),
    "numpy": "(engine.drawing)",  # comes with matplotlib
    "jinja2": "(engine.html)",
    "markupsafe": "(engine.html)",  # comes with jinja2
    "rich": "(progress.*)",
    "shtab": "(cli.completion)",
    "pandas": "(report) (engine.*)",
}

SYSTEM = "_core.* transports.node transfer.broadcast_node jobs.supervisor"

# Who may use which name of the standard library.
NAMES: dict[str, str] = {
    "os.read": SYSTEM,
    "os.write": SYSTEM,
    "os.fork": SYSTEM,
    "os.forkpty": SYSTEM,
    "os.wait": SYSTEM,
    "os.wait3": SYSTEM,
    "os.wait4": SYSTEM,
    "os.waitid": SYSTEM,
    "os.waitpid": SYSTEM,
    "os.pidfd_open": SYSTEM,
    "signal.pidfd_send_signal": SYSTEM,
    "time.sleep": "time_utils",
}


# -- the rules --------------------------------------------------------------------------------


def within(module: str, room: str) -> bool:
    base = room.removesuffix(".*")
    return module == base or (room != base and module.startswith(base + "."))


def room_of(module: str) -> str | None:
    return next((room for room in MAY_IMPORT if within(short(module), room)), None)


def short(module: str) -> str:
    return module.removeprefix("execo.")


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "execo"


def problems(source: Source) -> Iterator[str]:
    """What this module does against the tables, one line each."""
    here = room_of(source.name)
    if here is None:
        yield f"{source.name}: a room without a line in MAY_IMPORT of {Path(__file__).name}"
        return
    for fault, line in source.faults:
        yield f"{source.name}:{line}: {fault}"
    for one in source.imports:
        place = f"{source.name}:{one.line}"
        if is_ours(one.target):
            there = room_of(one.target)
            allowed = set(MAY_IMPORT[here])
            if one.types_only:
                allowed |= set(MAY_NAME.get(here, ()))
            if there != here and there not in allowed:
                yield f"{place}: {here} may not import {there or one.target} (MAY_IMPORT)"
        elif not (one.types_only and one.target.partition(".")[0] in MAY_NAME.get(here, ())):
            yield from library_problems(source.name, one.target, one.in_function, place)
    for name, line in source.uses:
        if name in NAMES and not any(within(short(source.name), at) for at in NAMES[name].split()):
            yield f"{source.name}:{line}: {name} belongs to {NAMES[name]} alone (NAMES)"


def library_problems(module: str, target: str, in_function: bool, place: str) -> Iterator[str]:
    library = target.partition(".")[0]
    if library not in LIBRARIES:
        if library not in sys.stdlib_module_names:
            yield f"{place}: a library without a line in LIBRARIES: {library}"
        return
    homes = LIBRARIES[library].split()
    if any(within(short(module), home) for home in homes):
        return
    if not any(within(short(module), home.strip("()")) for home in homes):
        yield f"{place}: {library} belongs to {LIBRARIES[library]} alone (LIBRARIES)"
    elif not in_function:
        yield f"{place}: {library} is imported inside the function that needs it (LIBRARIES)"


# -- the package ------------------------------------------------------------------------------

SOURCES = package_sources(PACKAGE)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_module_keeps_to_its_room(source: Source) -> None:
    assert list(problems(source)) == []


def test_no_module_imports_itself_through_others() -> None:
    graph = {
        source.name: {
            one.target
            for one in source.imports
            if is_ours(one.target) and not one.in_function and not one.types_only
        }
        for source in SOURCES
    }
    assert [" -> ".join(cycle) for cycle in import_cycles(graph)] == []


# -- the checker itself -----------------------------------------------------------------------

KNOWN = {source.name for source in SOURCES} | {
    "execo",
    *(f"execo.{room.removesuffix('.*')}" for room in MAY_IMPORT if room != "execo"),
    "execo.engine.sweep",
    "execo.jobs.task",
}
HEADER = "from __future__ import annotations\n__all__ = []\n"

# module, what it says, what is found wrong (or None)
CASES = [
    # Layers, however the import is written.
    ("host", "import execo.errors", None),
    ("host", "from execo.process import Process", "host may not import process"),
    ("host", "from execo import process", "host may not import process"),
    ("host", "from . import process", "host may not import process"),
    ("host", "from .process import Process", "host may not import process"),
    ("host", "import execo.process as p", "host may not import process"),
    ("host", "def f():\n    import execo.process", "host may not import process"),
    ("host", "class A:\n    import execo.process", "host may not import process"),
    ("host", "async def f():\n    import execo.process", "host may not import process"),
    ("host", "import importlib\nimportlib.import_module('execo.process')", "may not import"),
    ("host", "if 1:\n    try:\n        import execo.process\n    except ImportError: pass", "may"),
    ("host", "from execo import Process", "host may not import execo"),
    ("errors", "from execo.time_utils import sleep", "errors may not import time_utils"),
    ("log", "from execo.config import configuration", None),
    ("_core.loop", "from execo.log import logger\nfrom .stream import Stream", None),
    ("_core.loop", "from execo.config import configuration", "_core.* may not import config"),
    ("transports.local", "from .base import Exec\nfrom execo._core import child", None),
    ("transports.local", "from execo.handlers import x", "may not import handlers"),
    ("transports.local", "from .inprocess import x", "may not import transports.inprocess"),
    ("transports.inprocess", "from . import pool", None),
    ("transports.pool", "import paramiko", "paramiko belongs to"),
    ("transports.node", "from . import base", "may not import transports.base"),
    ("process_base", "from execo import transports", None),
    ("process", "from execo.transports.local import x", "may not import transports.local"),
    ("action_base", "from execo.local_process import Process", None),
    ("action_base", "from execo.action import Remote", "action_base may not import action"),
    ("action", "from execo import transports", "action may not import transports"),
    ("action", "from .transports.local import x", "action may not import transports.local"),
    ("process", "from execo.action import Action", "process may not import action"),
    ("engine.sweep", "from execo.schedulers import slurm\nfrom . import engine", None),
    ("engine.sweep", "from execo.jobs import task", "engine.* may not import jobs.*"),
    ("jobs.task", "from execo.clustershell import Task", "may not import clustershell.*"),
    ("cli", "from execo import Process\nfrom execo.engine import sweep", None),
    ("cli", "from execo._core import loop", "cli.* may not import _core.*"),
    ("remote", "from execo.testing import Cluster", "may not import testing.*"),
    ("action", "from execo.utils import x", "action may not import utils"),
    ("action_base", "from execo.utils import x", "action_base may not import utils"),
    # For annotations alone.
    ("handlers", "if TYPE_CHECKING:\n    from execo.process_base import ProcessBase", None),
    ("handlers", "if TYPE_CHECKING: pass\nelse:\n    import execo.process", "may not import"),
    ("host", "if TYPE_CHECKING:\n    from execo.process import Process", "may not import"),
    ("lifecycle", "if TYPE_CHECKING:\n    from asyncio import TimerHandle", None),
    ("lifecycle", "from asyncio import TimerHandle", "asyncio belongs to"),
    ("host", "if TYPE_CHECKING:\n    import asyncio", "asyncio belongs to"),
    # Rooms that nobody has thought of.
    ("helpers", "x = 1", "MAY_IMPORT of test_architecture.py"),
    ("transports.carrier_pigeon", "x = 1", "MAY_IMPORT of test_architecture.py"),
    # Libraries.
    ("_core.loop", "import asyncio.events", None),
    ("action", "import asyncio", "asyncio belongs to _core.* alone"),
    ("action", "def f():\n    from asyncio import run", "asyncio belongs to _core.* alone"),
    ("transports.session", "import paramiko", None),
    ("process", "from paramiko import Transport", "paramiko belongs to"),
    ("hostset", "def f():\n    from ClusterShell.NodeSet import NodeSet", None),
    ("hostset", "from ClusterShell.NodeSet import NodeSet", "inside the function"),
    ("clustershell", "from ClusterShell.NodeSet import NodeSet", None),
    ("report", "def f():\n    import pandas", None),
    ("report", "import pandas", "inside the function"),
    ("engine.timeline", "def f():\n    import matplotlib.pyplot", None),
    ("engine.sweep", "def f():\n    import matplotlib", "matplotlib belongs to"),
    ("jobs.store", "import sqlite3", None),
    ("jobs.task", "import sqlite3", "sqlite3 belongs to jobs.store alone"),
    ("host", "import six", "a library without a line in LIBRARIES: six"),
    # The system's calls.
    ("_core.stream", "import os\nos.read(0, 1)", None),
    ("transports.node", "import os\nos.write(1, b'')", None),
    ("handlers", "import os\nos.write(1, b'')", "os.write belongs to"),
    ("handlers", "import os as o\nwrite = o.write", "os.write belongs to"),
    ("handlers", "from os import waitpid", "os.waitpid belongs to"),
    ("process", "def f():\n    import os\n    os.fork()", "os.fork belongs to"),
    ("process", "import signal\nsignal.pidfd_send_signal(3, 9)", "belongs to"),
    ("process", "import os\nos.path.join('a')\nos.getpid()", None),
    ("time_utils", "import time\ntime.sleep(1)", None),
    ("process", "import time\ntime.sleep(1)", "time.sleep belongs to time_utils alone"),
    ("process", "from time import sleep", "time.sleep belongs to time_utils alone"),
    # Manners.
    ("host", "from os import *", "star import"),
    ("host", "try: pass\nexcept: pass", "bare except"),
    ("host", "try: pass\nexcept OSError: pass", None),
]  # fmt: skip


@pytest.mark.parametrize(("module", "text", "found"), CASES)
def test_the_checker_tells_right_from_wrong(module: str, text: str, found: str | None) -> None:
    source = Source(f"execo.{module}", HEADER + text, KNOWN)
    told = list(problems(source))
    if found is None:
        assert told == []
    else:
        assert len(told) == 1
        assert found in told[0]
        assert told[0].startswith(f"execo.{module}")


@pytest.mark.parametrize(
    ("module", "text", "found"),
    [
        ("host", "x = 1", ["no 'from __future__ import annotations'", "no __all__"]),
        ("host", "from __future__ import annotations\nx = 1", ["no __all__"]),
        ("_core.loop", "from __future__ import annotations\nx = 1", []),
        ("host", "__all__: list[str] = []", ["no 'from __future__ import annotations'"]),
        ("_core", '"""Only words."""', []),
    ],
)
def test_the_checker_reads_the_head_of_a_module(module: str, text: str, found: list[str]) -> None:
    source = Source(f"execo.{module}", text, KNOWN)
    assert [line.partition(": ")[2] for line in problems(source)] == found


def test_a_relative_import_in_a_package_is_its_own() -> None:
    source = Source("execo.transports", HEADER + "from . import local", KNOWN, is_package=True)
    assert [one.target for one in source.imports][-1] == "execo.transports.local"


def test_the_checker_finds_cycles() -> None:
    assert import_cycles({"a": ["b"], "b": ["c"], "c": [], "d": ["a", "b"]}) == []
    assert import_cycles({"a": ["b"], "b": ["c"], "c": ["a"]}) == [["a", "b", "c", "a"]]
    assert import_cycles({"a": ["a"]}) == [["a", "a"]]


def test_the_walk_finds_the_package() -> None:
    names = [source.name for source in SOURCES]
    assert {"execo.errors", "execo._core.loop"} <= set(names)
