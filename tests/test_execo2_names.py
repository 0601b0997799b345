"""Scripts of execo 2.8.2, and of the reference document, find their names and parameters here.

The tables were taken from execo 2.8.2 by introspection, and from the reference document. What
differs on purpose is listed with its reason.
"""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import execo
from execo import (
    Action,
    Get,
    Local,
    ParallelActions,
    Process,
    Put,
    Remote,
    SequentialActions,
    SshProcess,
    configuration,
    default_connection_params,
)

STAR = """
    Action ActionLifecycleHandler ActionsFailed CHAINPUT ChainPut ExpectOutputHandler Get Host Local
    ParallelActions PortForwarder Process ProcessLifecycleHandler ProcessOutputHandler
    ProcessesFailed Put Remote RemoteSerial Report SCP SSH STDERR STDOUT SequentialActions Serial
    SerialSsh SshProcess TAKTUK TaktukGet TaktukPut TaktukRemote Timer configuration
    default_action_factory default_connection_params filter_bad_hosts format_date format_duration
    get_fileget get_fileput get_process get_remote get_seconds get_unixts logger sleep
    wait_all_actions wait_any_actions
""".split()
"""What ``from execo import *`` gave, modules apart: names that are attributes of ``execo``."""

MODULES = """
    action conductor config exception host log process report ssh_utils substitutions time_utils
    utils
""".split()
"""What was an attribute of ``execo`` as well; ``from execo import *`` does not give them here."""

REFERENCE = """
    Action ActionLifecycleHandler Get Host Local ParallelActions Process ProcessBase
    ProcessLifecycleHandler ProcessOutputHandler Put Remote Report SequentialActions SshProcess
    TaktukGet TaktukProcess TaktukPut TaktukRemote Timer configuration default_connexion_params
    format_date format_duration format_seconds format_unixts get_hosts_list get_hosts_set
    get_seconds get_unixts logger remote_substitute sleep wait_all_actions wait_multiple_actions
""".split()
"""The names of the reference document, all of them attributes of ``execo``."""

# Where names are imported from, those that ``execo`` has as well too.
ROOMS = {
    "action": """Action ActionFactory ActionLifecycleHandler ChainPut Get Local ParallelActions Put
        Remote RemoteSerial SequentialActions TaktukGet TaktukPut TaktukRemote
        default_action_factory filter_bad_hosts get_fileget get_fileput get_remote
        wait_all_actions wait_any_actions""",
    "conductor": "the_conductor",
    "config": """CHAINPUT DETAIL FDEBUG IODEBUG SCP SSH TAKTUK TRACE configuration
        default_connection_params load_configuration make_connection_params""",
    "exception": "ActionsFailed ProcessesFailed",
    "host": "Host get_hosts_list get_hosts_set get_unique_hosts_list",
    "log": "logger style",
    "process": """ExpectOutputHandler PortForwarder Process ProcessBase ProcessLifecycleHandler
        ProcessOutputHandler STDERR STDOUT Serial SerialSsh SshProcess TaktukProcess get_process
        handle_process_output""",
    "report": "Report",
    "ssh_utils": """get_rewritten_host_address get_scp_command get_ssh_command
        get_ssh_scp_auth_options get_taktuk_connector_command""",
    "substitutions": "get_caller_context remote_substitute",
    "time_utils": """Timer datetime_to_unixts format_date format_duration format_seconds
        format_unixts get_seconds get_unixts sleep timedelta_to_seconds unixts_to_datetime""",
    "utils": """compact_output do_once get_port intr_event_wait is_string memoize name_from_cmdline
        singleton_to_collection""",
}

AUTH = "user=None, keyfile=None, port=None, connection_params=None"
EXPECT = "self, regexes, timeout=False, stream=1, backtrack=True, expect_output_handler=None"
PUT = "hosts, local_files, remote_location='.', connection_params=None"
GET = "hosts, remote_files, local_location='.', connection_params=None"
REMOTE = "cmd, hosts, connection_params=None, process_args=None"

SIGNATURES = {
    "action.Action": "lifecycle_handlers=None, name=None, default_expect_timeout=None",
    "action.Action.expect": EXPECT,
    "action.Action.kill": "self",
    "action.Action.reset": "self",
    "action.Action.run": "self, timeout=None",
    "action.Action.start": "self",
    "action.Action.stats": "self",
    "action.Action.wait": "self, timeout=None",
    "action.ActionFactory": "remote_tool=None, fileput_tool=None, fileget_tool=None",
    "action.ActionLifecycleHandler": "",
    "action.ChainPut": PUT,
    "action.Get": GET,
    "action.Local": "cmd, process_args=None",
    "action.ParallelActions": "actions",
    "action.Put": PUT,
    "action.Remote": REMOTE,
    "action.Remote.write": "self, s",
    "action.RemoteSerial": "hosts, device, speed, connection_params=None, process_args=None",
    "action.SequentialActions": "actions",
    "action.TaktukGet": GET,
    "action.TaktukPut": PUT,
    "action.TaktukRemote": REMOTE,
    "action.filter_bad_hosts": "action, hosts",
    "action.get_fileget": "*args, **kwargs",
    "action.get_fileput": "*args, **kwargs",
    "action.get_remote": "*args, **kwargs",
    "action.wait_all_actions": "actions, timeout=None",
    "action.wait_any_actions": "actions, timeout=None",
    "conductor.the_conductor.start": "",
    "conductor.the_conductor.terminate": "",
    "config.load_configuration": "filename, dicts_confs",
    "config.make_connection_params": "connection_params=None, default_params=None",
    "exception.ActionsFailed": "actions",
    "exception.ProcessesFailed": "processes",
    "host.Host": "address, user=False, keyfile=False, port=False",
    "host.get_hosts_list": "hosts",
    "host.get_hosts_set": "hosts",
    "host.get_unique_hosts_list": "hosts",
    "process.ExpectOutputHandler": "",
    "process.ExpectOutputHandler.expect": "self, regexes, timeout=None",
    "process.PortForwarder": (
        "host, remote_host, remote_port, local_port=None, bind_address=None, connection_params=None"
    ),
    "process.Process": "cmd, shell=False, pty=False, kill_subprocesses=None",
    "process.Process.dump": "self",
    "process.Process.expect": EXPECT,
    "process.Process.kill": "self, sig=15, auto_force_kill_timeout=True",
    "process.Process.reset": "self",
    "process.Process.run": "self, timeout=None",
    "process.Process.start": "self",
    "process.Process.stats": "self",
    "process.Process.wait": "self, timeout=None",
    "process.Process.write": "self, s",
    "process.ProcessBase": "cmd, timeout=None",
    "process.ProcessLifecycleHandler": "",
    "process.ProcessOutputHandler": "",
    "process.ProcessOutputHandler.read": "self, process, stream, string, eof, error",
    "process.ProcessOutputHandler.read_line": "self, process, stream, string",
    "process.Serial": "device, speed",
    "process.SerialSsh": "host, device, speed, connection_params=None",
    "process.SshProcess": "cmd, host, connection_params=None",
    "process.TaktukProcess": "cmd, host",
    "process.get_process": "*args, **kwargs",
    "process.handle_process_output": "process, stream, handler, string, eof, error",
    "report.Report": "stats_objects=None",
    "report.Report.add": "self, stats_objects",
    "report.Report.aggregate_stats": "stats",
    "report.Report.empty_stats": "",
    "report.Report.stats": "self",
    "report.Report.to_string": "self, wide=False, brief=False",
    "ssh_utils.get_rewritten_host_address": "host_addr, connection_params",
    "ssh_utils.get_scp_command": AUTH,
    "ssh_utils.get_ssh_command": AUTH,
    "ssh_utils.get_ssh_scp_auth_options": AUTH,
    "ssh_utils.get_taktuk_connector_command": AUTH,
    "substitutions.get_caller_context": "filter_out_funcs=None, scope_limit_funcs=['__init__']",
    "substitutions.remote_substitute": "string, all_hosts, index, frame_context",
    "time_utils.Timer": "timeout=None",
    "time_utils.Timer.elapsed": "self",
    "time_utils.Timer.remaining": "self",
    "time_utils.Timer.start_date": "self",
    "time_utils.Timer.wait_elapsed": "self, elapsed",
    "time_utils.datetime_to_unixts": "dt",
    "time_utils.format_date": "d, showms=False",
    "time_utils.format_duration": "duration, showms=False",
    "time_utils.format_seconds": "secs, showms=False",
    "time_utils.format_unixts": "secs, showms=False",
    "time_utils.get_seconds": "duration",
    "time_utils.get_unixts": "d",
    "time_utils.sleep": "delay=None, until=None",
    "time_utils.timedelta_to_seconds": "td",
    "time_utils.unixts_to_datetime": "ts, tz=None",
    "utils.compact_output": "s",
    "utils.do_once": "key, func, *args, **kwargs",
    "utils.get_port": "",
    "utils.intr_event_wait": "event, timeout=None",
    "utils.is_string": "s",
    "utils.memoize": "obj",
    "utils.name_from_cmdline": "cmdline",
    "utils.singleton_to_collection": "arg",
}

# What differs on purpose: the parameters, and why.
EITHER_ORDER = "taken in either order by position, and by these names by keyword"
DEVIATIONS = {
    "action.Remote": (["cmd", "hosts"], EITHER_ORDER),
    "action.TaktukRemote": (["cmd", "hosts"], EITHER_ORDER),
    "process.SshProcess": (["cmd", "host"], EITHER_ORDER),
    "process.TaktukProcess": (["cmd", "host"], EITHER_ORDER),
    "action.Remote.write": (["s"], "a file's write(), called by position"),
    "process.Process.write": (["s"], "a file's write(), called by position"),
    "process.ProcessBase": (["timeout"], "abstract; all but the command is given by keyword"),
    "substitutions.get_caller_context": (
        ["filter_out_funcs", "scope_limit_funcs"],
        "no frame is kept: the names to look up are given, and execo's own code is left out",
    ),
}

BASE: dict[str, Any] = {
    "timeout": 5,
    "ignore_exit_code": True,
    "nolog_exit_code": True,
    "ignore_timeout": True,
    "nolog_timeout": True,
    "ignore_error": True,
    "nolog_error": True,
    "ignore_expect_fail": True,
    "nolog_expect_fail": True,
    "ignore_write_error": True,
    "nolog_write_error": True,
    "default_expect_timeout": 3,
    "default_stdout_handler": False,
    "default_stderr_handler": False,
    "lifecycle_handlers": [],
    "stdout_handlers": [],
    "stderr_handlers": [],
    "name": "x",
}
"""The parameters of ProcessBase, which ``**kwargs`` of a process stood for."""

PROCESS: dict[str, Any] = {"shell": True, "pty": True, "kill_subprocesses": False}
"""Those of Process."""

ACTION: dict[str, Any] = {"lifecycle_handlers": [], "name": "x", "default_expect_timeout": 3}
"""Those of Action, which ``**kwargs`` of an action stood for."""

CONFIGURATION = """
    color_mode color_styles compact_output_threshold fileget_tool fileput_tool intr_period
    kill_childs_at_end kill_timeout log_level port_range remote_tool
""".split()

CONNECTION = """
    chainput_chain_retry chainput_host_retry chainput_nc_client_timeout chainput_nc_server_timeout
    chainput_try_delay forwarding_timeout host_rewrite_func keyfile nc port pty scp scp_options ssh
    ssh_options taktuk taktuk_connector taktuk_connector_options taktuk_options user
""".split()


def room(name: str) -> Any:
    return importlib.import_module(f"execo.{name}")


def thing(path: str) -> Any:
    name, *attributes = path.split(".")
    found = room(name)
    for attribute in attributes:
        found = getattr(found, attribute)
    return found


# -- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*STAR, *REFERENCE}))
def test_a_name_of_the_package(name: str) -> None:
    assert hasattr(execo, name)
    assert name in execo.__all__


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in ROOMS for name in ROOMS[module].split()]
)
def test_a_name_of_a_module(module: str, name: str) -> None:
    assert hasattr(room(module), name)
    if hasattr(execo, name):
        same = getattr(execo, name)
        assert same is getattr(room(module), name) or same == getattr(room(module), name)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_an_attribute_of_the_package(name: str) -> None:
    # In an interpreter of its own: here other tests have loaded it.
    subprocess.run(
        [sys.executable, "-c", f"import execo; print(execo.{name}.__all__)"],
        check=True,
        timeout=60,
        stdout=subprocess.DEVNULL,
        cwd=str(importlib.resources.files("execo").joinpath("..")),
    )


def test_what_is_no_module_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="utilz"):
        _ = execo.utilz  # type: ignore[attr-defined]


def test_the_two_spellings_of_connection() -> None:
    assert execo.default_connexion_params is default_connection_params
    assert execo.wait_multiple_actions is execo.wait_any_actions


def test_the_keys_of_the_configuration() -> None:
    assert set(CONFIGURATION) <= set(configuration)
    assert set(CONNECTION) <= set(default_connection_params)


def test_the_numbers_of_the_tools() -> None:
    assert [thing(f"config.{name}") for name in ("SSH", "SCP", "TAKTUK", "CHAINPUT")] == [
        0,
        1,
        2,
        3,
    ]
    assert [thing(f"config.{n}") for n in ("IODEBUG", "FDEBUG", "TRACE", "DETAIL")] == [
        3,
        5,
        12,
        15,
    ]
    assert [execo.STDOUT, execo.STDERR] == [1, 2]


# -- parameters -------------------------------------------------------------------------------


def their_parameters(path: str) -> list[inspect.Parameter]:
    text = SIGNATURES[path]
    function: Callable[..., None] = eval(f"lambda {text}: None")
    return list(inspect.signature(function).parameters.values())


@pytest.mark.parametrize("path", SIGNATURES)
def test_the_parameters_are_those_of_execo_2(path: str) -> None:
    ours = list(inspect.signature(thing(path)).parameters.values())
    differing = DEVIATIONS.get(path, ([], ""))[0]
    for place, theirs in enumerate(their_parameters(path)):
        if theirs.name in differing:
            continue
        if theirs.kind in (theirs.VAR_POSITIONAL, theirs.VAR_KEYWORD):
            assert any(one.kind is theirs.kind for one in ours), f"{path}: no {theirs}"
            continue
        assert place < len(ours), f"{path}: no {theirs}"
        assert ours[place].name == theirs.name
        assert ours[place].kind is theirs.kind
        if theirs.default is not theirs.empty:
            assert ours[place].default == theirs.default, f"{path}: default of {theirs.name}"


@pytest.mark.parametrize("path", SIGNATURES)
def test_calls_of_execo_2_are_understood(path: str) -> None:
    ours = inspect.signature(thing(path))
    named = [p for p in their_parameters(path) if p.kind is p.POSITIONAL_OR_KEYWORD]
    for enough in (named, [p for p in named if p.default is p.empty]):
        if path == "substitutions.get_caller_context":
            continue
        if path != "process.ProcessBase":
            ours.bind(*[None] * len(enough))
        if not path.endswith(".write"):
            by_name = {p.name: None for p in enough if p.name != "self"}
            if len(by_name) < len(enough):
                ours.bind(None, **by_name)
            else:
                ours.bind(**by_name)


def test_the_deviations_exist() -> None:
    for path, (names, reason) in DEVIATIONS.items():
        assert reason
        assert {p.name for p in their_parameters(path)} >= set(names)


# -- what **kwargs stood for ------------------------------------------------------------------

PROCESSES = [
    ("Process", ("true",), {**BASE, **PROCESS}),
    ("SshProcess", ("true", "h"), {**BASE, **PROCESS}),
    ("TaktukProcess", ("true", "h"), BASE),
    ("Serial", ("/dev/x", 9600), {**BASE, **PROCESS}),
    ("SerialSsh", ("h", "/dev/x", 9600), {**BASE, **PROCESS}),
    ("PortForwarder", ("h", "localhost", 80), BASE),
    ("get_process", ("true",), {**BASE, **PROCESS}),
]


@pytest.mark.parametrize(("name", "args", "options"), PROCESSES, ids=[one[0] for one in PROCESSES])
def test_a_process_takes_the_parameters_of_its_bases(
    name: str, args: Any, options: dict[str, Any]
) -> None:
    process = thing(f"process.{name}")(*args, **options)
    for key in BASE:
        assert getattr(process, key) == BASE[key], key


ACTIONS = [
    ("Remote", ("true", ["h"])),
    ("TaktukRemote", ("true", ["h"])),
    ("RemoteSerial", (["h"], "/dev/x", 9600)),
    ("Put", (["h"], ["f"])),
    ("Get", (["h"], ["f"])),
    ("TaktukPut", (["h"], ["f"])),
    ("TaktukGet", (["h"], ["f"])),
    ("ChainPut", (["h"], ["f"])),
    ("Local", ("true",)),
    ("ParallelActions", ([],)),
    ("SequentialActions", ([],)),
    ("get_remote", ("true", ["h"])),
    ("get_fileput", (["h"], ["f"])),
    ("get_fileget", (["h"], ["f"])),
]


@pytest.mark.parametrize(("name", "args"), ACTIONS, ids=[one[0] for one in ACTIONS])
def test_an_action_takes_the_parameters_of_its_bases(name: str, args: Any) -> None:
    action = thing(f"action.{name}")(*args, **ACTION)
    for key, value in ACTION.items():
        assert getattr(action, key) == value, key


@pytest.mark.parametrize("name", ["Remote", "TaktukRemote", "RemoteSerial"])
def test_process_args_are_those_of_a_process(name: str) -> None:
    args = dict(ACTIONS)[name]
    action = thing(f"action.{name}")(*args, process_args=BASE)
    assert all(getattr(action.processes[0], key) == BASE[key] for key in BASE)


# -- the reference document's spellings -------------------------------------------------------


def test_calls_of_the_reference_document() -> None:
    params = {"user": "u"}
    by_position = Remote(["a", "b"], "true", params)
    by_name = Remote(hosts=["a", "b"], cmd="true", connexion_params=params)
    for action in (by_position, by_name):
        assert [p.cmd for p in action.processes] == ["true", "true"]
        for process in action.processes:
            assert isinstance(process, SshProcess)
            assert process.connection_params["user"] == "u"
    assert SshProcess("h", cmd="true", connexion_params=params).connection_params["user"] == "u"
    for copy in (
        Put(["a"], ["f"], connexion_params=params),
        Get(["a"], ["f"], connexion_params=params),
    ):
        assert isinstance(copy, Action)
    tree = SequentialActions([ParallelActions([Local("true"), by_name])])
    assert len(tree.processes) == 3
    assert execo.remote_substitute("{{[1, 2]}} {{{host}}}", ["a", "b"], 1) == "2 b"
    assert execo.get_hosts_list("a") == [execo.Host("a")]
    assert execo.format_unixts(execo.get_unixts("2000-01-01 00:00:00")).startswith("2000-01-01 00")


def test_a_script_of_both_traditions() -> None:
    names: dict[str, Any] = {}
    exec("from execo import *", names)
    assert names["Process"] is Process
    assert set(STAR) <= set(names)
    assert not set(MODULES) & set(names)
