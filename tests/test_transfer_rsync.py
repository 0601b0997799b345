"""Put and Get by rsync: the same places and names, and what is there already is not sent again."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Put, TaktukPut
from execo.errors import Reason
from execo.testing import Cluster
from execo.transfer import Get
from local_hosts import FolderHosts
from sshd import RealSshd
from test_transfer import NAMES, make_tree, mode_of, temporary, tree, write

pytest_plugins = ["local_hosts", "sshd"]


def put(*args: Any, **kwargs: Any) -> Put:
    return Put(*args, tool="rsync", **kwargs)


def get(*args: Any, **kwargs: Any) -> Get:
    return Get(*args, tool="rsync", **kwargs)


# -- what goes where ------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["dash-1", "bash-1", "ksh-1"])
def test_a_tree_there_and_back_on_every_shell(hosts: FolderHosts, shell: str) -> None:
    make_tree(Path("tree"))
    write("one", "1", 0o755)
    host = hosts(shell)
    home = hosts.home(shell)
    for _ in range(2):  # also over what is there
        put(host, ["tree", "one"], "in to/it's").run(check=True)
        assert tree(home / "in to/it's/tree") == tree(Path("tree"))
        get(host, ["in to/it's/*"], "back").run(check=True)
        assert tree(Path("back/tree")) == tree(Path("tree"))
        assert Path("back/one").read_text() == "1"
    assert mode_of(Path("back/one")) == 0o755


def test_one_file_goes_to_a_name_or_into_a_folder(hosts: FolderHosts) -> None:
    write("f", "f")
    host = hosts("web1")
    home = hosts.home("web1")
    (home / "folder").mkdir()
    write(home / "real", "old")
    (home / "link").symlink_to("real")
    put(host, "f").run(check=True)
    put(host, "f", "new/name").run(check=True)
    put(host, "f", "folder").run(check=True)
    put(host, "f", "slash/").run(check=True)
    put(host, "f", "~/link").run(check=True)
    for name in ("f", "new/name", "folder/f", "slash/f", "real"):
        assert (home / name).read_text() == "f"
    assert (home / "link").is_symlink()
    get(host, "new/name", "a/b").run(check=True)
    get(host, "new/name", "c/").run(check=True)
    get(host, "~/new", "a").run(check=True)
    get(host, ".", "all").run(check=True)
    assert Path("a/b").read_text() == Path("c/name").read_text() == "f"
    assert Path("a/new/name").read_text() == Path("all/web1/f").read_text() == "f"


def test_every_name(hosts: FolderHosts) -> None:
    names = [*NAMES, "a[1]", "a1", "*", "q?", "[", "c\\[d]", ":colon", "host:x", "~", "new\rline"]
    host = hosts("web1")
    home = hosts.home("web1")
    for name in names:
        write(Path("all") / name, name)
        put(host, f"all/{name}", "one by one/", substitute=False).run(check=True)
        get(host, f"one by one/{name}", "back/", substitute=False).run(check=True)
        assert (home / "one by one" / name).read_bytes() == name.encode()
        assert Path("back", name).read_bytes() == name.encode()
    put(host, [f"all/{name}" for name in names], "at once", substitute=False).run(check=True)
    assert tree(home / "at once") == tree(Path("all"))
    get(host, [f"at once/{name}" for name in names], "again", substitute=False).run(check=True)
    assert tree(Path("again")) == tree(Path("all"))
    # A name on its own, where it could be an option or a host.
    os.chdir("all")
    for name in ("-rf", "--", ":colon", "host:x"):
        put(host, name, f"alone/{name}", substitute=False).run(check=True)
        assert (home / "alone" / name).read_text() == name
        get(host, f"alone/{name}", f"../alone/{name}", substitute=False).run(check=True)
        assert Path("../alone", name).read_text() == name


def test_patterns_are_expanded_where_the_files_are(hosts: FolderHosts) -> None:
    host = hosts("web1")
    for name in ("a.txt", "b.txt", "c.log"):
        write(name, name)
    put(host, "*.txt", "to").run(check=True)
    assert sorted(os.listdir(hosts.home("web1") / "to")) == ["a.txt", "b.txt"]
    get(host, "to/[b]*", "back/").run(check=True)
    assert os.listdir("back") == ["b.txt"]


def test_names_differ_from_host_to_host(hosts: FolderHosts) -> None:
    write("1", "1")
    write("2", "2")
    web = hosts("web1", "web2")
    put(web, "{{['1', '2']}}", "{{{host}}}/f").run(check=True)
    assert (hosts.home("web2") / "web2/f").read_text() == "2"
    get(web, "{{{host}}}/f", "from/{{{host}}}").run(check=True)
    assert Path("from/web1").read_text() == "1"
    with pytest.raises(ValueError, match="would get the same name"):
        get(web, "f", "from/")


def test_links_are_followed_and_special_files_left_out(hosts: FolderHosts) -> None:
    write("outside/f", "f")
    Path("d").mkdir()
    Path("d/file").symlink_to("../outside/f")
    Path("d/folder").symlink_to("../outside")
    Path("d/no[1]where").symlink_to("nothing")
    os.mkfifo("d/pipe")
    put(hosts("web1"), "d").run(check=True)
    there = hosts.home("web1") / "d"
    assert sorted(os.listdir(there)) == ["file", "folder"]
    assert not (there / "file").is_symlink()
    assert (there / "folder/f").read_text() == "f"


def test_settings_of_the_user_for_rsync_do_no_harm(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Those of the environment; an rsync may also have been built with protected arguments.
    monkeypatch.setenv("RSYNC_PROTECT_ARGS", "1")
    monkeypatch.setenv("RSYNC_ICONV", "ascii")
    write("d/é ü", "f")
    put(hosts("web1"), "d").run(check=True)
    get(hosts("web1"), "d", "back").run(check=True)
    assert Path("back/d/é ü").read_text() == "f"


def test_what_is_no_regular_file_is_not_replaced(hosts: FolderHosts) -> None:
    write("f", "f")
    home = hosts.home("web1")
    os.mkfifo(home / "pipe")
    os.mkfifo("pipe")
    process = put(hosts("web1"), "f", "pipe").run().processes[0]
    assert "no regular file" in process.message
    assert (home / "pipe").is_fifo()
    write(home / "f", "f")
    process = get(hosts("web1"), "f", "pipe").run().processes[0]
    assert "no regular file" in process.message
    assert Path("pipe").is_fifo()
    process = get(hosts("web1"), "pipe", "got").run().processes[0]
    assert "files and folders alone" in process.message


def test_a_host_gets_no_privileges_here(hosts: FolderHosts) -> None:
    write(hosts.home("web1") / "d/program", "x", 0o6755)
    get(hosts("web1"), "d", ".").run(check=True)
    get(hosts("web1"), "d/program", ".").run(check=True)
    assert mode_of(Path("d/program")) == mode_of(Path("program")) == 0o755


# -- what is there already ------------------------------------------------------------------------


def test_the_delta_alone_is_sent(hosts: FolderHosts) -> None:
    data = bytearray(os.urandom(3_000_000))
    write("data", bytes(data))
    host = hosts("web1")
    there = hosts.home("web1") / "data"
    first = put(host, "data").run(check=True).processes[0]
    assert first.total == 3_000_000 <= first.transferred  # type: ignore[attr-defined]
    data[1_000_000:1_000_010] = b"0123456789"
    write("data", bytes(data))
    action = put(host, "data").run(check=True)
    assert there.read_bytes() == data
    assert action.progress.transferred < 100_000
    assert action.progress.total == 3_000_000
    # Back as well: here the old one is the one to begin with.
    data[2_000_000:2_000_010] = b"0123456789"
    there.write_bytes(bytes(data))
    fetched = get(host, "data", ".").run(check=True)
    assert Path("data").read_bytes() == data
    assert fetched.progress.transferred < 100_000
    assert fetched.progress.total == 3_000_000


def test_a_file_written_again_within_its_second_is_sent(hosts: FolderHosts) -> None:
    host = hosts("web1")
    for number in range(3):
        write("f", str(number))
        os.utime("f", ns=(0, 1_000_000_000_000_000_000 + number))
        put(host, "f").run(check=True)
        assert (hosts.home("web1") / "f").read_text() == str(number)


# -- what fails -----------------------------------------------------------------------------------


def test_rsync_is_missing_on_the_host(hosts: FolderHosts) -> None:
    write("f", "f")
    web = hosts("busybox-1", "web1")
    write(hosts.home("web1") / "g", "g")
    for action in (put(web, "f"), get(web, "g", "{{{host}}}/")):
        action.run()
        bad, good = action.processes
        assert good.ok
        assert bad.reason is Reason.EXIT_CODE
        assert bad.exit_code == 127
        assert "on busybox-1" in bad.message or "from busybox-1" in bad.message
        assert "rsync is missing there: apt install rsync" in bad.message


def test_rsync_is_missing_here(hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    write("f", "f")
    monkeypatch.setenv("PATH", "/nonexistent")
    process = put(hosts("web1"), "f").run().processes[0]
    assert process.reason is Reason.SPAWN
    assert "rsync is missing on this machine: apt install rsync" in process.message


def test_failures_have_the_words_of_rsync(
    sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (host,) = sshd.hosts()
    write("d/f", "f")
    process = put(host, "d", "/proc/sys").run().processes[0]
    assert process.reason is Reason.EXIT_CODE
    assert process.exit_code == 23
    assert "exited 23 (partial transfer due to error): rsync: [" in process.message
    assert 'mkdir "/proc/sys/d" failed' in process.message
    process = put(host, "missing").run().processes[0]
    assert process.reason is Reason.SPAWN
    process = get(host, "missing", ".").run().processes[0]
    assert "o such file" in process.message
    assert "exited 1: ls: " in process.message  # no words of rsync for what is not its own
    process = get(host, "/etc/hostname", "/proc/sys/x").run().processes[0]
    assert not process.ok
    assert "/proc/sys" in process.message


def test_the_disk_here_is_full(hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    write(hosts.home("web1") / "f", os.urandom(3_000_000))
    # The shell of the user sets a limit, which is all that differs from a full disk.
    program = write("bin/rsync", '#!/bin/bash\nulimit -f 1000\nexec /usr/bin/rsync "$@"\n', 0o755)
    monkeypatch.setenv("PATH", f"{program.parent.absolute()}:{os.environ['PATH']}")
    process = get(hosts("web1"), "f", "here").run(timeout=60).processes[0]
    assert process.ended
    assert not process.ok
    assert not Path("here").exists()
    assert list(Path().glob(".*")) == []


@pytest.mark.parametrize("verb", ["put", "get"])
def test_killed_or_too_late_both_sides_end(
    hosts: FolderHosts, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = hosts.home("web1")
    write("big", os.urandom(30_000_000))
    write(home / "big", os.urandom(30_000_000))
    slow = write("bin/rsync", '#!/bin/sh\nexec /usr/bin/rsync --bwlimit=100 "$@"\n', 0o755)
    monkeypatch.setenv("PATH", f"{slow.parent.absolute()}:{os.environ['PATH']}")
    host = hosts("web1")
    moving = threading.Event()

    def look(process: Any, progress: Any) -> None:
        if progress.transferred > 100_000:
            moving.set()

    args: dict[str, Any] = {"process_args": {"progress": look, "nolog_exit_code": True}}
    action = put(host, "big", "new", **args) if verb == "put" else get(host, "big", "new", **args)
    action.start()
    assert moving.wait(60)
    action.kill().wait(60)
    process = action.processes[0]
    assert process.killed
    assert process.ended
    assert not (home / "new").exists()
    assert not Path("new").exists()
    late = {"timeout": 1, "nolog_timeout": True, "nolog_exit_code": True}
    again = put if verb == "put" else get
    process = again(host, "big", "new", process_args=late).run(60).processes[0]
    assert process.reason is Reason.TIMEOUT
    assert temporary(home, Path()) == []
    assert [*home.glob(".new*"), *Path().glob(".new*")] == []


def test_taktuk_has_no_rsync(hosts: FolderHosts) -> None:
    with pytest.raises(ValueError, match="TaktukPut cannot use rsync"):
        TaktukPut(hosts("web1"), "f", tool="rsync")
    with pytest.raises(ValueError, match="no tool 'rsnyc'"):
        Put(hosts("web1"), "f", tool="rsnyc")  # type: ignore[arg-type]


# -- over real connections ------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_over_every_transport(
    sshd: RealSshd, transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hosts = sshd.hosts(4)
    make_tree(Path("tree"))
    data = os.urandom(5_000_000)
    write("tree/it's", data)
    params = {"transport": transport}
    put(hosts, "tree", "r1/{{{host}}}", params).run(check=True)
    get(hosts, "r1/{{{host}}}/tree", "back/{{{host}}}", params).run(check=True)
    for host in hosts:
        assert tree(Path("back", host.address, "tree")) == tree(Path("tree"))
    write("tree/it's", data + b"more")
    again = put(hosts, "tree", "r1/{{{host}}}", params).run(check=True)
    assert again.progress.transferred < 4 * 200_000


@pytest.mark.parametrize("shell", ["/bin/csh", "/bin/tcsh", "/usr/bin/fish", "/bin/zsh"])
def test_every_login_shell(
    sshd: RealSshd, shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    host = sshd.hosts(user=sshd.user(shell))
    name = "a 'b' \"c\" \\ $HOME !x {y} %s\nz"
    write(name, "x")
    put(host, name, f"to {name}/", substitute=False).run(check=True)
    get(host, f"to {name}/{name}", "got", substitute=False).run(check=True)
    assert Path("got").read_text() == "x"


def test_a_host_that_cannot_be_reached(
    sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (good,) = sshd.hosts()
    write("f", "f")
    action = put([Host("127.0.9.9", port=9), good], "f", "reach").run()
    assert action.processes[1].ok
    assert action.processes[0].reason is Reason.CONNECT


def test_the_embedded_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = os.urandom(20_000_000)
    write("f", data)
    with Cluster(5) as cluster:
        put(cluster.hosts, "f", "{{{host}}}/").run(check=True)
        get(cluster.hosts, "{{{host}}}/f", "{{{host}}}").run(check=True)
    for host in cluster.hosts:
        assert Path(host.address).read_bytes() == data


def test_the_connection_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    slow = write("bin/rsync", '#!/bin/sh\nexec /usr/bin/rsync --bwlimit=100 "$@"\n', 0o755)
    monkeypatch.setenv("PATH", f"{slow.parent.absolute()}:{os.environ['PATH']}")
    write("big", os.urandom(30_000_000))
    moving = threading.Event()

    def look(action: Any, progress: Any) -> None:
        if progress.transferred > 50_000:
            moving.set()

    with Cluster(1) as cluster:
        args = {"nolog_error": True, "nolog_exit_code": True}
        action = put(cluster.hosts, "big", "new", progress=look, process_args=args).start()
        assert moving.wait(60)
    assert action.wait(60).ended
    assert not action.ok


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "nothing that could be understood"),
        ("echo execo-rsync x; exec cat", "invalid literal"),
        ("head -c 3000000 /dev/zero; exec cat", "something else"),
        ("printf 'execo-rsync 1\\n5 ../x\\0'; exec cat", "leads elsewhere"),
        ("printf 'execo-rsync 2\\n5 x\\0005 x\\0'; exec cat", "is there twice"),
        ("printf 'execo-rsync 0\\n'; exec cat", "nothing that could be understood"),
        ("printf 'execo-rsync 1\\n5 x\\0'; exit 0", "exited 12"),
        ("printf 'execo-rsync 1\\n5 x\\0'; exec cat", "exited "),
        ("printf 'execo-rsync 1\\n5 x\\0'; exec cat /dev/zero", "something else"),
        # All rsync would say is that it does not understand it.
        ("printf 'execo-rsync 1\\n5 x\\0'; read x; exec cat /dev/zero", "exited 2 (protocol"),
    ],
)
def test_a_hostile_host(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    monkeypatch.setattr(
        "execo.transfer.rsync.rsync_get_command", lambda names: ("sh", "-c", script)
    )
    monkeypatch.setattr("execo.transfer.rsync_relay.PATIENCE", 0.5)
    process = get(hosts("web1"), "x", "here/").run(timeout=60).processes[0]
    assert process.ended
    assert not process.ok
    assert words in process.message
    assert [path for path in Path().rglob("*") if path.is_file()] == []


def test_a_host_that_sends_what_was_not_asked_for(hosts: FolderHosts) -> None:
    home = hosts.home("web1")
    write(home / "asked", "asked")
    write(home / "other", "other")
    # Its rsync gives another file of its own.
    script = '#!/bin/sh\nfor a; do last=$a; done\n/usr/bin/rsync "$@" "${last%/*}/other"\n'
    write(home / "bin/rsync", script, 0o755)
    process = (
        get(
            hosts("web1"),
            "asked",
            "here/",
            process_args={"env": {"PATH": f"{home}/bin:/usr/bin:/bin"}},
        )
        .run(timeout=60)
        .processes[0]
    )
    assert not process.ok
    assert "unrequested" in process.stderr
    assert not Path("here/other").exists()
