"""Workers that run the rsh command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .exec_worker import CopyClient, ExecClient, ExecWorker

__all__ = ["WORKER_CLASS", "WorkerRsh"]

_MARK = re.compile(rb"(.*)XXRETCODE: ([0-9]+)")


class RshClient(ExecClient):
    """A command by rsh, which does not tell return codes: the shell there prints them."""

    _rc: int | None = None

    def _build_cmd(self) -> tuple[Sequence[str] | str, Mapping[str, str] | None]:
        info = self.worker._bound.info
        words = shlex.split(info("rsh_path") or "rsh")
        if info("rsh_user"):
            words += ["-l", info("rsh_user")]
        words += shlex.split(info("rsh_options") or "")
        return [*words, str(self.key), f"{self.command}", "; echo XXRETCODE: $?"], None

    def told(self, sname: str, lines: list[bytes]) -> None:
        if lines and (found := _MARK.fullmatch(lines[-1])):
            self._rc = int(found[2])
            lines = [*lines[:-1], *([found[1]] if found[1] else [])]
        super().told(sname, lines)

    def finish(self, rc: int | None) -> None:
        self.flush()
        super().finish(self._rc if rc == 0 and self._rc is not None else rc)


class RcpClient(CopyClient):
    """A copy by rcp."""

    def _build_cmd(self) -> tuple[Sequence[str] | str, Mapping[str, str] | None]:
        info = self.worker._bound.info
        words = shlex.split(info("rcp_path") or "rcp")
        words += [*(["-r"] if self.isdir else []), *(["-p"] if self.preserve else [])]
        words += shlex.split(info("rcp_options") or "")
        user = info("rcp_user") or info("rsh_user")
        place = f"{f'{user}@' if user else ''}{self.key}:"
        if self.reverse:
            return [*words, place + self.source, self.local_target], None
        return [*words, self.source, place + self.dest], None


class WorkerRsh(ExecWorker):
    """Commands on nodes, by the rsh command; see :class:`ExecWorker` for its parameters. Keys of
    the task's info: ``rsh_path``, ``rsh_user``, ``rsh_options``, ``rcp_path``, ``rcp_user``,
    ``rcp_options``."""

    SHELL_CLASS: ClassVar[type[Any]] = RshClient
    COPY_CLASS: ClassVar[type[Any]] = RcpClient
    _fills: ClassVar[bool] = False


WORKER_CLASS = WorkerRsh
