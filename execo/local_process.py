"""Commands on this machine, one each."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

from .config import Secret, can_be_sent, configuration
from .lifecycle import kill_timeout
from .process_base import ProcessBase
from .process_state import ProcessArgs
from .transports.base import Exec

__all__ = [
    "Process",
    "checked_command",
    "checked_cwd",
    "checked_detach",
    "checked_env",
    "checked_secret_env",
]


class Process(ProcessBase):
    """A command on this machine.

    It runs in a session and process group of its own, which ``kill()`` and its timeout end as a
    whole. Its stdin is a pipe that stays open until ``close_stdin()`` or its end: a command that
    reads its input waits for it.

    :param cmd: the command: a text, cut into words as a shell would unless ``shell``, or its words
    :param shell: give it to ``/bin/sh -c``
    :param pty: its stdin and stdout are a terminal of its own, 80x24, without echo, which
      controls its session; stderr stays apart. ``close_stdin()`` sends an EOT
    :param kill_subprocesses: False: signals go to the command alone; None or True: also to all
      that it started (execo 2.8.2: None = as ``shell``)
    :param cwd: the folder to run in; None = this process's (new)
    :param env: variables to set in its environment, on top of ours; None as a value unsets (new)
    :param secret_env: more of them, whose values no repr shows (new)
    :param detach: True: it is left alone when the script ends, however it ends, by ``kill -9``
      too; until then it is a process like others, which ``kill()`` and its timeout end. Its stdin
      is empty, and its output is read by us while we are there, then dropped: it never dies of
      SIGPIPE. Not with ``pty``. False: it ends with the script. None: as
      ``configuration["kill_childs_at_end"]`` says, with stdin and output as ever (new)
    :param options: see :class:`ProcessBase`
    :raises TypeError: for a command that is neither text nor words, an unknown argument, ...
    :raises ValueError: for ``detach`` with ``pty``
    """

    def __init__(
        self,
        cmd: str | Sequence[str],
        shell: bool = False,
        pty: bool = False,
        kill_subprocesses: bool | None = None,
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        detach: bool | None = None,
        secret_env: Mapping[str, str] | None = None,
        **options: Unpack[ProcessArgs],
    ) -> None:
        super().__init__(checked_command(cmd), **options)
        self.shell = shell
        self.pty = pty
        self.kill_subprocesses = kill_subprocesses
        self.cwd = checked_cwd(cwd)
        self.env = checked_env(env)
        self.detach = checked_detach(detach, pty)
        self.secret_env = checked_secret_env(secret_env)

    @property
    def process(self) -> Any:
        """The :class:`subprocess.Popen` behind it while it runs, to look at; None otherwise."""
        channel = None if self._run is None else self._run.channel
        return None if channel is None else channel.process

    @property
    def stdin_fd(self) -> int | None:
        """Our end of its stdin while it is open, to look at."""
        return self._descriptor(0)

    @property
    def stdout_fd(self) -> int | None:
        """Our end of its stdout while it is open, to look at."""
        return self._descriptor(1)

    @property
    def stderr_fd(self) -> int | None:
        """Our end of its stderr while it is open, to look at."""
        return self._descriptor(2)

    def _descriptor(self, which: int) -> int | None:
        channel = None if self._run is None else self._run.channel
        return None if channel is None else channel.descriptors[which]

    def _request(self) -> Exec:
        command: str | tuple[str, ...]
        if self.shell:
            command = self._command_text()
        else:
            command = tuple(shlex.split(self.cmd) if isinstance(self.cmd, str) else self.cmd)
            if not command:
                raise ValueError("the command is empty")
        detach = checked_detach(self.detach, self.pty)
        return Exec(
            command,
            cwd=self.cwd,
            env=self.env,
            pty=self.pty,
            group=self.kill_subprocesses is not False,
            kill_timeout=kill_timeout(),
            detach=not configuration["kill_childs_at_end"] if detach is None else detach,
            relay=detach is True,
            secret_env=checked_secret_env(self.secret_env),
        )


def checked_command(cmd: Any) -> str | tuple[str, ...]:
    """A command as a text or as words.

    :raises TypeError: if it is neither
    """
    if isinstance(cmd, str):
        return cmd
    if isinstance(cmd, (bytes, Mapping)) or not isinstance(cmd, Iterable):
        raise TypeError(f"a command is a text or a list of words, not {cmd!r}")
    words = tuple(os.fspath(word) if isinstance(word, os.PathLike) else word for word in cmd)
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"the words of a command are texts, not {word!r} in {cmd!r}")
    return words


def checked_cwd(cwd: Any) -> str | None:
    """A folder as a text.

    :raises TypeError: if it is no path of text
    """
    path = None if cwd is None else os.fspath(cwd)
    if not isinstance(path, (str, type(None))):
        raise TypeError(f"cwd is a text or a path of text, not {cwd!r}")
    return path


def checked_detach(detach: Any, pty: bool) -> bool | None:
    """Whether a command is left alone at the end of the script; None = as is configured.

    :raises TypeError: if it says neither
    :raises ValueError: if it has a terminal, which ends with the script
    """
    if detach is not None and not isinstance(detach, bool):
        raise TypeError(f"detach is True, False or None, not {detach!r}")
    if detach and pty:
        raise ValueError(
            "detach and pty exclude one another: a terminal goes with the script, and its hang-up "
            "would end the command; set pty to False"
        )
    return detach


def checked_env(env: Mapping[str, str | None] | None) -> dict[str, str | None] | None:
    """Variables to set or unset, as a dict of their own.

    :raises TypeError: for what is no text
    """
    if env is None:
        return None
    if not isinstance(env, Mapping):
        raise TypeError(f"env is a dict of names to values, not a {type(env).__name__}")
    for key, value in env.items():
        if not isinstance(key, str) or not isinstance(value, (str, type(None))):
            raise TypeError(f"env takes texts, or None to unset: not {key!r}: {value!r}")
    return dict(env)


_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def checked_secret_env(secret_env: Mapping[str, str] | None) -> dict[str, str] | None:
    """Variables with values that are shown nowhere, as a dict of their own.

    :raises TypeError: for what is no text; messages do not show values
    :raises ValueError: for a name that a shell cannot export, for a NUL or half a character in a
      value
    """
    if secret_env is None:
        return None
    if not isinstance(secret_env, Mapping):
        kind = type(secret_env).__name__
        raise TypeError(f"secret_env is a dict of names to values, not a {kind}")
    for key, value in secret_env.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"secret_env takes texts: not a {type(value).__name__} for {key!r}")
        if not _NAME.fullmatch(key):
            raise ValueError(f"secret_env: a shell cannot export {key!r}: letters, digits and _")
        if "\0" in value:
            raise ValueError(f"secret_env: the value of {key} holds a NUL, which none can")
        if not can_be_sent(value):
            raise ValueError(f"secret_env: the value of {key} holds half a character (a surrogate)")
    return {key: Secret(value) for key, value in secret_env.items()}
