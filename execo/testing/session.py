"""A session: one channel, and the command that runs behind it as sshd would run it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from io import FileIO
from typing import IO, Any

import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST

from .settings import Settings
from .terminal import Terminal
from .wire import Wire

__all__ = ["LOST", "Session"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOST = (OSError, EOFError, paramiko.SSHException)
"""What paramiko raises when the channel or the connection is gone."""

_CHUNK = 1 << 16
# RFC 4254, section 6.10; OpenSSH calls the others so.
_NAMED = frozenset("ABRT ALRM FPE HUP ILL INT KILL PIPE QUIT SEGV TERM USR1 USR2".split())
_OTHER = "SIG@openssh.com"
# Those that OpenSSH's sshd lets a client send.
_ACCEPTED = frozenset("HUP INT KILL QUIT TERM USR1 USR2".split())

# A session gets its controlling terminal when its leader opens one. A shell does it, since Python
# code between fork() and exec() (``preexec_fn``) can deadlock in a program with threads.
_TAKE_TERMINAL = ': <>"$0"; exec "$@"'


class Session:
    """One session channel.

    A request of the client comes on the connection's thread. Once its command runs, three threads
    carry its input, its output and its end; each closes what it reads or writes, and all are gone
    when the channel is closed and the command has exited.

    As in OpenSSH 9.2's sshd: the exit status is sent when the command itself has exited, the end
    of the output when the last process that holds it has closed it, and then the channel is
    closed. A client that is gone takes the pipes away, and the command runs on; a terminal is
    hung up. One that has closed the channel, which ssh does when both directions have ended, is
    told the exit status before the channel is closed here.

    :param settings: those of the cluster
    :param home: the command's HOME and folder
    :param wire: the connection, for SSH_CONNECTION
    :param running: the set of commands that run; this one is in it while it does
    """

    def __init__(
        self, settings: Settings, home: str, wire: Wire, running: set[subprocess.Popen[bytes]]
    ) -> None:
        self._settings, self._home, self._wire, self._running = settings, home, wire, running
        self._env: dict[str, str] = {}
        self._terminal: Terminal | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._channel: paramiko.Channel
        self._begun = False
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._outputs_closed = threading.Event()
        self._lock = threading.Lock()
        self._exit_told = False
        self._close: Callable[[], object] | None = None
        self._threads: dict[str, threading.Thread] = {}

    # -- what the client asks: the connection's thread ----------------------------------------

    def set_env(self, name: str, value: str) -> None:
        """A variable for the command, which the settings allow."""
        self._env[name] = value

    def set_terminal(self, term: str, size: tuple[int, int], modes: bytes) -> bool:
        """Give the command a terminal. False if it has one, or there is none."""
        if self._terminal is not None or self._popen is not None:
            return False
        try:
            self._terminal = Terminal(term, size, modes)
        except OSError:
            return False
        return True

    def resize(self, size: tuple[int, int]) -> None:
        """The client's window has changed."""
        if self._terminal is not None:
            self._terminal.resize(size)

    def start(self, channel: paramiko.Channel, command: bytes | None) -> bool:
        """Start the command, None = a login shell. False if it cannot be, or one runs already."""
        if self._popen is not None:
            return False
        self._channel = channel
        shell = self._settings.shell
        argv = [shell, "-l"] if command is None else [shell, "-c", command]
        try:
            self._popen = self._spawn(argv)
        except (OSError, ValueError):
            return False
        self._running.add(self._popen)
        return True

    def begin(self) -> None:
        """Let input, output and the exit status flow.

        Called when the client has its reply: a short command could close the channel before it,
        and clients take that for a refusal.
        """
        if self._popen is None or self._begun:
            return
        self._begun = True
        self._wake = socket.socketpair()
        for name in ("wait", "input", "output"):
            run = getattr(self, f"_{name}")
            self._threads[name] = threading.Thread(target=run, name=name, daemon=True)
        for thread in self._threads.values():
            thread.start()

    def send_signal(self, name: str) -> bool:
        """Signal the command and all that it started in its session, as sshd does; False if that
        signals nothing."""
        if name not in _ACCEPTED or self._popen is None:
            return False
        self._signal_group(signal.Signals[f"SIG{name}"])
        return True

    def close(self, answer: Callable[[], object]) -> None:
        """The client has closed the channel. ``answer`` closes it for the client, which hears of
        nothing after that: an exit status comes first."""
        self.hang_up()
        with self._lock:
            if self._popen is not None and not self._exit_told:
                self._close = answer
                return
        answer()

    def hang_up(self) -> None:
        """The channel is gone. Also from the thread of the connection that has ended."""
        if self._popen is not None:
            self.begin()  # its threads end it, also if the client never had its reply
        if self._wake is not None:
            self._wake[1].close()
        elif self._terminal is not None:
            self._terminal.close()

    # -- the command --------------------------------------------------------------------------

    def _spawn(self, argv: list[Any]) -> subprocess.Popen[bytes]:
        terminal = self._terminal
        pipe = subprocess.PIPE
        stdio: tuple[int, int, int] = (pipe, pipe, pipe)
        if terminal is not None:
            stdio = (terminal.slave, terminal.slave, terminal.slave)
            argv = ["/bin/sh", "-c", _TAKE_TERMINAL, terminal.name, *argv]
        popen = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            cwd=self._home if os.path.isdir(self._home) else "/",
            env=self._environment(),
            start_new_session=True,
        )
        if terminal is not None:
            terminal.close_slave()
        return popen

    def _environment(self) -> dict[str, str]:
        settings = self._settings
        (client, client_port), (server, server_port) = self._wire.client, self._wire.server
        env = {
            "USER": settings.user,
            "LOGNAME": settings.user,
            "HOME": self._home,
            "PATH": PATH,
            "SHELL": settings.shell,
            "SSH_CLIENT": f"{client} {client_port} {server_port}",
            "SSH_CONNECTION": f"{client} {client_port} {server} {server_port}",
            **settings.env,
            **self._env,
        }
        if self._terminal is not None:
            env["SSH_TTY"] = self._terminal.name
            if self._terminal.term:
                env["TERM"] = self._terminal.term
        return env

    def _signal_group(self, number: int) -> None:
        assert self._popen is not None
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    # -- its threads --------------------------------------------------------------------------

    def _wait(self) -> None:
        assert self._popen is not None
        code = self._popen.wait()
        self._running.discard(self._popen)
        with contextlib.suppress(*LOST):
            if code >= 0:
                self._channel.send_exit_status(code)
            else:
                self._send_exit_signal(-code)
        with self._lock:
            self._exit_told = True
            close = self._close
        if close is not None:
            with contextlib.suppress(*LOST):
                close()

    def _send_exit_signal(self, number: int) -> None:
        try:
            name = signal.Signals(number).name.removeprefix("SIG")
        except ValueError:  # a real-time signal
            name = _OTHER
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(self._channel.remote_chanid)
        message.add_string("exit-signal")
        message.add_boolean(False)
        message.add_string(name if name in _NAMED else _OTHER)
        message.add_boolean(False)  # core dumped: Popen does not tell
        message.add_string("")
        message.add_string("")
        # paramiko has no public call for this message.
        transport: Any = self._channel.get_transport()
        transport._send_user_message(message)

    def _input(self) -> None:
        assert self._popen is not None
        stdin = self._popen.stdin if self._terminal is None else self._terminal.writer
        assert stdin is not None
        try:
            with contextlib.closing(stdin):
                while data := self._channel.recv(_CHUNK):
                    _write_all(stdin, data)
                if self._channel.closed:
                    # Who reads the end of the input finds that nobody reads the output either.
                    self._outputs_closed.wait()
        except LOST:
            # Nobody reads it any more: the rest is dropped, for the client not to be held up.
            with contextlib.suppress(*LOST):
                while self._channel.recv(_CHUNK):
                    pass

    def _output(self) -> None:
        assert self._wake is not None
        files = self._outputs()
        try:
            open_to_the_end = self._copy(files)
        except LOST:
            open_to_the_end = False
        finally:
            for file in files:
                file.close()
            self._outputs_closed.set()
            for end in self._wake:
                end.close()
        if open_to_the_end:
            with contextlib.suppress(*LOST):
                self._channel.shutdown_write()
                self._threads["wait"].join()
                self._channel.close()
        elif self._terminal is not None:
            # A thread that writes into a full terminal keeps it from being hung up.
            self._threads["input"].join(1.0)
            if self._threads["input"].is_alive():
                self._signal_group(signal.SIGHUP)

    def _outputs(self) -> dict[IO[bytes] | FileIO, Callable[[bytes], None]]:
        if self._terminal is not None:
            return {self._terminal.reader: self._channel.sendall}
        assert self._popen is not None
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        return {
            self._popen.stdout: self._channel.sendall,
            self._popen.stderr: self._channel.sendall_stderr,
        }

    def _copy(self, files: dict[IO[bytes] | FileIO, Callable[[bytes], None]]) -> bool:
        """Send all that the files give. False if the channel was gone before their end."""
        assert self._wake is not None
        with selectors.PollSelector() as selector:
            selector.register(self._wake[0], selectors.EVENT_READ)
            for file, send in files.items():
                selector.register(file, selectors.EVENT_READ, send)
            while len(selector.get_map()) > 1:
                for key, _ in selector.select():
                    if key.data is None:
                        return False
                    data = _read(key.fileobj)
                    if data:
                        key.data(data)
                    else:
                        selector.unregister(key.fileobj)
        return True


def _read(file: Any) -> bytes:
    try:
        data: bytes = file.read(_CHUNK)
    except OSError:  # EIO: the terminal's last user is gone
        return b""
    return data


def _write_all(file: IO[bytes] | FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
