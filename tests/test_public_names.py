"""The public surface of ``execo``: a name appears, moves or goes in this list first."""

from __future__ import annotations

import importlib
import inspect
import types

import pytest

import execo

# name: the room it lives in. Scripts may import it from there as well as from ``execo``.
PUBLIC = {
    "PortForwarder": "process",
    "ProcessBase": "process",
    "RemoteSerial": "action",
    "Serial": "process",
    "SerialSsh": "process",
    "TaktukProcess": "process",
    "TaktukGet": "transfer",
    "TaktukPut": "transfer",
    "TaktukRemote": "action",
    "default_action_factory": "action",
    "get_fileget": "action",
    "get_fileput": "action",
    "get_process": "process",
    "get_remote": "action",
    "CHAINPUT": "config",
    "ChainPut": "transfer",
    "ExpectOutputHandler": "process",
    "SCP": "config",
    "SSH": "config",
    "TAKTUK": "config",
    "Action": "action",
    "ActionLifecycleHandler": "action",
    "ActionsFailed": "errors",
    "ExecoError": "errors",
    "Get": "transfer",
    "Host": "host",
    "Local": "remote",
    "ParallelActions": "action",
    "Process": "process",
    "ProcessLifecycleHandler": "process",
    "ProcessOutputHandler": "process",
    "ProcessesFailed": "errors",
    "Put": "transfer",
    "Reason": "errors",
    "Remote": "remote",
    "Report": "report",
    "Retry": "action",
    "STDERR": "process",
    "STDOUT": "process",
    "SequentialActions": "action",
    "SshProcess": "process",
    "SubstitutionError": "errors",
    "Topology": "topology",
    "TopologyError": "errors",
    "TreeProcess": "process",
    "TreeRemote": "action",
    "load_topology": "topology",
    "Timer": "time_utils",
    "configuration": "config",
    "default_connection_params": "config",
    "default_connexion_params": "config",
    "filter_bad_hosts": "action",
    "format_date": "time_utils",
    "format_duration": "time_utils",
    "format_seconds": "time_utils",
    "format_unixts": "time_utils",
    "get_hosts_list": "host",
    "get_hosts_set": "host",
    "get_seconds": "time_utils",
    "get_unixts": "time_utils",
    "logger": "log",
    "raw": "substitutions",
    "remote_substitute": "substitutions",
    "sleep": "time_utils",
    "wait_all_actions": "action",
    "wait_any_actions": "action",
    "wait_multiple_actions": "action",
}

# More names that scripts import from a room and not from ``execo``.
ALSO = {
    "config": ["make_connection_params"],
    "exception": ["ActionsFailed", "ProcessesFailed"],
    "host": ["get_unique_hosts_list"],
    "log": ["style"],
    "process": ["ProcessBase"],
}


def same(one: object, other: object) -> bool:
    return one is other or (inspect.ismethod(one) and one == other)


def test_the_list_is_the_whole_surface() -> None:
    assert sorted(execo.__all__) == sorted([*PUBLIC, "__version__"])
    assert len(set(execo.__all__)) == len(execo.__all__)


def test_a_star_import_gives_the_list_and_nothing_else() -> None:
    names: dict[str, object] = {}
    exec("from execo import *", names)
    del names["__builtins__"]
    assert sorted(names) == sorted([*PUBLIC, "__version__"])


@pytest.mark.parametrize(("name", "room"), PUBLIC.items())
def test_a_name_is_the_same_in_its_room(name: str, room: str) -> None:
    module = importlib.import_module(f"execo.{room}")
    assert name in module.__all__
    assert same(getattr(execo, name), getattr(module, name))


@pytest.mark.parametrize(("room", "names"), ALSO.items(), ids=list(ALSO))
def test_a_room_has_the_names_that_scripts_import(room: str, names: list[str]) -> None:
    module = importlib.import_module(f"execo.{room}")
    assert set(names) <= set(module.__all__)
    assert all(hasattr(module, name) for name in names)


def test_a_name_has_one_spelling_for_each_tradition() -> None:
    assert execo.default_connexion_params is execo.default_connection_params
    assert execo.wait_multiple_actions is execo.wait_any_actions
    exception = importlib.import_module("execo.exception")
    assert exception.ProcessesFailed is execo.ProcessesFailed
    assert exception.ActionsFailed is execo.ActionsFailed


@pytest.mark.parametrize("name", PUBLIC)
def test_a_name_is_documented(name: str) -> None:
    thing = getattr(execo, name)
    if isinstance(thing, type | types.FunctionType | types.MethodType):
        assert documented(thing), f"execo.{name} has no docstring"
    if isinstance(thing, type):
        bare = [
            member
            for member, value in vars(thing).items()
            if not member.startswith("_")
            and isinstance(value, types.FunctionType | property | classmethod | staticmethod)
            and not documented(getattr(thing, member))
        ]
        assert bare == [], f"members of execo.{name} without a docstring"


def documented(thing: object) -> bool:
    # Of its own for a class: a subclass that only inherits its words says nothing.
    doc = thing.__doc__ if isinstance(thing, type) else inspect.getdoc(thing)
    return bool(doc and doc.strip())


def test_the_version_is_a_release_number() -> None:
    assert execo.__version__.split(".")[0] == "3"
