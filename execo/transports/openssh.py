"""The openssh transport: each command runs through a local ``ssh``, with all that it can do.

Its options are OpenSSH's (ssh(1), ssh_config(5)). Beside the commands of a target runs one more
ssh, the *guard*, which signals what they have started, ends it if this script is lost, and leaves
when its target has run nothing for a while. Where there is none (not asked for, no Linux, it does
not answer) a signal that is meant to end a command ends its connection: a command with a terminal
gets a HUP then, another may go on.
"""

from __future__ import annotations

import itertools
import math
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import cast

from execo._core.latch import Latch
from execo._core.runtime import Runtime
from execo.config import configuration
from execo.errors import CancelledError, SpawnError

from . import get as get_transport
from .base import Channel, ConnectionOptions, Exec, Request, Sink, Target, not_supported
from .openssh_channel import OpenSshChannel
from .openssh_guard import OpenSshGuard
from .remote_shell import Mark, command_text, guard_text
from .ssh_messages import FOLLOW

__all__ = ["OpenSshTransport"]

ALIVE_INTERVAL, ALIVE_COUNT = 30, 4
"""A host that answers nothing for two minutes is lost: long enough for a machine that swaps."""

_LAST_WAIT = 2.0
_PROBE_TIMEOUT = 10.0


class OpenSshTransport:
    """Runs commands on hosts, each through an ssh that the local transport runs."""

    def __init__(self, runtime: Runtime) -> None:
        # First: at exit, what was made last is closed first.
        self.local = get_transport(runtime, "local")
        self.runtime = runtime
        self.loop = runtime.loop
        self.closed = False
        self.nonce = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._folder: str | None = None
        self._follows: dict[tuple[str, ...], bool] = {}
        self._guards: dict[Target, OpenSshGuard] = {}
        # Those whose ssh has not ended. Under the lock, as the two above.
        self._live: set[OpenSshChannel] = set()
        self._live_guards: set[OpenSshGuard] = set()
        self._waits: list[tuple[Callable[[], bool], Latch]] = []  # of the I/O thread

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        channels: list[OpenSshChannel] = []
        for request, sink in pairs:
            if not isinstance(request, Exec):
                raise not_supported("openssh", request)
            if request.target is None:
                raise ValueError(f"the openssh transport needs a target for {request.command!r}")
            number = next(self._numbers)
            channels.append(OpenSshChannel(self, request, request.target, sink, number))
        starts: list[tuple[Request, Sink]] = []
        guards: list[OpenSshGuard] = []
        for channel in channels:
            channel.open()
            start = self._prepare(channel)
            if start is not None:
                starts.append((start, channel))
                guards += self._join_guard(channel)
        self.local.open_all(starts)
        # After the commands: they need not wait for it.
        self.local.open_all([(self._guard_request(guard), guard) for guard in guards])
        return [cast(Channel, channel) for channel in channels]

    def _prepare(self, channel: OpenSshChannel) -> Exec | None:
        """The local command for ``channel``, which is refused if there can be none."""
        request, target = channel.request, channel.target
        if self.closed:
            channel.refuse(CancelledError("not started: the interpreter is exiting"))
            return None
        try:
            text = command_text(
                request.command,
                cwd=request.cwd,
                env=request.env,
                mark=Mark(self.nonce, channel.number, request.detach),
            )
            channel.log_file = self._log_file(channel.number)
            channel.follows = self._can_follow(target)
        except (ValueError, OSError) as exc:
            error = SpawnError(f"cannot run {request.command!r} on {target.name}: {exc}")
            error.__cause__ = exc
            channel.refuse(error)
            return None
        with self._lock:
            self._live.add(channel)
        argv = ssh_words(target, request.pty, channel.log_file, channel.follows, text)
        return Exec(argv, pty=request.pty, kill_timeout=_LAST_WAIT, detach=request.detach)

    def _log_file(self, number: int) -> str:
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.mkdtemp(prefix="execo-ssh-")
            return os.path.join(self._folder, str(number))

    def _can_follow(self, target: Target) -> bool:
        """Whether this ssh tells of a command's start and exit; asks it, the first time."""
        words, said = target.options.ssh, "\n".join(target.options.ssh_options).lower()
        if any(word in said for word in ("logverbose", "control", "-s\n", "-m\n")):
            return False  # the user's own; a shared connection tells nothing of it
        known = self._follows.get(words)
        if known is None:
            try:
                known = not subprocess.run(
                    [*words, "-o", f"LogVerbose={FOLLOW}", "-V"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=_PROBE_TIMEOUT,
                    check=False,
                ).returncode
            except (OSError, ValueError, subprocess.TimeoutExpired):
                known = False
            self._follows[words] = known
        return known

    # -- guards ---------------------------------------------------------------------------------

    def _join_guard(self, channel: OpenSshChannel) -> list[OpenSshGuard]:
        """Give ``channel`` the guard of its target; a list of it if it has to be started."""
        if not channel.target.options.guard:
            return []
        with self._lock:
            guard = self._guards.get(channel.target)
            new = guard is None or guard.gone
            if guard is None or new:
                guard = self._guards[channel.target] = OpenSshGuard(self, channel.target)
                self._live_guards.add(guard)
            guard.users.add(channel)
            channel.guard = guard
            return [guard] if new else []

    def _guard_request(self, guard: OpenSshGuard) -> Exec:
        argv = ssh_words(guard.target, False, os.devnull, False, guard_text(self.nonce))
        return Exec(argv, kill_timeout=_LAST_WAIT)

    def release_guard(self, guard: OpenSshGuard, channel: OpenSshChannel) -> None:
        """``channel`` needs its guard no more. On the I/O thread."""
        with self._lock:
            guard.users.discard(channel)
        guard.look_idle()

    def withdraw(self, guard: OpenSshGuard) -> bool:
        """Let no new command have ``guard``; False if one has it by now."""
        with self._lock:
            if guard.users:
                return False
            if self._guards.get(guard.target) is guard:
                del self._guards[guard.target]
            return True

    def guard_ended(self, guard: OpenSshGuard) -> None:
        """The ssh of ``guard`` has ended. On the I/O thread."""
        with self._lock:
            self._live_guards.discard(guard)
            if self._guards.get(guard.target) is guard:
                del self._guards[guard.target]
        self._look_waits()

    # -- the end --------------------------------------------------------------------------------

    def ended(self, channel: OpenSshChannel) -> None:
        """The ssh of ``channel`` has ended. On the I/O thread."""
        with self._lock:
            self._live.discard(channel)
        self._look_waits()

    def close_idle(self) -> None:
        """Send away the guards of targets that run nothing. Blocks until they have gone."""
        self.dismiss_guards(idle=True)

    def dismiss_guards(self, *, idle: bool) -> None:
        """Send guards away, and block until they have gone.

        :param idle: those alone whose target runs nothing
        """
        gone = self.loop.run_sync(self._dismiss, idle)
        if gone is not None and not gone.wait(_LAST_WAIT):
            self.loop.run_sync(self._end_guards)
            gone.wait(_LAST_WAIT)

    def close(self) -> None:
        """End what runs, on the hosts: TERM to all at once, KILL after ``term_timeout``, or at a
        Ctrl-C; what survives a command that has ended by then is killed at once. Then dismiss the
        guards, and remove ssh's messages."""
        self.closed = True
        try:
            if not self._end_all(self._signal, signal.SIGTERM, configuration["term_timeout"]):
                self._end_all(self._signal, signal.SIGKILL, _LAST_WAIT)
        except KeyboardInterrupt:
            self._end_all(self._signal, signal.SIGKILL, _LAST_WAIT)
        finally:
            self._end_all(OpenSshChannel.hang_up, signal.SIGKILL, _LAST_WAIT)
            self.dismiss_guards(idle=False)
            folder, self._folder = self._folder, None
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _end_all(
        self, how: Callable[[OpenSshChannel, int], object], number: int, patience: float
    ) -> bool:
        def end_all() -> Latch:
            for channel in self._running():
                how(channel, number)
            return self._wait_until(lambda: not self._running())

        empty = self.loop.run_sync(end_all)
        return empty is None or empty.wait(float(patience))

    def _running(self) -> list[OpenSshChannel]:
        with self._lock:
            return [channel for channel in self._live if not channel.request.detach]

    def _signal(self, channel: OpenSshChannel, number: int) -> None:
        # A second TERM makes some programs give up their clean end.
        if not channel.started:
            channel.abort()
        elif number != signal.SIGTERM or not channel.ending:
            channel.send_signal(number)

    def _dismiss(self, idle_only: bool) -> Latch:
        with self._lock:
            guards = [one for one in self._live_guards if not (idle_only and one.busy)]
            for guard in guards:
                self._guards.pop(guard.target, None)
        for guard in guards:
            guard.dismiss()
        return self._wait_until(lambda: not self._live_guards.intersection(guards))

    def _end_guards(self) -> None:
        for guard in list(self._live_guards):
            if guard.gone:
                guard.end()

    def _wait_until(self, condition: Callable[[], bool]) -> Latch:
        """A latch that fires when ``condition`` holds after the end of some ssh."""
        latch = Latch()
        self._waits.append((condition, latch))
        self._look_waits()
        return latch

    def _look_waits(self) -> None:
        for wait in list(self._waits):
            condition, latch = wait
            if condition():
                self._waits.remove(wait)
                latch.fire()


# -- the command line ---------------------------------------------------------------------------


def ssh_words(
    target: Target, pty: bool, log_file: str, follows: bool, text: str
) -> tuple[str, ...]:
    """The words of the ssh command that runs ``text`` on ``target``.

    ssh takes the first value that it sees of an option. So who and where come first, which the
    host and the parameters say; then the user's ``ssh_options``; then our defaults. Files of
    configuration come last.
    """
    options = target.options
    words = [*options.ssh, "-tt" if pty else "-T"]
    if target.user is not None:
        words += ["-l", target.user]
    if target.port is not None:
        words += ["-p", str(target.port)]
    if target.keyfile is not None:
        # Not -i, which complains of a missing file on the command's stderr.
        words += ["-o", f"IdentityFile={_quoted(target.keyfile)}", "-o", "IdentitiesOnly=yes"]
    words += options.ssh_options
    ours = {
        "BatchMode": "yes",
        **_host_keys(options),
        "ServerAliveInterval": str(ALIVE_INTERVAL),
        "ServerAliveCountMax": str(ALIVE_COUNT),
        # One that is shared by chance would end the others with it.
        "ControlMaster": "no",
        "ControlPath": "none",
        "EscapeChar": "none",  # a terminal's ~. is the user's data
        # From INFO on, the banner of the host is printed on stderr.
        "LogLevel": "ERROR",
    }
    if options.connect_timeout is not None:
        ours["ConnectTimeout"] = str(max(1, math.ceil(options.connect_timeout)))
    if follows:
        ours["LogVerbose"] = FOLLOW
    for name, value in ours.items():
        words += ["-o", f"{name}={value}"]
    return (*words, "-E", log_file, "--", target.address, text)


def _host_keys(options: ConnectionOptions) -> dict[str, str]:
    files = " ".join(map(_quoted, options.known_hosts))
    if options.host_key_policy == "off":
        if files:
            return {"StrictHostKeyChecking": "no", "UserKnownHostsFile": files}
        none = {"UserKnownHostsFile": os.devnull, "GlobalKnownHostsFile": os.devnull}
        return {"StrictHostKeyChecking": "no", **none}
    checking = "yes" if options.host_key_policy == "strict" else "accept-new"
    known = {"UserKnownHostsFile": files} if files else {}
    return {"StrictHostKeyChecking": checking, **known}


def _quoted(path: str) -> str:
    """A file's name as a value of ssh_config(5)."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
