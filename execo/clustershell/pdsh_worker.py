"""Workers that run one pdsh command for all nodes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from .errors import EngineClientNotSupportedError
from .event import tell
from .exec_worker import CopyClient, ExecClient, ExecWorker

__all__ = ["WORKER_CLASS", "WorkerPdsh"]

_EXIT = re.compile(rb"p?dsh@[^:]*: (\S+): (?:ssh )?exited with exit code ([0-9]+)")
_OWN = re.compile(rb"(?:p|rp)d(?:sh|cp)@[^:]*: (\S+): (.*)")


class _PdshParts(ExecClient):
    """What is said of which node, in the lines of pdsh."""

    def _lines_of(self, sname: str, lines: list[bytes]) -> None:
        known = self._known
        for line in lines:
            if found := _EXIT.fullmatch(line):
                self._rcs[found[1].decode(errors="replace")] = int(found[2])
                continue
            own = _OWN.fullmatch(line)
            if own is not None:
                name, text = own[1], own[2]
            else:
                name, _, text = line.partition(b":")
                text = text.removeprefix(b" ")
            node = name.decode(errors="replace")
            nodes: Sequence[Any] = (node,)
            if node not in known:
                nodes, text = self.nodes, line  # of pdsh itself: it concerns all
            self.worker._on_lines(self, nodes, sname, [text])
            if self.closed:
                return

    def _prepare_lines(self) -> None:
        self._rcs: dict[str, int] = {}
        self._known = frozenset(map(str, self.nodes))

    def _options(self, tool: str) -> list[str]:
        info = self.worker._bound.info
        words = shlex.split(info(f"{tool}_path") or tool)
        words += [*shlex.split(info(f"{tool}_options") or ""), "-b", f"-f {info('fanout')}"]
        return words

    def _last_options(self) -> list[str]:
        timeout = self.worker._bound.info("command_timeout")
        nodes = f"-w {self.worker.nodes}"
        return [f"-u {int(timeout)}", nodes] if timeout and timeout > 0 else [nodes]

    def _user(self) -> list[str]:
        user = self.worker._bound.info("pdsh_user")
        return ["-l", user] if user else []

    def finish(self, rc: int | None) -> None:
        if self.closed:
            return
        self.flush()
        if self.closed:
            return
        self._leave()
        worker = self.worker
        assert isinstance(worker, WorkerPdsh)
        worker._on_pdsh_end(self, rc or 0, self._rcs)


class PdshClient(_PdshParts):
    """The command of all nodes."""

    def _build_cmd(self) -> tuple[Sequence[str] | str, Mapping[str, str] | None]:
        self._prepare_lines()
        words = [*self._options("pdsh"), *self._user(), *self._last_options(), f"{self.command}"]
        timeout = self.worker._bound.info("connect_timeout")
        env = {"PDSH_SSH_ARGS_APPEND": f"-o ConnectTimeout={int(timeout)}"} if timeout else None
        return words, env

    def told(self, sname: str, lines: list[bytes]) -> None:
        self._lines_of(sname, lines)


class PdcpClient(CopyClient, _PdshParts):
    """The copy of all nodes."""

    def _build_cmd(self) -> tuple[Sequence[str] | str, Mapping[str, str] | None]:
        self._prepare_lines()
        words = [*self._options("rpdcp" if self.reverse else "pdcp"), *self._user()]
        timeout = self.worker._bound.info("connect_timeout")
        words += [f"-t {int(timeout)}"] if timeout else []
        words += self._last_options()
        words += [*(["-r"] if self.isdir else []), *(["-p"] if self.preserve else [])]
        return [*words, self.source, self.dest], None

    def told(self, sname: str, lines: list[bytes]) -> None:
        self._lines_of(sname, lines)


class WorkerPdsh(ExecWorker):
    """Commands on nodes, by one pdsh command; see :class:`ExecWorker` for its parameters. Nothing
    can be written to them. Keys of the task's info: ``pdsh_path``, ``pdsh_user``, ``pdsh_options``,
    ``pdcp_path``, ``rpdcp_path``, ``fanout``, ``connect_timeout``, ``command_timeout``."""

    SHELL_CLASS: ClassVar[type[Any]] = PdshClient
    COPY_CLASS: ClassVar[type[Any]] = PdcpClient

    def _create_clients(self, **kwargs: Any) -> None:
        if self.command is None and self.source is None:
            super()._create_clients(**kwargs)  # which says what lacks
        if self.nodes:
            self._add_client(self.nodes, rank=None, **kwargs)

    def write(self, buf: bytes, sname: str | None = None) -> NoReturn:
        """Not with pdsh.

        :raises EngineClientNotSupportedError: always
        """
        raise EngineClientNotSupportedError("writing to stdin is not supported by pdsh worker")

    def set_write_eof(self, sname: str | None = None) -> NoReturn:
        """Not with pdsh.

        :raises EngineClientNotSupportedError: always
        """
        self.write(b"")

    def _on_pdsh_end(self, client: _PdshParts, rc: int, rcs: Mapping[str, int]) -> None:
        self._left -= 1
        if rc and not rcs:
            rcs = {str(node): rc for node in client.nodes}  # pdsh itself has failed
        for node in client.nodes:
            self._set_node(node)
            self.current_rc = code = rcs.get(str(node), 0)
            self._bound._results.set_rc(self, node, code)
            tell(self, "ev_hup", node, code)
        self._look_closed()


WORKER_CLASS = WorkerPdsh
