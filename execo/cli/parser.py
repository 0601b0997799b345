"""The words that the command ``execo`` understands. What they mean is in the other modules, which
are imported when they are needed."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from execo import __version__

__all__ = ["Misuse", "make_parser"]

Parser = argparse.ArgumentParser
Subparsers = Any  # argparse names them privately


class Misuse(Exception):
    """Words that make no sense together: usage on stderr, exit status 2."""


class _Parser(Parser):
    def __init__(self, **options: Any) -> None:
        # An abbreviation would mean something else as soon as there are more options.
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.print_usage()
        self.exit(2, f"execo: {message}\n")

    def print_usage(self, file: Any = None) -> None:
        import sys

        super().print_usage(file or sys.stderr)


def make_parser() -> Parser:
    """The parser of the whole command line. ``command`` of its result is the function to call with
    it, ``parser`` the one to complain to."""
    parser = _Parser(prog="execo", description="Commands on many hosts.")
    parser.add_argument("--version", action="version", version=f"execo {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_run, _shell, _put, _get, _hosts, _report, _sweep, _completion):
        add(commands)
    return parser


def _add(commands: Subparsers, name: str, text: str, command: Any, **more: Any) -> Parser:
    made: Parser = commands.add_parser(name, help=text, description=f"{text}.", **more)
    made.set_defaults(command=command, parser=made)
    return made


# -- what several have in common ------------------------------------------------------------------


def _host_options(parser: Parser) -> None:
    group = parser.add_argument_group("hosts")
    add = group.add_argument
    add("-w", "--hosts", action="append", metavar="SET", help="these: node[1-40],@group,...")
    add("-x", "--exclude", action="append", metavar="SET", help="without these")
    add("-a", "--all", action="store_true", help="all nodes of the default group source")
    add("-g", "--group", action="append", metavar="GROUP", help="the nodes of this group")
    add("-X", "--exclude-group", action="append", metavar="GROUP", help="without this group")
    add("--hostfile", action="append", metavar="FILE", help="those in this file (- = stdin)")


def _connection_options(parser: Parser) -> None:
    group = parser.add_argument_group("connections")
    add = group.add_argument
    add("-l", "--user", metavar="NAME", help="log in as this user")
    add("--port", type=int, metavar="PORT", help="of the ssh servers")
    add("-i", "--keyfile", metavar="FILE", help="private key")
    add("-k", "--ask-password", action="store_true", help="ask for the password of each host")
    add("-t", "--connect-timeout", type=_seconds, metavar="TIME", help="to reach a host")
    add("--transport", metavar="NAME", help="auto, paramiko, openssh, taktuk, tree")
    add("--topology", metavar="FILE", help="reach the hosts through the gateways in this file")
    add("--host-key-policy", choices=("off", "accept-new", "strict"), help="for host keys")
    add("--ssh-config", metavar="FILE", help="instead of ~/.ssh/config; none = no file")
    add("-o", "--ssh-option", action="append", metavar="KEY=VALUE", help="option of ssh")
    add("--become", metavar="USER", help="run as this user of the hosts")
    add("--become-method", choices=("sudo", "su", "doas"), help="by this program")
    add("-K", "--ask-become-password", action="store_true", help="ask for the password it wants")
    add(
        *("-O", "--param"),
        action="append",
        metavar="KEY=VALUE",
        help="any other connection parameter, such as keepalive=5",
    )


def _policy_options(parser: Parser) -> None:
    group = parser.add_argument_group("limits")
    add = group.add_argument
    add("-f", "--fanout", type=_count, metavar="N", help="hosts at a time (default: all)")
    add("-u", "--command-timeout", type=_seconds, metavar="TIME", help="for each command")
    add("--start-rate", type=float, metavar="N", help="starts a second at the most")
    add("--retry", type=int, metavar="N", help="try N more times to reach a host")
    add("--max-failures", type=_failures, metavar="N|P%", help="give up the rest after more")


def _talk_options(parser: Parser) -> None:
    group = parser.add_argument_group("messages and exit status")
    add = group.add_argument
    add("-q", "--quiet", action="store_true", help="do not say what has failed")
    add("-P", "--progress", action="store_true", help="show how far it is, on a terminal")
    add("--color", choices=("auto", "always", "never"), default="auto", help="default: auto")
    status = group.add_mutually_exclusive_group()
    status.add_argument("--exit-zero", action="store_true", help="exit 0 even if commands fail")
    status.add_argument("-S", "--maxrc", action="store_true", help="the default: the worst status")


def _all_options(parser: Parser) -> None:
    _host_options(parser)
    _connection_options(parser)
    _policy_options(parser)
    _talk_options(parser)


def _output_options(parser: Parser) -> None:
    group = parser.add_argument_group("output (default: each line as it comes)")
    how = group.add_mutually_exclusive_group()
    add = how.add_argument
    add("-b", "--gather", action="store_true", help="at the end, equal outputs together")
    add("-B", "--gather-all", action="store_true", help="likewise, with stderr")
    add("-L", "--by-host", action="store_true", help="at the end, host by host")
    add("--diff", action="store_true", help="what differs from what most hosts print")
    add("--json", action="store_true", help="a line of JSON for each host")
    add = group.add_argument
    add("-N", "--no-label", action="store_true", help="without 'host: ' before each line")


def _seconds(text: str) -> float:
    from execo import get_seconds

    try:
        found = get_seconds(text)
    except (TypeError, ValueError) as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    if found is None or found < 0:
        raise argparse.ArgumentTypeError(f"not a time: {text!r}")
    return float(found)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on, not {text!r}")
    return int(text)


def _failures(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


# -- the commands --------------------------------------------------------------------------------


def _run(commands: Subparsers) -> None:
    def command(options: argparse.Namespace) -> int:
        from .run import run

        return run(options)

    parser = _add(
        commands,
        "run",
        "Run a command on hosts",
        command,
        usage="execo run -w SET [options] COMMAND...",
        epilog="{{{host}}} in COMMAND is the host, {{expression}} one value for each. What stdin "
        "has goes to all, unless it is a terminal.",
    )
    _output_options(parser)
    add = parser.add_argument
    add("--outdir", metavar="DIR", help="put the output of each host into a file there, too")
    add("--errdir", metavar="DIR", help="likewise its stderr")
    add("-n", "--nostdin", action="store_true", help="do not read stdin")
    add("--pty", action="store_true", help="give each command a terminal")
    add("--no-substitute", action="store_true", help="leave {{...}} in COMMAND alone")
    _all_options(parser)
    add("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="for the shells of the hosts")


def _shell(commands: Subparsers) -> None:
    def command(options: argparse.Namespace) -> int:
        from .prompt import shell

        return shell(options)

    parser = _add(
        commands,
        "shell",
        "Run commands on hosts, one after the other, over connections that stay",
        command,
        usage="execo shell -w SET [options]",
        epilog="At the prompt, ? lists what else it understands.",
    )
    _output_options(parser)
    parser.set_defaults(outdir=None, errdir=None, pty=False)
    add = parser.add_argument
    add("--no-substitute", action="store_true", help="leave {{...}} in commands alone")
    _all_options(parser)


def _put(commands: Subparsers) -> None:
    def command(options: argparse.Namespace) -> int:
        from .copying import put

        return put(options)

    parser = _add(
        commands,
        "put",
        "Copy files and folders to hosts",
        command,
        usage="execo put -w SET [options] FILE... [--dest PATH]",
    )
    _copy_options(parser, "where to (default: the home folder); {{{host}}} is the host")
    parser.add_argument("--broadcast", action="store_true", help="hosts pass it on to one another")


def _get(commands: Subparsers) -> None:
    def command(options: argparse.Namespace) -> int:
        from .copying import get

        return get(options)

    parser = _add(
        commands,
        "get",
        "Copy files and folders from hosts",
        command,
        usage="execo get -w SET [options] FILE... [--dest PATH]",
    )
    _copy_options(parser, "where to (default: .); without {{{host}}} in it, a folder for each host")


def _copy_options(parser: Parser, dest: str) -> None:
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="names; {{{host}}} is the host")
    add("-d", "--dest", metavar="PATH", help=dest)
    add("--rsync", action="store_true", help="send only what differs, by rsync")
    add("--json", action="store_true", help="a line of JSON for each host")
    _all_options(parser)


def _hosts(commands: Subparsers) -> None:
    def command(options: argparse.Namespace) -> int:
        from .hosts import hosts

        return hosts(options)

    parser = _add(
        commands,
        "hosts",
        "Calculate with node sets, list groups",
        command,
        usage="execo hosts [options] SET...",
        epilog="Within a SET, ',' is union, '!' difference, '&' intersection, '^' what is in one "
        "only; @group, @source:group, @* (all), node[1-9/2]. - is what stdin has.",
    )
    how = parser.add_mutually_exclusive_group()
    add = how.add_argument
    add("-f", "--fold", action="store_true", help="as a short text (default)")
    add("-e", "--expand", action="store_true", help="one host a line")
    add("-c", "--count", action="store_true", help="how many they are")
    add("-l", "--groups", action="count", help="list the groups; twice: with their nodes")
    add = parser.add_argument
    add("sets", nargs="*", metavar="SET", help="their union; with -l: sources of groups")
    add("-x", "--exclude", action="append", metavar="SET", help="without these")
    add("-i", "--intersect", action="append", metavar="SET", help="only those that are in it, too")
    add("-s", "--separator", metavar="TEXT", help="between hosts, instead of an end of line")


def _report(commands: Subparsers) -> None:
    def command(options: argparse.Namespace) -> int:
        from .records import report

        return report(options)

    parser = _add(commands, "report", "Show the record of a run", command)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="of the record")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="as JSON")
    how.add_argument(
        "--html",
        nargs="?",
        const="",
        metavar="FILE",
        help="write the page with tables and plots (default: report.html in FOLDER)",
    )


def _sweep(commands: Subparsers) -> None:
    top: Parser = commands.add_parser("sweep", help="Look at a sweep", description="Look at one.")
    steps = top.add_subparsers(metavar="WHAT", required=True)

    def step(name: str, text: str) -> Parser:
        def command(options: argparse.Namespace) -> int:
            from . import records

            function = {
                "show": records.show_sweep,
                "explain": records.explain_sweep,
                "retry": records.retry_sweep,
            }[name]
            return function(options)

        parser = _add(steps, name, text, command)
        parser.add_argument("folder", metavar="DIR", help="of the ParamSweeper")
        parser.add_argument(
            "which",
            nargs="*",
            metavar="FACTOR=VALUE",
            help="only the combinations that have this",
        )
        return parser

    shown = step("show", "Show how far it is")
    shown.add_argument("--json", action="store_true", help="a line of JSON for each combination")
    step("explain", "Tell what has happened to combinations")
    step("retry", "Have those done again that have failed, or were skipped")


def _completion(commands: Subparsers) -> None:
    def command(options: argparse.Namespace) -> int:
        from .completion import completion

        return completion(make_parser(), options.shell)

    parser = _add(
        commands,
        "completion",
        "Print what makes a shell complete the words of this command",
        command,
        epilog='bash: eval "$(execo completion bash)" in ~/.bashrc. zsh: execo completion zsh > '
        "_execo in a folder of $fpath.",
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
