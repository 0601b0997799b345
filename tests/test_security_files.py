"""Files, folders and sockets on a machine that others use: who can read, guess or exchange them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Get, Put, transports
from execo.errors import Reason
from local_hosts import FolderHosts

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
