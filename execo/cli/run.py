"""``execo run``, and what the prompt has in common with it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from execo import STDERR, STDOUT, Action, Remote, SubstitutionError
from execo.gathering import Group, Groups

from .choosing import apply_settings, chosen_hosts, connection_params, policies
from .feeding import Broadcast, has_input
from .live import JsonLines, Live, labelled
from .outcome import QUIET, address_of, exit_status, tell_failures
from .parser import Misuse
from .printing import painted, printer
from .waiting import INTERRUPTED, run_to_end

__all__ = ["execute", "run"]


def run(options: argparse.Namespace) -> int:
    """Run the command on the hosts; returns the exit status."""
    apply_settings(options)
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    command = " ".join(words)
    hosts = chosen_hosts(options)
    if not command.strip():
        raise Misuse("no command: it comes after the options")
    from_stdin = "-" in (options.hostfile or ())
    feeds = not options.nostdin and not from_stdin and has_input()
    return execute(command, hosts, connection_params(options), options, feeds=feeds)


def execute(
    command: str,
    hosts: Sequence[str],
    params: dict[str, Any],
    options: argparse.Namespace,
    *,
    feeds: bool = False,
) -> int:
    """Run a command, show its output in the way that the options say; the exit status.

    :param feeds: it gets the stdin of this program
    :raises Misuse: the command cannot be put together, or a folder for outputs cannot be used
    """
    rows = JsonLines(printer) if options.json else None
    action = _remote(command, hosts, params, options, rows)
    _keep_in_files(action, "stdout_handlers", options.outdir)
    _keep_in_files(action, "stderr_handlers", options.errdir)
    source = Broadcast() if feeds else Remote.close_stdin
    interrupted = run_to_end(action, progress=options.progress, source=source)
    if rows is not None:
        rows.finish(action.processes)
    _show(action, options)
    if not options.quiet and printer.lost is None:
        tell_failures(action, interrupted=interrupted)
    if interrupted:
        return INTERRUPTED
    return 0 if options.exit_zero else exit_status(action.processes)


def _remote(
    command: str,
    hosts: Sequence[str],
    params: dict[str, Any],
    options: argparse.Namespace,
    rows: JsonLines | None,
) -> Remote:
    live = Live(
        printer,
        label=not options.no_label,
        exact=options.no_label and len(hosts) == 1,
    )
    kept = options.gather or options.gather_all or options.by_host or options.diff or options.json
    args: dict[str, Any] = {
        **QUIET,
        "timeout": options.command_timeout,
        "pty": options.pty,
        "default_stdout_handler": bool(kept),
        "default_stderr_handler": bool(options.gather_all or options.json),
        "max_output": None,  # what is asked for is shown as a whole
    }
    if not kept:
        args["stdout_handlers"] = [live]
    if not args["default_stderr_handler"]:
        args["stderr_handlers"] = [live]
    if rows is not None:
        args["lifecycle_handlers"] = [rows]
    try:
        return Remote(
            cmd=command,
            hosts=list(hosts),
            connection_params=params,
            process_args=args,
            substitute=not options.no_substitute,
            **policies(options),
        )
    except SubstitutionError as exc:
        raise Misuse(f"{exc}; here: --no-substitute") from exc
    except (TypeError, ValueError) as exc:
        raise Misuse(str(exc)) from exc


def _keep_in_files(action: Remote, handlers: str, folder: str | None) -> None:
    """Write the output of each host into a file of its name, which is empty before."""
    if folder is None:
        return
    try:
        os.makedirs(folder, exist_ok=True)
        for process in action.processes:
            path = os.path.join(os.path.abspath(folder), address_of(process).replace("/", "_"))
            with open(path, "wb"):
                pass
            getattr(process, handlers).append(path)
    except OSError as exc:
        raise Misuse(f"{exc.filename or folder}: {exc.strerror}") from exc


def _show(action: Action, options: argparse.Namespace) -> None:
    """What is shown at the end."""
    streams = STDOUT | STDERR if options.gather_all else STDOUT
    if options.gather or options.gather_all:
        _show_groups(action.gather(streams), label=not options.no_label)
    elif options.diff:
        printer.text(action.gather().diff())
    elif options.by_host:
        for process in action.processes:
            if lines := process.stdout.removesuffix("\n"):
                label = not options.no_label
                printer.text(labelled(address_of(process), lines) if label else f"{lines}\n")


def _show_groups(groups: Groups, *, label: bool) -> None:
    if not any(group.output for group in groups):
        return  # all have done it, and none has anything to say
    for group in groups:
        if label:
            printer.text(_head(group))
        printer.write(group.output)
        if group.output and not group.output.endswith(b"\n"):
            printer.write(b"\n")


def _head(group: Group) -> str:
    rule = "-" * 15
    return painted(f"{rule}\n{group.name} ({len(group)})\n{rule}", "host") + "\n"
