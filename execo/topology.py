"""Which hosts are reached through which gateways: a tree, in ClusterShell's format.

::

    # topology.conf
    [routes]
    admin: gw[1-2]
    gw[1-2]: node[1-1000]

Each line of ``[routes]`` says that any of the hosts on the left reaches all of those on the right.
The texts are node sets with all that :func:`execo.hostset.hostset` understands, groups too. The
root, where the script runs, is on the left of some line; what stands on no right side is reached
directly.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .errors import HostSetError, TopologyError
from .hostset import fold, hostset

__all__ = ["Topology", "TopologyFile", "load_topology"]

_SECTIONS = ("routes", "Main")
"""Where the routes are: the second name is that of ClusterShell before 1.7."""

MOST_BYTES = 64 << 20


class Topology:
    """Gateways and the hosts behind them. It does not change; two with the same routes are equal.

    - ``root``: the host where the script runs, as the routes name it

    :param routes: pairs of hosts: any of the first ones reaches all of the second ones. Texts are
      node sets
    :param root: the host where the script runs; None = the short name of this machine, as in
      ClusterShell
    :raises TopologyError: for a loop, a host with two different sets of parents, a root that is in
      no route
    :raises HostSetError: for a text that names no host
    """

    def __init__(
        self,
        routes: Iterable[tuple[str | Sequence[str], str | Sequence[str]]],
        root: str | None = None,
    ) -> None:
        self._take([(_hosts(left), _hosts(right), None) for left, right in routes], root, None)

    def _take(self, rows: Sequence[_Row], root: str | None, name: str | None) -> None:
        self.root = _short_name() if root is None else root
        self._parents = _checked(rows, self.root, name)
        self._hash = hash((self.root, tuple(self._parents.items())))

    def parents(self, host: str) -> Sequence[str]:
        """The gateways of which any one leads to ``host``. None: it is reached directly, since it
        is next to the root, or in no route that begins there."""
        return self._parents.get(host, ())

    def gateways(self) -> list[str]:
        """All gateways below the root."""
        return list(dict.fromkeys(one for parents in self._parents.values() for one in parents))

    def hosts(self) -> list[str]:
        """All hosts behind a gateway, gateways that are themselves among them."""
        return list(self._parents)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Topology):
            return NotImplemented
        return self.root == other.root and self._parents == other._parents

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return (
            f"<Topology of {self.root}: {len(self._parents)} hosts behind "
            f"{fold(self.gateways()) or 'no gateway'}>"
        )


def load_topology(path: str | os.PathLike[str], *, root: str | None = None) -> Topology:
    """Read a topology from a file of ClusterShell's format, see :mod:`execo.topology`.

    It may block: groups can run the commands that groups.conf names for them.

    :param path: the file
    :param root: the host where the script runs; None = the short name of this machine, as in
      ClusterShell
    :raises TopologyError: for a file that cannot be read, or is wrong: a loop, a host with two
      different sets of parents, a root that is in no route, a text that names no host; it names
      file and line
    """
    name = os.fspath(path)
    rows = list(_read(name))
    if not rows:
        raise TopologyError("no routes: a section [routes] with lines 'a: b'", filename=name)
    made = Topology.__new__(Topology)
    made._take(rows, root, name)
    return made


class TopologyFile:
    """A topology, or the file that it is read from, with the means to see that it has changed."""

    def __init__(self, given: str | os.PathLike[str] | Topology) -> None:
        self._given = given
        self._stamp = self._look()

    def read(self) -> Topology:
        """What it says now.

        :raises TopologyError: see :func:`load_topology`
        """
        if isinstance(self._given, (str, os.PathLike)):
            return load_topology(os.path.expanduser(os.fspath(self._given)))
        return self._given

    def is_current(self) -> bool:
        """Whether it is as it was."""
        return self._stamp == self._look()

    def _look(self) -> tuple[int, ...]:
        if not isinstance(self._given, (str, os.PathLike)):
            return ()
        try:
            found = os.stat(os.path.expanduser(os.fspath(self._given)))
        except OSError:
            return (0,)
        return found.st_mtime_ns, found.st_size, found.st_ino


_Row = tuple[tuple[str, ...], tuple[str, ...], int | None]


def _short_name() -> str:
    return socket.gethostname().partition(".")[0]


def _hosts(given: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(hostset(given)) if isinstance(given, str) else tuple(given)


def _read(name: str) -> Iterator[_Row]:
    """The routes of a file, each with the number of its line."""
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read(MOST_BYTES)
    except OSError as exc:
        raise TopologyError(f"cannot be read: {exc.strerror}", filename=name) from exc
    except UnicodeDecodeError as exc:
        raise TopologyError("cannot be read: it is not a text", filename=name) from exc
    section = ""
    for number, line in _lines(text):
        heading = re.fullmatch(r"\[([^\]]*)\]", line)
        if heading is not None and ":" not in line and "=" not in line:
            section = heading[1].strip()
            continue
        if section == "":
            raise TopologyError(
                f"{line!r} is in no section: [routes] comes first", filename=name, lineno=number
            )
        if section not in _SECTIONS:
            continue
        left, mark, right = _parted(line)
        if not mark:
            raise TopologyError(f"no route: {line!r} has no ':'", filename=name, lineno=number)
        if not left or not right:
            continue
        try:
            yield tuple(hostset(left)), tuple(hostset(right)), number
        except HostSetError as exc:
            raise TopologyError(str(exc), filename=name, lineno=number) from exc


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, those that go on (they begin with a blank) as one."""
    whole, begun = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip()[0] in "#;":
            continue
        if whole and line[0].isspace() and not whole.startswith("["):
            whole = whole.rstrip(", ") + "," + line.strip()
            continue
        if whole:
            yield begun, whole
        whole, begun = line.strip(), number
    if whole:
        yield begun, whole


def _parted(line: str) -> tuple[str, str, str]:
    """The two sides of a route. A group may have a ':' in its name, so a blank after it decides."""
    found = re.search(r"\s*(?::(?=\s|$)|=)\s*", line) or re.search(r"\s*:\s*", line)
    if found is None:
        return line, "", ""
    return line[: found.start()], found[0], line[found.end() :]


def _checked(rows: Sequence[_Row], root: str, name: str | None) -> dict[str, tuple[str, ...]]:
    """Who is reached through whom, of those below the root.

    :raises TopologyError: see :class:`Topology`
    """
    parents: dict[str, tuple[tuple[str, ...], int | None]] = {}
    for left, right, line in rows:
        for host in right:
            known = parents.setdefault(host, (left, line))
            if set(known[0]) != set(left):
                where = "" if known[1] is None else f" (line {known[1]})"
                raise TopologyError(
                    f"two parents: {host} is reached through {fold(known[0])}{where} and through "
                    f"{fold(left)}",
                    filename=name,
                    lineno=line,
                )
    _refuse_loops(parents, name)
    sources = {host for left, _, _ in rows for host in left}
    if root not in sources:
        raise TopologyError(
            f"unknown root: {root} stands on the left of no route; give root=, the host where the "
            f"script runs, as the routes name it ({fold(sources)[:200]})",
            filename=name,
        )
    return _below(root, rows)


def _refuse_loops(
    parents: Mapping[str, tuple[tuple[str, ...], int | None]], name: str | None
) -> None:
    """Raise TopologyError for a host that is behind itself."""
    safe: set[str] = set()
    for start in parents:
        # Depth first, without recursion: a chain may be long.
        path: dict[str, None] = {}
        stack: list[tuple[str, Iterator[str]]] = []
        if start not in safe:
            path[start] = None
            stack.append((start, iter(parents[start][0])))
        while stack:
            host, ups = stack[-1]
            up = next(ups, None)
            if up is None:
                stack.pop()
                del path[host]
                safe.add(host)
            elif up in path:
                raise TopologyError(
                    f"a loop: {host} is reached through {up}, and {up} through {host}"
                    if up != host
                    else f"a loop: {host} is reached through itself",
                    filename=name,
                    lineno=parents[host][1],
                )
            elif up in parents and up not in safe:
                path[up] = None
                stack.append((up, iter(parents[up][0])))


def _below(root: str, rows: Sequence[_Row]) -> dict[str, tuple[str, ...]]:
    """The hosts behind gateways that the root reaches, and through which. What is next to it has no
    gateway; what it does not reach is not in there."""
    rights: dict[str, list[int]] = {}
    for index, (left, _, _) in enumerate(rows):
        for host in left:
            rights.setdefault(host, []).append(index)
    reached = {root}
    queue = [root]
    done: set[int] = set()
    for host in queue:  # grows meanwhile
        for index in rights.get(host, ()):
            if index not in done:
                done.add(index)
                new = [one for one in rows[index][1] if one not in reached]
                reached.update(new)
                queue += new
    found: dict[str, tuple[str, ...]] = {}
    for index in sorted(done):
        left, right, _ = rows[index]
        if root not in left:
            gateways = tuple(one for one in left if one in reached)
            found.update(dict.fromkeys(right, gateways))
    return found
