"""Scripts that are killed at random points, from their first import to their end.

Whatever kills a script, nothing of it is left: no child, ssh or master here, no command, session
or guard on hosts, no temporary file, and no half of a file that was copied. ``EXECO_ROUNDS`` says
how often each kind of script is killed in each way.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from become_users import People
from execo._core.watchdog import Watchdog
from invariants import wait_until
from killed import (
    ROOT,
    STEPS,
    Victim,
    below,
    command_line,
    files_left,
    sessions,
    still_there,
)
from sshd import RealSshd

pytest_plugins = ["become_users"]

ROUNDS = int(os.environ.get("EXECO_ROUNDS", "0"))
"""How often each kind of script is killed in each way; 0 = in some of the ways."""

SOME = 4

SOON = 30.0
"""Seconds; one here and five on hosts are promised, and the machine may be busy."""

LENGTHS = dict(zip(STEPS, (0.3, 0.6, 0.2, 1.0, 0.5, 0.6, 1.5), strict=True))
"""Seconds that the steps of a script take, about."""

HANDLES_TERM = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
"""

# signals, and the exit codes that they may lead to beside that of a script that was quicker
WAYS = {
    "TERM": (["TERM"], {-signal.SIGTERM}),
    "TERM, handled": (["TERM"], {143, -signal.SIGTERM}),
    "HUP": (["HUP"], {-signal.SIGHUP}),
    "KILL": (["KILL"], {-signal.SIGKILL}),
    "INT": (["INT"], {-signal.SIGINT, 1}),
    "INT twice": (["INT"] * 2, {-signal.SIGINT, 1}),
    "INT many": (["INT"] * 10, {-signal.SIGINT, 1}),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RealSshd]:
    """A server of its own: all that is below it comes from here."""
    if shutil.which("taktuk") is None:
        pytest.skip("needs taktuk, see tests/install-servers")
    with RealSshd() as sshd:
        sshd.hosts()  # the user is made here, and not by several threads
        yield sshd


class Killing:
    """Kills victims and looks what they leave. Any thread."""

    def __init__(self, sshd: RealSshd, transport: str, user: str | None, become: str) -> None:
        self._sshd = sshd
        self._transport = transport
        self._user = user
        self._become = become
        self.seen: set[tuple[int, str]] = set()

    def one(self, way: str, seed: str) -> str:
        """Kill one script, and say what is wrong then; else nothing."""
        chance = random.Random(seed)
        signals, codes = WAYS[way]
        victim = Victim(
            self._transport,
            self._sshd,
            user=self._user,
            become=self._become,
            first=HANDLES_TERM if "handled" in way else "",
        )
        try:
            step = chance.choice(STEPS)
            nap = chance.uniform(0, LENGTHS[step])
            victim.wait_step(step)
            _sleep(nap)
            self.seen |= sessions(self._sshd)
            for name in signals:
                victim.popen.send_signal(signal.Signals[f"SIG{name}"])
                if len(signals) > 1:
                    _sleep(chance.uniform(0, 0.1))
            wrong = self._look(victim, codes)
            return f"{way!r} {nap:.3f} s after {step!r}: {wrong}" if wrong else ""
        finally:
            victim.close()

    def _look(self, victim: Victim, codes: set[int]) -> str:
        try:
            code = victim.finish()
        except subprocess.TimeoutExpired:
            return "it does not end"
        errors = victim.errors.read_text()
        if code not in codes | {0}:
            return f"it exits with {code}: {errors}"
        if "internal error" in errors or "Fatal Python error" in errors:
            return errors
        if not wait_until(lambda: not victim.here(), SOON):
            return f"left here: {[command_line(pid) for pid in victim.here()]}"
        if not wait_until(lambda: not victim.there(), SOON):
            return f"left on hosts: {[command_line(pid) for pid in victim.there()]}"
        if not wait_until(lambda: not files_left(victim), SOON):
            return str(files_left(victim))
        return ""


def _sleep(seconds: float) -> None:
    threading.Event().wait(seconds)


KINDS = ("local", "paramiko", "openssh", "taktuk", "paramiko as root", "openssh as root")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_scripts_that_are_killed(
    server: RealSshd, request: pytest.FixtureRequest, kind: str
) -> None:
    transport, _, become = kind.partition(" as ")
    user = None
    if become:
        people: People = request.getfixturevalue("people")
        user = people.free
    killing = Killing(server, transport, user, become)
    plans = [(way, f"{kind}, {way}, {number}") for number in range(ROUNDS) for way in WAYS]
    if not ROUNDS:
        begin = KINDS.index(kind) * SOME  # all ways by all kinds together
        ways = [[*WAYS][at % len(WAYS)] for at in range(begin, begin + SOME)]
        plans = [(way, f"{kind}, {way}") for way in ways]
    with ThreadPoolExecutor(3) as at_once:
        wrong = list(at_once.map(killing.one, *zip(*plans, strict=True)))
    assert not any(wrong), "\n".join(filter(None, wrong))
    # The sessions, their shells and guards; some bear nothing by which to find them.
    gone = wait_until(lambda: not sessions(server) and not still_there(killing.seen), SOON)
    left = sessions(server) | set(still_there(killing.seen))
    assert gone, [command_line(pid) for pid, _ in left]


# In process, the guard of a connection is sent a round trip behind the first command; here it is
# there.
AT_ONCE = """
import signal
if transport == "paramiko":
    command("true").run()
where = hosts * 4
command = f"trap '' HUP TERM PIPE; sleep {word} & echo ready; sleep {word}; :"
processes = Remote(command, where, params).start().processes
processes[0].expect("ready")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("transport", ["paramiko", "openssh", "taktuk"])
def test_commands_end_whose_script_is_killed_as_soon_as_they_run(
    server: RealSshd, transport: str
) -> None:
    for _ in range(2):
        victim = Victim(transport, server, script=AT_ONCE)
        try:
            assert victim.finish() == -signal.SIGKILL, victim.errors.read_text()
            assert wait_until(lambda v=victim: not v.there(), SOON)  # type: ignore[misc]
        finally:
            victim.close()


QUICK_TO_END = {
    "reads": "sleep {word} & echo ready; read x",
    "prints": "sleep {word} & while :; do echo ready; sleep 0.01; done",
}
KILLED_LATER = """
import signal, threading
left = command(f"nohup sleep {word}1 >/dev/null 2>&1 & sleep 1").run()
processes = command(TEXT).start().processes
for process in processes:
    process.expect("ready")
threading.Event().wait(1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("what", QUICK_TO_END)
@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_commands_end_wholly_that_end_because_the_script_is_lost(
    server: RealSshd, transport: str, what: str
) -> None:
    # Their shell sees it before anybody else, and leaves what is in its background.
    script = KILLED_LATER.replace("TEXT", f"f{QUICK_TO_END[what]!r}")
    victim = Victim(transport, server, script=script)

    def running(end: str) -> list[int]:
        return [pid for pid in victim.there() if command_line(pid).rstrip().endswith(end)]

    try:
        assert victim.finish() == -signal.SIGKILL, victim.errors.read_text()
        assert wait_until(lambda: not running(victim.word), SOON)
        _sleep(1)  # time to do harm
        assert len(running(f"{victim.word}1")) == 3  # a server of a command that had ended
    finally:
        victim.close()


COPIES = {
    "Get": 'Get(hosts, ["/dev/zero"], folder + "/here/{{{host}}}/zero", params).start().wait()',
    "Get, a folder": (
        'Get(hosts, [folder + "/tree"], folder + "/here/{{{host}}}/", params).start().wait()'
    ),
    "Put": 'Put(hosts, [folder + "/huge"], folder + "/there/{{{host}}}/", params).start().wait()',
}


def _size(path: Path) -> int:
    """Of a file; of a folder, and of one that is gone since, 0."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size if path.is_file() else 0
    return 0


@pytest.mark.parametrize("what", COPIES)
def test_a_copy_that_is_cut_leaves_nothing(server: RealSshd, what: str) -> None:
    victim = Victim("paramiko", server, first="import time\ntime.sleep(0.2)\n", script=COPIES[what])
    try:
        # Without end, or long enough.
        for name in ("huge", "tree/huge"):
            with (victim.folder / name).open("wb") as file:
                file.truncate(100 << 30)

        def begun() -> bool:
            copies = [*below(victim.folder / "here"), *below(victim.folder / "there")]
            return any(one.name.startswith(".") and _size(one) > 0 for one in copies)

        assert wait_until(begun), victim.errors.read_text()
        victim.popen.kill()
        victim.finish()
        assert wait_until(lambda: not files_left(victim), SOON), files_left(victim)
        assert wait_until(lambda: not victim.here(), SOON)
    finally:
        victim.close()


REMOVES = r"""
import os, signal, sys
from execo._core.watchdog import Watchdog
watchdog = Watchdog()
kept, lost = sys.argv[1].split(":")
slots = [watchdog.claim_path(os.path.join(folder, name))
         for folder in (kept, lost) for name in sorted(os.listdir(folder))]
for slot in slots[:len(slots) // 2]:
    watchdog.release_path(*slot)
watchdog.claim_path(lost)  # of a name that is none of ours
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
for slot in slots[len(slots) // 2:]:
    watchdog.release_path(*slot)
"""


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_the_watchdog_removes_temporary_files(tmp_path: Path, end: str) -> None:
    names = [
        "a",
        "b c",
        "%040",
        "*",
        "-rf",
        "$(id)",
        "'\"\\n\\",
        "line\n",
        "é",
        "x" * 200,
        "\udcff",
    ]
    for folder in ("kept", "lost"):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f".execo-{name}").write_text("half")
        (tmp_path / folder / "execo-folder").mkdir()
        (tmp_path / folder / "execo-folder" / "file").touch()
    (tmp_path / "lost" / "mine").touch()
    folders = f"{tmp_path}/kept:{tmp_path}/lost"
    code = subprocess.run(
        [sys.executable, "-c", REMOVES, folders, end],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=60,
    ).returncode
    assert code == (-signal.SIGKILL if end == "kill" else 0)
    if end == "kill":
        assert wait_until(lambda: os.listdir(tmp_path / "lost") == ["mine"], SOON), os.listdir(
            tmp_path / "lost"
        )
    _sleep(0.3)  # time to do harm
    assert len(os.listdir(tmp_path / "kept")) == len(names) + 1
    assert end == "kill" or len(os.listdir(tmp_path / "lost")) == len(names) + 2


def test_at_the_end_of_a_script_nothing_new_is_made_that_nobody_would_remove() -> None:
    watchdog = Watchdog()
    slots = watchdog.claim_path("/nowhere/.execo-under-way")
    watchdog.close()  # the script ends, and a copy is still under way
    other = watchdog.claim_path("/nowhere/.execo-next")
    watchdog.release_path(*slots)
    watchdog.release_path(*other)  # the last one: the watchdog leaves
    with pytest.raises(OSError, match="this script is at its end"):
        watchdog.claim_path("/nowhere/.execo-late")
