"""What tasks begin with: built-in values, changed by files ``defaults.conf`` of ClusterShell."""

from __future__ import annotations

import configparser
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from execo._core.locks import new_lock
from execo.errors import ConfigError

__all__ = ["Defaults", "config_paths", "defaults", "print_debug", "worker_class"]

Parser = configparser.ConfigParser
_Getter = Callable[[Parser, str, str], Any]

_MODULES = {
    "exec": "exec_worker",
    "pdsh": "pdsh_worker",
    "popen": "stream_worker",
    "rsh": "rsh_worker",
    "ssh": "ssh_worker",
    "tree": "tree_worker",
}


def print_debug(task: object, line: str) -> None:
    """What ``print_debug`` is by default: prints."""
    sys.stdout.write(f"{line}\n")


_TASK_DEFAULT: dict[str, tuple[Any, _Getter]] = {
    "stderr": (False, Parser.getboolean),
    "stdin": (True, Parser.getboolean),
    "stdout_msgtree": (True, Parser.getboolean),
    "stderr_msgtree": (True, Parser.getboolean),
    "engine": ("auto", Parser.get),
    "port_qlimit": (100, Parser.getint),
    "auto_tree": (True, Parser.getboolean),
    "local_workername": ("exec", Parser.get),
    "distant_workername": ("ssh", Parser.get),
}

_TASK_INFO: dict[str, tuple[Any, _Getter]] = {
    "debug": (False, Parser.getboolean),
    "fanout": (64, Parser.getint),
    "grooming_delay": (0.25, Parser.getfloat),
    "connect_timeout": (10, Parser.getfloat),
    "command_timeout": (0, Parser.getfloat),
}


def config_paths(name: str) -> list[str]:
    """Where ClusterShell looks for a file of its configuration; of several the last one counts."""
    folders = [
        "/etc/clustershell",
        os.path.expanduser("~/.local/etc/clustershell"),
        os.path.join(sys.prefix, "etc/clustershell"),
        os.path.join(
            os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "clustershell"
        ),
        os.environ.get("CLUSTERSHELL_CFGDIR"),
    ]
    return [os.path.join(folder, name) for folder in dict.fromkeys(folders) if folder]


class Defaults:
    """The values that a new task has. Each is an attribute, too, which may be set.

    :param filenames: the files to read, those that exist; of several that set a value the last one
      counts
    :raises ConfigError: for a file that cannot be read, or a value that is none; it names both
    """

    def __init__(self, filenames: Iterable[str]) -> None:
        self.task_default = {key: value for key, (value, _) in _TASK_DEFAULT.items()}
        self.task_info = {key: value for key, (value, _) in _TASK_INFO.items()}
        self.task_info["print_debug"] = print_debug
        for filename in filenames:
            self._read(filename)

    def _read(self, filename: str) -> None:
        parser = Parser(interpolation=None)
        try:
            parser.read(filename)
        except (configparser.Error, UnicodeDecodeError) as exc:
            raise ConfigError(str(exc), filename=filename) from exc
        self._take(parser, "task.default", self.task_default, _TASK_DEFAULT, filename)
        self._take(parser, "task.info", self.task_info, _TASK_INFO, filename)
        # Where ClusterShell has it since 1.9.
        self._take(
            parser, "engine", self.task_default, {"port_qlimit": (0, Parser.getint)}, filename
        )

    def _take(
        self,
        parser: Parser,
        section: str,
        values: dict[str, Any],
        known: dict[str, tuple[Any, _Getter]],
        filename: str,
    ) -> None:
        for key, (_, getter) in known.items():
            if parser.has_option(section, key):
                try:
                    values[key] = getter(parser, section, key)
                except ValueError as exc:
                    raise ConfigError(f"[{section}] {key}: {exc}", filename=filename) from exc

    def __getattr__(self, name: str) -> Any:
        for values in (vars(self).get("task_default", {}), vars(self).get("task_info", {})):
            if name in values:
                return values[name]
        raise AttributeError(f"there is no default {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        for values in (vars(self).get("task_default", {}), vars(self).get("task_info", {})):
            if name in values:
                values[name] = value
                return
        super().__setattr__(name, value)


_lock = new_lock()
_found: Defaults | None = None


def defaults() -> Defaults:
    """Those of the files of this machine and user, which the first call reads."""
    global _found
    if _found is None:
        with _lock:
            if _found is None:
                _found = Defaults(config_paths("defaults.conf"))
    return _found


def worker_class(name: str) -> type[Any]:
    """The class of workers of this name: ``ssh``, ``exec``, ``rsh``, ``pdsh``, ``tree``, or a
    module that has it as ``WORKER_CLASS``.

    :raises ImportError: if there is no such module
    :raises TypeError: if its class is none of ours
    """
    module = _MODULES.get(name.lower())
    where = name if module is None else f"execo.clustershell.{module}"
    found = getattr(importlib.import_module(where), "WORKER_CLASS", None)
    from .worker import Worker

    if not (isinstance(found, type) and issubclass(found, Worker)):
        _refuse(name, found)
    return found


def _refuse(name: str, found: object) -> NoReturn:
    raise TypeError(
        f"the worker {name!r}: its module has WORKER_CLASS = {found!r}, which is no class of "
        "workers of execo.clustershell: derive it from one of these"
    )
