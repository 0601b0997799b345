"""What a host that means ill can do to this machine: it sends what it likes."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execo import Get
from execo.errors import Reason
from execo.process import ProcessBase
from execo.transfer import unpack
from fuzzing import examples
from local_hosts import FolderHosts
from test_transfer_hostile import answering, archive_of, left, sent

pytest_plugins = ["local_hosts"]

PATIENCE = 60.0


def member(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    mode: int = 0o644,
    pax: dict[str, str] | None = None,
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    entry.pax_headers = dict(pax or {})
    return entry


def everything(folder: Path) -> list[os.stat_result]:
    return [path.lstat() for path in folder.rglob("*")]


def check_harmless(around: Path) -> None:
    """Below ``to`` there are files and folders alone, with ordinary permissions; beside it is what
    was there."""
    for status in everything(around / "to"):
        assert stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
        assert stat.S_IMODE(status.st_mode) & 0o7000 == 0
        assert status.st_uid == os.geteuid()
        assert status.st_nlink == 1 or stat.S_ISDIR(status.st_mode)
    assert sorted(path.name for path in around.iterdir()) in (["outside"], ["outside", "to"])
    assert (around / "outside").read_text() == "ours"
    assert not (around.parent / "new").exists()
    assert left(around) == []


@pytest.fixture
def around() -> Path:
    """The folder in which Get has its destination."""
    Path("outside").write_text("ours")
    return Path.cwd()


KINDS = {
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "block": tarfile.BLKTYPE,
    "char": tarfile.CHRTYPE,
    "contiguous": tarfile.CONTTYPE,
    "unknown": b"Z",
    "folder": tarfile.DIRTYPE,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["../../outside", "/etc/passwd", "x", ""])
def test_whatever_kind_of_file_it_sends(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, around: Path, kind: str, target: str
) -> None:
    entry = member("x", KINDS[kind], mode=0o7777)
    entry.linkname = target
    beyond = (member("x/y"), b"evil")
    sent(hosts, monkeypatch, archive_of((entry, b""), beyond))
    sent(hosts, monkeypatch, archive_of((entry, b""), (member("x"), b"evil")))
    check_harmless(around)


NAMES = [
    "../outside",
    "to/../../outside",
    "..",
    "/../outside",
    "a/../../../outside",
    "./../outside",
    "..//outside",
    "../../new",
    "../../../new",
    "a/../../../new",
    "d/../../../../new",
    "a\0b",
    "a" * 300,
    "a/" * 300 + "b",
    "\udcff",
    "\n",
    "-rf",
    ".",
    "",
    "/",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_whatever_name_it_sends(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, around: Path, name: str
) -> None:
    sent(hosts, monkeypatch, archive_of((member("first"), b"1"), (member(name), b"evil")))
    check_harmless(around)
    pax = member("x", pax={"path": name})
    sent(hosts, monkeypatch, archive_of((pax, b"evil")))
    check_harmless(around)
    alone = b"execo-get file 4 7777 0\n" + os.fsencode(name.replace("\0", "")) + b"\0evil"
    (hosts.home("web1") / "alone").write_bytes(alone)
    answering(monkeypatch, "cat", "alone")
    Get(hosts("web1"), "x", "to/").run(PATIENCE)
    check_harmless(around)


@pytest.mark.parametrize(
    "pax",
    [
        {"size": "-1000000"},
        {"size": "999999999999999"},
        {"size": "x"},
        {"mtime": "nan"},
        {"mtime": "inf"},
        {"mtime": "-1e400"},
        {"linkpath": "../../outside"},
        {"hdrcharset": "BINARY"},
        {"GNU.sparse.size": "999999999999999", "GNU.sparse.map": "0,1"},
    ],
    ids=str,
)
def test_whatever_attributes_it_sends(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, around: Path, pax: dict[str, str]
) -> None:
    process = sent(hosts, monkeypatch, archive_of((member("x", pax=pax), b"evil" * 300)))
    assert process.ended
    check_harmless(around)
    assert sum(status.st_size for status in everything(around) if status.st_size > 100_000) == 0


@pytest.mark.parametrize(
    "header",
    [
        "file -5 644 0",
        "file 4 77777 0",
        "file 4 644 nan",
        "file 4 644 inf",
        "file 99999999999999999999 644 0",
        "file 0x4 644 0",
        "file 4 rwx 0",
        "file 4 644",
        "file",
        "tar x",
        "other 4 644 0",
    ],
)
def test_whatever_it_says_of_one_file(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, around: Path, header: str
) -> None:
    data = f"execo-get {header}\nx".encode() + b"\0evil"
    (hosts.home("web1") / "said").write_bytes(data)
    answering(monkeypatch, "cat", "said")
    process = Get(hosts("web1"), "x", "to/").run(PATIENCE).processes[0]
    assert process.ended
    if not process.ok:
        assert process.reason is Reason.WRITE
        assert process.message.startswith("web1: ") or "web1" in process.message
    check_harmless(around)


@examples(30)
@given(data=st.data())
def test_whatever_bytes_it_sends(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """An archive in which some bytes are not what they were."""
    Path("outside").write_text("ours")
    whole = bytearray(
        archive_of(
            (member("d", tarfile.DIRTYPE, mode=0o755), b""),
            (member("d/f"), b"x" * 700),
            (member("long" * 60), b"y"),
        )
    )
    places = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))
    for place, byte in data.draw(st.lists(places, max_size=6)):
        whole[place] = byte
    with monkeypatch.context() as answers:
        process: ProcessBase = sent(hosts, answers, bytes(whole))
    assert process.ended
    check_harmless(Path.cwd())


class Swap:
    """Does something in the middle of the unpacking."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
        real = unpack.Tree.move
        self.done = False

        def move(tree: unpack.Tree, destination: str) -> None:
            act()
            self.done = True
            real(tree, destination)

        monkeypatch.setattr(unpack.Tree, "move", move)


def test_a_link_that_comes_meanwhile_is_replaced_not_followed(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, around: Path, tmp_path: Path
) -> None:
    """Somebody who may write into the destination, which is for everybody, makes a link there just
    before the file is put into place."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files to somebody else")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)

    def plant() -> None:
        (shared / "f").symlink_to(around / "outside")
        os.lchown(shared / "f", 12345, -1)

    swap = Swap(monkeypatch, plant)
    data = archive_of((member("f"), b"evil"), (member("g"), b"evil"))
    (hosts.home("web1") / "sent").write_bytes(b"execo-get tar\n" + data + b"execo-get end\n")
    answering(monkeypatch, "cat", "sent")
    process = Get(hosts("web1"), "x", str(shared)).run(PATIENCE).processes[0]
    assert swap.done
    assert "a link of somebody else" in process.message
    check_harmless(around)


def test_what_it_prints_on_stderr_cannot_command_a_terminal(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answering(monkeypatch, "sh", "-c", 'printf "\\033]0;evil\\007\\033[2J" >&2; exit 1')
    process = Get(hosts("web1"), "x", "to").run(PATIENCE).processes[0]
    for text in (process.message, process.dump(), str(process), caplog.text):
        assert "\x1b" not in text
        assert "\x07" not in text


def test_an_archive_is_read_as_tar_alone(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, around: Path
) -> None:
    """A packed one could be a bomb."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as writer:
        writer.addfile(member("x"))
    process = sent(hosts, monkeypatch, packed.getvalue().ljust(1024, b"\0"))
    assert process.reason is Reason.WRITE
    check_harmless(around)
