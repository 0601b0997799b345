"""Put and Get: what goes where, with which name, permissions and time, on every shell."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

import execo
from execo.transfer import Get, Put, texts
from execo.transfer import process as transfer_process
from local_hosts import FolderHosts

pytest_plugins = ["local_hosts"]

NAMES = [
    "with blank",
    "it's",
    '"quoted"',
    "-rf",
    "--",
    "two\nlines",
    "ends in lf\n",
    "back\\slash",
    "$HOME `id` $(id)",
    "!history",
    "a;b&c|d",
    "{brace}",
    "é世",
    "#",
    "%s",
]


def write(name: str | Path, data: str | bytes = "x", mode: int = 0o644) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def tree(folder: Path) -> dict[str, Any]:
    """All that is in a folder: contents and permissions."""
    return {
        str(path.relative_to(folder)): (
            mode_of(path),
            None if path.is_dir() else path.read_bytes(),
            int(path.stat().st_mtime) if path.is_file() else None,
        )
        for path in sorted(folder.rglob("*"))
    }


def temporary(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob(".execo-*")]


def make_tree(folder: Path) -> Path:
    write(folder / "a.txt", "a")
    write(folder / "sub" / "run.sh", "#!/bin/sh\n", 0o755)
    write(folder / "sub" / ".hidden", "h", 0o600)
    write(folder / "empty file", b"")
    write(folder / "large", os.urandom(700_000), 0o640)
    (folder / "empty folder").mkdir()
    write(folder / "two\nlines", "n")
    os.utime(folder / "a.txt", (1_000_000_000, 1_000_000_000))
    return folder


SHELLS = ["dash-1", "bash-1", "ksh-1", "busybox-1"]


# -- one file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100_000, 256 * 1024, 3_000_001])
def test_one_file_there_and_back(hosts: FolderHosts, size: int) -> None:
    data = os.urandom(size)
    write("data.bin", data, 0o640)
    os.utime("data.bin", (1_234_567_890, 1_234_567_890))
    web = hosts("web1", "web2")
    put = Put(web, "data.bin").run(check=True)
    assert [process.host for process in put.processes] == web  # type: ignore[attr-defined]
    for name in ("web1", "web2"):
        there = hosts.home(name) / "data.bin"
        assert there.read_bytes() == data
        assert mode_of(there) == 0o640
        assert there.stat().st_mtime == 1_234_567_890
    get = Get(web, "data.bin", "back/{{{host}}}/").run(check=True)
    for name in ("web1", "web2"):
        here = Path("back", name, "data.bin")
        assert here.read_bytes() == data
        assert mode_of(here) == 0o640
        assert here.stat().st_mtime == 1_234_567_890
    assert all(process.stdout == "" for process in get.processes)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell(hosts: FolderHosts, shell: str) -> None:
    write("one", "1", 0o755)
    make_tree(Path("tree"))
    host = hosts(shell)
    home = hosts.home(shell)
    Put(host, "one", "new/folder/name").run(check=True)
    assert (home / "new/folder/name").read_text() == "1"
    assert mode_of(home / "new/folder/name") == 0o755
    for _ in range(2):  # also over what is there
        Put(host, ["tree", "one"], "into").run(check=True)
        assert tree(home / "into/tree") == tree(Path("tree"))
    Get(host, "into/one", "got.one").run(check=True)
    assert Path("got.one").read_text() == "1"
    for _ in range(2):
        Get(host, ["into/tree", "new/*"], "got").run(check=True)
        assert tree(Path("got/tree")) == tree(Path("tree"))
        assert Path("got/folder/name").read_text() == "1"
    assert temporary(home, Path()) == []


@pytest.mark.parametrize("mode", [0o444, 0o600, 0o700, 0o666, 0o777, 0o4755, 0o2750, 0o1644])
def test_permissions_of_one_file(hosts: FolderHosts, mode: int) -> None:
    write("f", "x", mode)
    Put(hosts("web1"), "f").run(check=True)
    assert mode_of(hosts.home("web1") / "f") == mode
    Get(hosts("web1"), "f", "back").run(check=True)
    assert mode_of(Path("back")) == mode & 0o777


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shell", ["dash-1", "busybox-1"])
def test_any_name(hosts: FolderHosts, shell: str, name: str) -> None:
    write(name, name)
    host, home = hosts(shell), hosts.home(shell)
    Put(host, name, substitute=False).run(check=True)
    assert (home / name).read_text() == name
    Put(host, [name, name], f"{name} folder/", substitute=False).run(check=True)
    Put(host, name, f"{name} other/{name}", substitute=False).run(check=True)
    assert (home / f"{name} folder" / name).read_text() == name
    assert (home / f"{name} other" / name).read_text() == name
    Get(host, name, f"back {name}", substitute=False).run(check=True)
    assert Path(f"back {name}").read_text() == name
    Get(host, f"{name} folder", "folders", substitute=False).run(check=True)
    assert Path("folders", f"{name} folder", name).read_text() == name


def test_a_name_that_is_not_unicode(hosts: FolderHosts) -> None:
    name = os.fsdecode(b"latin-\xe9")
    write(name, "x")
    Put(hosts("web1"), name).run(check=True)
    Get(hosts("web1"), name, "back/").run(check=True)
    assert Path("back", name).read_text() == "x"


# -- where it goes --------------------------------------------------------------------------------


def test_one_file_to_a_name_a_folder_or_a_slash(hosts: FolderHosts) -> None:
    write("f", "new")
    host, home = hosts("web1"), hosts.home("web1")
    (home / "folder").mkdir()
    for location, place in [
        ("name", "name"),
        ("new/deep/name", "new/deep/name"),
        ("folder", "folder/f"),
        ("slash/", "slash/f"),
        ("~/tilde", "tilde"),
        ("~", "f"),
        (str(home / "absolute"), "absolute"),
    ]:
        Put(host, "f", location).run(check=True)
        assert (home / place).read_text() == "new", location
    Path("here").mkdir()
    for location, place in [
        ("n", "n"),
        ("deep/er/n", "deep/er/n"),
        ("here", "here/name"),
        ("sl/", "sl/name"),
        ("~/in home", str(Path("~/in home").expanduser())),
    ]:
        Get(host, "name", location).run(check=True)
        assert Path(place).read_text() == "new", location
    Path("~/in home").expanduser().unlink()


def test_several_files_and_folders_go_into_the_folder(hosts: FolderHosts) -> None:
    write("a", "a")
    write("b", "b")
    write("d/e", "e")
    host, home = hosts("web1"), hosts.home("web1")
    Put(host, ["a", "b"], "two").run(check=True)
    Put(host, "d", "one").run(check=True)
    Put(host, [Path("d/")], "one").run(check=True)  # the same once more, not d/d
    assert sorted(tree(home)) == ["one", "one/d", "one/d/e", "two", "two/a", "two/b"]
    Get(host, "one", "here").run(check=True)
    Get(host, ["two/", "one/d/e"], "there").run(check=True)
    assert Path("here/one/d/e").read_text() == "e"
    assert sorted(tree(Path("there"))) == ["e", "two", "two/a", "two/b"]


def test_folders_are_merged_and_files_replaced(hosts: FolderHosts) -> None:
    write("d/new", "new")
    write("d/both", "from here")
    write("d/sub/deep", "deep")
    host, home = hosts("web1"), hosts.home("web1")
    write(home / "d/old", "old")
    write(home / "d/both", "from there")
    write(home / "d/sub/other", "other")
    Put(host, "d").run(check=True)
    expected = {"new": "new", "old": "old", "both": "from here", "sub/deep": "deep"}
    for name, text in {**expected, "sub/other": "other"}.items():
        assert (home / "d" / name).read_text() == text
    write("x/d/mine", "mine")
    Get(host, "d", "x").run(check=True)
    for name, text in {**expected, "mine": "mine"}.items():
        assert Path("x/d", name).read_text() == text


def test_tilde_and_patterns_are_expanded(hosts: FolderHosts) -> None:
    for name in ("a1.txt", "a2.txt", "b.txt", ".hidden.txt", "a[1].txt"):
        write(name, name)
    write(Path("~/mine").expanduser(), "mine")
    host, home = hosts("web1"), hosts.home("web1")
    Put(host, ["a*.txt", "~/mine"], "all").run(check=True)
    assert sorted(tree(home / "all")) == ["a1.txt", "a2.txt", "a[1].txt", "mine"]
    Put(host, "a[1].txt").run(check=True)  # a name that exists is no pattern
    assert sorted(p.name for p in home.glob("*.txt")) == ["a[1].txt"]
    Get(host, ["~/all/a?.txt", "all/mine"], "got").run(check=True)
    assert sorted(tree(Path("got"))) == ["a1.txt", "a2.txt", "mine"]
    Get(host, "all/a[1].txt", "one").run(check=True)
    assert Path("one").read_text() == "a[1].txt"
    Path("~/mine").expanduser().unlink()


def test_substitutions(hosts: FolderHosts) -> None:
    write("conf.web1", "1")
    write("conf.web2", "2")
    both = hosts("web1", "web2")
    numbers = [10, 20]
    Put(both, "conf.{{{host}}}", "etc/conf-{{numbers}}").run(check=True)
    assert (hosts.home("web1") / "etc/conf-10").read_text() == "1"
    assert (hosts.home("web2") / "etc/conf-20").read_text() == "2"
    Get(both, ["etc/conf-{{numbers}}"], "all/{{{host}}}.conf").run(check=True)
    assert Path("all/web2.conf").read_text() == "2"
    get = Get(both, "etc/conf-{{numbers}}", "same/").run(check=True)  # names differ: no clash
    assert sorted(os.listdir("same")) == ["conf-10", "conf-20"]
    numbers.reverse()
    assert get.reset().processes[0].cmd == "get etc/conf-20 to same/"


def test_reset_finds_the_local_files_anew(hosts: FolderHosts) -> None:
    write("f", "first")
    put = Put(hosts("web1"), "f").run(check=True)
    write("f", "second and longer")
    put.reset().run(check=True)
    assert (hosts.home("web1") / "f").read_text() == "second and longer"


# -- what is no regular file ----------------------------------------------------------------------


def test_a_destination_that_is_no_regular_file_is_written_to(hosts: FolderHosts) -> None:
    write("f", "x" * 1000)
    host, home = hosts("web1"), hosts.home("web1")
    Put(host, "f", "/dev/null").run(check=True)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    write(home / "target", "old")
    (home / "link").symlink_to("target")
    (home / "dangling").symlink_to("to be")
    Put(host, "f", "link").run(check=True)
    Put(host, ["f"], "dangling").run(check=True)
    assert (home / "link").is_symlink()
    assert (home / "target").read_text() == (home / "to be").read_text() == "x" * 1000
    for name in ("d/null", "d/link"):
        write(name, "y")
    (home / "d").mkdir()
    os.mkfifo(home / "d/null")
    (home / "d/link").symlink_to("../target")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((home / "d/null").read_bytes()))
    reader.start()
    Put(host, "d").run(check=True)
    reader.join(20)
    assert read == [b"y"]
    assert (home / "d/link").is_symlink()
    assert (home / "target").read_text() == "y"
    Get(host, "target", "/dev/null").run(check=True)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    write("real", "old")
    Path("here").symlink_to("real")
    Get(host, "target", "here").run(check=True)
    assert Path("here").is_symlink()
    assert Path("real").read_text() == "y"


def test_links_are_followed(hosts: FolderHosts) -> None:
    write("real/f", "f")
    Path("d").mkdir()
    Path("d/file").symlink_to("../real/f")
    Path("d/folder").symlink_to("../real")
    os.link("real/f", "d/hard1")
    os.link("real/f", "d/hard2")
    host, home = hosts("web1"), hosts.home("web1")
    Put(host, "d").run(check=True)
    assert not (home / "d/folder").is_symlink()
    assert (home / "d/folder/f").read_text() == (home / "d/file").read_text() == "f"
    (home / "d/more").symlink_to("folder")
    os.link(home / "d/file", home / "d/hard3")
    Get(host, "d", "back").run(check=True)
    for name in ("file", "folder/f", "more/f", "hard1", "hard2", "hard3"):
        assert Path("back/d", name).read_text() == "f"
        assert not Path("back/d", name).is_symlink()


def test_sockets_and_pipes_are_left_out_and_said(
    hosts: FolderHosts, caplog: pytest.LogCaptureFixture
) -> None:
    write("d/f", "f")
    os.mkfifo("d/pipe")
    host, home = hosts("web1"), hosts.home("web1")
    Put(host, "d").run(check=True)
    assert sorted(tree(home / "d")) == ["f"]
    assert "not put: 1 that are neither files nor folders" in caplog.text
    os.mkfifo(home / "d/pipe")
    Get(host, "d", "back").run(check=True)
    assert sorted(tree(Path("back/d"))) == ["f"]
    assert "not got: 1 that are neither files nor folders, 'd/pipe'" in caplog.text.replace(
        "./", ""
    )


def test_folders_that_may_not_be_written(hosts: FolderHosts) -> None:
    write("d/locked/f", "f")
    Path("d/locked").chmod(0o555)
    host, home = hosts("web1"), hosts.home("web1")
    Put(host, ["d/locked", "d"], "to").run(check=True)
    assert mode_of(home / "to/locked") == mode_of(home / "to/d/locked") == 0o555
    Get(host, "to", "back").run(check=True)
    assert mode_of(Path("back/to/d/locked")) == 0o555
    assert Path("back/to/locked/f").read_text() == "f"


# -- more of everything ---------------------------------------------------------------------------


def test_thousands_of_files_and_deep_trees(hosts: FolderHosts) -> None:
    for number in range(3000):
        write(f"d/f{number}", str(number))
    deep = Path("d", *["deep"] * 150)
    write(deep / "bottom", "b")
    host, home = hosts("web1"), hosts.home("web1")
    for _ in range(2):
        Put(host, "d").run(check=True)
        assert tree(home / "d") == tree(Path("d"))
    Put(host, "d/f*", "flat").run(check=True)
    assert len(os.listdir(home / "flat")) == 3000
    Get(host, "flat/*", "flat").run(check=True)
    assert len(os.listdir("flat")) == 3000


def test_what_has_no_size(hosts: FolderHosts) -> None:
    Get(hosts("web1"), "/proc/version", "v").run(check=True)
    assert Path("v").read_text() == Path("/proc/version").read_text()


def test_what_the_login_shell_prints_is_skipped(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(words: tuple[str, ...]) -> tuple[str, ...]:
        return ("sh", "-c", 'printf "Welcome!\\nno newline"; exec "$@"', "sh", *words)

    real = texts.get_command
    monkeypatch.setattr(transfer_process, "get_command", lambda names: noisy(real(names)))
    write(hosts.home("web1") / "f", "execo-get f")
    Get(hosts("web1"), "f", "f").run(check=True)
    assert Path("f").read_text() == "execo-get f"


def test_as_other_actions(hosts: FolderHosts) -> None:
    write("f", "x")
    many = hosts(*(f"web{number}" for number in range(1, 21)))
    put = Put(many, "f", process_args={"timeout": 60, "max_output": 10}, fanout=3, name="give")
    assert repr(put) == f"<{Put.__name__} 'give': not started, 20 processes>"
    assert put.hosts == many
    with execo.ParallelActions([put, Put(hosts("other"), "f")]) as both:
        both.run(check=True)
    assert put.stats().num_finished_ok == 20
    assert put.processes[0].timeout == 60
    assert Put([], "f").run().ok
    process = put.processes[3]
    assert repr(process) == f"<{Put.__name__}Process 'put f to .' on web4: exited 0>"
    with pytest.raises(TypeError, match="made of files"):
        process.write("x")
    # With cwd and env of the process, too.
    (hosts.home("web1") / "sub").mkdir()
    Put(many[:1], "f", process_args={"cwd": "sub"}).run(check=True)
    assert (hosts.home("web1") / "sub/f").exists()


def test_scp_is_run_when_it_is_set(hosts: FolderHosts, tmp_path: Path) -> None:
    fake = write(tmp_path / "scp", '#!/bin/sh\nfor x; do echo "$x"; done\n', 0o755)
    write("a:b", "x")
    params = {"scp": str(fake), "scp_options": ("-C",), "user": "me", "port": 2222}
    put = Put(["web1", "::1"], "a*", "to here", params).run(check=True)
    words = put.processes[0].stdout.splitlines()
    assert words[:2] == ["-C", "-rp"]
    assert "Port=2222" in words
    assert words[-3:] == ["--", "./a:b", "me@web1:to here"]
    assert put.processes[1].stdout.splitlines()[-1] == "me@[::1]:to here"
    get = Get(execo.Host("web1"), ["x", "y*"], "here", params).run(check=True)
    assert get.processes[0].stdout.splitlines()[-4:] == ["--", "me@web1:x", "me@web1:y*", "./here"]
    assert get.processes[0].host == execo.Host("web1")  # type: ignore[attr-defined]
