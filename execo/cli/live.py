"""Output as it comes: ``host: line``, whole lines, those of a host in order."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from execo import STDOUT, ProcessBase, ProcessLifecycleHandler, ProcessOutputHandler

from .outcome import address_of, json_line
from .printing import Printer, painted

__all__ = ["JsonLines", "Live", "labelled"]


class Live(ProcessOutputHandler):
    """Writes what hosts print: their stdout to stdout, their stderr to stderr.

    :param out: stdout
    :param label: the name of the host before each line
    :param exact: nothing is added, and no line is waited for: for one host without label
    """

    def __init__(self, out: Printer, *, label: bool, exact: bool = False) -> None:
        self._out = out
        self._label = label
        self._exact = exact
        # Of a line that is not complete: pieces, so that a long one costs its length.
        self._begun: dict[tuple[ProcessBase, int], list[str]] = {}

    def read(self, process: ProcessBase, stream: int, string: str, eof: bool, error: bool) -> None:
        if self._exact:
            self._write(stream, string)
            return
        key = (process, stream)
        # Not splitlines(): "\r" and rarer ends of line are part of it, in binary data above all.
        lines, newline, rest = string.rpartition("\n")
        if newline:
            begun = "".join(self._begun.pop(key, []))
            self._write(stream, self._marked(process, stream, f"{begun}{lines}"))
        if rest:
            self._begun.setdefault(key, []).append(rest)
        if eof and key in self._begun:
            self._write(stream, self._marked(process, stream, "".join(self._begun.pop(key))))

    def _marked(self, process: ProcessBase, stream: int, lines: str) -> str:
        if not self._label:
            return f"{lines}\n"
        return labelled(address_of(process), lines, stream)

    def _write(self, stream: int, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        if stream == STDOUT:
            self._out.write(data)
        elif sys.stderr is not None:
            try:
                sys.stderr.buffer.write(data)
                sys.stderr.buffer.flush()
            except OSError:
                pass  # nobody reads it


def labelled(address: str, lines: str, stream: int = STDOUT) -> str:
    """Lines, without the end of the last one, each with the name of its host before it."""
    style, where = ("host", sys.stdout) if stream == STDOUT else ("report_error", sys.stderr)
    label = painted(f"{address}:", style, where) + " "
    return label + lines.replace("\n", f"\n{label}") + "\n"


class JsonLines(ProcessLifecycleHandler):
    """Writes a line for each process when it ends."""

    def __init__(self, out: Printer) -> None:
        self._out = out
        self._told: set[ProcessBase] = set()

    def end(self, process: ProcessBase) -> None:
        self._told.add(process)
        self._out.write(json_line(process))

    def finish(self, processes: Iterable[ProcessBase]) -> None:
        """A line for those that have no end: nobody is told of what was given up before its
        start."""
        for process in processes:
            if process not in self._told:
                self.end(process)
