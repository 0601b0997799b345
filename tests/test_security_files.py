"""Files, folders and sockets on a machine that others use: who can read, guess or exchange them."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Get, Process, Put, SshProcess, TaktukRemote, transports
from execo.errors import Reason
from execo.transports.openssh_folder import LogFolder
from local_hosts import FolderHosts
from sshd import RealSshd

pytest_plugins = ["local_hosts", "sshd"]

PATIENCE = 60.0
SOMEBODY = 12345
"""A user id that nobody has."""


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    yield
    transports.close_idle()


# -- links that somebody else has made ------------------------------------------------------------


class Shared:
    """A folder as /tmp is, in which somebody else has made a link to a file of ours."""

    def __init__(self, folder: Path, name: str, *, there: bool = True) -> None:
        self.folder = folder / "shared"
        self.folder.mkdir()
        self.folder.chmod(0o1777)
        self.ours = folder / "ours"
        self.ours.mkdir()
        self.file = self.ours / "authorized_keys"
        if there:
            self.file.write_text("ours")
        self.link = self.folder / name
        self.link.symlink_to(self.file)

    def give(self, link: int = SOMEBODY, folder: int = SOMEBODY + 1) -> None:
        """Say whose they are."""
        os.chown(self.folder, folder, -1)
        os.lchown(self.link, link, -1)

    def check_untouched(self) -> None:
        assert [path.read_text() for path in self.ours.iterdir()] in (["ours"], [])
        assert [path.name for path in self.folder.iterdir()] == [self.link.name]
        assert self.link.is_symlink()


@pytest.fixture(params=[True, False], ids=["there", "missing"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Shared:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to somebody else")
    return Shared(tmp_path, "f", there=request.param)


WAYS = [None, "rsync"]


@pytest.mark.parametrize("tool", WAYS)
def test_get_does_not_follow_a_link_of_somebody_else(
    hosts: FolderHosts, shared: Shared, tool: str | None
) -> None:
    (hosts.home("web1") / "f").write_text("evil")
    shared.give()
    options: dict[str, Any] = {} if tool is None else {"tool": tool}
    for place in (shared.link, shared.folder):
        process = Get(hosts("web1"), "f", str(place), **options).run(PATIENCE).processes[0]
        assert process.reason is Reason.WRITE
        assert "a link of somebody else" in process.message
        shared.check_untouched()


def test_get_of_many_does_not_follow_a_link_of_somebody_else(
    hosts: FolderHosts, shared: Shared
) -> None:
    for name in ("f", "g"):
        (hosts.home("web1") / name).write_text("evil")
    shared.give()
    process = Get(hosts("web1"), ["f", "g"], str(shared.folder)).run(PATIENCE).processes[0]
    assert "a link of somebody else" in process.message
    shared.check_untouched()


@pytest.mark.parametrize("shell", ["dash-1", "bash-1", "ksh-1", "busybox-1"])
@pytest.mark.parametrize("tool", WAYS)
def test_put_does_not_follow_a_link_of_somebody_else(
    hosts: FolderHosts, shared: Shared, shell: str, tool: str | None
) -> None:
    if tool == "rsync" and shell == "busybox-1":
        return  # it has none
    Path("f").write_text("new")
    shared.give()
    options: dict[str, Any] = {} if tool is None else {"tool": tool}
    for place in (shared.link, shared.folder):
        process = Put(hosts(shell), "f", str(place), **options).run(PATIENCE).processes[0]
        assert process.reason is Reason.EXIT_CODE
        assert f"f: it is a link of somebody else (user {SOMEBODY})" in process.message
        shared.check_untouched()


@pytest.mark.parametrize("shell", ["dash-1", "bash-1", "ksh-1", "busybox-1"])
def test_put_of_many_does_not_follow_a_link_of_somebody_else(
    hosts: FolderHosts, shared: Shared, shell: str
) -> None:
    Path("f").write_text("new")
    Path("d").mkdir()
    shared.give()
    process = Put(hosts(shell), ["f", "d"], str(shared.folder)).run(PATIENCE).processes[0]
    assert "a link of somebody else" in process.message
    assert not shared.file.exists() or shared.file.read_text() == "ours"


@pytest.mark.parametrize("owners", [(0, 0), (0, SOMEBODY), (SOMEBODY, SOMEBODY)])
def test_links_of_ones_own_and_of_the_folders_owner_are_followed(
    hosts: FolderHosts, shared: Shared, owners: tuple[int, int]
) -> None:
    shared.give(*owners)
    (hosts.home("web1") / "f").write_text("got")
    Get(hosts("web1"), "f", str(shared.link)).run(PATIENCE).raise_if_failed()
    assert shared.file.read_text() == "got"
    Path("f").write_text("put")
    Put(hosts("web1"), "f", str(shared.link)).run(PATIENCE).raise_if_failed()
    assert shared.file.read_text() == "put"
    assert shared.link.is_symlink()


def test_a_chain_of_links_is_looked_at_link_by_link(hosts: FolderHosts, shared: Shared) -> None:
    shared.give()
    own = shared.folder.parent / "own"
    own.symlink_to("shared/f")
    (hosts.home("web1") / "f").write_text("evil")
    Path("f").write_text("new")
    got = Get(hosts("web1"), "f", str(own)).run(PATIENCE).processes[0]
    put = Put(hosts("web1"), "f", str(own)).run(PATIENCE).processes[0]
    for process in (got, put):
        assert "a link of somebody else" in process.message
    shared.check_untouched()


def test_links_in_a_circle(hosts: FolderHosts, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (hosts.home("web1") / "f").write_text("x")
    Path("f").write_text("x")
    got = Get(hosts("web1"), "f", str(tmp_path / "a")).run(PATIENCE).processes[0]
    assert "Too many levels of symbolic links" in got.message
    put = Put(hosts("web1"), "f", str(tmp_path / "a")).run(PATIENCE).processes[0]
    assert put.message.endswith("a: its link leads nowhere")


# -- names for a while ----------------------------------------------------------------------------


class Programs:
    """Programs that hosts and we find before the real ones; each notes what it sees first."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "programs"
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self._notes = folder / "notes"
        self._notes.touch(0o666)
        monkeypatch.setenv("PATH", f"{self.folder}:{os.environ['PATH']}")

    def add(self, name: str, look: str, real: str = "") -> Path:
        """``look`` is a script that has the words of the program and prints a line."""
        path = self.folder / name
        real = real or f"/usr/bin/{name}"
        text = f'#!/bin/sh\n( {look} ) >>{self._notes} 2>&1\nexec {real} "$@"\n'
        path.write_text(text)
        path.chmod(0o755)
        return path

    @property
    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(tmp_path, monkeypatch)


@pytest.fixture(params=[0, 0o077], ids=["umask 0", "umask 077"])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_what_put_sends_is_never_open_to_more_than_in_the_end(
    hosts: FolderHosts, programs: Programs, mask: int, mode: int
) -> None:
    # All that it makes is a file under its temporary name, which cat writes, or a folder, which tar
    # fills.
    programs.add("cat", 'stat -Lc "%a" /dev/fd/3', "/bin/cat")
    (programs.folder / "cat").write_text(
        "#!/bin/sh\nexec 3>&1\n"
        f'stat -Lc "%a %F" /proc/self/fd/3 >>{programs._notes} 3>&3\nexec /bin/cat "$@" 3>&-\n'
    )
    programs.add("tar", 'stat -c "%a" "$4"; case $4 in */.execo-*) ;; *) echo "$4";; esac')
    Path("f").write_text("x")
    Path("f").chmod(mode)
    Path("d").mkdir(mode=0o755)
    Path("d/f").write_text("x")
    Path("d/f").chmod(mode)
    home = hosts.home("web1")
    Put(hosts("web1"), "f").run(PATIENCE).raise_if_failed()
    Put(hosts("web1"), ["f", "d"], "to").run(PATIENCE).raise_if_failed()
    for path in (home / "f", home / "to/f", home / "to/d/f"):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    first, second = programs.notes
    assert int(first.split()[0], 8) & ~(mode | 0o200) == 0
    assert second == "700"


def test_what_get_stores_is_never_open_to_more_than_in_the_end(
    hosts: FolderHosts, mask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int]] = []
    real_open, real_mkdir = os.open, os.mkdir

    def opened(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL, path
            assert flags & os.O_NOFOLLOW, path
            made.append((os.fspath(path), mode))
        return real_open(path, flags, mode, **options)

    def made_folder(path: Any, mode: int = 0o777, **options: Any) -> None:
        made.append((os.fspath(path), mode))
        real_mkdir(path, mode, **options)

    home = hosts.home("web1")
    (home / "d/e").mkdir(parents=True)
    for name in ("f", "d/f", "d/e/f"):
        (home / name).write_text("x")
        (home / name).chmod(0o600)
    Path("to").mkdir()
    with monkeypatch.context() as watched:
        watched.setattr(os, "open", opened)
        watched.setattr(os, "mkdir", made_folder)
        Get(hosts("web1"), "f").run(PATIENCE).raise_if_failed()
        Get(hosts("web1"), ["f", "d"], "to").run(PATIENCE).raise_if_failed()
    ours = [(name, mode) for name, mode in made if "/.execo-" in name]
    assert len(ours) >= 7
    assert [name for name, mode in ours if mode not in (0o600, 0o700)] == []
    assert not [path for path in Path().rglob("*") if path.name.startswith(".execo-")]
    for name in ("f", "to/f", "to/d/f", "to/d/e/f"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600


def test_names_for_a_while_cannot_be_guessed(hosts: FolderHosts, programs: Programs) -> None:
    programs.add("mv", 'echo "${2##*/}"', "/bin/mv")
    Path("f").write_text("x")
    for _ in range(3):
        Put(hosts("web1"), "f").run(PATIENCE).raise_if_failed()
    names = programs.notes
    assert len(set(names)) == 3
    for name in names:
        assert len(name.removeprefix(".execo-")) == 16, name
        int(name.removeprefix(".execo-"), 16)


def test_the_files_of_ssh_commands_are_in_a_folder_for_the_user_alone(
    sshd: RealSshd, programs: Programs, mask: int
) -> None:
    # What goes to nowhere is in no file.
    look = (
        'for w; do [ "$o $w" = "-E /dev/null" ] || [ "$o" != -E ] || stat -c "%a %u" "${w%/*}"; '
        '[ "$o" != -S ] || stat -c "%a %u" "${w%/*}"; o=$w; done'
    )
    program = programs.add("ssh", look)
    host = sshd.hosts(1)[0]
    process = SshProcess("echo hi", host, {"ssh": str(program)}).run(PATIENCE)
    assert process.stdout == "hi\n", process.dump()
    assert len(programs.notes) >= 2
    assert set(programs.notes) == {f"700 {os.geteuid()}"}


def test_the_hosts_of_taktuk_are_in_a_file_for_the_user_alone(
    sshd: RealSshd, programs: Programs, mask: int
) -> None:
    look = 'for w; do [ "$o" != -F ] || stat -c "%a %u" "${w%/*}" "$w"; o=$w; done'
    program = programs.add("taktuk", look)
    action = TaktukRemote("echo hi", sshd.hosts(2), {"taktuk": str(program)}).run()
    assert [process.stdout for process in action.processes] == ["hi\n"] * 2
    assert programs.notes == [f"700 {os.geteuid()}", f"600 {os.geteuid()}"]


def test_a_folder_that_somebody_else_has_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to somebody else")
    place = tmp_path / "t"
    place.mkdir()
    place.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    runtime = tmp_path / "run"
    runtime.mkdir()
    os.chown(runtime, SOMEBODY, -1)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    squatted = place / "execo-ssh-squatted"
    squatted.mkdir()
    (squatted / "1").write_text("theirs")
    os.chown(squatted, SOMEBODY, -1)
    own = tmp_path / "own"
    own.mkdir()
    (place / "execo-ssh-link").symlink_to(own)
    folder = LogFolder(sockets=True)
    try:
        made = Path(folder.file(1)).parent
        assert made.parent in (place, Path("/tmp"))
        assert made not in (squatted, place / "execo-ssh-link")
        status = made.lstat()
        assert stat.S_ISDIR(status.st_mode)
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, os.geteuid())
    finally:
        folder.close()
    assert (squatted / "1").read_text() == "theirs"
    assert own.exists()


def test_new_host_keys_are_written_by_the_user_alone(
    sshd: RealSshd, mask: int, tmp_path: Path
) -> None:
    known = tmp_path / "new" / "known_hosts"
    config = tmp_path / "config"
    config.write_text(f"UserKnownHostsFile {known}\n")
    host = sshd.hosts(1)[0]
    params = {"host_key_policy": "accept-new", "ssh_config": config}
    SshProcess("true", host, params).run(PATIENCE).raise_if_failed()
    transports.close_idle()
    for path in (known, known.parent):
        assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0, path


# -- the helpers of this machine ------------------------------------------------------------------


def test_the_watchdog_takes_orders_from_nobody_else() -> None:
    """Its pipe and its table have no name, and another user may not open them."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with Process("sleep 1000", ignore_exit_code=True).start() as process:
        assert process.pid is not None
        watchdogs = [
            path
            for path in Path("/proc").glob("[0-9]*")
            if b"execo-watchdog" in _words(path) and path.stat().st_uid == os.geteuid()
        ]
        assert watchdogs
        for path in (*watchdogs, Path("/proc/self")):
            pid = os.getpid() if path.name == "self" else int(path.name)
            script = (
                f"cd /proc/{pid}/fd || exit; for f in 0 1 2 3 4 5 6 7 8 9; do : <$f; echo >$f; done"
            )
            tried = subprocess.run(
                ["/bin/sh", "-c", script],
                user="nobody",
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
            assert tried.returncode != 0, tried
            assert "ermission denied" in tried.stderr or "an't cd" in tried.stderr, tried
        assert process.running
    process.wait(PATIENCE)


def _words(path: Path) -> bytes:
    try:
        return (path / "cmdline").read_bytes()
    except OSError:
        return b""  # gone since
