"""Child processes: spawned in a session of their own, watched through a pidfd, ended as a whole.

:func:`spawn` may block (the system waits for the program to be found and loaded) and runs on any
thread but the I/O thread; the methods of :class:`Child` belong to the I/O thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from .loop import Loop, owned
from .stream import Descriptor

__all__ = [
    "USE_PIDFD",
    "Child",
    "descriptors_of_a_child",
    "highest_descriptor_limit",
    "raise_descriptor_limit",
    "spawn",
]

USE_PIDFD = hasattr(os, "pidfd_open")
"""Whether children are watched through pidfds; a test switches it off."""

_POLL_INTERVAL = 0.02

_inherited_limit: int | None = None


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one; give the limit in force.

    Children get the old limit back: programs that loop over all possible descriptors, or use
    select(), suffer from a high one.
    """
    global _inherited_limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _inherited_limit is None and soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            _inherited_limit = soft
            return hard
    return soft


def highest_descriptor_limit() -> int:
    """The limit of open descriptors of this process, once it is raised."""
    return max(resource.getrlimit(resource.RLIMIT_NOFILE))


def descriptors_of_a_child() -> int:
    """How many descriptors a child may open: its soft limit."""
    if _inherited_limit is not None:
        return _inherited_limit
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Child:
    """A local process that runs, the leader of its session and process group.

    The descriptors ``stdin``, ``stdout`` and ``stderr`` (ours, raw numbers) are for the caller of
    :func:`spawn` to own. With ``pty``, stdin and stdout are two numbers for one terminal.
    """

    def __init__(self, popen: subprocess.Popen[bytes], stdin: int, stdout: int, stderr: int):
        self.popen = popen
        self.pid = popen.pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.start_date = time.time()
        self.reaped = False
        self.taken = False  # another part of the program has reaped it
        self._pidfd: Descriptor | None = None
        owned.add(self)
        if USE_PIDFD:
            # An error here (no descriptor left, a sandbox) only means the slower way to watch.
            with contextlib.suppress(OSError):
                self._pidfd = Descriptor(os.pidfd_open(self.pid))

    def watch(self, loop: Loop, on_exit: Callable[[], object]) -> None:
        """Call ``on_exit`` on the I/O thread once the process has exited; it is not reaped."""
        if self._pidfd is None:
            _poller_of(loop).watch(self.pid, on_exit)
            return
        fd = self._pidfd.fd

        def exited() -> None:
            loop.remove_reader(fd)
            on_exit()

        loop.add_reader(fd, exited)

    def status(self) -> int | None:
        """The raw wait status of the process, which has exited; it stays a zombie until
        :meth:`reap`, so that its pid and process group cannot become somebody else's.

        None if another part of the program has reaped it.
        """
        try:
            info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            return self._status_of_popen()
        if info is None:
            return None
        if info.si_code == os.CLD_EXITED:
            return info.si_status << 8
        return info.si_status | (0x80 if info.si_code == os.CLD_DUMPED else 0)

    def reap(self) -> int | None:
        """Take the process, which has exited, from the system's table. Gives its wait status."""
        if self.reaped:
            return None
        self.reaped = True
        owned.discard(self)
        if self._pidfd is not None:
            self._pidfd.close()
        try:
            status: int | None = os.waitpid(self.pid, 0)[1]
        except ChildProcessError:
            status = self._status_of_popen()
        # Popen must know: it would wait for the pid, which may be somebody else's by then.
        if self.popen.returncode is None:
            self.popen.returncode = 0 if status is None else os.waitstatus_to_exitcode(status)
        return status

    def _status_of_popen(self) -> int | None:
        # The user may have waited for ``process.process`` and taken the status.
        code = self.popen.returncode
        if code is None:
            return None
        return code << 8 if code >= 0 else -code

    def send_signal(self, number: int, *, group: bool = True) -> bool:
        """Signal the process and, with ``group``, its whole process group.

        False if the process itself has exited; what is left of its group is signalled.

        :raises PermissionError: if none of them may be signalled
        """
        if self.reaped:
            return False
        try:
            flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
            alive = os.waitid(os.P_PID, self.pid, flags) is None
        except ChildProcessError:
            # Its number may be somebody else's by now.
            self.taken = True
            return False
        if group:
            # The group is gone if its leader moved to another one and nobody else was in it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
                if os.getpgid(self.pid) == self.pid:
                    return alive
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return alive

    def close_inherited(self) -> None:
        """In a forked child: this process is not its child. Keeps Popen from waiting for it."""
        self.popen.returncode = 0


def spawn(
    argv: Sequence[str],
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    pty: bool = False,
    prelude: str = "",
    merge: bool = False,
    before: Callable[[int], object] | None = None,
) -> Child:
    """Start ``argv`` in a new session. Blocks until its program is loaded, or cannot be.

    :param cwd: its folder; None = ours
    :param env: its whole environment; None = ours
    :param pty: its stdin and stdout are a new terminal, which controls its session
    :param prelude: text for a /bin/sh that then becomes the program
    :param merge: its stderr is its stdout; ours has ended
    :param before: called with the inode of the pipe that will be its stderr
    :raises OSError: as :class:`subprocess.Popen`; nothing is left open
    :raises ValueError: for what no program can be given, a NUL byte for one
    """
    for text in (*argv, cwd or "", *(env or ())):
        if "\0" in text:
            raise ValueError("embedded null byte")
    opened: list[int] = []
    popen: subprocess.Popen[bytes] | None = None
    try:
        stderr, child_stderr = _pipe(opened)
        if pty:
            master, slave = os.openpty()
            opened += [master, slave]
            _prepare_terminal(slave)
            stdin, child_stdin, stdout, child_stdout = os.dup(master), slave, master, slave
            opened.append(stdin)
        else:
            child_stdin, stdin = _pipe(opened)
            stdout, child_stdout = _pipe(opened)
        if _inherited_limit is not None:
            prelude = f"ulimit -S -n {_inherited_limit};{prelude}"
        if pty:
            # A session gets its controlling terminal when its leader opens one.
            prelude += f": <>{os.ttyname(slave)};"
        if prelude:
            _check_program(argv[0], cwd, env)
            argv = ["/bin/sh", "-c", f'{prelude} exec "$@"', "sh", *argv]
        child_error, inode = (child_stdout, stdout) if merge else (child_stderr, stderr)
        if before is not None:
            before(os.fstat(inode).st_ino)
        popen = subprocess.Popen(
            argv,
            stdin=child_stdin,
            stdout=child_stdout,
            stderr=child_error,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        child = Child(popen, stdin, stdout, stderr)
        for fd in (stdin, stdout, stderr):
            opened.remove(fd)
        return child
    except BaseException:
        if popen is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()
        raise
    finally:
        for fd in set(opened):
            os.close(fd)


def _pipe(opened: list[int]) -> tuple[int, int]:
    ends = os.pipe()
    opened += ends
    return ends


def _prepare_terminal(slave: int) -> None:
    settings = termios.tcgetattr(slave)
    settings[3] &= ~(termios.ECHO | termios.ECHONL)
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    termios.tcsetwinsize(slave, (24, 80))


def _check_program(name: str, cwd: str | None, env: Mapping[str, str] | None) -> None:
    """Refuse what the system would refuse to start.

    What only the child itself can do, between its setsid() and its exec(), is done by a shell that
    becomes the command: Python code there (``preexec_fn``) can deadlock in a program with threads.
    The shell would report a missing command as its own exit code, hence this look before.

    :raises OSError: as exec() would
    """
    path = (os.environ if env is None else env).get("PATH", os.defpath)
    place = os.path.join(cwd, name) if cwd is not None and "/" in name else name
    if cwd is not None and not os.path.isdir(cwd):
        code = errno.ENOTDIR if os.path.exists(cwd) else errno.ENOENT
        raise OSError(code, os.strerror(code), cwd)
    program = shutil.which(place, path=path) if name else None
    if program is None:
        code = errno.EACCES if "/" in name and os.path.exists(place) else errno.ENOENT
        raise OSError(code, os.strerror(code), name)
    _check_loadable(program, name)


def _check_loadable(program: str, name: str) -> None:
    """Refuse a script that the system would refuse: a shell would take it for one of its own.

    :raises OSError: if its first line names no interpreter, or one that does not exist
    """
    try:
        with open(program, "rb") as file:
            head = file.read(256)
    except OSError:
        return  # it may be run and not be read
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n")[0].split()
        code = 0 if words and os.path.exists(words[0]) else errno.ENOENT
    else:
        # A program has NUL bytes at its beginning; a text without "#!" cannot be run.
        code = 0 if b"\0" in head else errno.ENOEXEC
    if code:
        raise OSError(code, os.strerror(code), name)


class _Poller:
    """Watches children where the system has no pidfd: one thread, asleep while there are none."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._changed = threading.Condition()
        self._children: dict[int, Callable[[], object]] = {}
        self._thread: threading.Thread | None = None
        self._looks = False  # on the I/O thread

    def watch(self, pid: int, on_exit: Callable[[], object]) -> None:
        with self._changed:
            self._children[pid] = on_exit
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="execo-wait", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    # No thread can be started: the I/O thread looks itself, until one can.
                    self._thread = None
                    if not self._looks:
                        self._looks = True
                        self._loop.call_later(_POLL_INTERVAL, self._look_here)
            self._changed.notify()

    def _look_here(self) -> None:
        self._looks = False
        with self._changed:
            self._look()
            left = next(iter(self._children.items()), None)
        if left is not None:
            self.watch(*left)

    def _run(self) -> None:
        # Waiting for any child would take those of other parts of the program; waiting for each
        # needs a thread each. So this is the one place that looks again and again.
        while True:
            with self._changed:
                while not self._children:
                    self._changed.wait()
                self._changed.wait(_POLL_INTERVAL)
                self._look()

    def _look(self) -> None:
        for pid in list(self._children):
            if _has_exited(pid):
                self._loop.call_soon(self._children.pop(pid))


def _has_exited(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return True


def _poller_of(loop: Loop) -> _Poller:
    # The loop's own, so that a forked child, which has a loop of its own, has its own poller.
    if loop.poller is None:
        loop.poller = _Poller(loop)
    poller: _Poller = loop.poller
    return poller
