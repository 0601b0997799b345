"""The command ``execo``: commands on many hosts, files to and from them, node sets, records and
sweeps, from a terminal or a shell script.

It says what it does in terms of the library and nothing else; who needs more writes a script.
stdout carries what hosts print or what was asked for, stderr what execo has to say. (new; options
after ``clush`` of ClusterShell where it has them)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .parser import Misuse, make_parser
from .printing import OutputLost, printer, tell

__all__ = ["main"]

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command ``execo``. Blocks until all is done.

    :param arguments: the words of the command line, None = those of this program
    :returns: the exit status, see the guide; 2 for bad input, 130 after Ctrl-C, 141 where nobody
      reads stdout any more
    :raises SystemExit: after ``--help`` and for words that it does not know (2), with the usage on
      stderr
    """
    options = make_parser().parse_args(arguments)
    from execo.errors import ExecoError

    try:
        status: int = options.command(options)
    except Misuse as exc:
        options.parser.error(str(exc))
    except KeyboardInterrupt:
        status = INTERRUPTED
    except ExecoError as exc:
        tell(str(exc))
        status = 2
    except OutputLost:
        pass  # told below
    if printer.lost is None:
        printer.flush()
    if printer.lost is not None:
        status = BROKEN_PIPE if isinstance(printer.lost, BrokenPipeError) else 1
        if status == 1:
            tell(f"stdout cannot be written: {printer.lost.strerror}")
        # What the interpreter still has of it would fail again at its end, aloud.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return status
