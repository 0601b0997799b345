"""Workers that run one local command for each node; the base of all distant workers."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ClusterShell.NodeSet import NodeSet, NodeSetParseError

from execo.log import logger
from execo.transports.base import Request

from .client import ProcessClient
from .errors import WorkerBadArgumentError, WorkerError
from .stream_worker import checked_data, local_request
from .worker import DistantWorker

if TYPE_CHECKING:
    from .event import EventHandler

__all__ = ["WORKER_CLASS", "CopyClient", "ExecClient", "ExecWorker", "node_set"]


def node_set(nodes: Any) -> NodeSet:
    """A node set from a text or another one.

    :raises NodeSetParseError: for a text that is none; it says where
    :raises TypeError: for what is neither
    """
    try:
        if isinstance(nodes, (list, tuple, set, frozenset)):
            return NodeSet.fromlist(nodes)
        return NodeSet(nodes)
    except NodeSetParseError as exc:
        part = getattr(exc, "part", None)
        at = nodes.find(part) if isinstance(nodes, str) and isinstance(part, str) else -1
        if at < 0:
            raise
        message = str(exc).removesuffix(f' : "{part}"').removesuffix(f': "{part}"')
        raise type(exc)(part, f"{message}, at position {at} of {nodes!r}") from None


class _Pattern(string.Template):
    delimiter = "%"


def _filled(text: str, values: Mapping[str, str]) -> str:
    """``text`` with the values of its ``%names``.

    :raises WorkerError: for a name that is not known
    """
    try:
        return _Pattern(text).substitute(values)
    except (KeyError, ValueError) as exc:
        raise WorkerError(
            f"{exc} is not a valid pattern, use '%%' to escape '%', in {text!r}"
        ) from exc


def _is_for_all(text: str) -> bool:
    """It has ``%hosts``: one command for all nodes."""
    return re.search(r"%hosts\b", text.replace("%%", "")) is not None


class ExecClient(ProcessClient):
    """The command of one node, on this machine: a shell's, with ``%h %host %n %rank`` filled in;
    or of all nodes, with ``%hosts``.

    Classes of workers of your own derive from it, see :class:`ExecWorker`.

    :param node: the node, or all of them
    :param command: the command
    :param worker: whose it is
    :param stderr: stderr is apart from stdout
    :param timeout: seconds from its start until it is killed
    :param autoclose: the run does not wait for it
    :param rank: which of the nodes it is, from 0; None = all
    """

    worker: ExecWorker
    _built: tuple[Sequence[str] | str, Mapping[str, str] | None] | None = None

    def __init__(
        self,
        node: Any,
        command: str | None,
        worker: ExecWorker,
        stderr: bool,
        timeout: float | None,
        autoclose: bool = False,
        rank: int | None = None,
    ) -> None:
        super().__init__(worker, node, stderr, timeout, autoclose)
        self.command = command
        self.rank = rank
        self._nodes: tuple[Any, ...] = (node,) if rank is not None else tuple(node)

    @property
    def nodes(self) -> Sequence[Any]:
        return self._nodes

    def _build_cmd(self) -> tuple[Sequence[str] | str, Mapping[str, str] | None]:
        """The words of a command, or a text for a shell; and variables to set, or None.

        :raises WorkerError: if it cannot be made
        """
        assert self.command is not None
        return self._fill(self.command), None

    def _fill(self, text: str) -> str:
        if self.rank is None:
            return _filled(text, _Names(self.worker.nodes))
        node = str(self.key)
        rank = str(self.rank)
        values = {"h": node, "host": node, "hosts": node, "n": rank, "rank": rank}
        return _filled(text, values)

    def prepare(self) -> None:
        self._built = self._build_cmd()

    def request(self) -> tuple[str, Request]:
        assert self._built is not None
        command, env = self._built
        words = command if isinstance(command, str) else tuple(command)
        return "local", local_request(words, self.stderr, None if env is None else dict(env))


class _Names(dict[str, str]):
    """For all nodes in one command."""

    def __init__(self, nodes: NodeSet) -> None:
        folded = str(nodes)
        super().__init__(h=folded, host=folded, hosts=folded, n="0", rank="0")


class CopyClient(ExecClient):
    """The copy of one node: by ``cp``.

    :param source: the file or folder
    :param dest: where to; with ``reverse`` a folder
    :param preserve: keep permissions and times
    :param reverse: from the node
    """

    def __init__(
        self,
        node: Any,
        source: str,
        dest: str,
        worker: ExecWorker,
        stderr: bool,
        timeout: float | None,
        autoclose: bool,
        preserve: bool,
        reverse: bool,
        rank: int | None = None,
    ) -> None:
        super().__init__(node, None, worker, stderr, timeout, autoclose, rank)
        self.source = source
        self.dest = dest
        self.preserve = preserve
        self.reverse = reverse
        # A name on the node may be a folder.
        self.isdir = reverse or os.path.isdir(source)
        if reverse and not os.path.isdir(dest):
            raise WorkerBadArgumentError("reverse copy dest must be a directory")

    def _build_cmd(self) -> tuple[Sequence[str] | str, Mapping[str, str] | None]:
        source, dest = self._fill(self.source), self._fill(self.dest)
        words = ["cp", *(["-r"] if self.isdir else []), *(["-p"] if self.preserve else [])]
        return [*words, *([dest, source] if self.reverse else [source, dest])], None

    @property
    def local_target(self) -> str:
        """The file or folder that comes from the node: ``dest/basename.NODE``."""
        name = os.path.basename(self.source.rstrip("/"))
        return os.path.join(self.dest, f"{name}.{self.key}")


class ExecWorker(DistantWorker):
    """Commands on this machine, one for each node of a set. In the command ``%h`` and ``%host`` are
    the node, ``%n`` and ``%rank`` its rank, from 0; with ``%hosts``, which is all nodes, one
    command runs for them all; ``%%`` is a percent sign. (ClusterShell 1.10)

    A class of your own sets ``SHELL_CLASS`` to a class derived from :class:`ExecClient` whose
    ``_build_cmd()`` gives the words of a local command; a module that has it as ``WORKER_CLASS``
    can be named as the task's default ``distant_workername``.

    - ``nodes``: the nodes; ``command``, ``source``, ``dest``: as given

    :param nodes: a node set, or a text that names one. An empty one runs nothing, and says so in
      the log
    :param handler: see :class:`Worker`
    :param timeout: seconds from the start of each command until it is killed; None or negative = no
      limit
    :param command: the command; or
    :param source: a file or folder to copy to
    :param dest: this place
    :param stderr: stderr is apart from stdout; default False
    :param autoclose: it is aborted when all else of the task is over; default False
    :param preserve: copies keep permissions and times; default False
    :param reverse: copies come from the nodes; default False
    :param fanout: how many run at a time, apart from the task's fanout; -1 = all (as ``_fanout``
      there); default: they share it
    :raises ValueError: if there is neither a command nor a source
    :raises NodeSetParseError: for a text that names no nodes; it says where
    """

    SHELL_CLASS: ClassVar[type[Any]] = ExecClient
    COPY_CLASS: ClassVar[type[Any]] = CopyClient

    def __init__(
        self,
        nodes: Any,
        handler: EventHandler | None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(handler)
        self.nodes = node_set(nodes)
        command = kwargs.get("command")
        self.command = None if command is None else os.fsdecode(command)
        self.source: str | None = _path(kwargs.get("source"))
        self.dest: str | None = _path(kwargs.get("dest"))
        if kwargs.get("fanout") is not None:
            self._fanout = int(kwargs["fanout"])
        self._create_clients(timeout=timeout, **kwargs)
        if not self._clients:
            logger.warning("nothing is run: the node set %r is empty", nodes)

    def _create_clients(self, **kwargs: Any) -> None:
        if self.command is None and self.source is None:
            raise WorkerBadArgumentError(
                "missing command or source parameter in worker constructor"
            )
        text = self.source if self.command is None else self.command
        if type(self)._fills and self.nodes and _is_for_all(str(text)):
            self._add_client(self.nodes, rank=None, **kwargs)
            return
        for rank, node in enumerate(self.nodes):
            self._add_client(node, rank=rank, **kwargs)

    _fills: ClassVar[bool] = True
    """Whether ``%hosts`` means something."""

    def _add_client(self, nodes: Any, **kwargs: Any) -> None:
        stderr, timeout = bool(kwargs.get("stderr", False)), kwargs.get("timeout")
        autoclose, rank = bool(kwargs.get("autoclose", False)), kwargs["rank"]
        if self.source is None or self.command is not None:
            client = self.SHELL_CLASS(
                nodes, self.command, self, stderr, timeout, autoclose, rank=rank
            )
        else:
            if self.dest is None:
                raise WorkerBadArgumentError("missing dest parameter in worker constructor")
            preserve, reverse = (bool(kwargs.get(key, False)) for key in ("preserve", "reverse"))
            client = self.COPY_CLASS(
                nodes, self.source, self.dest, self, stderr, timeout, autoclose,
                preserve, reverse, rank=rank,
            )  # fmt: skip
        self._clients.append(client)

    def write(self, buf: bytes, sname: str | None = None) -> None:
        """Write to the input of all nodes' commands: what is not taken yet waits."""
        data = checked_data(buf)
        for client in list(self._clients):
            client.write(data, sname or self.SNAME_STDIN)

    def set_write_eof(self, sname: str | None = None) -> None:
        """End their input after all that was written."""
        for client in list(self._clients):
            client.write(None, sname or self.SNAME_STDIN)


def _path(given: Any) -> str | None:
    return None if given is None else os.fspath(given)


WORKER_CLASS = ExecWorker
