"""Put and Get when something is wrong: what is said, what is left, what happens to the others."""

from __future__ import annotations

import io
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import execo
from execo.errors import Reason
from execo.transfer import Get, Put
from execo.transfer import process as transfer_process
from execo.transfer import upload as transfer_upload
from execo.transfer.send import Package
from execo.transfer.texts import TRAILER, put_tree_command
from local_hosts import FolderHosts

pytest_plugins = ["local_hosts"]

MIB = 1024 * 1024


def nothing_left(folder: Path) -> bool:
    return list(folder.rglob(".execo-*")) == []


def wait_for_path(folder: Path, pattern: str) -> Path:
    timer = execo.Timer(timeout=20)
    while not (found := list(folder.rglob(pattern))):
        assert (timer.remaining() or 0) > 0, f"no {pattern} in {folder}"
        execo.sleep(0.01)
    return found[0]


# -- what is missing ------------------------------------------------------------------------------


def test_a_missing_local_file_is_an_error_of_its_process(hosts: FolderHosts) -> None:
    Path("here-web2").write_text("x")
    put = Put(hosts("web1", "web2"), ["here-{{{host}}}"], "f", name="p").run()
    bad, good = put.processes
    assert (good.ok, (hosts.home("web2") / "f").read_text()) == (True, "x")
    assert not bad.ok
    assert bad.reason is Reason.SPAWN
    wanted = "cannot put 'here-web1' on web1: {}here-web1: No such file or directory"
    assert bad.message == wanted.format(f"{os.getcwd()}/")
    none = Put(hosts("web1"), "*.none").run().processes[0]
    assert none.reason is Reason.SPAWN
    assert none.message == "cannot put '*.none' on web1: *.none: no local file matches"


@pytest.mark.parametrize("shell", ["dash-1", "bash-1", "ksh-1", "busybox-1"])
def test_a_missing_remote_file(hosts: FolderHosts, shell: str) -> None:
    (hosts.home("web2") / "f").write_text("x")
    for names in ("f", ["f", "g"], "f*"):
        get = Get(hosts(shell, "web2"), names, "got/{{{host}}}/").run()
        bad = get.processes[0]
        assert bad.reason is Reason.EXIT_CODE
        assert bad.message.startswith("cannot get 'f")
        assert f"from {shell}: exited " in bad.message
        assert "No such file or directory" in bad.message
        assert not Path("got", shell).exists()
    assert Path("got/web2/f").read_text() == "x"


def test_names_that_would_overwrite_one_another(hosts: FolderHosts) -> None:
    for name in ("a/f", "b/f"):
        Path(name).parent.mkdir()
        Path(name).write_text(name)
    put = Put(hosts("web1"), ["a/f", "b/f"], "to").run()
    assert "would both be stored as 'f'" in put.processes[0].message
    home = hosts.home("web1")
    for name in ("a/f", "b/f"):
        (home / name).parent.mkdir()
        (home / name).write_text(name)
    with pytest.raises(ValueError, match="'a/f' and 'b/f' of web1 would both be stored as 'f'"):
        Get(hosts("web1"), ["a/f", "b/f"], "to")
    get = Get(hosts("web1"), "?/f", "to").run()
    assert get.processes[0].reason is Reason.WRITE
    assert "it sent 'f' twice" in get.processes[0].message
    assert os.listdir("to") == []


@pytest.mark.parametrize(
    ("names", "location"),
    [
        ("f", "one.txt"),
        ("f", "."),
        (["f", "g"], "results"),
        ("f", "results/"),
        ("logs/*.txt", "results/"),
        (["{{{host}}}.log", "*"], "results"),
        ("f", "results/{{['x']}}"),
    ],
)
def test_several_hosts_to_one_local_name(
    hosts: FolderHosts, names: str | list[str], location: str
) -> None:
    with pytest.raises(ValueError, match=r"would get the same name in .*\{\{\{host\}\}\}"):
        Get(hosts("web1", "web2"), names, location)
    Get(hosts("web1", "web2"), names, "results/{{{host}}}/")
    Get(hosts("web1"), names, location)


def test_a_host_given_twice(hosts: FolderHosts) -> None:
    with pytest.raises(ValueError, match="web1, which is given twice"):
        Get([*hosts("web1"), *hosts("web1")], "f", "{{{host}}}")
    Get([*hosts("web1"), *hosts("web1")], "f", "{{['a', 'b']}}")
    Get(hosts("web1", "web10"), "{{{host}}}-*.log", "logs/")  # web10-1.log is not web1-*.log


def test_arguments_that_cannot_be_right(hosts: FolderHosts) -> None:
    host = hosts("web1")
    for files in (3, None, b"f", {"f": 1}, [3], [b"f"]):
        with pytest.raises(TypeError, match="name"):
            Put(host, files)  # type: ignore[arg-type]
    for empty in ([], "", [""]):
        with pytest.raises(ValueError, match="file"):
            Get(host, empty)
    with pytest.raises(ValueError, match="NUL"):
        Put(host, "a\0b")
    with pytest.raises(TypeError, match="no argument 'timeoot'"):
        Put(host, "f", process_args={"timeoot": 3})
    with pytest.raises(TypeError, match="unknown connection parameter"):
        Get(host, "f", connection_params={"usr": "me"})
    many = Get(host, [f"{'long' * 20}{number}" for number in range(2000)], "d").run()
    assert "too many names for one command" in many.processes[0].message


# -- what cannot be stored ------------------------------------------------------------------------


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As on a full disk: writing fails beyond ``size`` bytes here, and what is started meanwhile
    is killed by a signal when it tries."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("names", ["large", "folder"])
def test_no_room_here(hosts: FolderHosts, names: str) -> None:
    for name in ("web1", "web2"):
        home = hosts.home(name)
        (home / "folder").mkdir()
        size = 4 * MIB if name == "web1" else 1000
        for place in ("large", "folder/f"):
            (home / place).write_bytes(b"x" * size)
    Path("web1").mkdir()
    Path("web1/large").write_text("old")
    get = Get(hosts("web1", "web2"), names, "{{{host}}}/")
    with files_no_larger_than(MIB):
        get.run()
    bad, good = get.processes
    assert good.ok
    assert bad.reason is Reason.WRITE
    assert bad.message == f"cannot get {names!r} from web1 to '{os.getcwd()}/web1/': File too large"
    assert os.listdir("web1") == ["large"]
    assert Path("web1/large").read_text() == "old"


@pytest.mark.parametrize("names", ["large", "folder"])
def test_no_room_there(hosts: FolderHosts, names: str) -> None:
    Path("folder").mkdir()
    for name in ("large", "folder/f"):
        Path(name).write_bytes(b"x" * 4 * MIB)
    home = hosts.home("web1")
    (home / "large").write_text("old")
    put = Put(hosts("web1"), names)
    with files_no_larger_than(MIB):
        put.run()
    process = put.processes[0]
    assert process.reason is Reason.EXIT_CODE
    wanted = f"cannot put {names!r} on web1: exited {process.exit_code}: "
    assert process.message.startswith(wanted)
    assert "File size limit exceeded" in process.message
    assert os.listdir(home) == ["large"]
    assert (home / "large").read_text() == "old"


def test_the_cause_among_what_tar_says(hosts: FolderHosts) -> None:
    folder = hosts.home("web1") / "to" / "x"
    for text in (b"no archive at all" * 100, b""):
        put = Put(hosts("web1"), __file__, "to/x/")
        (process,) = put.processes
        assert isinstance(process, transfer_process.PutProcess)
        package = Package([os.getcwd()])
        package.ready = text
        process.packages._known[process.names] = package
        process.run()
        assert process.reason is Reason.EXIT_CODE
        assert re.search(r"exited [1-9][0-9]*: (tar|rm): ", process.message)
        assert "Exiting" not in process.message
        assert os.listdir(folder) == []


def test_a_full_device(hosts: FolderHosts) -> None:
    Path("f").write_bytes(b"x" * MIB)
    put = Put(hosts("web1", "web2"), "f", "{{['/dev/full', 'f']}}").run()
    assert put.processes[1].ok
    assert put.processes[0].message.endswith("No space left on device")
    get = Get(hosts("web2"), "f", "/dev/full").run()
    wanted = "cannot get 'f' from web2 to '/dev/full': No space left on device"
    assert get.processes[0].message == wanted


def test_a_folder_is_in_the_way_or_a_file(hosts: FolderHosts) -> None:
    home = hosts.home("web1")
    Path("f").write_text("x")
    Path("d").mkdir()
    (home / "to" / "f").mkdir(parents=True)
    (home / "d").write_text("a file")
    for names, location, text in [
        ("f", "to", "it is a folder"),
        (["f"], "to/", "it is a folder"),
        (["f", "d"], "to", "it is a folder"),
        ("d", ".", "it is no folder"),
        ("f", "d/f", "d"),
    ]:
        process = Put(hosts("web1"), names, location).run().processes[0]
        assert process.reason is Reason.EXIT_CODE, (names, location)
        assert text in process.message
    Path("got/d").mkdir(parents=True)
    process = Get(hosts("web1"), "d", "got").run().processes[0]
    assert process.reason is Reason.WRITE
    assert process.message.endswith("/got/d: it is a folder")
    process = Get(hosts("web1"), "d", "f/d").run().processes[0]
    assert process.reason is Reason.WRITE
    assert nothing_left(home)
    assert nothing_left(Path())


# -- what changes meanwhile -----------------------------------------------------------------------


def test_a_local_file_that_changes_while_it_is_sent(hosts: FolderHosts) -> None:
    def change_during(what: str) -> execo.process.ProcessBase:
        Path("f").write_bytes(b"x" * 20 * MIB)
        put = Put(hosts("web1"), "f", "pipe").start()
        with open(pipe, "rb") as reader:
            reader.read(1)
            if what == "shrinks":
                os.truncate("f", MIB)
            elif what == "grows":
                with open("f", "ab") as file:
                    file.write(b"y" * MIB)
            else:
                Path("g").write_bytes(b"z" * 20 * MIB)
                os.replace("g", "f")
            received.append(1 + len(reader.read()))
        return put.wait().processes[0]

    received: list[int] = []
    pipe = hosts.home("web1") / "pipe"
    os.mkfifo(pipe)
    process = change_during("shrinks")
    assert process.reason is Reason.WRITE
    assert "cannot put 'f' on web1: " in process.message
    assert "became shorter while it was sent" in process.message
    process = change_during("is replaced")
    assert "another file took its place" in process.message
    assert change_during("grows").ok
    assert received[-1] == 20 * MIB


def test_an_archive_that_is_cut_between_two_files(hosts: FolderHosts) -> None:
    Path("d").mkdir()
    for name in ("a", "b"):
        Path("d", name).write_bytes(b"x" * 512)
    whole = b"".join(Package(["d"]).blocks())
    (host,) = hosts("web1")
    for length in range(0, len(whole) - 1024, 512):
        script = execo.SshProcess(put_tree_command("to"), host, nolog_exit_code=True).start()
        script.write(whole[:length])
        script.close_stdin().wait()
        assert not script.ok, length
        assert os.listdir(hosts.home("web1") / "to") == []


def test_sizes_are_verified(hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    def answering(text: str) -> execo.process.ProcessBase:
        script = ("sh", "-c", 'printf "$1"', "sh", text)
        monkeypatch.setattr(transfer_process, "get_command", lambda names: script)
        return Get(hosts("web1"), "f", "f").run().processes[0]

    process = answering("execo-get file 5 644 0\\nf\\0four")
    assert process.reason is Reason.WRITE
    assert process.message.endswith("of 5 bytes, 4 have come")
    assert "could be understood" in answering("").message
    assert "could be understood" in answering("execo-get file 5").message
    assert "cannot be understood" in answering("execo-get something 1 2 3\\nf\\0").message
    endless = ("sh", "-c", "while echo noise; do :; done")
    monkeypatch.setattr(transfer_process, "get_command", lambda names: endless)
    process = Get(hosts("web1"), "f", "f").run().processes[0]
    assert process.message.endswith("it sent something else than what was asked for")
    assert os.listdir() == []
    assert answering("execo-get file 4 644 0\\nf\\0four and more").ok
    assert Path("f").read_text() == "four"


# -- hosts are not trusted ------------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    for key, value in values.items():
        setattr(entry, key, value)
    return entry


@pytest.mark.parametrize(
    "members",
    [
        [member("../out")],
        [member("d/../../out")],
        [member("link", tarfile.LNKTYPE, linkname="../../outside")],
        [member("link", tarfile.LNKTYPE, linkname="/etc/passwd")],
    ],
)
def test_an_archive_that_leads_elsewhere(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, members: list[tarfile.TarInfo]
) -> None:
    Path("outside").write_text("secret")
    process = get_archive(hosts, monkeypatch, members)
    assert process.reason is Reason.WRITE
    assert "leads elsewhere" in process.message
    assert os.listdir() == ["outside", "to"] or os.listdir() == ["to", "outside"]
    assert os.listdir("to") == []


def test_links_devices_and_set_user_id_bits(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path("outside").mkdir()
    members = [
        member("d", tarfile.SYMTYPE, linkname="../../outside"),
        member("d/f", mode=0o4755),
        member("null", tarfile.CHRTYPE),
        member("/etc/x", mode=0o644),
    ]
    assert get_archive(hosts, monkeypatch, members).ok
    assert os.listdir("outside") == []
    assert Path("to/d/f").stat().st_mode & 0o7777 == 0o755
    assert Path("to/etc/x").exists()
    assert sorted(os.listdir("to")) == ["d", "etc"]
    assert "not got: 2" in caplog.text


def get_archive(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, members: list[tarfile.TarInfo]
) -> execo.process.ProcessBase:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        for one in members:
            writer.addfile(one)
    evil = b"execo-get tar\n" + archive.getvalue() + TRAILER
    (hosts.home("web1") / "evil").write_bytes(evil)
    monkeypatch.setattr(transfer_process, "get_command", lambda names: ("cat", "evil"))
    return Get(hosts("web1"), "x", "to").run().processes[0]


def test_a_name_from_the_host_that_leads_elsewhere(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("../f", "..", "a/b", ""):
        text = f"execo-get file 1 644 0\\n{name}\\0x"
        monkeypatch.setattr(
            transfer_process, "get_command", lambda names, text=text: ("printf", text)
        )
        process = Get(hosts("web1"), "f", "to/").run().processes[0]
        assert "leads elsewhere" in process.message
    assert os.listdir() == []


# -- killed, late, slow ---------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["large", "folder"])
def test_what_is_killed_leaves_nothing(hosts: FolderHosts, names: str) -> None:
    home = hosts.home("web1")
    for folder in (home, Path()):
        (folder / "folder").mkdir()
        for name in ("large", "folder/large"):
            (folder / name).touch()
            os.truncate(folder / name, 1 << 36)  # takes no room, and minutes to send
    for action, there in (
        (Put(hosts("web1"), names, "to/"), home),
        (Get(hosts("web1"), names, "to/"), Path()),
    ):
        action.start()
        wait_for_path(there, ".execo-*")
        action.kill()
        action.wait()
        process = action.processes[0]
        assert process.killed
        assert process.ok
        assert nothing_left(there)
        assert os.listdir(there / "to") == []


def test_what_is_killed_ends_where_its_tar_has_missed_the_signal(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = Path("bin/tar")
    tar.parent.mkdir()
    tar.write_text(f"#!/bin/sh\ntrap '' TERM\nexec {shutil.which('tar')} \"$@\"\n")
    tar.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tar.parent.absolute()}:{os.environ['PATH']}")
    Path("folder").mkdir()
    Path("folder/large").touch()
    os.truncate("folder/large", 1 << 36)
    put = Put(hosts("web1"), "folder", "to/").start()
    wait_for_path(hosts.home("web1"), "large")
    assert put.kill().wait(30).ended
    assert nothing_left(hosts.home("web1"))


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import execo, local_hosts
from execo.transfer import Get, Put
local_hosts._root = Path(sys.argv[2])
execo.transports.register("folders", "local_hosts:FolderTransport")
execo.config.default_connection_params["transport"] = "folders"
Get(["web1"], "large", "to/").start()
Put(["web1"], "large", "to/").start()
timer = execo.Timer(timeout=20)
for folder in (Path("to"), local_hosts._root / "web1" / "to"):
    while not list(folder.glob(".execo-*")):
        assert timer.remaining() > 0
        execo.sleep(0.01)
print("under way")
"""


def test_a_script_that_ends_meanwhile_leaves_nothing(hosts: FolderHosts) -> None:
    home = hosts.home("web1")
    for place in (home / "large", Path("large")):
        place.touch()
        os.truncate(place, 1 << 36)
    words = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(home.parent)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "under way\n", done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir("to") == os.listdir(home / "to") == []


def test_a_timeout_names_the_host(hosts: FolderHosts) -> None:
    Path("f").write_text("x")
    os.mkfifo(hosts.home("web1") / "f")  # nobody will ever read it
    args = {"timeout": 0.3}
    put = Put(hosts("web1", "web2"), "f", process_args=args).run()
    assert put.processes[1].ok
    assert put.processes[0].reason is Reason.TIMEOUT
    assert put.processes[0].message == "cannot put 'f' on web1: reached its timeout of 0.3 s"
    get = Get(hosts("web1"), "f", "g", process_args=args).run()
    assert get.processes[0].reason is Reason.TIMEOUT
    assert not Path("g").exists()


def test_little_waits_in_memory(hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead: list[int] = []
    real = transfer_upload.Upload.take

    def send(self: transfer_upload.Upload, block: bytes | None) -> None:
        real(self, block)
        ahead.append(self._ahead)

    monkeypatch.setattr(transfer_upload.Upload, "take", send)
    Path("f").write_bytes(b"x" * 30 * MIB)
    pipe = hosts.home("web1") / "f"
    os.mkfifo(pipe)
    put = Put(hosts("web1"), "f").start()
    with open(pipe, "rb") as reader:
        reader.read(1)
        assert len(reader.read()) == 30 * MIB - 1
    put.wait(check=True)
    assert max(ahead) <= 1.5 * MIB
