"""``execo put`` and ``execo get``."""

from __future__ import annotations

import argparse
import os
from typing import Any

from execo import Action, Get, Put

from .choosing import apply_settings, chosen_hosts, connection_params, policies
from .live import JsonLines
from .outcome import QUIET, exit_status, tell_failures
from .parser import Misuse
from .printing import printer
from .waiting import INTERRUPTED, run_to_end

__all__ = ["get", "put"]


def put(options: argparse.Namespace) -> int:
    """Copy files to the hosts; returns the exit status."""
    return _copy(Put, options, options.dest or ".", broadcast=options.broadcast)


def get(options: argparse.Namespace) -> int:
    """Copy files from the hosts, each into a folder of its own; returns the exit status."""
    place = options.dest or "."
    if "{{{host}}}" not in place:
        place = os.path.join(place, "{{{host}}}", "")
    return _copy(Get, options, place)


def _copy(kind: type[Put | Get], options: argparse.Namespace, place: str, **more: Any) -> int:
    apply_settings(options)
    hosts = chosen_hosts(options)
    if not options.files:
        raise Misuse("no files: give their names")
    args: dict[str, Any] = {**QUIET, "timeout": options.command_timeout}
    del args["ignore_write_error"]  # here it is a file that has not arrived
    rows = JsonLines(printer) if options.json else None
    if rows is not None:
        args["lifecycle_handlers"] = [rows]
    try:
        action: Action = kind(
            hosts,
            options.files,
            place,
            connection_params(options),
            process_args=args,
            tool="rsync" if options.rsync else None,
            **more,
            **policies(options),
        )
    except (TypeError, ValueError) as exc:
        raise Misuse(str(exc)) from exc
    interrupted = run_to_end(action, progress=options.progress)
    if rows is not None:
        rows.finish(action.processes)
    if not options.quiet and printer.lost is None:
        tell_failures(action, interrupted=interrupted)
    if interrupted:
        return INTERRUPTED
    return 0 if options.exit_zero else exit_status(action.processes)
