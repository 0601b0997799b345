"""Scripts that are killed, and what they leave: for tests and for the benchmark of the same.

A *victim* is a script in an interpreter of its own, which does by and by what scripts do. Its
temporary files are in a folder of its own, its hosts have addresses of their own, and whatever it
starts bears its word in the command line, here and on hosts.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from execo import Host
from invariants import left_of, pids
from sshd import RealSshd, descendants

__all__ = [
    "HOSTS",
    "ROOT",
    "SCRIPT",
    "STEPS",
    "Victim",
    "below",
    "command_line",
    "files_left",
    "sessions",
    "still_there",
]

ROOT = Path(__file__).resolve().parent.parent

PATIENCE = 60.0
"""Seconds: a hang, not a speed."""

HOSTS = 3
"""Hosts of a victim."""

SIZE = 1_000_000
"""Bytes of the file that is copied: more than pipes and windows hold."""

MARK = "EXECO_TEST_VICTIM"
"""In the environment of the script and of what it starts here, unless sudo is in between."""

# Says by and by how far it is: the killer waits for that.
HEAD = r"""
import os, sys
transport, user, keyfile, port, become, folder, *addresses = sys.argv[1:]
word = os.environ["WORD"]  # not an argument: it does not find itself

def step(name):
    print(name, flush=True)

step("import")
import execo
from execo import Get, Host, Local, ParallelActions, Process, Put, Remote

hosts = [Host(one, user, keyfile, int(port)) for one in addresses]
params = {"transport": transport, "become": become or None}
# Here a command is a session, on hosts all that bears its mark.
apart = "" if transport == "local" else "setsid "
quiet = {"nolog_exit_code": True, "nolog_error": True, "nolog_timeout": True}

def command(text, count=len(hosts), **options):
    if transport == "local":
        options = {**quiet, "shell": True, **options}
        locals = [Local(text, process_args=options) for _ in range(count)]
        return ParallelActions(locals)
    where = [hosts[at % len(hosts)] for at in range(count)]
    return Remote(text, where, params, process_args={**quiet, **options})
"""

SCRIPT = r"""
step("connect")
command("true").run()
step("start")
sleepers = command(f"trap '' HUP; sleep {word} & sleep {word}; :", 50).start()
stubborn = f"trap '' TERM HUP; sleep {word} & {apart}sleep {word} & sleep {word}; :"
stubborn = command(stubborn).start()
step("transfer")
if transport != "local":
    there = folder + "/there/{{{host}}}"
    put = Put(hosts, [folder + "/big", folder + "/tree"], there, params, process_args=quiet).start()
    Get(hosts, [folder + "/big"], folder + "/here/{{{host}}}/", params, process_args=quiet).run()
    Get(hosts, [folder + "/tree"], folder + "/here/{{{host}}}/", params, process_args=quiet).run()
    put.wait()
step("wait")
sleepers.wait(0.1)
command(f"sleep {word}", timeout=0.2).run()
step("cancel")
for process in sleepers.processes[::2]:
    process.kill()
for process in sleepers.processes[::2]:
    process.wait()
step("exit")
"""

STEPS = ("import", "connect", "start", "transfer", "wait", "cancel", "exit")


class Victim:
    """One script that runs.

    :param sshd: the server of its hosts, of which it gets addresses of its own
    :param become: the user whom commands on hosts become
    :param first: text that goes before that of the script
    :param script: another one than the one above, for what comes after its first lines
    """

    _numbers = 0

    def __init__(
        self,
        transport: str,
        sshd: RealSshd,
        *,
        user: str | None = None,
        become: str = "",
        first: str = "",
        script: str = SCRIPT,
    ) -> None:
        Victim._numbers += 1
        self.word = f"1000.{secrets.randbits(60):020d}"
        # A short path, as sockets want it; open to the users of the hosts.
        self.folder = Path(tempfile.mkdtemp(prefix="ex-victim-"))
        self.folder.chmod(0o755)
        for name in ("tmp", "here", "there", "tree"):
            (self.folder / name).mkdir()
        (self.folder / "there").chmod(0o777)
        self.content = os.urandom(SIZE // 16) * 16
        for path in ("big", "tree/one", "tree/two"):
            (self.folder / path).write_bytes(self.content)
        place = Victim._numbers * HOSTS
        self.hosts: list[Host] = sshd.hosts(HOSTS, user=user, first=place)
        where = [self.hosts[0].user, sshd.keyfile, sshd.port, become, self.folder]
        addresses = [host.address for host in self.hosts]
        self.errors = self.folder / "errors"
        with self.errors.open("wb") as errors:
            self.popen = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    first + HEAD + script,
                    transport,
                    *map(str, where),
                    *addresses,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "WORD": self.word,
                    "TMPDIR": str(self.folder / "tmp"),
                    MARK: self.word,
                },
            )

    def wait_step(self, name: str) -> None:
        """Return when it is that far, or over."""
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            if line.strip() == name:
                return

    def finish(self) -> int:
        """Its exit code, when it has ended."""
        self.popen.communicate(timeout=PATIENCE)
        return self.popen.returncode

    def here(self) -> list[int]:
        """What it has started and runs on this side: children, watchdog, ssh, masters."""
        return [pid for pid in pids() if pid != self.popen.pid and self._is_mine(pid)]

    def there(self) -> list[int]:
        """The commands that run, on hosts and, if they are its children, here."""
        return left_of(self.word)

    def _is_mine(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            return f"{MARK}={self.word}".encode() in environ.split(b"\0")
        return False

    def close(self) -> None:
        """Remove what is left, of whatever."""
        self.popen.kill()
        self.popen.communicate()
        for pid in {*self.here(), *self.there()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def files_left(victim: Victim) -> list[str]:
    """What is wrong with the files: temporary ones, and halves of copies."""
    folder = victim.folder
    wrong = [f"temporary: {path}" for path in below(folder / "tmp")]
    for side in ("here", "there"):
        for path in below(folder / side):
            if path.name.startswith("."):
                wrong.append(f"temporary: {path}")
                continue
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and path.read_bytes() != victim.content:
                    wrong.append(f"half a file: {path}")
    return wrong


def below(folder: Path) -> list[Path]:
    """What is in a folder, and in those in it, while others remove it: rglob would trip over
    that."""
    return [
        Path(place, name)
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
    ]


def sessions(sshd: RealSshd) -> set[tuple[int, str]]:
    """The processes below a server, by number and start: sessions, shells, guards, commands."""
    return {(pid, _start_of(pid)) for pid in descendants(sshd.pid)}


def still_there(processes: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """Those that live, of those that were seen."""
    return [(pid, start) for pid, start in processes if start and _start_of(pid) == start]


def command_line(pid: int) -> str:
    """Its words; empty for one that is gone, or a zombie."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return words.replace(b"\0", b" ").decode(errors="replace")
    return ""


def _start_of(pid: int) -> str:
    """When it was started; empty for one that is gone, or a zombie."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""
