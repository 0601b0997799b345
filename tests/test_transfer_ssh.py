"""Put and Get over real SSH servers: every transport, every login shell, users who are not root."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

import execo
from execo.errors import Reason
from execo.transfer import Get, Put
from sshd import RealSshd

pytest_plugins = ["sshd"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def home_of(host: execo.Host) -> Path:
    assert host.user is not None
    return Path(pwd.getpwnam(host.user).pw_dir)


@pytest.fixture(params=["paramiko", "openssh"])
def params(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"transport": request.param}


def test_there_and_back(sshd: RealSshd, params: dict[str, str]) -> None:
    hosts = sshd.hosts(5)
    data = os.urandom(3_000_000)
    Path("large").write_bytes(data)
    Path("small").write_text("{{{host}}}")
    Path("small").chmod(0o750)
    Put(hosts, ["large", "small"], "t1/{{{host}}}", params).run(check=True)
    Put(hosts, "large", "t2/{{{host}}}/it's", params).run(check=True)
    Put(hosts, "small", "t2/{{{host}}}/", params).run(check=True)
    Get(hosts, ["t1/{{{host}}}", "t2/{{{host}}}/*"], "back/{{{host}}}", params).run(check=True)
    Get(hosts, "t2/{{{host}}}/it's", "one/{{{host}}}", params).run(check=True)
    for host in hosts:
        back = Path("back", host.address)
        assert (back / host.address / "large").read_bytes() == data
        assert (back / host.address / "small").read_text() == "{{{host}}}"
        assert (back / "it's").read_bytes() == data
        assert (back / "small").stat().st_mode & 0o777 == 0o750
        assert Path("one", host.address).read_bytes() == data


@pytest.mark.parametrize(
    "shell", ["/bin/bash", "/bin/csh", "/bin/tcsh", "/usr/bin/fish", "/bin/zsh"]
)
def test_every_login_shell(sshd: RealSshd, params: dict[str, str], shell: str) -> None:
    host = sshd.hosts(user=sshd.user(shell))
    name = "a 'b' \"c\" \\ $HOME !x {y} %s\nz"
    Path(name).write_text("x")
    Put(host, name, f"to {name}/", params, substitute=False).run(check=True)
    Put(host, [name], f"~/named {name}", params, substitute=False).run(check=True)
    Get(host, f"to {name}/", "got", params, substitute=False).run(check=True)
    Get(host, "named*", "one", params).run(check=True)
    assert Path("got", f"to {name}", name).read_text() == Path("one").read_text() == "x"


def test_what_an_ordinary_user_may_not_do(sshd: RealSshd, params: dict[str, str]) -> None:
    good, bad = sshd.hosts(2)
    home = home_of(good)
    for name in ("secret", "secrets/f"):
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        path.chmod(0)
    (home / "open").write_text("x")
    names = ["{{['open', 'secret']}}"]
    get = Get([good, bad], names, "{{{host}}}", params).run()
    assert get.processes[0].ok
    process = get.processes[1]
    assert process.reason is Reason.EXIT_CODE
    assert f"cannot get 'secret' from {bad.address}: exited" in process.message
    assert "ermission denied" in process.message
    process = Get(bad, "secrets", "all", params).run().processes[0]
    assert "ermission denied" in process.stderr
    assert os.listdir("all") == []
    Path("f").write_text("x")
    for local, location in ((["f"], "/"), (["f"], "/root/x/"), (["f", "."], "/")):
        process = Put(bad, local, location, params).run().processes[0]
        assert process.reason is Reason.EXIT_CODE
        assert "ermission denied" in process.stderr
    # Folders that the user may not write, but owns.
    Path("d/locked/deep").mkdir(parents=True)
    Path("d/locked/deep/f").write_text("x")
    for folder in ("d/locked/deep", "d/locked"):
        Path(folder).chmod(0o555)
    for _ in range(2):
        Put(good, "d/locked", "own", params).run(check=True)
        Put(good, "d", "own", params).run(check=True)
        for folder in ("own/locked", "own/d/locked"):
            os.system(f"chmod -R u+w '{home / folder}'")
    assert (home / "own/d/locked/deep/f").stat().st_uid == pwd.getpwnam(good.user or "").pw_uid
    assert list(home.rglob(".execo-*")) == []


def test_a_host_that_cannot_be_reached(sshd: RealSshd, params: dict[str, str]) -> None:
    (good,) = sshd.hosts()
    dead = execo.Host("127.0.9.9", port=9)
    Path("f").write_text("x")
    for action in (
        Put([dead, good], "f", "reach", params),
        Get([dead, good], "reach", "got/{{{host}}}", params),
    ):
        action.run()
        assert action.processes[1].ok
        assert action.processes[0].reason is Reason.CONNECT
        assert "127.0.9.9" in action.processes[0].message
    assert os.listdir("got") == [good.address]


@pytest.mark.parametrize("names", ["large", "folder"])
def test_what_is_killed_or_late_leaves_nothing(
    sshd: RealSshd, params: dict[str, str], names: str
) -> None:
    (host,) = sshd.hosts()
    home = home_of(host)
    for folder in (home, Path()):
        (folder / "folder").mkdir(exist_ok=True)
        for name in ("large", "folder/large"):
            (folder / name).touch()
            os.truncate(folder / name, 1 << 36)
    late = {"timeout": 0.5}
    for action, there in (
        (Put(host, names, "killed/", params, process_args=late), home),
        (Get(host, names, "killed/", params, process_args=late), Path()),
    ):
        process = action.run().processes[0]
        assert process.reason is Reason.TIMEOUT
        timer = execo.Timer(timeout=20)
        while list(there.rglob(".execo-*")):  # the script on the host may end after its channel
            assert (timer.remaining() or 0) > 0
            execo.sleep(0.02)
        assert os.listdir(there / "killed") == []


@pytest.mark.parametrize("names", ["large", "folder"])
def test_a_connection_that_is_lost(params: dict[str, str], names: str) -> None:
    Path("folder").mkdir()
    for name in ("large", "folder/large"):
        Path(name).touch()
        os.truncate(name, 1 << 36)
    with RealSshd() as server:
        (host,) = server.hosts()
        for name in ("large", "folder"):
            Path(name).rename(home_of(host) / name)
        get = Get(host, names, "lost/", params).start()
        timer = execo.Timer(timeout=20)
        while not list(Path().rglob(".execo-*")):
            assert (timer.remaining() or 0) > 0, get.processes[0].dump()
            execo.sleep(0.01)
    process = get.wait().processes[0]
    assert not process.ok
    assert process.reason in (Reason.CONNECT, Reason.SIGNAL, Reason.EXIT_CODE)
    assert host.address in process.message
    assert os.listdir("lost") == []


def test_many_hosts(sshd: RealSshd) -> None:
    hosts = sshd.hosts(60)
    data = os.urandom(100_000)
    Path("f").write_bytes(data)
    Put(hosts, "f", "many/{{{host}}}").run(check=True)
    Get(hosts, "many/{{{host}}}", "many/").run(check=True)
    assert all(Path("many", host.address).read_bytes() == data for host in hosts)
