"""Outputs of many processes, with the equal ones together: what most hosts say, and who differs.

::

    groups = Remote("uname -r", "node[1-1000]").run().gather()
    print(groups)  # each output once, below a line such as "node[1-7,9-1000] (999)"
    print(groups.diff())  # what the others have that most have not

Time is linear in the output: outputs are told apart as bytes, hosts are folded for display alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from .hostset import fold
from .output import STDERR, STDOUT

if TYPE_CHECKING:
    from .host import Host

__all__ = ["Group", "Groups", "gather"]


class Group:
    """Processes that have printed the same.

    :param output: that, as it was written
    :param processes: these processes
    """

    __slots__ = ("output", "processes")

    def __init__(self, output: bytes, processes: Sequence[Any]) -> None:
        self.output = output
        self.processes = list(processes)

    @property
    def text(self) -> str:
        """The output as text: UTF-8; bytes that are not are kept as surrogates (PEP 383)."""
        return self.output.decode("utf-8", "surrogateescape")

    @property
    def hosts(self) -> list[Host]:
        """The hosts of its processes, each once, in order; local ones have none."""
        return list(dict.fromkeys(p.host for p in self.processes if hasattr(p, "host")))

    @property
    def name(self) -> str:
        """Its hosts, folded (``node[1-4,7]``), and the names of its local processes."""
        return _name_of(self.processes)

    @property
    def exit_codes(self) -> list[int | None]:
        """The exit codes of its processes, each once, in order of size; None comes last: of those
        that still run, or were lost."""
        codes = {process.exit_code for process in self.processes}
        return sorted(codes, key=lambda code: (code is None, code or 0))

    def __len__(self) -> int:
        """How many processes there are."""
        return len(self.processes)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        """The name and the number of processes between two rules, and the output below, without
        the end of its last line."""
        rule = "-" * 15
        body = self.text.removesuffix("\n")
        head = f"{rule}\n{self.name} ({len(self)})\n{rule}"
        return f"{head}\n{body}" if body else head

    def __repr__(self) -> str:
        return f"<Group {self.name!r}: {len(self)} processes, {len(self.output)} bytes>"


class Groups(Sequence[Group]):
    """What :func:`gather` gives: groups, the largest one first; of those that are as large, the one
    whose first process comes first.

    - ``not_run``: the processes that have not run (yet): they have no output to be compared

    ``str()`` is the text of all groups, safe neither for a terminal nor for an encoding that cannot
    say everything: it is what hosts have printed.
    """

    def __init__(self, groups: Iterable[Group], not_run: Iterable[Any] = ()) -> None:
        self._groups = sorted(groups, key=len, reverse=True)
        self.not_run = list(not_run)

    @overload
    def __getitem__(self, index: int) -> Group: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Group]: ...
    def __getitem__(self, index: int | slice) -> Group | Sequence[Group]:
        return self._groups[index]

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def diff(self, context: int = 3) -> str:
        """How the outputs of the other groups differ from that of the largest: a unified diff for
        each, one after the other; empty if all have printed the same.

        Lines end with ``\\n`` alone. Time is that of sorting the lines, however large and however
        different the outputs are; very different parts may then be longer than they need be.

        :param context: lines around each difference
        """
        if len(self) < 2:
            return ""
        from .differences import unified

        first, *others = self._groups
        label = f"{first.name} ({len(first)})"
        return "".join(
            unified(first.text, one.text, label, f"{one.name} ({len(one)})", context)
            for one in others
        )

    def __str__(self) -> str:
        parts = [str(group) for group in self._groups]
        if self.not_run:
            parts.append(f"not run: {_name_of(self.not_run)} ({len(self.not_run)})")
        return "\n".join(parts)

    def __repr__(self) -> str:
        return f"<Groups: {len(self)}, of {sum(map(len, self._groups))} processes>"


def gather(processes: Iterable[Any], stream: int = STDOUT) -> Groups:
    """Group processes by what they have printed so far, byte for byte. From any thread, at any
    time; blocks as long as it takes to look at all output once.

    What comes later is not in the result. Output that is not kept cannot be compared
    (``default_stdout_handler=False``, ``max_output``). New; after ``clush -b``.

    :param processes: processes, such as ``remote.processes``
    :param stream: STDOUT, STDERR, or ``STDOUT | STDERR``: one after the other
    :returns: a sequence of groups, the largest one first; what has not run is not in them
    :raises ValueError: for another stream
    """
    if stream not in (STDOUT, STDERR, STDOUT | STDERR) or isinstance(stream, bool):
        raise ValueError(f"the stream is STDOUT, STDERR or STDOUT | STDERR, not {stream!r}")
    found: dict[bytes, list[Any]] = {}
    not_run = []
    for process in processes:
        if process.start_date is None:
            not_run.append(process)
            continue
        output = process.stdout_bytes if stream & STDOUT else b""
        if stream & STDERR:
            output += process.stderr_bytes
        found.setdefault(output, []).append(process)
    return Groups([Group(output, same) for output, same in found.items()], not_run)


def _name_of(processes: Iterable[Any]) -> str:
    addresses, names = [], []
    for process in processes:
        host = getattr(process, "host", None)
        if host is None:
            names.append(process.name)
        else:
            addresses.append(host.address)
    folded = [fold(addresses)] if addresses else []
    return ",".join([*folded, *dict.fromkeys(names)])
