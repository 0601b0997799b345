"""Put and Get when hosts, files and scripts do what they should not: nothing is lost silently."""

from __future__ import annotations

import io
import os
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import execo
from execo.errors import Reason
from execo.transfer import Get, Put, unpack
from execo.transfer import download as transfer_download
from execo.transfer import process as transfer_process
from execo.transfer import send as transfer_send
from execo.transfer.request import Found
from execo.transfer.rsync import _get_words
from execo.transfer.texts import TRAILER
from fuzzing import cheap
from local_hosts import FolderHosts

pytest_plugins = ["local_hosts"]

MIB = 1024 * 1024


def program(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that hosts find before the real one."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    if str(folder) not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def answering(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(transfer_process, "get_command", lambda names: words)


def sent(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, data: bytes, end: bytes = TRAILER
) -> execo.process.ProcessBase:
    """Get of a host that sends ``data`` for an archive."""
    (hosts.home("web1") / "sent").write_bytes(b"execo-get tar\n" + data + end)
    answering(monkeypatch, "cat", "sent")
    return Get(hosts("web1"), "x", "to").run().processes[0]


def archive_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for member, data in members:
            member.size = len(data)
            writer.addfile(member, io.BytesIO(data))
    return out.getvalue()


def left(folder: Path) -> list[Path]:
    return list(folder.rglob(".execo-*"))


# -- what tar says --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "ok"),
    [
        ("tar: ./d/f: file changed as we read it", True),
        ("tar: ./d/s: socket ignored\ntar: ./d/f: file changed as we read it", True),
        ("tar: ./d/f: File shrank by 10 bytes; padding with zeros", False),
        ("tar: ./d/f: File removed before we read it", False),
        (
            "tar: ./d/g: file changed as we read it\ntar: ./d/f: File removed before we read it",
            False,
        ),
        ("", False),
    ],
)
@pytest.mark.parametrize("shell", ["dash-1", "bash-1", "ksh-1"])
def test_what_tar_says_decides(
    hosts: FolderHosts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shell: str,
    said: str,
    ok: bool,
) -> None:
    folder = hosts.home(shell) / "d"
    folder.mkdir()
    (folder / "f").write_text("x")
    (tmp_path / "said").write_text(said)
    text = f'/bin/tar "$@"; cat {tmp_path}/said >&2; exit 1'
    program(tmp_path / "bin", "tar", text, monkeypatch)
    process = Get(hosts(shell), "d", "to").run().processes[0]
    assert process.ok == ok, process.dump()
    assert Path("to/d/f").exists() == ok
    if not ok:
        assert process.reason is Reason.EXIT_CODE
        assert process.message.endswith((said or "exited 1").splitlines()[-1])
    assert left(Path()) == []


def test_tar_crashes(hosts: FolderHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hosts.home("web1") / "d").mkdir()
    program(tmp_path / "bin", "tar", "kill -SEGV $$", monkeypatch)
    process = Get(hosts("web1"), "d", "to").run().processes[0]
    assert process.exit_code == 139
    assert "a link that leads to a folder it is in" in process.message


# -- archives that are cut or damaged -------------------------------------------------------------


def test_an_archive_that_is_cut_or_damaged(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [(tarfile.TarInfo(name), name.encode() * 600) for name in ("a", "b", "c")]
    whole = archive_of(*files)
    assert sent(hosts, monkeypatch, whole).ok
    for name in ("a", "b", "c"):
        Path("to", name).unlink()
    for length in (1536, 3072, 600):
        process = sent(hosts, monkeypatch, whole[:length], b"")
        assert process.reason is Reason.WRITE
        assert "its end is missing" in process.message
        assert os.listdir("to") == []
    damaged = bytearray(whole)
    damaged[1536 + 3] ^= 0xFF  # the header of b
    process = sent(hosts, monkeypatch, bytes(damaged))
    assert process.reason is Reason.WRITE
    assert "the archive it sent is damaged" in process.message
    assert os.listdir("to") == []


def test_a_file_without_size_that_is_cut(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, "printf", "execo-get file - 644 0\\nf\\0half")
    process = Get(hosts("web1"), "f", "f").run().processes[0]
    assert "its end is missing" in process.message
    assert os.listdir() == []


def test_archives_that_are_traps(hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(data: bytes, text: str) -> None:
        process = sent(hosts, monkeypatch, data)
        assert process.reason is Reason.WRITE
        assert text in process.message
        assert os.listdir("to") == []

    sparse = tarfile.TarInfo("holes")
    sparse.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "holes",
        "GNU.sparse.size": str(1 << 50),
        "GNU.sparse.map": "0,1",
    }
    refused(archive_of((sparse, b"x")), "a file with holes")
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE):
        long = tarfile.TarInfo("long")
        long.type, long.size = kind, 1 << 40
        refused(long.tobuf(tarfile.GNU_FORMAT), "a header of 1099511627776 bytes")
    deep = tarfile.TarInfo("/".join(["d"] * 2000))
    refused(archive_of((deep, b"x")), "more than 256 folders")
    chain = tarfile.TarInfo("n")
    chain.type, chain.size = tarfile.GNUTYPE_LONGNAME, 2
    refused((chain.tobuf(tarfile.GNU_FORMAT) + b"n".ljust(512, b"\0")) * 3000, "damaged")


def test_a_stream_without_end(hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'printf "execo-get file 4 644 0\\nf\\0four"; exec yes'
    answering(monkeypatch, "sh", "-c", text)
    Get(hosts("web1"), "f", "f").run(check=True)
    assert Path("f").read_text() == "four"


# -- names ----------------------------------------------------------------------------------------


def test_a_name_given_twice(hosts: FolderHosts) -> None:
    home = hosts.home("web1")
    (home / "a").write_text("a")
    (home / "d").mkdir()
    (home / "d/a").write_text("d")
    Get(hosts("web1"), ["a", "a"], "one").run(check=True)
    Get(hosts("web1"), ["d", "d/"], "two").run(check=True)
    assert Path("one").read_text() == "a"
    assert os.listdir("two/d") == ["a"]
    with pytest.raises(ValueError, match="'a' and 'd/a' of web1 would both be stored as 'a'"):
        Get(hosts("web1"), ["a", "d/a"], "three")
    process = Get(hosts("web1"), ["a*", "a"], "three").run().processes[0]
    assert "it sent 'a' twice" in process.message


@pytest.mark.parametrize("shell", ["dash-1", "busybox-1"])
def test_a_pattern_with_many_matches(hosts: FolderHosts, shell: str) -> None:
    folder = hosts.home(shell) / "many"
    folder.mkdir()
    for number in range(1201):
        (folder / f"{number:0100}").touch()
    Get(hosts(shell), "many/*", "to").run(check=True)
    assert sorted(os.listdir("to")) == sorted(os.listdir(folder))


def test_links_that_lead_nowhere(hosts: FolderHosts, caplog: pytest.LogCaptureFixture) -> None:
    home = hosts.home("web1")
    Path("f").write_text("x")
    Path("tree").mkdir()
    (home / "link").symlink_to("no/such/folder")
    process = Put(hosts("web1"), "f", "link").run().processes[0]
    assert process.message.endswith("link: its link leads nowhere")
    (home / "to").mkdir()
    (home / "to/f").symlink_to("no/such/folder")
    process = Put(hosts("web1"), ["f", "tree"], "to").run().processes[0]
    assert process.message.endswith("to/f: its link leads nowhere")
    Path("tree/f").write_text("x")
    Path("tree/nowhere").symlink_to("none")
    Path("tree/itself").symlink_to("itself")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("tree/socket")
    Put(hosts("web1"), "tree").run(check=True)
    assert os.listdir(home / "tree") == ["f"]
    assert "not put: 3 that are neither files nor folders" in caplog.text


# -- what is sent ---------------------------------------------------------------------------------


def test_a_local_file_that_is_overwritten_while_it_is_sent(hosts: FolderHosts) -> None:
    Path("f").write_bytes(b"x" * 20 * MIB)
    pipe = hosts.home("web1") / "pipe"
    os.mkfifo(pipe)
    put = Put(hosts("web1"), "f", "pipe").start()
    with open(pipe, "rb") as reader:
        reader.read(1)
        with open("f", "r+b") as file:
            file.write(b"y" * 20 * MIB)
        reader.read()
    process = put.wait().processes[0]
    assert process.reason is Reason.WRITE
    assert process.message.endswith("f: it changed while it was sent")


def test_a_walk_that_fails_is_not_repeated(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[object] = []
    real = transfer_send.expanded

    def counted(names: tuple[str, ...]) -> list[str]:
        walks.append(names)
        return real(names)

    monkeypatch.setattr(transfer_send, "expanded", counted)
    put = Put(hosts("web1", "web2", "web3"), "none").run()
    assert all("No such file" in process.message for process in put.processes)
    assert len(walks) == 1


def test_what_was_sent_is_not_kept(hosts: FolderHosts) -> None:
    for name in ("web1", "web2"):
        Path(name).write_text(name)
    put = Put(hosts("web1", "web2"), "{{{host}}}", "f").run(check=True)
    packages = put.processes[0].packages  # type: ignore[attr-defined]
    timer = execo.Timer(timeout=20)
    while packages._known:
        assert (timer.remaining() or 0) > 0
        execo.sleep(0.01)
    put.reset().run(check=True)


def test_a_host_that_is_slow_when_a_local_file_fails(
    hosts: FolderHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "cat", "head -c 700000; exec sleep 1000", monkeypatch)
    home = hosts.home("web1")
    Path("f").write_bytes(b"x" * 20 * MIB)
    real = transfer_send._Item._check

    def check(item: transfer_send._Item, now: os.stat_result) -> None:
        if left(home):
            os.truncate("f", MIB)
            now = os.stat("f")
        real(item, now)

    monkeypatch.setattr(transfer_send._Item, "_check", check)
    process = Put(hosts("web1"), "f", "to/").run().processes[0]
    assert process.reason is Reason.WRITE
    assert process.exit_code in (143, -signal.SIGTERM)  # the script's, or its login shell's
    assert os.listdir(home / "to") == []


@pytest.mark.parametrize("names", ["large", "folder"])
def test_a_second_signal_while_it_tidies(
    hosts: FolderHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    home = hosts.home("web1")
    Path("folder").mkdir()
    for name in ("large", "folder/large"):
        Path(name).touch()
        os.truncate(name, 1 << 36)
    text = 'kill -TERM 0\n/bin/sleep 0.1\nexec /bin/rm "$@"'
    program(tmp_path / "bin", "rm", text, monkeypatch)
    put = Put(hosts("web1"), names, "to/").start()
    timer = execo.Timer(timeout=20)
    while not left(home):
        assert (timer.remaining() or 0) > 0
        execo.sleep(0.01)
    put.kill().wait()
    assert os.listdir(home / "to") == []


# -- the local side -------------------------------------------------------------------------------


class Held:
    """Holds up the unpacking at its second file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._real: Callable[..., None] = unpack.Tree._unpack_one
        self._count = 0
        monkeypatch.setattr(unpack.Tree, "_unpack_one", lambda *args: self._one(*args))  # noqa: PLW0108 - a method

    def _one(self, *args: object) -> None:
        self._count += 1
        if self._count == 2:
            self.reached.set()
            assert self.go_on.wait(20)
        self._real(*args)


@pytest.mark.parametrize("late", [False, True])
def test_killed_or_late_while_it_unpacks(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    folder = hosts.home("web1") / "d"
    folder.mkdir()
    for number in range(10):
        (folder / str(number)).write_text("x")
    held = Held(monkeypatch)
    get = Get(hosts("web1"), "d", "to", process_args={"timeout": 1.5} if late else None).start()
    process = get.processes[0]
    assert held.reached.wait(20)
    if late:
        timer = execo.Timer(timeout=20)
        while not process.timeouted:
            assert (timer.remaining() or 0) > 0
            execo.sleep(0.01)
    else:
        get.kill()
    held.go_on.set()
    get.wait()
    assert process.killed
    assert process.exit_code == -signal.SIGTERM
    assert process.reason is (Reason.TIMEOUT if late else process.reason)
    assert process.ok is not late
    assert os.listdir("to") == []


def test_what_is_killed_ends_with_its_script(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_download, "PATIENCE", 1000.0)
    os.mkfifo(hosts.home("web1") / "f")  # nobody will ever write to it
    get = Get(hosts("web1"), "f", "to/").start()
    get.kill().wait(30)
    assert get.ended


def test_a_pipe_that_nobody_reads_holds_up_nobody(hosts: FolderHosts) -> None:
    (hosts.home("web1") / "large").touch()
    os.truncate(hosts.home("web1") / "large", 1 << 36)
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        get = Get(hosts("web1"), "large", "pipe", process_args={"timeout": 0.5}).start()
        get.wait(30)
        assert get.ended
        assert get.processes[0].reason is Reason.TIMEOUT
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_a_timeout_removes_the_local_file_at_once(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'trap "" TERM; printf "execo-get file 9 644 0\\nf\\0four"; while :; do sleep 1; done'
    answering(monkeypatch, "sh", "-c", text)
    get = Get(hosts("web1"), "f", "to/", process_args={"timeout": 0.5}).start()
    timer = execo.Timer(timeout=20)
    while not left(Path()):
        assert (timer.remaining() or 0) > 0
        execo.sleep(0.01)
    while left(Path()):
        assert (timer.remaining() or 0) > 0
        execo.sleep(0.01)
    assert get.running
    get.kill(signal.SIGKILL).wait()
    assert get.processes[0].reason is Reason.TIMEOUT


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import execo, local_hosts
from execo.transfer import Get, Put, unpack
local_hosts._root = Path(sys.argv[2])
execo.transports.register("folders", "local_hosts:FolderTransport")
execo.config.default_connection_params["transport"] = "folders"
real = unpack.Tree._unpack_one
def slow(*args):
    execo.sleep(0.2)
    real(*args)
unpack.Tree._unpack_one = slow
execo.Process("true").run()  # its transport is made first, and so closes last
Get(["web1"], "d", "to/").start()
timer = execo.Timer(timeout=20)
while not [path for path in Path("to").glob(".execo-*") if path.is_dir() and list(path.iterdir())]:
    assert timer.remaining() > 0
    execo.sleep(0.01)
print("unpacking")
"""


def test_a_script_that_ends_while_it_unpacks(hosts: FolderHosts) -> None:
    folder = hosts.home("web1") / "d"
    folder.mkdir()
    for number in range(200):
        (folder / str(number)).write_text("x")
    words = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder.parent.parent)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout == "unpacking\n", done.stderr
    assert os.listdir("to") == []


@pytest.mark.parametrize("header", ["3 644 inf", "3 644 1e300", "-1 644 0", "3 9 0", "3 644 1_0"])
def test_a_header_with_numbers_that_cannot_be(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    (hosts.home("web1") / "sent").write_bytes(f"execo-get file {header}\nn\0abc".encode())
    answering(monkeypatch, "cat", "sent")
    process = Get(hosts("web1"), "x", "to").run().processes[0]
    assert process.reason is Reason.WRITE
    assert f"a header that cannot be understood: b'execo-get file {header}'" in process.message
    assert not Path("to").exists()


def test_attributes_that_cannot_be(hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    def member(**attributes: str) -> bytes:
        one = tarfile.TarInfo("f")
        one.pax_headers = attributes
        return archive_of((one, b"data"))

    assert sent(hosts, monkeypatch, member(mtime="1700000000.5")).ok
    for value in ("inf", "nan", "1e300"):
        assert "a time that cannot be" in sent(hosts, monkeypatch, member(mtime=value)).message
    with cheap():  # a row of digits would have kept one thread for minutes
        process = sent(hosts, monkeypatch, member(comment="1" * 500_000))
    assert "attributes with 500000 digits in a row" in process.message


def test_many_names_take_no_time(tmp_path: Path) -> None:
    found = [Found(str(number), 1) for number in range(50_000)]
    with cheap():
        words = _get_words(f"{tmp_path}/to/", found)
    assert len(words) > 50_000
    with pytest.raises(ValueError, match="'7' is there twice"):
        _get_words(f"{tmp_path}/to/", [*found, Found("7", 1)])
