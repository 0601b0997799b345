"""Actions that copy files to and from hosts."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, Unpack

from execo.action_base import Action, ActionLifecycleHandler
from execo.config import given_params, make_connection_params
from execo.host import Host, get_hosts_list
from execo.policy import PolicyArgs
from execo.process_base import ProcessBase
from execo.substitutions import Template, raw
from execo.time_utils import Duration

from .broadcast_process import BroadcastProcess
from .process import FilesProcess, GetProcess, Packages, PutProcess
from .progress import Progress, ProgressCallback, action_teller, process_teller, summed
from .rsync import RsyncGetProcess, RsyncPutProcess
from .scp import ScpProcess
from .targets import check_targets

__all__ = ["Get", "Put"]

Names = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class _Copy(Action):
    """What Put and Get have in common."""

    _process_class: type[FilesProcess]
    _rsync_class: ClassVar[type[FilesProcess] | None]

    def __init__(
        self,
        hosts: Any,
        names: Names,
        location: str | os.PathLike[str],
        connection_params: Mapping[str, Any] | None,
        lifecycle_handlers: Iterable[ActionLifecycleHandler] | None,
        name: str | None,
        default_expect_timeout: Duration | None,
        process_args: Mapping[str, Any] | None,
        fanout: int | None,
        substitute: bool,
        progress: ProgressCallback | None,
        tool: str | None,
        policy: PolicyArgs,
    ) -> None:
        if tool not in (None, "rsync"):
            raise ValueError(f"there is no tool {tool!r} to copy files: 'rsync', or None")
        self._hosts = get_hosts_list(hosts)
        texts = [*_checked_names(names, self._process_class.verb), _checked_path(location)]
        model = self._model(texts, connection_params, process_args or {}, tool)
        super().__init__(
            lifecycle_handlers,
            model.name if name is None else name,
            default_expect_timeout,
            fanout=fanout,
            **policy,
        )
        if progress is not None:
            self.lifecycle_handlers.append(action_teller(progress))
        self._templates = [Template(text if substitute else raw(text)) for text in texts]
        self._processes = [self._copy_of(model, host) for host in self._hosts]
        self._set_names()

    def _model(
        self,
        texts: Sequence[str],
        params: Mapping[str, Any] | None,
        args: Mapping[str, Any],
        tool: str | None,
    ) -> FilesProcess | ScpProcess:
        # One process is made with all checks, the others after its model.
        verb = self._process_class.verb
        complete = make_connection_params(params)
        line = _line(verb, texts[:-1], texts[-1])
        args = dict(args)
        progress = args.pop("progress", None)
        model: FilesProcess | ScpProcess
        if tool == "rsync":
            if self._rsync_class is None:
                raise ValueError(f"{type(self).__name__} cannot use rsync: use Put or Get")
            model = self._rsync_class(line, Host("model"), params, **args)
        elif complete["scp"] is not None and self._process_class.may_use_scp:
            if complete["become"] is not None or args.get("become") is not None:
                raise ValueError(
                    "scp copies as who logs in, and cannot become another user: leave the "
                    "connection parameter scp unset where there is become"
                )
            model = ScpProcess(line, complete, verb, **args)
        else:
            model = self._process_class(line, Host("model"), params, **args)
        if progress is not None:
            model.lifecycle_handlers.append(process_teller(progress))
        return model

    def _copy_of(self, model: FilesProcess | ScpProcess, host: Host) -> FilesProcess | ScpProcess:
        process = model._copy_for(model._command_text(), host)
        assert isinstance(process, (FilesProcess, ScpProcess))
        process._action = self
        return process

    def _set_names(self) -> None:
        for index, process in enumerate(self._processes):
            *names, location = (part.expand(self._hosts, index) for part in self._templates)
            process.names, process.location = tuple(names), location or "."
            process.cmd = _line(self._process_class.verb, names, process.location)

    @property
    def hosts(self) -> list[Host]:
        """Its hosts, in the order given."""
        return list(self._hosts)

    @property
    def processes(self) -> list[ProcessBase]:
        return list(self._processes)

    @property
    def progress(self) -> Progress:
        """How far all its transfers are together; of those by ``scp`` nothing is known (new)."""
        known = self._processes
        return summed([p._meter for p in known], [p.total for p in known], ended=self.ended)

    def reset(self) -> Self:
        """See :meth:`~execo.action.Action.reset`; evaluates the expressions in names again."""
        super().reset()
        for part in self._templates:
            part.reevaluate()
        self._set_names()
        return self


class Put(_Copy):
    """Copy local files and folders to hosts: one process for each.

    ========================================  ===================================================
    what is put                               where it goes
    ========================================  ===================================================
    one file, to a name                       that name
    one file, to an existing folder or to     into that folder
    a name with a slash at its end
    several files                             into that folder
    a folder                                  into that folder, under its own name; what is there
                                              already is merged with it
    ========================================  ===================================================

    Folders that are missing are made. Permissions and modification times (to the second) are kept,
    owners are not; folders that exist keep theirs. Links are followed. Sockets, pipes, devices and
    links that lead nowhere in a folder are left out, with a warning that counts them.

    A file arrives under a temporary name beside its destination; it is renamed when it is complete,
    so that nobody sees half of it, and a transfer that fails or is killed leaves what was there
    (killed by SIGKILL, or when the host itself goes down, a file or folder ``.execo-...``). A
    destination that is a link to a file replaces what it leads to; one that is a device or a pipe
    is written to.

    Local files are found at the start, once for all hosts; what they hold is read while it is sent.
    A file that grows meanwhile arrives as long as it was at the start; one that changes otherwise
    (by its size and its times) is an error.
    What is missing or cannot be read is an error of the processes, with the reason ``spawn``, or
    ``write`` if it happens on the way; what fails on the host is an exit code, and ``message``
    says why. Hosts need a POSIX shell, and ``tar`` for folders and several files.
    A timeout tells the script on the host to end. A host that does not answer keeps the process
    until ``configuration["kill_timeout"]`` is over, too, and some seconds more.
    (What execo 2.8.2 did with scp; missing folders, ``~`` and patterns are ours.)

    :param hosts: see :func:`~execo.host.get_hosts_list`
    :param local_files: names of files and folders, or one; ``~`` is the home folder here, what does
      not exist as written is expanded as a pattern; with substitutions
    :param remote_location: where to, relative to the home folder there; ``~`` and ``~user`` are
      expanded there, nothing else; with substitutions
    :param connection_params: what differs from :data:`~execo.config.default_connection_params`;
      with ``scp`` set, that command does the copying, by its own rules
    :param lifecycle_handlers: see :class:`~execo.action.Action`
    :param name: for messages and reports; default: what is put, and where
    :param default_expect_timeout: see :class:`~execo.action.Action`
    :param process_args: keyword arguments for the processes, ``{"timeout": 10}`` for one (new)
    :param fanout: how many run at a time; None = all at once (new)
    :param substitute: False: names are taken as they are (new)
    :param progress: called with the action and its :class:`Progress` at most four times a second
      while something changes, and once at the end, before ``wait()`` returns; on a thread for
      handlers. What it raises is logged. ``process_args={"progress": ...}`` is called with each
      process and its progress in the same way (new)
    :param tool: ``"rsync"``: with that program, which must be here and on the hosts, see the guide;
      goes before ``scp``. None = the script described above, or ``scp`` (new)
    :param broadcast: True: hosts pass it on to one another, see the guide: it leaves this machine
      once, or a few times, instead of once for each host. With the connection parameter
      ``topology``, by way of its gateways. Hosts need Python 3.6 or later to pass something on, and
      a key for the others; those that do not get it from another host get it from here, and
      ``received_from`` of its process says which. ``scp`` has no effect then, and rsync is a
      ValueError (new)
    :param connexion_params: the reference document's name of ``connection_params``
    :param policy: ``start_rate``, ``retry`` and ``max_failures``, see :class:`~execo.action.Action`
      (new)
    :raises TypeError: for arguments of a wrong type
    :raises ValueError: for hosts that cannot be any, no files, a substitution that fails
    """

    _process_class: type[FilesProcess] = PutProcess
    _rsync_class: ClassVar[type[FilesProcess] | None] = RsyncPutProcess
    _broadcast_class: ClassVar[type[FilesProcess] | None] = BroadcastProcess

    def __init__(
        self,
        hosts: Any,
        local_files: Names,
        remote_location: str | os.PathLike[str] = ".",
        connection_params: Mapping[str, Any] | None = None,
        lifecycle_handlers: Iterable[ActionLifecycleHandler] | None = None,
        name: str | None = None,
        default_expect_timeout: Duration | None = None,
        *,
        process_args: Mapping[str, Any] | None = None,
        fanout: int | None = None,
        substitute: bool = True,
        progress: ProgressCallback | None = None,
        tool: Literal["rsync"] | None = None,
        broadcast: bool = False,
        connexion_params: Mapping[str, Any] | None = None,
        **policy: Unpack[PolicyArgs],
    ) -> None:
        if not isinstance(broadcast, bool):
            raise TypeError(f"broadcast is True or False, not {broadcast!r}")
        if broadcast:
            if self._broadcast_class is None or tool is not None:
                what = type(self).__name__ if tool is None else f"tool={tool!r}"
                raise ValueError(f"{what} cannot be a broadcast: use Put, without a tool")
            self._process_class = self._broadcast_class
        super().__init__(
            hosts,
            local_files,
            remote_location,
            given_params(connection_params, connexion_params),
            lifecycle_handlers,
            name,
            default_expect_timeout,
            process_args,
            fanout,
            substitute,
            progress,
            tool,
            policy,
        )

    def _set_names(self) -> None:
        super()._set_names()
        self._pack(self._processes)

    def _choose_failed(self) -> None:
        super()._choose_failed()
        # Files may have changed since, and those of the last start are given back.
        self._pack([process for process in self._processes if not process.started])

    def _pack(self, processes: Sequence[FilesProcess | ScpProcess]) -> None:
        files = [process for process in processes if isinstance(process, PutProcess)]
        packages = Packages(process.names for process in files)
        for process in files:
            process.packages = packages


class Get(_Copy):
    """Copy files and folders from hosts: one process for each.

    The table of :class:`Put` holds, with ``local_location`` as the destination, and so does what it
    says on permissions, times, links and temporary names. Several hosts need places of their own:
    ``Get(hosts, "log.txt", "results/{{{host}}}/")``.

    A name that exists on the host is taken as it is; else ``* ? [`` are expanded there, and what
    matches nothing is an error of that process. ``~`` and ``~user`` are expanded there, too. The
    same name twice is taken once; two files of the same name are an error.

    A file that grows meanwhile arrives as long as it was at first; one that becomes shorter is an
    error. Of what has no size of its own (``/proc``, devices) all is taken that comes. Folders and
    several files travel as a tar archive, which is kept in a temporary file in the destination and
    unpacked when it is complete: for a while they take twice their room. Hosts are not trusted:
    what they send becomes files and folders in the destination, without set-user-id bits, and
    nothing else: devices and links are left out, with a warning; files with holes, as such, and
    more than 256 folders in one another are errors. A file that changes while its folder is
    fetched is taken, one that becomes shorter or is removed is an error. A link to a folder that
    it is in makes some versions of ``tar`` on hosts crash, which is an error, too.

    Killed or too late, it puts nothing into place, also while it unpacks, and removes what has come
    at once, even if the host does not answer; only where the moving of several files had begun,
    some may be there. What cannot be stored is an error with the reason ``write``; what fails on
    the host is an exit code, and ``message`` says why. Hosts need a POSIX shell, ``stat``, and
    ``tar`` for folders and several files.

    :param hosts: see :func:`~execo.host.get_hosts_list`
    :param remote_files: names of files and folders, or one, relative to the home folder there; with
      substitutions
    :param local_location: where to; ``~`` is the home folder here; with substitutions
    :param connection_params: see :class:`Put`, as all that follow
    :param lifecycle_handlers: see there
    :param name: see there
    :param default_expect_timeout: see there
    :param process_args: see there
    :param fanout: see there
    :param substitute: see there
    :param progress: see there
    :param tool: see there
    :param connexion_params: see there
    :param policy: see there
    :raises TypeError: for arguments of a wrong type
    :raises ValueError: files of several hosts, or of one, would get the same local name; nothing
      is fetched then. Else as :class:`Put`
    """

    _process_class: type[FilesProcess] = GetProcess
    _rsync_class: ClassVar[type[FilesProcess] | None] = RsyncGetProcess

    def __init__(
        self,
        hosts: Any,
        remote_files: Names,
        local_location: str | os.PathLike[str] = ".",
        connection_params: Mapping[str, Any] | None = None,
        lifecycle_handlers: Iterable[ActionLifecycleHandler] | None = None,
        name: str | None = None,
        default_expect_timeout: Duration | None = None,
        *,
        process_args: Mapping[str, Any] | None = None,
        fanout: int | None = None,
        substitute: bool = True,
        progress: ProgressCallback | None = None,
        tool: Literal["rsync"] | None = None,
        connexion_params: Mapping[str, Any] | None = None,
        **policy: Unpack[PolicyArgs],
    ) -> None:
        super().__init__(
            hosts,
            remote_files,
            local_location,
            given_params(connection_params, connexion_params),
            lifecycle_handlers,
            name,
            default_expect_timeout,
            process_args,
            fanout,
            substitute,
            progress,
            tool,
            policy,
        )

    def _set_names(self) -> None:
        super()._set_names()
        check_targets([(p.host, p.names, p.location) for p in self._processes])


def _checked_names(names: Any, verb: str) -> list[str]:
    if isinstance(names, (str, os.PathLike)):
        names = [names]
    if isinstance(names, (bytes, Mapping)) or not isinstance(names, Iterable):
        raise TypeError(f"files are given as names, or one name, not as {names!r}")
    texts = [_checked_path(name) for name in names]
    if not texts:
        raise ValueError(f"no files to {verb}: give at least one name")
    for text in texts:
        if not text:
            raise ValueError(f"the name of a file to {verb} is empty")
    return texts


def _checked_path(path: Any) -> str:
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"the name of a file is a text or a path of text, not {path!r}")
    if "\0" in text:
        raise ValueError(f"the name of a file has no NUL character: {text!r}")
    return text


def _line(verb: str, names: Sequence[str], location: str) -> str:
    return f"{verb} {shlex.join(names)} to {shlex.quote(location)}"
