"""Workers over SSH, on execo's connections: those are kept and shared."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from execo.config import default_connection_params
from execo.host import Host
from execo.ssh_process import SshProcess
from execo.transfer.process import GetProcess, Packages, PutProcess
from execo.transfer.texts import put_tree_command
from execo.transports.base import Request

from .exec_worker import CopyClient, ExecClient, ExecWorker

if TYPE_CHECKING:
    from .task import Task

__all__ = ["WORKER_CLASS", "ScpClient", "SshClient", "WorkerSsh"]

_numbers = itertools.count()


class SshClient(ExecClient):
    """A command on a node."""

    worker: WorkerSsh

    def prepare(self) -> None:
        # A class of the user's may say which local command it is.
        if type(self)._build_cmd is not ExecClient._build_cmd:
            super().prepare()

    def request(self) -> tuple[str, Request]:
        if self._built is not None:
            return super().request()
        assert self.command is not None
        model = self.worker._model_of(SshProcess)
        process = model._copy_for(self.command, Host(str(self.key)))
        request = process._request()
        return process.transport, request


class ScpClient(CopyClient):
    """A copy to or from a node: through execo's own connection, or, where the task's info sets
    ``scp_path`` or ``scp_options``, by that command."""

    worker: WorkerSsh
    _arrived = ""

    def prepare(self) -> None:
        own = type(self)._build_cmd is not ScpClient._build_cmd
        if self.worker._scp_words is not None or own:
            super().prepare()

    def _build_cmd(self) -> tuple[Sequence[str] | str, Mapping[str, str] | None]:
        info = self.worker._bound.info
        words = [*(self.worker._scp_words or ["scp"])]
        words += ["-r"] if self.isdir else []
        words += ["-p"] if self.preserve else []
        if info("connect_timeout"):
            words.append(f"-oConnectTimeout={int(info('connect_timeout'))}")
        user = info("scp_user") or info("ssh_user")
        place = f"{f'{user}@' if user else ''}[{self.key}]:"
        if self.reverse:
            return [*words, place + self.source, self.local_target], None
        return [*words, self.source, place + self.dest], None

    def request(self) -> tuple[str, Request]:
        if self._built is not None:
            return super().request()
        model = self.worker._model_of(GetProcess if self.reverse else PutProcess)
        process = model._copy_for(f"copy {self.source}", Host(str(self.key)))
        if isinstance(process, GetProcess):
            # Into a folder first: what comes, file or folder, is then given its name.
            self._arrived = f"{self.dest}/.execo-{os.getpid()}-{next(_numbers)}"
            process.names, process.location = (self.source,), self._arrived + "/"
        elif isinstance(process, PutProcess):
            process.names, process.location = (self.source,), self.dest
            process.packages = self.worker._shared_packages
        request = process._request()
        if isinstance(process, PutProcess) and self.isdir and not self.dest.startswith("~"):
            request = replace(request, command=_folder_command(self.source, self.dest))
        return process.transport, request

    def finish(self, rc: int | None) -> None:
        if self._arrived and not self.closed:
            rc = self._name_it(rc)
        super().finish(rc)

    def _name_it(self, rc: int | None) -> int | None:
        """Give what has come its name."""
        try:
            if rc == 0:
                found = os.listdir(self._arrived)
                source = f"{self._arrived}/{found[0]}" if len(found) == 1 else self._arrived
                _move(source, self.local_target)
        except OSError as exc:
            self.told(self.name_of(2), [str(exc).encode(errors="replace")])
            return 1
        finally:
            self._remove_arrived()
        return rc

    def _remove_arrived(self) -> None:
        if self._arrived:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._arrived, ignore_errors=True)

    def abort(self, *, timedout: bool = False) -> None:
        super().abort(timedout=timedout)
        self._remove_arrived()


class WorkerSsh(ExecWorker):
    """Commands on nodes, over SSH; see :class:`ExecWorker` for its parameters. Nothing is filled in
    in the command. A timeout, and ``abort()``, kill all that the command has started on the node.

    The nodes are reached as by :class:`~execo.process.SshProcess`, with
    :data:`~execo.config.default_connection_params` and ``~/.ssh/config``, which these keys of the
    task's info change: ``ssh_user``, ``ssh_path`` (which selects the ssh command), ``ssh_options``
    and ``connect_timeout``. (ClusterShell 1.10 starts one ``ssh`` for each node.)

    Copies go over the same connections, or, where ``scp_path`` or ``scp_options`` is set, by
    ``scp``. With ``reverse``, what comes is ``dest/basename.NODE``.
    """

    SHELL_CLASS: ClassVar[type[Any]] = SshClient
    COPY_CLASS: ClassVar[type[Any]] = ScpClient
    _fills: ClassVar[bool] = False

    _model: Any = None
    _packages: Packages | None = None

    def _model_of(self, kind: type[Any]) -> Any:
        """The process that those of all nodes are made after."""
        if self._model is None:
            params = self._params(self._bound, "scp" if self.command is None else "ssh")
            self._model = kind("true", Host("localhost"), connection_params=params)
        return self._model

    def _params(self, task: Task, tool: str) -> dict[str, Any]:
        """The connection parameters that the task's info sets."""
        info = task.info
        options = _words(info("ssh_options"))
        params: dict[str, Any] = {}
        if user := info(f"{tool}_user") or info("ssh_user"):
            params["user"] = user
        if options:
            params["ssh_options"] = (*options, *default_connection_params["ssh_options"])
        if info("ssh_path"):
            params["ssh"] = info("ssh_path")
        if not any("connecttimeout" in word.lower() for word in options):
            params["connect_timeout"] = info("connect_timeout") or None
        return params

    @property
    def _scp_words(self) -> list[str] | None:
        """The scp command, if it is to be used."""
        info = self._bound.info
        if not info("scp_path") and not info("scp_options"):
            return None
        return [*_words(info("scp_path") or "scp"), *_words(info("scp_options"))]

    @property
    def _shared_packages(self) -> Packages:
        """What all nodes receive, found once."""
        if self._packages is None:
            self._packages = Packages([(str(self.source),)] * len(self._clients))
        return self._packages


def _folder_command(source: str, dest: str) -> tuple[str, ...]:
    """The words that unpack a folder into ``dest``, if there is such a folder, and else as
    ``dest``: that is how scp has it."""
    dest = dest.rstrip("/") or "/"
    beside = f"{dest}.execo-{os.getpid()}-{next(_numbers)}"
    name = os.path.basename(os.path.abspath(source))
    script = (
        f'if [ -d "$1" ]; then exec {shlex.join(put_tree_command(dest))}; fi\n'
        f'{shlex.join(put_tree_command(beside))} && mv "$2/$3" "$1" && rmdir "$2" ||\n'
        '{ code=$?; rm -rf "$2"; exit $code; }'
    )
    return ("sh", "-c", script, "sh", dest, beside, name)


def _words(text: str | None) -> list[str]:
    return [os.path.expanduser(word) for word in shlex.split(text or "")]


def _move(source: str, target: str) -> None:
    """Put a file or folder into its place; a folder that is there is filled."""
    if os.path.isdir(source) and os.path.isdir(target):
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        os.replace(source, target)


WORKER_CLASS = WorkerSsh
